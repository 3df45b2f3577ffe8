from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy

from .bootstrap import bootstrap
from .checks import check_sweep
from .choose import Requirement
from .errors import InvalidInputError
from .metrics import logits_and_labels
from .plot import plot_sweep
from .record import MEASURED, PREDICTIONS_FOLDER, RatioSweep, SweepPoint, write_predictions
from .rewind import FreshState, sampler_of
from .search import RatioSearch
from .trainer import TrainingDriver, WeightedLossTrainer
from .weights import ratio_grid, unique_ratios

logger = logging.getLogger(__name__)


_BEST = ("metric_for_best_model", "greater_is_better")
_BEST_METRIC = "requirement"


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
        self._leg_ends = False

    @contextmanager
    def driving(self, trainer: WeightedLossTrainer) -> Iterator[None]:
        """Set the trainer up for the sweep; give it back its own settings at the end."""
        args = trainer.args
        check_sweep(self, trainer)
        wanted = self.choose
        if wanted is None and isinstance(self.ratios, RatioSearch) and args.load_best_model_at_end:
            wanted = self.ratios.requirement
        self._requirement = None if wanted is None else Requirement.parse(wanted)
        self.sweep = self._empty_sweep(trainer)
        self._legs = [(ratio, seed) for seed in self.sweep.seeds for ratio in self.sweep.ratios]
        self._planned = self.sweep.ratios  # a search adds to them
        self._num_legs = self.ratios.max_legs if isinstance(self.ratios, RatioSearch) else len(self._legs)
        self._fresh = FreshState(trainer)
        self._folder = _made_folder(args.output_dir if self.output_dir is None else self.output_dir)
        self.sweep = replace(self.sweep, folder=self._folder)
        self._warn_of_what_is_not_used(args)
        self._trainer = trainer

        given = {
            name: getattr(args, name, None)
            for name in ("num_train_epochs", "eval_strategy", "hub_strategy", "seed", "weight_ratio", *_BEST)
        }
        compute_metrics = trainer.compute_metrics
        args.num_train_epochs = self._num_legs * self.epochs_per_ratio
        args.eval_strategy = IntervalStrategy.NO  # this callback asks for the evaluations
        args.hub_strategy = HubStrategy.END  # the ratio that is kept is known at the end
        if self._requirement is not None:
            args.metric_for_best_model, args.greater_is_better = _BEST_METRIC, True
        trainer.compute_metrics = lambda prediction: self._compute_metrics(prediction, compute_metrics)
        try:
            yield
            given["weight_ratio"] = args.weight_ratio  # that of the model which the trainer now holds
        except BaseException:
            if trainer.model_init is None:
                self._fresh.rewind()  # the next sweep starts where this one did
            raise
        finally:
            for name, value in given.items():
                setattr(args, name, value)
            trainer.compute_metrics = compute_metrics
            trainer.record_class_weights()
            if self._requirement is not None:
                trainer.model.config.update({"requirement": self._requirement.text})
            self._trainer = None
            self._leg_ends = False  # a leg's evaluation may have been interrupted
            del self._fresh
        if self.sweep.points and trainer.is_world_process_zero():
            try:
                plot_sweep(self.sweep, self._folder)
            except ValueError as error:  # logits that are not finite, for one: what was trained is not lost for that
                logger.warning("The charts could not be drawn: %s", error)

    def schedule_steps(self, num_training_steps: int) -> int:
        """Every leg has a schedule of its own."""
        self._steps_per_leg = num_training_steps // self._num_legs
        return self._steps_per_leg

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start with no point: the batch-size finder trains anew with smaller batches."""
        if self._trainer is None:
            raise InvalidInputError(
                "RatioSweepCallback drives a WeightedLossTrainer: swap transformers.Trainer for it."
            )
        if state.global_step:
            raise InvalidInputError(
                "a sweep does not resume from a checkpoint: leave resume_from_checkpoint out, and give the ratios that "
                "are missing and another output folder."
            )
        self._legs = [(ratio, seed) for ratio, seed in self._legs if ratio in self._planned]
        self.sweep = replace(self.sweep, points=(), ratios=self._planned)
        self._fresh.keep_optimization()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Start a leg."""
        leg, steps_done = divmod(state.global_step, self._steps_per_leg)
        if steps_done == 0:
            args.weight_ratio, args.seed = self._legs[leg]
            self._fresh.rewind()
            self._fresh.rewind_data_order(train_dataloader, leg * self.epochs_per_ratio)
            cast(WeightedLossTrainer, self._trainer).record_class_weights()
            self._started = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for the leg's evaluation, and for its checkpoint where checkpoints are wanted."""
        if state.global_step % self._steps_per_leg == 0:
            self._leg_ends = True
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
        if not self._leg_ends:
            return
        self._leg_ends = False
        leg = self._leg_of(state.global_step)
        ratio, seed = self._legs[leg]
        file = f"{PREDICTIONS_FOLDER}/leg-{leg:02d}_ratio-{ratio:.4g}_seed-{seed}.parquet"
        logits, labels = logits_and_labels(_in_dataset_order(self._prediction, eval_dataloader, args))
        point = SweepPoint(
            ratio=ratio,
            seed=seed,
            **cast(Any, {name: self._measured[name] for name in MEASURED}),
            eval_loss=metrics["eval_loss"],
            eval_plain_loss=metrics["eval_plain_loss"],
            seconds=time.perf_counter() - self._started,
            global_step=state.global_step,
            predictions=file,
            **cast(Any, bootstrap([(logits, labels)], self.sweep.positive_label).of_point()),
        )
        self.sweep = self.sweep.with_point(point)
        if self._requirement is not None:
            metrics[f"eval_{_BEST_METRIC}"] = self._score(self._requirement, point, logits, labels)
        if state.is_world_process_zero:
            write_predictions(self._folder / file, logits, labels, {"weight_ratio": ratio, "seed": seed})
            self.sweep.save(self._folder)
        del self._prediction
        if isinstance(self.ratios, RatioSearch):
            following = self.ratios.next_ratio(self.sweep.points, self.sweep.natural_ratio)
            if following is None:
                control.should_training_stop = True
            else:
                self._legs.append((following, seed))
                self.sweep = replace(self.sweep, ratios=sorted([*self.sweep.ratios, following]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the arguments say which leg's model the trainer holds."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            held = state.best_global_step
            if self._requirement is None:
                metric = args.metric_for_best_model.removeprefix("eval_").replace("_", " ").replace("f1", "F1")
                because = f"the best {metric} of the sweep"
            else:
                because = f"chosen for {self._requirement.text}"
        else:
            held = state.global_step
            because = "the last leg of the sweep"
            logger.warning(
                "The trainer holds the model of the sweep's last leg; with load_best_model_at_end=True, "
                "metric_for_best_model='f1' and save_strategy='best' it keeps the best leg's."
            )
        args.weight_ratio, _ = self._legs[self._leg_of(held)]
        kept = next((i for i, point in enumerate(self.sweep.points) if point.global_step == held), None)
        self.sweep = replace(self.sweep, kept=kept, kept_because=because)
        if self._requirement is not None and self.sweep.points and state.is_world_process_zero:
            choice = self.sweep.choose(self._requirement.text)
            if not choice.met:
                self.sweep = replace(
                    self.sweep, kept_because=f"nearest to {self._requirement.text}, which no leg meets"
                )
        if state.is_world_process_zero:
            self.sweep.save(self._folder)

    def _score(self, requirement: Requirement, point: SweepPoint, logits: np.ndarray, labels: np.ndarray) -> float:
        lower = None
        if requirement.confidence is not None:
            intervals = bootstrap([(logits, labels)], self.sweep.positive_label, requirement.confidence)
            lower = float(getattr(intervals, requirement.kind)[0, 0])
        return requirement.score(point, lower)

    def _leg_of(self, global_step: int) -> int:
        """The leg whose optimizer step was the last of so many."""
        return max(global_step - 1, 0) // self._steps_per_leg

    def _compute_metrics(self, prediction: Any, compute_metrics: Any) -> dict[str, Any]:
        trainer = cast(WeightedLossTrainer, self._trainer)
        if not self._leg_ends:
            return compute_metrics(prediction)
        self._prediction = prediction
        self._measured = trainer.default_metrics(prediction)
        others = {} if compute_metrics is trainer.default_metrics else compute_metrics(prediction)
        return {"weight_ratio": trainer.args.weight_ratio, "seed": trainer.args.seed} | self._measured | others

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
            requirement=None if self._requirement is None else self._requirement.text,
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


def _made_folder(path: str | Path) -> Path:
    folder = Path(path)
    try:
        (folder / PREDICTIONS_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"{folder} cannot hold the sweep ({error}): give another output folder.") from None
    return folder


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
