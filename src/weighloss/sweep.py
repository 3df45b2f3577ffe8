from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, rotate_checkpoints

from . import fingerprint
from .checkpoints import checkpoint_at, is_whole, newest_within, remove_broken, write_state
from .checks import check_sweep
from .choose import Requirement
from .errors import InvalidInputError, StorageError, reason
from .folder import found_in, held
from .leg import REQUIREMENT_METRIC, FinishedLeg, KeptBy, LegEvaluation
from .plot import plot_sweep
from .record import FailedLeg, RatioSweep, SweepPoint
from .rewind import FreshState, has_seeded_order
from .search import RatioSearch
from .store import has_no_room, write_predictions
from .trainer import TrainingDriver, WeightedLossTrainer
from .weights import ratio_grid, unique_ratios

logger = logging.getLogger(__name__)

_SET_BY_THE_SWEEP = (
    "num_train_epochs", "eval_strategy", "hub_strategy", "save_total_limit", "seed", "weight_ratio",
    "metric_for_best_model", "greater_is_better",
)  # fmt: skip
_BATCH_SIZE = "train_batch_size"  # the one that the batch-size finder found
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
    num_ratios, ratio_span
        As for `ratio_grid`.
    output_dir : path, optional
        Where `sweep.json` and `predictions/` go; `args.output_dir` when None.
    dataset_name : str, optional
        Name of the data in the record; the one that `datasets` knows when None.
    choose : str, optional
        The requirement that chooses the leg whose model the trainer keeps, such as `recall>=0.95` (see
        `RatioSweep.choose`), with `load_best_model_at_end=True`; `metric_for_best_model` when None.

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
    ) -> None:
        self.ratios = ratios
        self.seeds = seeds
        self.epochs_per_ratio = epochs_per_ratio
        self.num_ratios = num_ratios
        self.ratio_span = ratio_span
        self.output_dir = output_dir
        self.dataset_name = dataset_name
        self.choose = choose
        self._trainer: WeightedLossTrainer | None = None  # while it is driven

    @contextmanager
    def driving(self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any = None) -> Iterator[str | None]:
        """Set the trainer up for the sweep, or for what is left of it; give it back its own settings at the end."""
        args = trainer.args
        check_sweep(self, trainer, resume_from_checkpoint)
        self.plan(trainer)
        self._fresh = FreshState(trainer)
        self._warn_of_what_is_not_used(args)
        given = {name: getattr(args, name, None) for name in _SET_BY_THE_SWEEP}
        with ExitStack() as stack:
            self.sweep, self._best, checkpoint = _everywhere(trainer, lambda: self._opened(stack, trainer))
            self._legs = self._legs_of(self.sweep)
            self._begun_with = self.sweep
            self._num_legs = self._most_legs(self._legs)
            self._trainer = trainer
            self._is_to_write = False
            self._evaluation = LegEvaluation(trainer)
            self._checkpoints_kept = args.save_total_limit
            args.save_total_limit = None  # the last model goes when the point of the next one is written
            args.num_train_epochs = self._num_legs * self.epochs_per_ratio
            args.eval_strategy = IntervalStrategy.NO  # this callback asks for the evaluations
            args.hub_strategy = HubStrategy.END  # the ratio that is kept is known at the end
            if self._kept_by.requirement is not None:
                args.metric_for_best_model, args.greater_is_better = REQUIREMENT_METRIC, True
            try:
                yield self._resumed(stack, trainer, checkpoint)
                given["weight_ratio"] = args.weight_ratio  # that of the model which the trainer now holds
            except BaseException as error:
                if trainer.model_init is None:
                    self._fresh.rewind()  # the next sweep starts where this one did
                raise self._stopped(error) from error
            finally:
                for name, value in given.items():
                    setattr(args, name, value)
                self._evaluation.close()
                trainer.record_class_weights()
                if self._kept_by.requirement is not None:
                    trainer.model.config.update({"requirement": self._kept_by.requirement.text})
                self._trainer = None
                del self._fresh
            if self.sweep.points and trainer.is_world_process_zero():
                try:
                    plot_sweep(self.sweep, self._folder)
                except (ValueError, OSError) as error:  # what was trained is not lost for a chart
                    logger.warning("The charts could not be drawn: %s", error)

    def plan(self, trainer: WeightedLossTrainer) -> None:
        """Work out what is to be swept over, where the results go, and by what the model to keep is chosen."""
        args = trainer.args
        wanted = self.choose
        if wanted is None and isinstance(self.ratios, RatioSearch) and args.load_best_model_at_end:
            wanted = self.ratios.requirement
        requirement = None if wanted is None else Requirement.parse(wanted)
        metric = args.metric_for_best_model if args.load_best_model_at_end else None
        self._kept_by = KeptBy(requirement, metric, args.greater_is_better is not False, trainer.positive_label)
        self.sweep = self._empty_sweep(trainer)
        self._folder = Path(args.output_dir if self.output_dir is None else self.output_dir)

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
        self.sweep = self._begun_with
        self._legs = self._legs_of(self.sweep)
        for leg in self.sweep.done:
            steps = leg.global_step / (self._legs.index((leg.ratio, leg.seed)) + 1)
            if steps != self._steps_per_leg:
                raise InvalidInputError(
                    f"{self._folder} holds legs of {steps:g} optimizer steps, but here they have {self._steps_per_leg}: go "
                    "on with the same batch size, or give another output folder."
                )
        self._epoch = state.global_step * self.epochs_per_ratio // self._steps_per_leg
        self._is_within_a_leg = state.global_step % self._steps_per_leg > 0  # by a checkpoint
        if self._best is not None:
            best, value = self._best
            state.best_metric = value if args.greater_is_better else -value
            state.best_global_step = best.global_step
            state.best_model_checkpoint = str(checkpoint_at(args.output_dir, best.global_step))
        if args.auto_find_batch_size:
            self.sweep = replace(self.sweep, arguments=self.sweep.arguments | {_BATCH_SIZE: state.train_batch_size})
        self._is_to_write = True

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Start a leg, or go on with it in the middle."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        goes_on, self._is_within_a_leg = self._is_within_a_leg, False
        if not goes_on and epoch % self.epochs_per_ratio:
            return
        done = {(leg.ratio, leg.seed) for leg in self.sweep.done}
        self._leg = next(i for i, leg in enumerate(self._legs) if leg not in done)
        args.weight_ratio, args.seed = self._legs[self._leg]
        if goes_on:
            self._fresh.rewind_randomness()
        else:
            state.global_step = self._leg * self._steps_per_leg
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
        if self._trainer is None:
            return  # an evaluation outside the sweep
        finished = self._evaluation.finished(
            metrics,
            eval_dataloader,
            self._leg,
            global_step=state.global_step,
            seconds=time.perf_counter() - self._started,
        )
        if finished is None:
            return
        self.sweep = self.sweep.with_leg(finished.leg)
        self._is_to_write = True
        if isinstance(finished.leg, FailedLeg):
            logger.warning("w_r = %.4g, seed %d: %s.", finished.leg.ratio, finished.leg.seed, finished.leg.reason)
        elif state.is_world_process_zero:
            file = self._folder / finished.leg.predictions
            of = {"weight_ratio": finished.leg.ratio, "seed": finished.leg.seed}
            write_predictions(file, finished.logits, finished.labels, of)
        if args.metric_for_best_model is not None and (
            self._kept_by.requirement is not None or isinstance(finished.leg, FailedLeg)
        ):
            name = args.metric_for_best_model.removeprefix("eval_")
            metrics[f"eval_{name}"] = self._kept_by.value(finished)  # NaN is never the best
        if isinstance(self.ratios, RatioSearch):
            self._legs = self._legs_of(self.sweep)
            self.sweep = replace(self.sweep, ratios=sorted(ratio for ratio, _ in self._legs))
            if len(self._legs) == len(self.sweep.done):
                control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the leg's point, now that its model is on disk, and only then remove older models."""
        self._write()
        if args.should_save:
            rotate_checkpoints(args.output_dir, self._checkpoints_kept, state.best_model_checkpoint, use_mtime=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the arguments say which leg's model the trainer holds."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            held_step, because = state.best_global_step, self._kept_by.because
        else:
            held_step, because = state.global_step, "the last leg of the sweep"
            logger.warning(
                "The trainer holds the model of the sweep's last leg; with load_best_model_at_end=True, "
                "metric_for_best_model='f1' and save_strategy='best' it keeps the best leg's."
            )
        args.weight_ratio, _ = self._legs[max(held_step - 1, 0) // self._steps_per_leg]
        kept = next((i for i, point in enumerate(self.sweep.points) if point.global_step == held_step), None)
        self.sweep = replace(self.sweep, kept=kept, kept_because=because)
        requirement = cast(Any, self._kept_by.requirement)
        has_choice = requirement is not None and bool(self.sweep.points) and state.is_world_process_zero
        if has_choice and not self.sweep.choose(requirement.text).met:
            because = f"nearest to {requirement.text}, which no leg meets"
            self.sweep = replace(self.sweep, kept_because=because)
        self._is_to_write = True
        self._write()

    def _opened(
        self, stack: ExitStack, trainer: WeightedLossTrainer
    ) -> tuple[RatioSweep, tuple[SweepPoint, float] | None, Path | None]:
        """What there is of the sweep already, its best leg so far, and the checkpoint to go on from."""
        args = trainer.args
        stack.enter_context(held(self._folder))
        model = trainer.model if trainer.model_init is None else self._fresh.made_by_model_init(self.sweep.seeds[0])
        digests = {
            "training data": fingerprint.of_dataset(trainer.train_dataset),
            "evaluation data": fingerprint.of_dataset(trainer.eval_dataset),
            "model": fingerprint.of_model(model),
        }
        planned = replace(self.sweep, fingerprint=digests, arguments=fingerprint.of_arguments(args))
        sweep = found_in(self._folder, planned)
        if sweep is None:
            return replace(planned, folder=self._folder), None, None
        remove_broken(args.output_dir)
        sweep, best, checkpoint = self._with_models(self._searched(sweep), args)
        legs, done = self._legs_of(sweep), [(leg.ratio, leg.seed) for leg in sweep.done]
        if checkpoint is None and done == legs[: len(done)] != legs and not args.ignore_data_skip:
            checkpoint = newest_within(
                args.output_dir,
                done=len(done),
                num_legs=self._most_legs(legs),
                ratio=legs[len(done)][0],
                epochs=1 if has_seeded_order(args) else self.epochs_per_ratio,
            )
        logger.warning(
            "Going on with the sweep in %s: %d of %d legs are done%s.",
            self._folder,
            len(done),
            self._most_legs(legs),
            f", the next one to {checkpoint.name}" if checkpoint and len(done) < len(legs) else "",
        )
        return sweep, best, checkpoint

    def _with_models(
        self, sweep: RatioSweep, args: Any
    ) -> tuple[RatioSweep, tuple[SweepPoint, float] | None, Path | None]:
        """The sweep without the leg whose model is needed and nowhere on disk, the best leg, and a model to load."""
        best, checkpoint, without = None, None, None
        if args.load_best_model_at_end:
            best = self._best_of(sweep)
            if best is not None and not is_whole(checkpoint_at(args.output_dir, best[0].global_step)):
                without, best = best[0], None
        elif len(sweep.done) == len(self._legs_of(sweep)) and isinstance(sweep.done[-1], SweepPoint):
            checkpoint = checkpoint_at(args.output_dir, sweep.done[-1].global_step)
            if not is_whole(checkpoint):
                without, checkpoint = sweep.done[-1], None
        if without is not None:
            logger.warning(
                "The model of w_r = %.4g is needed, but not on disk: that leg is trained again.", without.ratio
            )
            sweep = self._searched(replace(sweep, points=tuple(point for point in sweep.points if point != without)))
        return sweep, best, checkpoint

    def _best_of(self, sweep: RatioSweep) -> tuple[SweepPoint, float] | None:
        """The first of the points that are best by what chooses the model to keep, and its value."""
        best = None
        for point in sweep.points:
            value = self._kept_by.value(FinishedLeg(point, *sweep.predictions(point)))
            if value == value and (best is None or value > best[1]):
                best = point, value
        return best

    def _searched(self, sweep: RatioSweep) -> RatioSweep:
        """The sweep as far as its legs are those that the search takes, each from those before it."""
        if not isinstance(self.ratios, RatioSearch):
            return sweep
        taken = replace(sweep, points=(), failed=())
        for leg in sweep.done:
            if (leg.ratio, leg.seed) not in self._legs_of(taken):
                break
            taken = taken.with_leg(leg)
        return replace(taken, ratios=sorted(ratio for ratio, _ in self._legs_of(taken)))

    def _legs_of(self, sweep: RatioSweep) -> list[tuple[float, int]]:
        """Ratio and seed of the legs in their order; of a search, of those that are done and of the next one."""
        if not isinstance(self.ratios, RatioSearch):
            return [(ratio, seed) for seed in sweep.seeds for ratio in sweep.ratios]
        legs = [(leg.ratio, leg.seed) for leg in sweep.done]
        following = self.ratios.next_ratio(sweep.points, sweep.natural_ratio)
        if following is not None and len(legs) < self.ratios.max_legs and (following, sweep.seeds[0]) not in legs:
            legs.append((following, sweep.seeds[0]))
        return legs

    def _most_legs(self, legs: Sequence[Any]) -> int:
        """How many legs there will be at most."""
        ended = len(legs) == len(self.sweep.done)
        return self.ratios.max_legs if isinstance(self.ratios, RatioSearch) and not ended else len(legs)

    def _resumed(self, stack: ExitStack, trainer: WeightedLossTrainer, checkpoint: Path | None) -> str | None:
        """The folder from which the Trainer goes on: a checkpoint, or the mere state between two legs."""
        self.loads_weights = checkpoint is not None
        done = self.sweep.done
        if checkpoint is not None:
            return str(checkpoint)
        if not done:
            return None
        steps_per_leg = done[0].global_step // (self._legs.index((done[0].ratio, done[0].seed)) + 1)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        write_state(
            Path(folder),
            trainer,
            global_step=len(done) * steps_per_leg,
            max_steps=self._num_legs * steps_per_leg,
            train_batch_size=self.sweep.arguments.get(_BATCH_SIZE, trainer.args.train_batch_size),
        )
        return folder

    def _write(self) -> None:
        if self._is_to_write and cast(WeightedLossTrainer, self._trainer).is_world_process_zero():
            self.sweep.save(self._folder)
        self._is_to_write = False

    def _stopped(self, error: BaseException) -> BaseException:
        """The error to raise for one that ended the sweep; how to go on is said in any case."""
        done = f"{len(self.sweep.done)} of {self._num_legs} legs are done and kept in {self._folder}"
        if has_no_room(error):
            file = getattr(error, "filename", None) or f"a checkpoint in {cast(Any, self._trainer).args.output_dir}"
            return StorageError(
                f"{file} could not be written, no room is left ({reason(error)}): {done}; make room and run the same "
                "again, which goes on after them."
            )
        if isinstance(error, KeyboardInterrupt):
            logger.warning("The sweep was stopped: %s; run the same again to go on.", done)
        return error

    def _warn_of_what_is_not_used(self, args: Any) -> None:
        if args.num_train_epochs not in (type(args).num_train_epochs, self.epochs_per_ratio):
            logger.warning(
                "num_train_epochs=%g is not used by a sweep, which trains for epochs_per_ratio=%d at every ratio.",
                args.num_train_epochs,
                self.epochs_per_ratio,
            )
        if getattr(args, "weight_ratio", None) is not None:
            logger.warning("weight_ratio=%s is not used by a sweep, whose ratios are its own.", args.weight_ratio)

    def _empty_sweep(self, trainer: WeightedLossTrainer) -> RatioSweep:
        natural = trainer.weights_at(None)
        if isinstance(self.ratios, RatioSearch):
            ratios = [cast(float, self.ratios.next_ratio((), natural.natural_ratio))]
        elif self.ratios is None:
            ratios = ratio_grid(natural.natural_ratio, self.num_ratios, self.ratio_span)
        else:
            given = _as_list("ratios", self.ratios)
            ratios = unique_ratios([trainer.weights_at(r).ratio if isinstance(r, str) else r for r in given])
        for ratio in ratios:
            trainer.weights_at(ratio)
        info = getattr(trainer.train_dataset, "info", None)
        return RatioSweep(
            counts=natural.counts.tolist(),
            label_names=list(trainer.class_names),
            positive_label=trainer.positive_label,
            natural_ratio=natural.natural_ratio,
            ratios=ratios,
            seeds=[trainer.args.seed] if self.seeds is None else _checked_seeds(self.seeds),
            epochs_per_ratio=self.epochs_per_ratio,
            model=trainer.model.config._name_or_path,
            dataset=self.dataset_name or getattr(info, "dataset_name", None) or "",
            num_eval=len(cast(Sized, trainer.eval_dataset)),
            requirement=None if self._kept_by.requirement is None else self._kept_by.requirement.text,
            search=str(self.ratios) if isinstance(self.ratios, RatioSearch) else None,
            versions={name: version(name) for name in ("weighloss", "transformers", "torch")},
        )


def _as_list(name: str, values: Any) -> list[Any]:
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []
    if not listed:
        raise InvalidInputError(f"{name}={values!r} leaves nothing to sweep over: give a list of at least one number.")
    return listed


def _checked_seeds(seeds: Any) -> list[int]:
    checked = _as_list("seeds", seeds)
    if not all(isinstance(seed, (int, np.integer)) and 0 <= seed < 2**32 for seed in checked):
        raise InvalidInputError(f"seeds={checked!r} are not all seeds: write whole numbers from 0 to 4294967295.")
    return list(dict.fromkeys(map(int, checked)))


def _everywhere(trainer: WeightedLossTrainer, work: Callable[[], _T]) -> _T:
    """What some work returns in the first process, in every process; what it refuses, every process does."""
    outcome: list[Any] = [None, None]
    if trainer.is_world_process_zero():
        try:
            outcome[0] = work()
        except InvalidInputError as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise InvalidInputError(outcome[1])
    return outcome[0]
