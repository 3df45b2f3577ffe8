from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, rotate_checkpoints

from .checkpoints import checkpoint_at, mark
from .checks import check_sweep
from .driver import TrainingDriver
from ..errors import InvalidInputError, SweepStoppedError
from .leg import REQUIREMENT_METRIC, LegEvaluation
from .settings import BATCH_SIZE, SweepPlan
from ..results.points import FailedLeg
from .preview import previewing
from .rewind import FreshState
from .search import RatioSearch
from ..results.files import has_no_room
from ..training.trainer import WeightedLossTrainer

logger = logging.getLogger(__name__)

_SET_BY_THE_SWEEP = (
    "num_train_epochs", "eval_strategy", "hub_strategy", "save_total_limit", "seed", "weight_ratio",
    "metric_for_best_model", "greater_is_better",
)  # fmt: skip
_T = TypeVar("_T")


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
    ratios : sequence of float or str, or RatioSearch, optional
        The ratios to sweep over, numbers or names (see `ClassWeights.from_counts`); `ratio_grid(natural_ratio,
        num_ratios, ratio_span)` when None. A `RatioSearch` chooses them one after the other, for one seed; its requirement
        chooses the model to keep where `choose` names no other.
    seeds : sequence of int, optional
        One fine-tune per ratio with each; `[args.seed]` when None. A seed decides data order and dropout, and, for a
        trainer with `model_init`, the initial weights of the head.
    epochs_per_ratio : int, default 1
    num_ratios : int, default 13
        As for `ratio_grid`.
    ratio_span : float, default 100
        As for `ratio_grid`.
    output_dir : path, optional
        Where `sweep.json` and `predictions/` go; `args.output_dir` when None.
    dataset_name : str, optional
        Name of the data in the record; the one that `datasets` knows when None.
    choose : str, optional
        The requirement that chooses the leg whose model the trainer keeps, such as `recall>=0.95` (see
        `RatioSweep.choose`), with `load_best_model_at_end=True`; `metric_for_best_model` when None.
    preview : bool or int, default False
        Train the last layer only (the last so many), pooler and head, from activations that the layers below compute once:
        the landscape at a fraction of the price, at four times the learning rate and half the batch size (never below 8).
        The trainer then holds the whole model; the checkpoints hold the trained layers only, and are of use for
        going on alone.
    activations_dtype : {"float32", "float16", "bfloat16"}
        What these activations are kept in on disk.

    Attributes
    ----------
    sweep : RatioSweep
        The results so far.

    Raises
    ------
    InvalidInputError
        From `train()`, before anything is trained, when the sweep cannot be run or its results would not be comparable.
    """

    sweep: Any = None  # RatioSweep | None would have every reader ask

    def __init__(
        self,
        ratios: Sequence[float | str] | RatioSearch | None = None,
        seeds: Sequence[int] | None = None,
        epochs_per_ratio: int = 1,
        num_ratios: int = 13,
        ratio_span: float = 100.0,
        output_dir: str | Path | None = None,
        dataset_name: str | None = None,
        choose: str | None = None,
        preview: bool | int = False,
        activations_dtype: str = "float32",
    ) -> None:
        self.ratios = ratios
        self.seeds = seeds
        self.epochs_per_ratio = epochs_per_ratio
        self.num_ratios = num_ratios
        self.ratio_span = ratio_span
        self.output_dir = output_dir
        self.dataset_name = dataset_name
        self.choose = choose
        self.preview = preview
        self.activations_dtype = activations_dtype
        self._trainer: WeightedLossTrainer | None = None  # while it is driven

    @contextmanager
    def driving(
        self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any = None, trial: Any = None
    ) -> Iterator[str | None]:
        """Set the trainer up for the sweep, or for what is left of it; give it back its own settings at the end."""
        args = trainer.args
        check_sweep(self, trainer, resume_from_checkpoint, trial)
        self._plan = SweepPlan(self, trainer)
        given = {name: getattr(args, name, None) for name in _SET_BY_THE_SWEEP}
        with ExitStack() as stack:
            model_digest = self._plan.model_digest()
            begun = _everywhere(trainer, lambda: stack.enter_context(self._plan.begun(model_digest)))
            self._begun, self.sweep = begun, begun.sweep
            if self.preview:
                stack.enter_context(
                    previewing(trainer, int(self.preview), self.activations_dtype, self._plan.folder, self.sweep.seeds)
                )
            self._fresh = FreshState(trainer)
            self._legs = self._plan.legs_of(self.sweep)
            self._num_legs = self._plan.most_legs(self.sweep)
            self._trainer = trainer
            self._num_written, self._is_to_write = len(self.sweep.done), False
            self._evaluation = LegEvaluation(trainer)
            self._checkpoints_kept = args.save_total_limit
            args.save_total_limit = None  # the last model goes when the point of the next one is written
            args.num_train_epochs = self._num_legs * self.epochs_per_ratio
            args.eval_strategy = IntervalStrategy.NO  # this callback asks for the evaluations
            args.hub_strategy = HubStrategy.END  # the ratio that is kept is known at the end
            if self._plan.kept_by.requirement is not None:
                args.metric_for_best_model, args.greater_is_better = REQUIREMENT_METRIC, True
            try:
                self.loads_weights = begun.checkpoint is not None
                yield stack.enter_context(self._plan.resumed_from(begun))
                given["weight_ratio"] = args.weight_ratio  # that of the model which the trainer now holds
            except BaseException as error:
                if trainer.model_init is None:
                    self._fresh.rewind()  # the next sweep starts where this one did
                stopped = self._stopped(error)
                if stopped is error:
                    raise
                raise stopped from error
            finally:
                for name, value in given.items():
                    setattr(args, name, value)
                self._evaluation.close()
                trainer.record_class_weights()
                self._trainer = None
                del self._fresh
            if trainer.is_world_process_zero():
                self._plan.draw_charts(self.sweep)

    def schedule_steps(self, num_training_steps: int) -> int:
        """Every leg has a schedule of its own."""
        self._steps_per_leg = num_training_steps // self._num_legs
        return self._steps_per_leg

    def optimization_created(self) -> None:
        """Keep what every leg starts from, before a checkpoint is loaded into it."""
        self._fresh.keep_optimization()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start with the legs that an earlier run left: the batch-size finder trains anew with smaller batches."""
        if self._trainer is None:
            raise InvalidInputError(
                "RatioSweepCallback drives a WeightedLossTrainer: swap transformers.Trainer for it."
            )
        self.sweep = self._begun.sweep
        self._legs = self._plan.legs_of(self.sweep)
        for leg in self.sweep.done:
            steps = leg.global_step / (self._legs.index((leg.ratio, leg.seed)) + 1)
            if steps != self._steps_per_leg:
                raise InvalidInputError(
                    f"{self._plan.folder} holds legs of {steps:g} optimizer steps, not {self._steps_per_leg}: go on "
                    "with the same batch size, or give another output folder."
                )
        self._epoch = state.global_step * self.epochs_per_ratio // self._steps_per_leg
        self._is_within_a_leg = state.global_step % self._steps_per_leg > 0  # by a checkpoint
        if self._begun.best is not None:
            best, value = self._begun.best
            state.best_metric = value if args.greater_is_better else -value
            state.best_global_step = best.global_step
            state.best_model_checkpoint = str(checkpoint_at(args.output_dir, best.global_step))
        if args.auto_find_batch_size:
            self.sweep = replace(self.sweep, arguments=self.sweep.arguments | {BATCH_SIZE: state.train_batch_size})
        self._is_to_write = True

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Start a leg, or go on with it in the middle."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        goes_on, self._is_within_a_leg = self._is_within_a_leg, False
        if not goes_on and epoch % self.epochs_per_ratio:
            return
        done = {(leg.ratio, leg.seed) for leg in self.sweep.done}
        self._number = next(i for i, leg in enumerate(self._legs) if leg not in done)
        args.weight_ratio, args.seed = self._legs[self._number]
        if goes_on:
            self._fresh.rewind_randomness()
        else:
            state.global_step = self._number * self._steps_per_leg
            self._fresh.rewind()
        self._fresh.rewind_data_order(train_dataloader, epoch - epoch % self.epochs_per_ratio)
        cast(WeightedLossTrainer, self._trainer).record_class_weights()
        self._write()
        self._started = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for the leg's evaluation, and for its checkpoint where checkpoints are wanted."""
        if state.global_step % self._steps_per_leg == 0:
            self._evaluation.expect()
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
        """Note what the leg came to; its predictions are written now, its point when its model is safe."""
        if self._trainer is None or not self._evaluation.is_of_leg:
            return
        finished = self._evaluation.finished(
            metrics,
            eval_dataloader,
            self._number,
            global_step=state.global_step,
            seconds=time.perf_counter() - self._started,
        )
        if isinstance(finished.leg, FailedLeg):
            logger.warning("w_r = %.4g, seed %d: %s.", finished.leg.ratio, finished.leg.seed, finished.leg.reason)
        elif state.is_world_process_zero:
            finished.write_predictions(self._plan.folder)
        self.sweep = self.sweep.with_leg(finished.leg)
        self._is_to_write = True
        if args.metric_for_best_model is not None and (
            self._plan.kept_by.requirement is not None or isinstance(finished.leg, FailedLeg)
        ):
            name = args.metric_for_best_model.removeprefix("eval_")
            metrics[f"eval_{name}"] = self._plan.kept_by.value(finished)  # NaN is never the best
        if isinstance(self.ratios, RatioSearch):
            self._legs = self._plan.legs_of(self.sweep)
            self.sweep = replace(self.sweep, ratios=sorted(ratio for ratio, _ in self._legs))
            if len(self._legs) == len(self.sweep.done):
                control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the leg's point, now that its model is on disk, and only then remove older models."""
        if args.should_save:
            mark(checkpoint_at(args.output_dir, state.global_step), self.sweep)
        self._write()
        if args.should_save:
            rotate_checkpoints(args.output_dir, self._checkpoints_kept, state.best_model_checkpoint, use_mtime=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the arguments say which leg's model the trainer holds."""
        is_best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        held_step = state.best_global_step if is_best else state.global_step
        args.weight_ratio, _ = self._legs[max(held_step - 1, 0) // self._steps_per_leg]
        if not is_best:
            logger.warning(
                "The trainer holds the model of the sweep's last leg, w_r = %.4g; with load_best_model_at_end=True, "
                "metric_for_best_model='f1' and save_strategy='best' it keeps the best leg's.",
                args.weight_ratio,
            )
        if state.is_world_process_zero:
            self.sweep = self._plan.with_kept(self.sweep, held_step, is_best)
        self._is_to_write = True
        self._write()

    def _write(self) -> None:
        if self._is_to_write and cast(WeightedLossTrainer, self._trainer).is_world_process_zero():
            self.sweep.save(self._plan.folder)
        self._num_written, self._is_to_write = len(self.sweep.done), False

    def _stopped(self, error: BaseException) -> BaseException:
        """The error to raise for one that ended the sweep; how to go on is said in any case."""
        done = f"{self._num_written} of {self._num_legs} legs are done and kept in {self._plan.folder}"
        if has_no_room(error):
            file = getattr(error, "filename", None) or f"a checkpoint in {cast(Any, self._trainer).args.output_dir}"
            return SweepStoppedError(
                f"{file} could not be written, no room is left: {done}; make room and run the same again, which goes on "
                "after them."
            )
        if isinstance(error, KeyboardInterrupt):
            logger.warning("The sweep was stopped: %s; run the same again to go on.", done)
        return error


def _everywhere(trainer: WeightedLossTrainer, work: Callable[[], _T]) -> _T:
    """What some work returns in the first process, in every process; what it refuses, every process does."""
    outcome: list[Any] = [None, None]
    if trainer.is_world_process_zero():
        try:
            outcome[0] = work()
        except Exception as error:
            broadcast_object_list([None, str(error)])
            raise
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise InvalidInputError(outcome[1])
    return outcome[0]
