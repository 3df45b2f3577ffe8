from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from .errors import InvalidInputError
from .labels import count_labels, label_id, label_names
from .losses import weighted_cross_entropy
from .metrics import classification_metrics, logits_and_labels
from .weights import ClassWeights


@dataclass
class WeightedLossConfig(TrainingArguments):
    """`TrainingArguments` with the weights of the classes.

    Parameters
    ----------
    weight_ratio : float, optional
        w_r, the weight of the positive class over that of the negative one (of the rarest over the commonest class when
        there are more than two); None is the natural ratio, 1 is unweighted.
    class_weights : dict, list or JSON string, optional
        Explicit weights up to a common factor, by label name or id (`{"ham": 1, "spam": 7}`) or in the order of the ids
        (`[1, 7]`); they override `weight_ratio`.
    class_counts : dict, list or JSON string, optional
        Number of training labels of each class, in the same forms, for training data that cannot be counted (an
        `IterableDataset`); counted from the training data when None.
    positive_label : str, optional
        Name or id of the positive class; id 1 when None.
    """

    weight_ratio: float | None = field(
        default=None,
        metadata={"help": "Weight of the positive class over the negative one. Default: the natural ratio."},
    )
    class_weights: dict[str, float] | str | None = field(  # a list too, but the flags' parser takes no such union
        default=None,
        metadata={"help": "Explicit weights as JSON, by label name or id: '{\"ham\": 1, \"spam\": 7}' or '[1, 7]'."},
    )
    class_counts: dict[str, int] | str | None = field(
        default=None,
        metadata={"help": "Number of training labels of each class as JSON, for data that cannot be counted."},
    )
    positive_label: str | None = field(
        default=None, metadata={"help": "Name or id of the positive class. Default: 1."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("class_weights", "class_counts"):
            value = getattr(self, name)
            if isinstance(value, str):
                try:
                    setattr(self, name, json.loads(value))
                except json.JSONDecodeError:
                    raise InvalidInputError(f"{name}={value!r} is not JSON: write for example '[1, 7]'.") from None


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

    Without `compute_metrics` it reports precision, recall, F1, accuracy and the confusion counts of the positive label
    (macro averages with more than two classes). Evaluation reports `eval_loss`, weighted, and `eval_plain_loss`, not
    weighted: the one that compares across ratios. Both are means over the whole evaluation set.

    Raises
    ------
    InvalidInputError
        From the constructor when the labels cannot be counted or do not fit the model, the weights make no sense, or the
        model is no single-label classifier of at least two classes.
    """

    args: Any  # WeightedLossConfig, or plain TrainingArguments without its fields
    model: Any
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
        if "labels" not in inputs:
            raise InvalidInputError(
                f"the batches have no 'labels', only {', '.join(map(repr, inputs))}: let the data collator return them."
            )
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        loss = weighted_cross_entropy(
            logits,
            labels,
            torch.as_tensor(self.class_weights.weights, dtype=torch.float32),
            num_items_in_batch,
            self.args.label_smoothing_factor,
        )
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The count is that of all processes, whose gradients are then averaged, not added up.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        elif self.args.n_gpu > 1 and num_items_in_batch is not None:
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
        """As `Trainer.evaluation_loop`, with the weighted and the plain loss as means over the whole evaluation set."""
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if output.predictions is None or output.label_ids is None:
            return output
        logits, labels = (torch.as_tensor(array) for array in logits_and_labels(output))
        # Not what preprocess_logits_for_metrics may have made of the logits: then the base class's mean stands.
        if logits.shape == (*labels.shape, self.model.config.num_labels):
            weights = torch.as_tensor(self.class_weights.weights, dtype=torch.float32)
            metrics: dict[str, float] = output.metrics or {}
            for name, class_weights in (("loss", weights), ("plain_loss", torch.ones_like(weights))):
                loss = weighted_cross_entropy(
                    logits, labels, class_weights, label_smoothing=self.args.label_smoothing_factor
                )
                metrics[f"{metric_key_prefix}_{name}"] = loss.item()
        return output

    def _check(self) -> None:
        args, config = self.args, cast(Any, getattr(self.model, "config", None))
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
                self.label_names != ["labels"],
                f"the labels are looked for in {self.label_names}, but only 'labels' is weighted: let the data collator "
                "return them as 'labels', without label_names.",
            ),
            (
                config.num_labels < 2,
                f"the model has num_labels={config.num_labels}, which is regression: load it with num_labels=2 or more.",
            ),
            (
                config.problem_type not in (None, "single_label_classification"),
                f"the model has problem_type={config.problem_type!r}: only 'single_label_classification' is weighted.",
            ),
            (
                getattr(args, "positive_label", None) is not None and config.num_labels > 2,
                f"positive_label has no meaning with {config.num_labels} classes, which are averaged: leave it out.",
            ),
        ]
        for wrong, sentence in problems:
            if wrong:
                raise InvalidInputError(sentence)

    def _drivers(self) -> Iterator[TrainingDriver]:
        return (callback for callback in self.callback_handler.callbacks if isinstance(callback, TrainingDriver))

    def _class_counts(self) -> np.ndarray:
        if self._counted is None or self._counted[0] is not self.train_dataset:
            self._counted = self.train_dataset, self._count_classes()
        return self._counted[1]

    def _count_classes(self) -> np.ndarray:
        num_labels = self.model.config.num_labels
        counts: Any = getattr(self.args, "class_counts", None)
        if counts is not None:
            return np.asarray(self._by_class_id("class_counts", counts))
        if self.train_dataset is None:
            counts = getattr(self.model.config, "class_counts", None)  # those that a loaded model was trained on
            if counts is None:
                raise InvalidInputError(
                    "there are no training labels to take class weights from: give train_dataset, or class_counts."
                )
            return np.asarray(counts)
        counts = count_labels(self.train_dataset, num_classes=num_labels)
        if len(counts) > num_labels:
            raise InvalidInputError(
                f"the training data has {len(counts)} classes (label ids 0 to {len(counts) - 1}), but the model has "
                f"{num_labels}: load the model with num_labels={len(counts)}."
            )
        return counts

    @property
    def label_names_by_id(self) -> Sequence[str]:
        """Names of the classes: those of the training data's `ClassLabel`, else of `model.config.id2label`."""
        names = label_names(self.train_dataset) if hasattr(self.train_dataset, "features") else None
        return names or list(self.model.config.id2label.values())

    def _by_class_id(self, name: str, values: Any) -> list[float]:
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
        self.model.config.update(
            {
                "class_counts": class_weights.counts.tolist(),
                "class_weights": class_weights.weights.tolist(),
                "weight_ratio": class_weights.ratio,
                "natural_ratio": class_weights.natural_ratio,
                "positive_label": class_weights.positive_label,
            }
        )
