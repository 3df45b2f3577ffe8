from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import Trainer, TrainerCallback
from transformers.utils import CONFIG_NAME

from .errors import InvalidInputError
from .labels import count_labels, count_multi_labels, find_label_column, label_id, label_names
from .losses import weighted_binary_cross_entropy, weighted_cross_entropy
from .metrics import classification_metrics, logits_and_labels
from .weights import ClassWeights

RECORDED = ("class_counts", "class_weights", "weight_ratio", "natural_ratio", "positive_label")  # in model.config
CLASS_WEIGHTS_FILE = "class_weights.json"


class TrainingDriver(TrainerCallback):
    """A callback that drives a `WeightedLossTrainer` instead of watching it: it is handed the trainer itself."""

    def driving(self, trainer: WeightedLossTrainer) -> AbstractContextManager[None]:
        """The context in which `trainer.train()` runs: entered before the Trainer reads anything, left whatever happens."""
        raise NotImplementedError

    def schedule_steps(self, num_training_steps: int) -> int:
        """Length of the learning-rate schedule in optimizer steps, out of those of the whole training."""
        return num_training_steps


class WeightedLossTrainer(Trainer):
    """A `Trainer` whose loss weighs the classes; a drop-in, with the same constructor.

    The loss is Σ_i w_{y_i}·ℓ_i over the number of labels of the whole optimizer step, the same number however the step is
    cut into micro-batches and processes. The weights have mean 1 over the training labels and the ratio
    `args.weight_ratio`, read when it is used: see `ClassWeights`. With plain `TrainingArguments` the ratio is natural.
    Counts, ratio, natural ratio and weights are written to `model.config` (`class_counts`, `weight_ratio`,
    `natural_ratio`, `class_weights`, `positive_label`), so that a saved model says how it was weighted.

    A model with `problem_type="multi_label_classification"` has a weight for the negatives and one for the positives of
    each label: see `ClassWeights.from_multi_label_counts`.

    Without `compute_metrics` it reports precision, recall, F1, accuracy and the confusion counts of the positive label
    (macro averages with more than two classes, micro averages for several labels per example). Evaluation reports
    `eval_loss`, weighted, and `eval_plain_loss`, not weighted: the one that compares across ratios. Both are means over
    the whole evaluation set.

    Raises
    ------
    InvalidInputError
        From the constructor when the labels cannot be counted or do not fit the model, the weights make no sense, or the
        model is no classifier.
    """

    args: Any  # WeightedLossConfig, or plain TrainingArguments without its fields
    model: Any
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_names = self.label_names or ["labels"]  # a model need not take labels: it is not given them
        self._check()
        # The base class counts the items of a step only for models that take the count; here the loss takes it.
        self.model_accepts_loss_kwargs = True
        self._counted: tuple[Any, np.ndarray] | None = None
        if self.train_dataset is not None:
            self.record_class_weights()
        self.default_metrics = classification_metrics(self.positive_label)
        if self.compute_metrics is None:
            self.compute_metrics = self.default_metrics

    @property
    def is_multi_label(self) -> bool:
        """Whether an example has several labels, each of which is a choice of its own."""
        return self.model.config.problem_type == "multi_label_classification"

    @property
    def positive_label(self) -> int:
        """Id of the positive class."""
        label = getattr(self.args, "positive_label", None)
        if label is None and self.train_dataset is None:
            label = getattr(self.model.config, "positive_label", None)  # that which a loaded model was trained with
        return 1 if label is None else label_id(label, self.label_names_by_id)

    @property
    def class_weights(self) -> ClassWeights:
        """The weights at the ratio that `args` holds now.

        Raises
        ------
        InvalidInputError
            When there are no training labels, no `class_counts` and no counts in `model.config`.
        """
        ratio = getattr(self.args, "weight_ratio", None)
        weights = getattr(self.args, "class_weights", None)
        if weights is not None:
            weights = self._by_class_id("class_weights", weights)
        elif ratio is None and self.train_dataset is None:
            weights = getattr(self.model.config, "class_weights", None)  # those that a loaded model was trained with
            if weights is not None and self.is_multi_label:
                weights = [positive / negative for negative, positive in weights]
        return self.weights_at(ratio, weights)

    def weights_at(self, ratio: float | None, weights: Sequence[float] | None = None) -> ClassWeights:
        """The weights at a ratio (natural when None), or explicit ones, whatever `args` holds."""
        if self.is_multi_label:
            return ClassWeights.from_multi_label_counts(self._class_counts(), ratio, weights)
        return ClassWeights.from_counts(self._class_counts(), ratio, self.positive_label, weights)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The weighted loss of a micro-batch: its share of the loss of the whole optimizer step.

        As `Trainer.compute_loss`; the labels are taken out of the inputs, so that the model does not compute a loss too.
        """
        (name,) = self.label_names
        if name not in inputs:
            raise InvalidInputError(
                f"the batches have no {name!r}, only {', '.join(map(repr, inputs))}: let the data collator return them."
            )
        labels = inputs.pop(name)
        outputs = model(**inputs)
        if isinstance(outputs, Mapping):
            if "logits" not in outputs:
                raise InvalidInputError(f"the model returns no 'logits', only {', '.join(map(repr, outputs))}.")
            logits = outputs["logits"]
        else:
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            logits = outputs[0]
        num_items = num_items_in_batch
        if isinstance(num_items, torch.Tensor):
            num_items = num_items.flatten()[0]  # DataParallel: the base class repeats it for every GPU
        loss = self._loss(logits, labels, torch.as_tensor(self.class_weights.weights, dtype=torch.float32), num_items)
        if self.args.average_tokens_across_devices and num_items is not None:
            # The count is that of all processes, whose gradients are then averaged, not added up.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        elif self.args.n_gpu > 1 and num_items is not None:
            # DataParallel: the base class counts the items of one GPU, and the logits are those of all.
            loss = loss / self.args.n_gpu
        if isinstance(outputs, tuple):
            outputs = (loss, *outputs)  # what the Trainer expects of a model that returns tuples
        return (loss, outputs) if return_outputs else loss

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`, under the callbacks that drive the trainer."""
        with ExitStack() as stack:
            for driver in self._drivers():
                stack.enter_context(driver.driving(self))
            return super().train(*args, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """As `Trainer.create_scheduler`, of the length that the callbacks that drive the trainer ask for."""
        self.record_class_weights()  # here the model is that of model_init, and the ratio that of the search's trial
        for driver in self._drivers():
            num_training_steps = driver.schedule_steps(num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As `Trainer.evaluation_loop`, with the weighted and the plain loss as means over the whole evaluation set.

        With `prediction_loss_only` there is the weighted one alone, averaged over the batches as the base class does.
        """
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if output.predictions is None or output.label_ids is None:
            return output
        logits, labels = (torch.as_tensor(array) for array in logits_and_labels(output))
        # Not what preprocess_logits_for_metrics may have made of the logits: then the base class's mean stands.
        items = labels.shape[:1] if self.is_multi_label else labels.shape
        if logits.shape == (*items, self.model.config.num_labels):
            weights = torch.as_tensor(self.class_weights.weights, dtype=torch.float32)
            metrics: dict[str, float] = output.metrics or {}
            for name, class_weights in (("loss", weights), ("plain_loss", torch.ones_like(weights))):
                metrics[f"{metric_key_prefix}_{name}"] = self._loss(logits, labels, class_weights).item()
        return output

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save and not (folder / CONFIG_NAME).exists():
            # PEFT's adapters have no config.json, and transformers would take one that had for a whole model.
            record = {name: getattr(self.model.config, name, None) for name in RECORDED}
            (folder / CLASS_WEIGHTS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def _loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        class_weights: torch.Tensor,
        num_items: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        if self.is_multi_label:
            return weighted_binary_cross_entropy(logits, labels, class_weights, num_items)
        return weighted_cross_entropy(logits, labels, class_weights, num_items, self.args.label_smoothing_factor)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        # The base class counts what is called "labels", whatever label_names says.
        (name,) = self.label_names
        batches = [{"labels": batch[name]} if name in batch else batch for batch in batch_samples]
        return super()._get_num_items_in_batch(batches, device)

    def _check(self) -> None:
        args, config = self.args, cast(Any, getattr(self.model, "config", None))
        parallelism = getattr(self.accelerator, "parallelism_config", None)
        if not hasattr(config, "num_labels"):
            raise InvalidInputError(
                f"{type(self.model).__name__} has no config with num_labels: load the model with an AutoModelFor… class."
            )
        problems = [
            (
                self.compute_loss_func is not None,
                "compute_loss_func would replace the weighted loss: leave it out, or use transformers.Trainer.",
            ),
            (
                args.batch_eval_metrics and self.compute_metrics is None,
                "batch_eval_metrics needs metrics that are computed batch by batch: give compute_metrics, or leave it out.",
            ),
            (
                len(self.label_names) != 1,
                f"the labels are looked for in {', '.join(self.label_names)}: name the one with the class ids, as in "
                "label_names=['labels'].",
            ),
            (
                config.problem_type not in (None, "single_label_classification", "multi_label_classification"),
                f"the model has problem_type={config.problem_type!r}, which is no classification: load it without.",
            ),
            (
                config.num_labels < 2 and not self.is_multi_label,
                f"the model has num_labels={config.num_labels}, which is regression: load it with num_labels=2 or more.",
            ),
            (
                getattr(args, "positive_label", None) is not None and (config.num_labels > 2 or self.is_multi_label),
                f"positive_label has no meaning with {config.num_labels} labels that are averaged: leave it out.",
            ),
            (
                getattr(parallelism, "sp_enabled", False) or getattr(parallelism, "cp_enabled", False),
                "sequence and context parallelism cut the examples that a label belongs to: leave parallelism_config out.",
            ),
        ]
        for wrong, sentence in problems:
            if wrong:
                raise InvalidInputError(sentence)

    def _drivers(self) -> Iterator[TrainingDriver]:
        return (callback for callback in self.callback_handler.callbacks if isinstance(callback, TrainingDriver))

    def _class_counts(self) -> np.ndarray:
        if self._counted is None or self._counted[0] is not self.train_dataset:
            self._counted = self.train_dataset, self._training_counts()
        return self._counted[1]

    def _training_counts(self) -> np.ndarray:
        counts: Any = getattr(self.args, "class_counts", None)
        if counts is not None:
            return np.asarray(self._by_class_id("class_counts", counts))
        if self.train_dataset is not None:
            return self.count_classes(self.train_dataset)
        counts = getattr(self.model.config, "class_counts", None)  # those that a loaded model was trained on
        if counts is None:
            raise InvalidInputError(
                "there are no training labels to take class weights from: give train_dataset, or class_counts."
            )
        return np.asarray(counts)

    def count_classes(self, dataset: Any) -> np.ndarray:
        """Number of labels of each of the model's classes in a dataset, in the form of `ClassWeights.counts`.

        Raises
        ------
        InvalidInputError
            When they cannot be counted, or are not of the model's classes.
        """
        num_labels, column = self.model.config.num_labels, self._label_column(dataset)
        if self.is_multi_label:
            counts = count_multi_labels(dataset, column)
            fits, found = len(counts) == num_labels, f"{len(counts)} labels per example"
        else:
            counts = count_labels(dataset, column, num_classes=num_labels)
            fits, found = len(counts) <= num_labels, f"{len(counts)} classes (label ids 0 to {len(counts) - 1})"
        if not fits:
            raise InvalidInputError(
                f"the data has {found}, but the model has {num_labels}: load the model with num_labels={len(counts)}."
            )
        return counts

    def _label_column(self, dataset: Any) -> str | None:
        (name,) = self.label_names
        return name if name in (getattr(dataset, "column_names", None) or ()) else None

    @property
    def label_names_by_id(self) -> Sequence[str]:
        """Names of the classes: those of the training data's `ClassLabel`, else of `model.config.id2label`."""
        names = None
        if hasattr(self.train_dataset, "features") and not self.is_multi_label:
            with suppress(InvalidInputError):  # the labels may be the collator's, and counted in class_counts
                column = find_label_column(self.train_dataset, self._label_column(self.train_dataset))
                names = label_names(self.train_dataset, column)
        return names or list(self.model.config.id2label.values())

    def _by_class_id(self, name: str, values: Any) -> list[Any]:
        names = self.label_names_by_id
        if isinstance(values, Mapping):
            pairs = [(label_id(label, names), value) for label, value in values.items()]
        else:
            pairs = list(enumerate(values)) if isinstance(values, (Sequence, np.ndarray)) else []
        if sorted(i for i, _ in pairs) != list(range(self.model.config.num_labels)):
            raise InvalidInputError(
                f"{name} must have one value for each of the {self.model.config.num_labels} classes "
                f"({', '.join(names)}), not {values!r}."
            )
        return [value for _, value in sorted(pairs)]

    def record_class_weights(self) -> None:
        """Write counts, weights, ratio, natural ratio and positive label to `model.config`."""
        class_weights = self.class_weights
        values = (
            class_weights.counts.tolist(),
            class_weights.weights.tolist(),
            class_weights.ratio,
            class_weights.natural_ratio,
            class_weights.positive_label,
        )
        self.model.config.update(dict(zip(RECORDED, values, strict=True)))
