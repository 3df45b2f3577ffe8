from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import EarlyStoppingCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .errors import InvalidInputError
from .metrics import classification_metrics, logits_and_labels
from .record import PREDICTIONS_FOLDER, SWEEP_FILE, RatioSweep, SweepPoint, write_predictions
from .rewind import FreshState, sampler_of
from .trainer import TrainingDriver, WeightedLossTrainer
from .weights import ClassWeights, ratio_grid, unique_ratios

logger = logging.getLogger(__name__)

_MEASURED = ("tp", "fp", "fn", "tn", "precision", "recall", "f1")


class RatioSweepCallback(TrainingDriver):
    """Turns one `WeightedLossTrainer.train()` into a sweep over weight ratios.

    A leg is one fine-tune at one ratio and seed: `epochs_per_ratio` epochs of the Trainer's own loop, bit for bit those of
    a stand-alone run, since every leg starts from what a fresh run has: trainable weights and buffers, optimizer, schedule
    (of the length of one leg), gradient scaler, random number generators and data order. At a leg's end the evaluation set
    is evaluated, and the leg's predictions and point are on disk before the next leg starts.

    The Trainer's own machinery does the rest: `load_best_model_at_end=True` with `metric_for_best_model="f1"` leaves the
    best ratio's model in the trainer (without it, the last leg's), checkpoints are saved at the legs' ends as
    `save_strategy` says, trackers log every leg. `num_train_epochs` and `eval_strategy` of the arguments are not used.

    Parameters
    ----------
    ratios : sequence of float, optional
        The ratios to sweep over; `ratio_grid(natural_ratio, num_ratios, ratio_span)` when None.
    seeds : sequence of int, optional
        One fine-tune per ratio with each; `[args.seed]` when None. A seed decides data order and dropout, and, for a
        trainer with `model_init`, the initial weights of the head.
    epochs_per_ratio : int, default 1
    num_ratios, ratio_span
        As for `ratio_grid`.
    output_dir : path, optional
        Where `sweep.json` and `predictions/` go; `args.output_dir` when None.
    dataset_name : str, optional
        Name of the data in the record; the one that `datasets` knows when None.

    Attributes
    ----------
    sweep : RatioSweep
        The results so far.

    Raises
    ------
    InvalidInputError
        From `train()`, before anything is trained, when the sweep cannot be run or its results would not be comparable.
    """

    sweep: RatioSweep

    def __init__(
        self,
        ratios: Sequence[float] | None = None,
        seeds: Sequence[int] | None = None,
        epochs_per_ratio: int = 1,
        num_ratios: int = 13,
        ratio_span: float = 100.0,
        output_dir: str | Path | None = None,
        dataset_name: str | None = None,
    ) -> None:
        self.ratios = ratios
        self.seeds = seeds
        self.epochs_per_ratio = epochs_per_ratio
        self.num_ratios = num_ratios
        self.ratio_span = ratio_span
        self.output_dir = output_dir
        self.dataset_name = dataset_name

    @contextmanager
    def driving(self, trainer: WeightedLossTrainer) -> Iterator[None]:
        """Set the trainer up for the sweep; give it back its own settings at the end."""
        args = trainer.args
        self._check(trainer)
        self._trainer = trainer
        self._folder = self._folder_for(args)
        self.sweep = self._empty_sweep(trainer)
        self._legs = [(ratio, seed) for seed in self.sweep.seeds for ratio in self.sweep.ratios]
        self._fresh = FreshState(trainer)
        self._evaluating = False

        given = {name: getattr(args, name) for name in ("num_train_epochs", "eval_strategy", "seed")}
        compute_metrics = trainer.compute_metrics
        args.num_train_epochs = len(self._legs) * self.epochs_per_ratio
        args.eval_strategy = IntervalStrategy.NO  # this callback asks for the evaluations
        trainer.compute_metrics = lambda prediction: self._compute_metrics(prediction, compute_metrics)
        try:
            yield
        finally:
            for name, value in given.items():
                setattr(args, name, value)
            trainer.compute_metrics = compute_metrics
            del self._trainer, self._fresh

    def schedule_steps(self, num_training_steps: int) -> int:
        """Every leg has a schedule of its own."""
        self._steps_per_leg = num_training_steps // len(self._legs)
        return self._steps_per_leg

    def on_schedule_created(self, trainer: WeightedLossTrainer) -> None:
        """Keep what a fresh run has, for the start of every leg."""
        self._fresh.keep_optimization()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Start a leg, or go on with one whose checkpoint was resumed."""
        leg, steps_done = divmod(state.global_step, self._steps_per_leg)
        args.weight_ratio, args.seed = self._legs[leg]
        self._fresh.rewind_data_order(train_dataloader, leg * self.epochs_per_ratio)
        if steps_done == 0:
            self._fresh.rewind()
            self._trainer.record_class_weights()
            self._started = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for the leg's evaluation, and for its checkpoint where checkpoints are wanted."""
        if state.global_step % self._steps_per_leg == 0:
            self._evaluating = True
            control.should_log = True
            control.should_evaluate = True
            control.should_save = args.save_strategy == SaveStrategy.EPOCH or (
                args.save_strategy == SaveStrategy.STEPS and args.load_best_model_at_end
            )
        elif args.save_strategy == SaveStrategy.EPOCH:
            control.should_save = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Write the leg's predictions and point."""
        if not self._evaluating:
            return
        self._evaluating = False
        leg = state.global_step // self._steps_per_leg - 1
        ratio, seed = self._legs[leg]
        file = f"{PREDICTIONS_FOLDER}/leg-{leg:02d}_ratio-{ratio:.4g}_seed-{seed}.parquet"
        point = SweepPoint(
            ratio=ratio,
            seed=seed,
            **{name: self._measured[name] for name in _MEASURED},
            eval_loss=metrics["eval_loss"],
            eval_plain_loss=metrics["eval_plain_loss"],
            seconds=time.perf_counter() - self._started,
            global_step=state.global_step,
            predictions=file,
        )
        self.sweep = self.sweep.with_point(point)
        if state.is_world_process_zero:
            logits, labels = logits_and_labels(_in_dataset_order(self._prediction, eval_dataloader, args))
            write_predictions(self._folder / file, logits, labels, {"weight_ratio": ratio, "seed": seed})
            self.sweep.save(self._folder)
        del self._prediction

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start with no point: the batch-size finder trains anew with smaller batches."""
        self.sweep = replace(self.sweep, points=())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let arguments and model configuration say which leg's model the trainer holds."""
        if not self.sweep.points:
            return
        kept = self.sweep.points[-1]
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            kept = next(point for point in self.sweep.points if point.global_step == state.best_global_step)
        else:
            logger.warning(
                "The trainer holds the model of the sweep's last leg, w_r = %.4g; with load_best_model_at_end=True and "
                "metric_for_best_model='f1' it keeps the best leg's.",
                kept.ratio,
            )
        args.weight_ratio = kept.ratio
        self._trainer.record_class_weights()

    def _compute_metrics(self, prediction: Any, compute_metrics: Any) -> dict[str, Any]:
        self._prediction = prediction
        self._measured: dict[str, Any] = classification_metrics(self.sweep.positive_label)(prediction)
        args = self._trainer.args
        return {"weight_ratio": args.weight_ratio, "seed": args.seed} | self._measured | compute_metrics(prediction)

    def _empty_sweep(self, trainer: WeightedLossTrainer) -> RatioSweep:
        natural = ClassWeights.from_counts(trainer.class_weights.counts, None, trainer.positive_label)
        if self.ratios is None:
            ratios = ratio_grid(natural.natural_ratio, self.num_ratios, self.ratio_span)
        else:
            ratios = unique_ratios(self.ratios)
        for ratio in ratios:
            ClassWeights.from_counts(natural.counts, ratio, trainer.positive_label)
        info = getattr(trainer.train_dataset, "info", None)
        return RatioSweep(
            counts=natural.counts.tolist(),
            label_names=list(trainer.label_names_by_id),
            positive_label=trainer.positive_label,
            natural_ratio=natural.natural_ratio,
            ratios=ratios,
            seeds=[trainer.args.seed] if self.seeds is None else list(dict.fromkeys(self.seeds)),
            epochs_per_ratio=self.epochs_per_ratio,
            model=trainer.model.config._name_or_path,
            dataset=self.dataset_name or getattr(info, "dataset_name", None) or "",
            num_eval=len(cast(Sized, trainer.eval_dataset)),
            versions={name: version(name) for name in ("weighloss", "transformers", "torch")},
            folder=self._folder,
        )

    def _check(self, trainer: WeightedLossTrainer) -> None:
        args, train, evaluation = trainer.args, trainer.train_dataset, trainer.eval_dataset
        callbacks = trainer.callback_handler.callbacks
        folder = self._folder_for(args)
        problems = [
            (evaluation is None, "a sweep needs an evaluation set: give eval_dataset."),
            (
                isinstance(evaluation, dict),
                "a sweep evaluates on one data set, but eval_dataset holds several: give the one to choose the ratio on.",
            ),
            (
                not (hasattr(train, "__len__") and hasattr(evaluation, "__len__")),
                "a sweep needs training and evaluation data of known length, not "
                f"{type(train).__name__} and {type(evaluation).__name__}: give data sets with a length.",
            ),
            (
                hasattr(train, "set_epoch"),
                f"{type(train).__name__}.set_epoch would be called with the epochs of the whole sweep, so that the legs "
                "would differ from stand-alone runs: give training data without it.",
            ),
            (
                self.epochs_per_ratio < 1 or self.epochs_per_ratio != int(self.epochs_per_ratio),
                f"epochs_per_ratio={self.epochs_per_ratio} makes no leg: write a whole number from 1.",
            ),
            (args.max_steps > 0, f"max_steps={args.max_steps} would cut the sweep: set epochs_per_ratio instead."),
            (
                self.ratios is not None and not len(self.ratios),
                "ratios=[] leaves nothing to sweep over: give at least one ratio, or None for the default ones.",
            ),
            (
                self.seeds is not None and not len(self.seeds),
                "seeds=[] leaves nothing to sweep over: give at least one seed, or None for args.seed.",
            ),
            (
                getattr(args, "class_weights", None) is not None,
                "explicit class_weights leave no ratio to sweep over: leave them out.",
            ),
            (
                args.prediction_loss_only or args.batch_eval_metrics,
                "prediction_loss_only and batch_eval_metrics keep the predictions from the sweep: leave them out.",
            ),
            (
                args.load_best_model_at_end and args.metric_for_best_model in ("loss", "eval_loss"),
                "the weighted eval_loss does not compare across ratios: set metric_for_best_model to 'f1' or 'plain_loss'.",
            ),
            (
                any(isinstance(callback, EarlyStoppingCallback) for callback in callbacks),
                "EarlyStoppingCallback would end the sweep at the first ratio that is no better than another: drop it.",
            ),
            (
                sum(isinstance(callback, TrainingDriver) for callback in callbacks) > 1,
                "two callbacks drive this trainer: leave one RatioSweepCallback.",
            ),
            (
                trainer.is_deepspeed_enabled
                or trainer.is_fsdp_enabled
                or getattr(trainer, "is_distributed_loading_by_transformers", False),
                "DeepSpeed, FSDP and sharded models cannot be rewound between legs: train once per ratio with "
                "trainer.hyperparameter_search over weight_ratio.",
            ),
            (
                (folder / SWEEP_FILE).exists(),
                f"{folder} holds another sweep, which would be overwritten: give another output folder, or remove it.",
            ),
        ]
        for wrong, sentence in problems:
            if wrong:
                raise InvalidInputError(sentence)

    def _folder_for(self, args: Any) -> Path:
        return Path(args.output_dir if self.output_dir is None else self.output_dir)


def _in_dataset_order(prediction: Any, eval_dataloader: Any, args: Any) -> Any:
    """The predictions in the evaluation set's order, which group_by_length shuffles."""
    sampler = sampler_of(eval_dataloader)
    if isinstance(sampler, LengthGroupedSampler):
        sampler.generator.manual_seed(args.seed if args.data_seed is None else args.data_seed)
        rows = np.argsort(list(sampler))
        logits = prediction.predictions
        logits = logits[0] if isinstance(logits, tuple) else logits
        prediction = type(prediction)(predictions=logits[rows], label_ids=prediction.label_ids[rows])
    return prediction
