from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import CONFIG_NAME

from .checkpoints import CLASS_WEIGHTS_FILE, load_renamed
from .checks import check_trainer
from .errors import InvalidInputError
from .hub import HubTrainer
from .labels import (
    IGNORE_INDEX,
    class_names,
    column_names,
    count_labels,
    count_multi_labels,
    find_label_column,
    label_id,
)
from .losses import item_losses, mean_loss, multi_label_item_losses
from .metrics import classification_metrics
from .record import RatioSweep
from .weights import ClassWeights

ADAPTER_CONFIG = "adapter_config.json"


class TrainingDriver(TrainerCallback):
    """A callback that drives a `WeightedLossTrainer` instead of watching it: it is handed the trainer itself.

    Attributes
    ----------
    sweep : RatioSweep, optional
        The sweep that it drove, for the model card.
    """

    sweep: RatioSweep | None = None
    loads_weights = True

    def driving(
        self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any, trial: Any = None
    ) -> AbstractContextManager[Any]:
        """The context in which `trainer.train()` runs: entered before the Trainer reads anything, left whatever happens.

        It is given what `train()` was, and gives what the Trainer is to resume from; with `loads_weights = False` only the
        Trainer's state is taken from there.
        """
        raise NotImplementedError

    def schedule_steps(self, num_training_steps: int) -> int:
        """Length of the learning-rate schedule in optimizer steps, out of those of the whole training."""
        return num_training_steps

    def optimization_created(self) -> None:
        """Called when optimizer and schedule are made, before a checkpoint is loaded into them."""


class WeightedLossTrainer(HubTrainer):
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
        self.given_optimizer = self.optimizer is not None
        self.label_names = self.label_names or ["labels"]  # a model need not take labels: it is not given them
        check_trainer(self)
        # The base class counts the items of a step only for models that take the count; here the loss takes it.
        self.model_accepts_loss_kwargs = True
        self._counted: tuple[Any, Any] | None = None
        self._named: tuple[Any, Sequence[str]] | None = None
        self._eval_losses: list[torch.Tensor] | None = None  # while evaluating
        if self.train_dataset is not None:
            self.record_class_weights()
        self.default_metrics = classification_metrics(self.positive_label)
        if self.compute_metrics is None:
            self.compute_metrics = self.default_metrics

    @property
    def is_multi_label(self) -> bool:
        """Whether an example has several labels, each of which is a choice of its own."""
        return getattr(self.model.config, "problem_type", None) == "multi_label_classification"

    @property
    def positive_label(self) -> int:
        """Id of the positive class."""
        label = getattr(self.args, "positive_label", None)
        if label is None and self.train_dataset is None:
            label = getattr(self.model.config, "positive_label", None)  # that which a loaded model was trained with
        return 1 if label is None else label_id(label, self.class_names)

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

    def weights_at(self, ratio: float | str | None, weights: Sequence[float] | None = None) -> ClassWeights:
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
        if self._label_name not in inputs:
            raise InvalidInputError(
                f"the batches have no {self._label_name!r}, only {', '.join(map(repr, inputs))}: let the data collator "
                "return them."
            )
        labels = inputs.pop(self._label_name)
        outputs = model(**inputs)
        if isinstance(outputs, Mapping):
            if "logits" not in outputs:
                raise InvalidInputError(f"the model returns no 'logits', only {', '.join(map(repr, outputs))}.")
            logits = outputs["logits"]
        else:
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            logits = outputs[0]
        weighted, plain, counted = self._item_losses(logits, labels)
        if self._eval_losses is not None:
            sums = [part.reshape(len(logits), -1).sum(dim=1).float() for part in (weighted, plain, counted)]
            self._eval_losses.append(self.gather_function(torch.stack(sums, dim=1)).cpu())
        loss = mean_loss(weighted, counted, num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The count is that of all processes, whose gradients are then averaged, not added up.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        if not return_outputs:
            return loss
        # The Trainer takes the first for the logits, of a tuple the second.
        if isinstance(outputs, Mapping):
            return loss, {"logits": logits} | {name: value for name, value in outputs.items() if name != "logits"}
        return loss, (loss, *outputs)

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **kwargs: Any
    ) -> Any:
        """As `Trainer.train`, under the callbacks that drive the trainer."""
        with ExitStack() as stack:
            for driver in self.drivers():
                resume_from_checkpoint = stack.enter_context(driver.driving(self, resume_from_checkpoint, trial))
            return super().train(resume_from_checkpoint, trial, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """As `Trainer.create_scheduler`, of the length that the callbacks that drive the trainer ask for."""
        self.record_class_weights()  # here the model is that of model_init, and the ratio that of the search's trial
        for driver in self.drivers():
            num_training_steps = driver.schedule_steps(num_training_steps)
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        for driver in self.drivers():
            driver.optimization_created()
        return scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return _with_lengths_in_memory(super()._get_train_sampler(train_dataset))

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        sampler = _with_lengths_in_memory(super()._get_eval_sampler(eval_dataset))
        if isinstance(sampler, LengthGroupedSampler):  # it sorts parts of four batches and more, of small sets nothing
            sampler.batch_size = len(sampler.lengths)
        return sampler

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not all(driver.loads_weights for driver in self.drivers()):
            return  # between two legs of a sweep there are none to load
        if not load_renamed(self.accelerator.unwrap_model(model or self.model), resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        best = cast(str, self.state.best_model_checkpoint)
        if not load_renamed(self.accelerator.unwrap_model(self.model), best):
            super()._load_best_model()

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As `Trainer.evaluation_loop`, with the weighted and the plain loss as means over the whole evaluation set."""
        self._eval_losses = []
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        finally:
            losses, self._eval_losses = self._eval_losses, None
        if losses:
            weighted, plain, counted = torch.cat(losses).double().sum(dim=0).tolist()
            metrics: dict[str, float] = output.metrics or {}
            metrics[f"{metric_key_prefix}_loss"] = weighted / max(counted, 1)
            metrics[f"{metric_key_prefix}_plain_loss"] = plain / max(counted, 1)
        return output

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save and ((folder / ADAPTER_CONFIG).exists() or not (folder / CONFIG_NAME).exists()):
            # PEFT's adapters have no config.json, and transformers would take one that had for a whole model.
            text = json.dumps(self._weighting(), indent=2) + "\n"
            (folder / CLASS_WEIGHTS_FILE).write_text(text, encoding="utf-8")

    def card_facts(self) -> dict[str, Any]:
        """What the model card says of the weighting: arguments of `complete_card`."""
        ran = [driver.sweep for driver in self.drivers() if driver.sweep is not None]
        sweep = next((sweep for sweep in ran if sweep.kept_point is not None), None)
        evaluation: dict[str, Any] | None = None
        if sweep is not None and sweep.kept_point is not None:
            evaluation = sweep.kept_point.metrics
        elif not ran:  # after an interrupted sweep what was evaluated is not the model that the trainer holds
            best = self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None
            evaluation = self._logged("eval", self.state.best_global_step if best else None)
        return {
            "class_weights": self.class_weights,
            "label_names": self.class_names,
            "because": self._why_this_ratio(sweep),
            "evaluation": evaluation,
            "test": self._logged("test"),
            "sweep": sweep,
        }

    def _why_this_ratio(self, sweep: RatioSweep | None) -> str:
        if sweep is not None:
            return sweep.kept_because
        if getattr(self.args, "class_weights", None) is not None:
            return "explicit class weights"
        ratio = getattr(self.args, "weight_ratio", None)
        named = {None: "the natural ratio", "natural": "the natural ratio", "unweighted": "unweighted"}
        return named.get(ratio, f"the scheme {ratio}" if isinstance(ratio, str) else "set by hand")

    def _logged(self, prefix: str, step: int | None = None) -> dict[str, float] | None:
        """The figures of the last evaluation with a prefix, at a step where one is given."""
        for entry in reversed(self.state.log_history):
            if f"{prefix}_loss" in entry and step in (None, entry["step"]):
                return {name.removeprefix(f"{prefix}_"): value for name, value in entry.items()}
        return None

    @property
    def _label_name(self) -> str:
        """What the batches call the labels."""
        return self.label_names[0]

    def _item_losses(
        self, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weights = torch.as_tensor(self.class_weights.weights, dtype=torch.float32)
        if self.is_multi_label:
            return multi_label_item_losses(logits, labels, weights)
        return item_losses(logits, labels, weights, self.args.label_smoothing_factor)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        # The base class counts what is called "labels", whatever label_names says.
        batches = [{"labels": batch[self._label_name]} for batch in batch_samples if self._label_name in batch]
        if self.args.n_gpu > 1:  # one process with the logits of all its GPUs; the base class takes each GPU's
            return sum((batch["labels"] != IGNORE_INDEX).sum() for batch in batches) if batches else None
        return super()._get_num_items_in_batch(batches, device)

    def drivers(self) -> Iterator[TrainingDriver]:
        """The callbacks that drive this trainer."""
        return (callback for callback in self.callback_handler.callbacks if isinstance(callback, TrainingDriver))

    def _class_counts(self) -> Any:
        counted = self.train_dataset, getattr(self.args, "class_counts", None)
        if self._counted is None or any(a is not b for a, b in zip(self._counted[0], counted, strict=True)):
            self._counted = counted, self._training_counts()
        return self._counted[1]

    def _training_counts(self) -> Any:
        counts: Any = getattr(self.args, "class_counts", None)
        if counts is not None:
            return self._by_class_id("class_counts", counts)
        if self.train_dataset is not None:
            return self.count_classes(self.train_dataset)
        counts = getattr(self.model.config, "class_counts", None)  # those that a loaded model was trained on
        if counts is None:
            raise InvalidInputError(
                "there are no training labels to take class weights from: give train_dataset, or class_counts."
            )
        return counts

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
        default = self._label_name == "labels"
        return None if default or self._label_name not in column_names(dataset) else self._label_name

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes: those of the training data's `ClassLabel`, else of `model.config.id2label`."""
        if self._named is None or self._named[0] is not self.train_dataset:
            self._named = self.train_dataset, self._names_in_data()  # each step asks, and datasets copies its features
        config, names = self.model.config, self._named[1]
        return [*names, *(str(config.id2label[i]) for i in range(len(names), config.num_labels))]

    def _names_in_data(self) -> Sequence[str]:
        if hasattr(self.train_dataset, "features") and not self.is_multi_label:
            with suppress(InvalidInputError):  # the labels may be the collator's, and counted in class_counts
                column = find_label_column(self.train_dataset, self._label_column(self.train_dataset))
                return class_names(self.train_dataset, column) or ()
        return ()

    def _by_class_id(self, name: str, values: Any) -> list[Any]:
        names = self.class_names
        if isinstance(values, Mapping):
            pairs = [(label_id(label, names, name), value) for label, value in values.items()]
        else:
            pairs = list(enumerate(values)) if isinstance(values, (Sequence, np.ndarray)) else []
        if sorted(i for i, _ in pairs) != list(range(self.model.config.num_labels)):
            raise InvalidInputError(
                f"{name} must have one value for each of the {self.model.config.num_labels} classes "
                f"({', '.join(names)}), not {values!r}."
            )
        return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]

    def record_class_weights(self) -> None:
        """Write counts, weights, ratio, natural ratio and positive label to `model.config`."""
        self.model.config.update(self._weighting())

    def _weighting(self) -> dict[str, Any]:
        class_weights = self.class_weights
        return {
            "class_counts": class_weights.counts.tolist(),
            "class_weights": class_weights.weights.tolist(),
            "weight_ratio": class_weights.ratio,
            "natural_ratio": class_weights.natural_ratio,
            "positive_label": class_weights.positive_label,
        }


def _with_lengths_in_memory(sampler: Any) -> Any:
    """A column of `datasets` reads one row from Arrow at each of the sampler's many looks at it."""
    if isinstance(sampler, LengthGroupedSampler):
        sampler.lengths = sampler.lengths[:]
    return sampler
