from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import CONFIG_NAME
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..sweep.checkpoints import CLASS_WEIGHTS_FILE, load_renamed
from ..sweep.checks import check_trainer
from ..errors import InvalidInputError
from .hub import HubTrainer
from ..weighting.labels import IGNORE_INDEX
from ..weighting.losses import item_losses, mean_loss, multi_label_item_losses
from ..results.metrics import classification_metrics
from ..results.files import write_json


class WeightedLossTrainer(HubTrainer):
    """A `Trainer` whose loss weighs the classes; a drop-in, with the same constructor.

    The loss is Σ_i w_{y_i}·ℓ_i over the number of labels of the whole optimizer step, the same number however the step is
    cut into micro-batches and processes. The weights have mean 1 over the training labels and the ratio
    `args.weight_ratio`, read when it is used: see `ClassWeights`. With plain `TrainingArguments` the ratio is natural.
    Counts, ratio, natural ratio and weights are written to `model.config` (`class_counts`, `weight_ratio`,
    `natural_ratio`, `class_weights`, `positive_label`; and after a sweep the `requirement` that chose the ratio), so that a
    saved model says how it was weighted.

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

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given_optimizer = self.optimizer is not None
        check_trainer(self)
        # The base class counts the items of a step only for models that take the count; here the loss takes it.
        self.model_accepts_loss_kwargs = True
        self._eval_losses: list[torch.Tensor] | None = None  # while evaluating
        if self.train_dataset is not None:
            self.record_class_weights()
        self.default_metrics = classification_metrics(self.positive_label)
        if self.compute_metrics is None:
            self.compute_metrics = self.default_metrics

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
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            # It looks at them several times, and a column of datasets reads one row from Arrow each time.
            sampler.lengths = sampler.lengths[:]
        return sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        sampler = super()._get_eval_sampler(eval_dataset)
        # The base class groups within quarters, and fewer than eight batches not at all: most of them is padding.
        return LongestFirst(sampler.lengths[:]) if isinstance(sampler, LengthGroupedSampler) else sampler

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
        if self.args.should_save and ((folder / ADAPTER_CONFIG_NAME).exists() or not (folder / CONFIG_NAME).exists()):
            # PEFT's adapters have no config.json, and transformers would take one that had for a whole model.
            with suppress(InvalidInputError):  # a loaded adapter without training data does not know
                write_json(folder / CLASS_WEIGHTS_FILE, self._weighting())

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


class LongestFirst(Sampler):
    """An evaluation set's rows by length, those of the same length in its order: the least padding.

    Attributes
    ----------
    rows : list of int
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.rows = np.argsort(-np.asarray(lengths), kind="stable").tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)
