from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, enable_full_determinism, set_seed
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PredictionOutput

from ..errors import InvalidInputError
from ..results.bootstrap import bootstrap
from ..results.files import LEGS_FOLDER, PREDICTIONS_FOLDER
from ..results.metrics import averaged, decisions, logits_and_labels
from ..results.points import MEASURED, FailedLeg, SweepPoint
from ..training.config import GROUPED, UNGROUPED, changed, has_values
from ..training.runner import TrainingRunner
from ..training.trainer import WeightedLossTrainer
from .checkpoints import last_checkpoint, remove_checkpoints
from .settings import SweepSettings
from .trackers import end_runs, with_new_trackers

_NUMBER = (int, float, np.number)


@dataclass(frozen=True)
class Leg:
    """One fine-tune of a sweep: what distinguishes it from the others.

    `name` is that of its files, and of its run in a tracker; `sweep_folder` is the output folder of the sweep.
    """

    name: str
    ratio: float
    seed: int
    sweep_folder: Path

    @property
    def folder(self) -> Path:
        """Output folder of its training, with its checkpoints."""
        return self.sweep_folder / LEGS_FOLDER / self.name

    @property
    def model_folder(self) -> Path:
        """Where its model is while it is the best so far."""
        return self.folder / "model"


@dataclass(frozen=True)
class FinishedLeg:
    """The result of a leg, and its predictions for every evaluation item: float32 logits and int64 labels.

    `batch_size` is the one that the batch-size finder has found, if it was asked to; `test` holds the logits and labels of
    the test set, if there is one.
    """

    leg: Leg
    result: SweepPoint | FailedLeg
    logits: np.ndarray
    labels: np.ndarray
    batch_size: int | None = None
    test: tuple[np.ndarray, np.ndarray] | None = None


class InitialState:
    """What a fresh run of a trainer starts from, so that every leg can start from it.

    That is one copy on the CPU of all weights and buffers (none with `model_init`, which makes them anew), which weights
    are trained, and the state of the user's own optimizer and schedule, of the gradient scaler, and of callbacks that
    export it.
    """

    def __init__(self, trainer: WeightedLossTrainer) -> None:
        self._trainer = trainer
        self.batch_size = trainer.args.train_batch_size  # until the batch-size finder finds a smaller one
        self._trained = {name: p.requires_grad for name, p in trainer.model.named_parameters()}
        self._tensors = None
        if trainer.model_init is None:
            self._tensors = {name: t.detach().to("cpu", copy=True) for name, t in _tensors(trainer.model)}
        self._states = [
            (part, copy.deepcopy(part.state_dict()))
            for part in (*trainer.given_optimizers, trainer.accelerator.scaler)
            if part is not None
        ]
        self._callbacks = [
            (callback, copy.deepcopy(callback.state()["attributes"]))
            for callback in trainer.callback_handler.callbacks
            if isinstance(callback, ExportableState)
        ]

    def restore(self) -> None:
        """Give the trainer this state, and nothing of the legs before."""
        trainer = self._trainer
        if self._tensors is not None:
            with torch.no_grad():
                for name, tensor in _tensors(trainer.model):
                    tensor.copy_(self._tensors[name])
            for name, parameter in trainer.model.named_parameters():
                parameter.requires_grad_(self._trained[name])
                parameter.grad = None
        trainer.optimizer, trainer.lr_scheduler = trainer.given_optimizers
        for part, state in self._states:
            part.load_state_dict(copy.deepcopy(state))
        for callback, attributes in self._callbacks:
            vars(callback).update(copy.deepcopy(attributes))


def run_leg(trainer: WeightedLossTrainer, leg: Leg, settings: SweepSettings, initial: InitialState) -> FinishedLeg:
    """Run one leg: one call of the base `Trainer.train()` from the initial state, then its evaluation.

    Resumes from the leg's own last checkpoint if there is one. The trainer then holds the model of the leg.
    """
    args: Any = trainer.args
    of_leg = {
        "weight_ratio": leg.ratio,
        "seed": leg.seed,
        "num_train_epochs": settings.epochs_per_ratio,
        "output_dir": str(leg.folder),
        "run_name": f"{args.run_name or leg.sweep_folder.name}/{leg.name}",
    }
    started = time.perf_counter()
    while True:
        of_leg["per_device_train_batch_size"] = initial.batch_size // max(1, args.n_gpu)
        with changed(args, **of_leg), _callbacks_of_leg(trainer, leg, settings) as evaluation:
            initial.restore()
            enable_full_determinism(leg.seed) if args.full_determinism else set_seed(leg.seed)
            checkpoint = last_checkpoint(leg.folder, trainer)
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if trainer.state.global_step == 0:
            raise InvalidInputError(
                f"the training data ({type(trainer.train_dataset).__name__}) had no examples for this leg: "
                "give data that start anew each time, not a stream that can be read only once."
            )
        if trainer.state.train_batch_size in (None, initial.batch_size):
            break
        # The batch-size finder has shortened the batches: this leg once more, with them from its start like the others.
        initial.batch_size = trainer.state.train_batch_size
        remove_checkpoints(leg.folder)
    found_size = initial.batch_size if args.auto_find_batch_size else None
    return evaluation.finished_leg(time.perf_counter() - started, found_size)


class _Evaluation(TrainerCallback):
    """Evaluates a leg at the end of its training, while its trackers still run."""

    def __init__(self, trainer: WeightedLossTrainer, leg: Leg, settings: SweepSettings) -> None:
        self._trainer, self._leg, self._settings = trainer, leg, settings

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Predict the evaluation set, and log its metrics."""
        trainer, test_set = self._trainer, self._settings.test_dataset
        users: Any = trainer.compute_metrics
        self._others: dict[str, Any] = {}

        def compute_metrics(prediction: Any, **kwargs: Any) -> dict[str, Any]:
            logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
            parts = logits if isinstance(logits, list) else [logits]
            if not args.batch_eval_metrics and not all(np.isfinite(part).all() for part in parts):
                return {}  # the leg has failed, and metrics of its logits may raise
            self._others = users(prediction, **kwargs)
            return dict(self._others)

        sort = has_values(args, GROUPED)
        # Every item once and in order: rows that are grouped by length would be shuffled here too.
        of_data = changed(args, **UNGROUPED, dataloader_drop_last=False, prediction_loss_only=False)
        with of_data, changed(trainer, compute_metrics=compute_metrics):
            self._predicted = _predict(trainer, self._settings.evaluation_set(trainer), sort, "eval")
            trainer.compute_metrics = None
            self._on_test = None if test_set is None else _predict(trainer, test_set, sort, "test")[:2]
        trainer.log({**self._predicted[2], "eval_weight_ratio": self._leg.ratio, "eval_seed": self._leg.seed})

    def finished_leg(self, seconds: float, batch_size: int | None) -> FinishedLeg:
        """The result of the leg."""
        trainer, leg, (logits, labels, metrics) = self._trainer, self._leg, self._predicted
        of_leg: dict[str, Any] = {"ratio": leg.ratio, "seed": leg.seed, "global_step": trainer.state.global_step}
        if not np.isfinite(logits).all():
            reason = (
                f"the loss is {metrics['eval_loss']}, and {np.mean(~np.isfinite(logits)):.0%} of the logits are not "
                "finite; a lower learning rate or a ratio nearer to 1 may help"
            )
            return FinishedLeg(leg, FailedLeg(**of_leg, reason=reason), logits, labels, batch_size)
        measured: dict[str, Any] = averaged(
            *decisions(logits, labels, trainer.task), trainer.task, trainer.positive_label
        )
        users = {} if trainer.compute_metrics is trainer.default_metrics else self._others
        others = {k: float(v) for k, v in users.items() if isinstance(v, _NUMBER) and math.isfinite(v)}
        point = SweepPoint(
            **of_leg,
            **{name: measured[name] for name in MEASURED},
            **bootstrap([(logits, labels)], trainer.task, trainer.positive_label).of_points()[0],
            eval_loss=metrics["eval_loss"],
            eval_plain_loss=metrics["eval_plain_loss"],
            seconds=seconds,
            predictions=f"{PREDICTIONS_FOLDER}/{leg.name}.parquet",
            other_metrics={"accuracy": measured["accuracy"]} | others,
        )
        return FinishedLeg(leg, point, logits, labels, batch_size, self._on_test)


class _BarOnly(ProgressCallback):
    """The progress bar of the Trainer without the dictionaries that it prints, and gone when the leg has ended."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the bar."""
        super().on_train_begin(*args, **kwargs)
        if self.training_bar is not None:  # on the first process only
            self.training_bar.leave = False

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing: the sweep prints one line for each leg."""


@contextmanager
def _callbacks_of_leg(trainer: WeightedLossTrainer, leg: Leg, settings: SweepSettings) -> Iterator[_Evaluation]:
    """Give the trainer the callbacks of a stand-alone run: trackers that start a run of their own, and no sweep."""
    handler, evaluation, stopped = trainer.callback_handler, _Evaluation(trainer, leg, settings), True
    callbacks: list[TrainerCallback] = [evaluation]  # first, before the trackers end their runs
    for callback in with_new_trackers(handler.callbacks, trainer.args.report_to, leg.sweep_folder, leg.name):
        if type(callback) is ProgressCallback:
            callback = _BarOnly()
        if not isinstance(callback, TrainingRunner) and type(callback) is not PrinterCallback:
            callbacks.append(callback)
    with changed(handler, callbacks=callbacks):
        try:
            yield evaluation
            stopped = False
        finally:
            end_runs(trainer, callbacks, stopped)


def _predict(
    trainer: WeightedLossTrainer, dataset: Any, sort: bool, prefix: str
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Logits, labels and metrics, in the order of the dataset; with `sort` computed from the longest example down."""
    column, order = getattr(trainer.model, "main_input_name", "input_ids"), None
    sort = sort and trainer.args.eval_do_concat_batches and isinstance(dataset, Dataset)
    if sort and column in dataset.column_names:
        examples = dataset.with_format("arrow").select_columns(column)
        lengths = [pc.list_value_length(batch[column]).to_numpy() for batch in examples.iter(batch_size=10_000)]
        order = np.argsort(-np.concatenate(lengths), kind="stable")
        dataset = dataset.select(order)
    output: Any = trainer.predict(dataset, metric_key_prefix=prefix)
    if order is not None:
        rows, logits = np.argsort(order), output.predictions
        logits = logits[0] if isinstance(logits, tuple) else logits
        output = PredictionOutput(logits[rows], output.label_ids[rows], output.metrics)
    logits, labels = logits_and_labels(output, trainer.task)
    return logits.astype(np.float32), labels.astype(np.int64), output.metrics


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())
