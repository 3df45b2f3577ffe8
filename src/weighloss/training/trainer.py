from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitInfo
from transformers import Trainer
from transformers.trainer_utils import TrainOutput
from transformers.utils import CONFIG_NAME
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..errors import InvalidInputError
from ..results.files import CLASS_WEIGHTS_FILE, write_json
from ..results.metrics import classification_metrics
from ..results.ratio_sweep import RatioSweep
from ..weighting import labels as labelled
from ..weighting.class_weights import ClassWeights
from ..weighting.labels import IGNORE_INDEX
from ..weighting.losses import weighted_binary_cross_entropy, weighted_cross_entropy
from ..weighting.task import Task
from . import hub
from .checks import check_class_order, check_model, check_trainer, names_in
from .config import changed
from .runner import TrainingRunner


class WeightedLossTrainer(Trainer):
    """A `Trainer` whose loss weights the classes: a drop-in with the same constructor.

    The loss is Σ_i w_{y_i}·ℓ_i divided by the number of labels of the whole optimizer step, so that it is the same number
    however the step is cut into micro-batches and processes. The weights have mean 1 over the training labels and the ratio
    `args.weight_ratio`, which is read when it is used: see `ClassWeights`. With plain `TrainingArguments` the ratio is the
    natural one. `model.config` says how a saved model was weighted: `class_counts`, `weight_ratio`, `natural_ratio`,
    `class_weights`, `positive_label`, and after a sweep the `requirement` that chose the ratio.

    A model with `problem_type="multi_label_classification"` has one weight for the negatives and one for the positives of
    each label: see `ClassWeights.from_multi_label_counts`.

    Without `compute_metrics` it reports precision, recall, F1, accuracy and the confusion counts of the positive label
    (macro averages with more than two classes, micro averages with several labels per example). Evaluation reports
    `eval_loss`, weighted, and `eval_plain_loss`, unweighted, which can be compared across ratios. Both are means over the
    whole evaluation set.

    Raises
    ------
    InvalidInputError
        From the constructor, when the labels cannot be counted or do not fit the model, the weights are not valid, or the
        model is not a classifier.
    """

    # The loss of a micro-batch is already its share of the whole step's. Read from transformers 5.19 on.
    loss_is_scaled_for_ga = True
    model: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.hub_token:
            self.args.hub_token = hub.Secret(self.args.hub_token.strip())
        self.given_optimizers: tuple[Any, Any] = (self.optimizer, self.lr_scheduler)
        check_model(self.accelerator.unwrap_model(self.model, keep_torch_compile=False))
        self.task = Task.of_model(self.model.config)
        self.label_names = self.label_names or ["labels"]  # also for a model whose forward takes no labels
        # Before 5.19 the base class divides by the accumulation steps unless this is true and the items are counted.
        self.model_accepts_loss_kwargs = True
        self._counted: tuple[Any, np.ndarray] | None = None  # training data, and its counts
        self._weighted: tuple[Any, torch.Tensor, Any] | None = None  # what the weights follow from, and the weights
        self._recorded: dict[str, Any] = {}  # what model.config says about the weighting
        self._eval_losses: list[torch.Tensor] | None = None  # while evaluating
        check_trainer(self)
        if self.train_dataset is not None:
            check_class_order(self, self.train_dataset, "train_dataset")
            self.record_class_weights()
        self.default_metrics = classification_metrics(self.task, self.positive_label)
        if self.compute_metrics is None:
            self.compute_metrics = self.default_metrics

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **kwargs: Any
    ) -> TrainOutput:
        """As `Trainer.train`; with a `RatioSweepCallback` the whole sweep, each leg of which is one call of this method."""
        for runner in self.runners():
            return runner.run(self, resume_from_checkpoint, trial)
        return super().train(resume_from_checkpoint, trial, **kwargs)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """As `Trainer.compute_loss`: the weighted loss of a micro-batch, its share of that of the whole optimizer step."""
        if self.label_name not in inputs:
            raise InvalidInputError(
                f"the batches have no {self.label_name!r}, only {', '.join(map(repr, inputs))}: let the data collator "
                "return it, or correct label_names."
            )
        labels = inputs.pop(self.label_name)  # so that the model does not compute a loss too
        logits, outputs = _logits_first(model(**inputs))
        weights = self._weights()
        if self._eval_losses is not None:
            loss = self._add_eval_losses(self._eval_losses, logits, labels, weights)
        else:
            loss = self._loss(logits, labels, weights, num_items=num_items_in_batch)
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                # The items are those of all processes, whose gradients are averaged, not added up.
                loss = loss * self.accelerator.num_processes
        # Of a dictionary the Trainer takes everything but "loss" for predictions, of a tuple all but the first.
        return (loss, outputs if isinstance(outputs, Mapping) else (loss, *outputs)) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | None]:
        """As `Trainer.get_batch_samples`: the micro-batches of a step, and the number of their labels that count.

        The base class counts what is called "labels", whatever `label_names` says, and rounds with several GPUs in one
        process. Where a stream ends within a step, it would add the gradients to those of the next epoch's first step:
        here the step is filled up with micro-batches whose labels do not count.
        """
        batches = list(islice(epoch_iterator, num_batches))
        if batches and self.label_name in batches[-1]:
            ignored = torch.full_like(batches[-1][self.label_name], IGNORE_INDEX, dtype=torch.long)
            batches += [{**batches[-1], self.label_name: ignored} for _ in range(num_batches - len(batches))]
        counts = [(batch[self.label_name] != IGNORE_INDEX).sum() for batch in batches if self.label_name in batch]
        if not counts:
            return batches, None
        items = torch.stack(counts).sum().to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            items = self.accelerator.gather(items).sum()
        return batches, items

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As `Trainer.evaluation_loop`, with the weighted and the plain loss as means over the whole evaluation set."""
        check_class_order(self, dataloader.dataset, f"the {metric_key_prefix} data")
        losses: list[torch.Tensor] = []
        with changed(self, _eval_losses=losses):
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        if losses and output.metrics is not None:
            weighted, plain, counted = torch.cat(losses).double().sum(dim=0).tolist()
            for name, total in (("loss", weighted), ("plain_loss", plain)):
                output.metrics[f"{metric_key_prefix}_{name}"] = total / max(counted, 1)
        return output

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.create_scheduler`; the model is now that of `model_init`, and the ratio that of a search's trial."""
        self.record_class_weights()
        vars(self.model.config).pop("threshold", None)  # training starts from the shifted bias like from any other
        return super().create_scheduler(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, **kwargs: Any) -> None:  # type: ignore[override]
        """As `Trainer.save_model`; beside an adapter, or a model without a config, a file says how it was weighted."""
        super().save_model(output_dir, **kwargs)
        folder = Path(output_dir or str(self.args.output_dir))
        has_config = (folder / CONFIG_NAME).exists() and not (folder / ADAPTER_CONFIG_NAME).exists()
        if self.args.should_save and not has_config and self._recorded:
            threshold = getattr(self.model.config, "threshold", None)
            applied = {} if threshold is None else {"threshold": threshold}
            write_json(folder / CLASS_WEIGHTS_FILE, self._recorded | applied)

    def save_without_pushing(self, output_dir: str | None = None) -> None:
        """As `save_model`, which pushes where `push_to_hub` is set."""
        with changed(self.args, push_to_hub=False):
            self.save_model(output_dir)

    def hyperparameter_search(
        self, hp_space: Any = None, compute_objective: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As `Trainer.hyperparameter_search`; the default objective is the unweighted loss, not the sum of all metrics."""
        objective = compute_objective or itemgetter("eval_plain_loss")
        return super().hyperparameter_search(hp_space, objective, *args, **kwargs)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As `Trainer.init_hf_repo`. Raises PushError when the Hub refuses, before any training."""
        if private is not None:
            self.args.hub_private_repo = private  # an argument of the base class only from transformers 5.23 on
        try:
            super().init_hf_repo(token.strip() if token else None)
        except Exception as error:  # whatever the client raises
            raise hub.refused_repository(self, error) from None

    def create_model_card(self, **kwargs: Any) -> None:  # type: ignore[override]
        """As `Trainer.create_model_card`, with weighting, sweep and metrics. `dataset` is a name, `dataset_tags` an id."""
        if self.is_world_process_zero():
            hub.write_model_card(self, **kwargs)

    def push_to_hub(  # type: ignore[override]
        self, commit_message: str | None = "End of training", **kwargs: Any
    ) -> CommitInfo | None:
        """As `Trainer.push_to_hub`: the model that the trainer holds, its card, charts and `sweep.json`.

        `push_predictions=True` pushes the predictions of a sweep too. Checkpoints and pickles are not pushed. It waits for
        the Hub, and raises PushError, which says how to push again, when the Hub refuses or cannot be reached.
        """
        return hub.push_trainer(self, commit_message or "End of training", **kwargs)

    @property
    def label_name(self) -> str:
        """Name of the labels in the batches."""
        return self.label_names[0]

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes: those of the training data's `ClassLabel`, or else of `model.config.id2label`."""
        names, config = names_in(self, self.train_dataset), self.model.config
        return [*names, *(str(config.id2label[i]) for i in range(len(names), config.num_labels))]

    @property
    def positive_label(self) -> int:
        """Id of the positive class."""
        label = self._given("positive_label")
        return 1 if label is None else labelled.label_id(label, self.class_names)

    @property
    def class_weights(self) -> ClassWeights:
        """The weights at the ratio that `args` has now.

        Raises InvalidInputError when there are no training labels, no `class_counts` and no counts in `model.config`.
        """
        ratio = getattr(self.args, "weight_ratio", None)
        weights = getattr(self.args, "class_weights", None)
        if weights is not None:
            weights = labelled.by_id("class_weights", weights, self.class_names, self.model.config.num_labels)
        elif ratio is None:
            weights = self._given("class_weights")  # of a loaded model
            if weights is not None and self.task is Task.MULTILABEL:
                weights = [positive / negative for negative, positive in weights]
        return self.weights_at(ratio, weights)

    def weights_at(self, ratio: float | str | None, weights: Sequence[float] | None = None) -> ClassWeights:
        """The weights at a ratio (the natural one when None), or explicit ones, whatever `args` has."""
        counts = self._given("class_counts")
        if counts is not None:
            counts = labelled.by_id("class_counts", counts, self.class_names, self.model.config.num_labels)
        elif self.train_dataset is None:
            raise InvalidInputError(
                "there are no training labels to compute class weights from: give train_dataset or class_counts."
            )
        else:
            if self._counted is None or self._counted[0] is not self.train_dataset:
                self._counted = self.train_dataset, self.count_classes(self.train_dataset)
            counts = self._counted[1]
        if self.task is Task.MULTILABEL:
            return ClassWeights.from_multi_label_counts(counts, ratio, weights)
        return ClassWeights.from_counts(counts, ratio, self.positive_label, weights)

    def count_classes(self, dataset: Any) -> np.ndarray:
        """Count the labels of each class of the model in a dataset, in the form of `ClassWeights.counts`.

        Raises InvalidInputError when the labels cannot be counted or are not classes of the model.
        """
        return labelled.count_classes(dataset, self.task, self.model.config.num_labels, self.label_name)

    def record_class_weights(self) -> None:
        """Write how the classes are weighted to `model.config`, and their names if it has none."""
        config, sweep, weights = self.model.config, self.finished_sweep, self.class_weights
        vars(config).pop("requirement", None)  # of an earlier training
        self._recorded = weights.for_config() | ({} if sweep is None else {"requirement": sweep.requirement})
        config.update(self._recorded)
        known = getattr(config, "id2label", None) or {}
        if known and all(name == f"LABEL_{i}" for i, name in known.items()):
            config.id2label = dict(enumerate(self.class_names[: config.num_labels]))  # the data may name more
            config.label2id = {name: i for i, name in config.id2label.items()}

    def runners(self) -> Iterator[TrainingRunner]:
        """The callbacks that run the training themselves."""
        return (callback for callback in self.callback_handler.callbacks if isinstance(callback, TrainingRunner))

    @property
    def finished_sweep(self) -> RatioSweep | None:
        """The sweep whose chosen model the trainer holds."""
        sweeps = (runner.sweep for runner in self.runners())
        return next((sweep for sweep in sweeps if sweep is not None and sweep.operating_point is not None), None)

    def _given(self, name: str) -> Any:
        """What the arguments have, or else, without training data, the config of a loaded model."""
        value = getattr(self.args, name, None)  # plain TrainingArguments have none
        return getattr(self.model.config, name, None) if value is None and self.train_dataset is None else value

    def _weights(self) -> torch.Tensor:
        """`class_weights` as a tensor. Every micro-batch asks for it, so it is kept as long as nothing changes."""
        names = ("weight_ratio", "class_weights", "class_counts", "positive_label")
        given = repr([getattr(self.args, name, None) for name in names])
        key = given, id(self.train_dataset), id(self.model.config)
        if self._weighted is None or self._weighted[0] != key:
            weights = torch.as_tensor(self.class_weights.weights, dtype=torch.float32)
            held = self.train_dataset, self.model.config  # so that no other object gets their ids
            self._weighted = key, weights, held
        return self._weighted[1]

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if self.task is Task.MULTILABEL:
            return weighted_binary_cross_entropy(logits, labels, weights, **kwargs)
        smoothing = self.args.label_smoothing_factor
        return weighted_cross_entropy(logits, labels, weights, label_smoothing=smoothing, **kwargs)

    def _add_eval_losses(
        self, eval_losses: list[torch.Tensor], logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Keep the losses of each example, which are gathered like its logits; returns the loss of the batch."""
        weighted = self._loss(logits, labels, weights, reduction="none")
        plain = self._loss(logits, labels, torch.ones_like(weights), reduction="none")
        counted = labels != IGNORE_INDEX
        sums = [part.reshape(len(logits), -1).sum(dim=1).float() for part in (weighted, plain, counted.to(weighted))]
        eval_losses.append(self.gather_function(torch.stack(sums, dim=1)).cpu())
        return weighted.sum() / counted.sum().clamp(min=1)


def _logits_first(outputs: Any) -> tuple[torch.Tensor, Any]:
    """The logits, and the outputs of the model with them in the first place."""
    if not isinstance(outputs, Mapping):
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return outputs[0], outputs
    if "logits" not in outputs:
        raise InvalidInputError(f"the model returns no 'logits', only {', '.join(map(repr, outputs))}.")
    return outputs["logits"], {"logits": outputs["logits"], **outputs}
