from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from transformers import set_seed

from . import fingerprint
from .checkpoints import checkpoint_at, is_usable, newest_within, write_state
from ..results.requirement import Requirement
from ..errors import InvalidInputError
from .resume import found_in, held
from .leg import FinishedLeg, KeptBy
from ..results.points import SweepPoint
from ..weighting.ratios import ratio_grid, unique_ratios
from ..results.ratio_sweep import RatioSweep
from .rewind import has_seeded_order
from .search import RatioSearch
from ..results.files import ACTIVATIONS_FOLDER
from ..training.trainer import WeightedLossTrainer

if TYPE_CHECKING:
    from .callback import RatioSweepCallback

logger = logging.getLogger(__name__)

BATCH_SIZE = "train_batch_size"  # of the arguments in the record: the one that the batch-size finder found


@dataclass(frozen=True)
class BegunSweep:
    """What there is of a sweep when it starts or goes on.

    Attributes
    ----------
    sweep : RatioSweep
        With the legs that an earlier run has left.
    best : pair of SweepPoint and float, optional
        The leg of these whose model is kept so far, and its value.
    checkpoint : Path, optional
        Where the next leg goes on within it, or what holds the model of the last one when nothing is left to train.
    """

    sweep: RatioSweep
    best: tuple[SweepPoint, float] | None = None
    checkpoint: Path | None = None


class SweepPlan:
    """What a `RatioSweepCallback` sweeps over with a trainer: legs, folder, and by what the model to keep is chosen.

    Attributes
    ----------
    folder : Path
    kept_by : KeptBy

    Raises
    ------
    InvalidInputError
        When ratios, seeds or the requirement make no sense.
    """

    def __init__(self, callback: RatioSweepCallback, trainer: WeightedLossTrainer) -> None:
        args = trainer.args
        self.folder = Path(args.output_dir if callback.output_dir is None else callback.output_dir)
        self._trainer = trainer
        self._search = callback.ratios if isinstance(callback.ratios, RatioSearch) else None
        wanted = callback.choose
        if wanted is None and self._search is not None and args.load_best_model_at_end:
            wanted = self._search.requirement
        requirement = None if wanted is None else Requirement.parse(wanted)
        metric = (args.metric_for_best_model or "").removeprefix("eval_")
        is_greater_better = args.greater_is_better is not False
        self.kept_by = KeptBy(requirement, metric, is_greater_better, trainer.positive_label)
        self._of_preview = {"activations_dtype": callback.activations_dtype} if callback.preview else {}
        self._empty = self._empty_sweep(callback)

    def legs_of(self, sweep: RatioSweep) -> list[tuple[float, int]]:
        """Ratio and seed of the legs in their order; of a search, of those that are done and of the next one."""
        if self._search is None:
            return [(ratio, seed) for seed in sweep.seeds for ratio in sweep.ratios]
        legs = [(leg.ratio, leg.seed) for leg in sweep.done]
        following = self._search.next_ratio(sweep.points, sweep.natural_ratio)
        if following is not None and len(legs) < self._search.max_legs and (following, sweep.seeds[0]) not in legs:
            legs.append((following, sweep.seeds[0]))
        return legs

    def most_legs(self, sweep: RatioSweep) -> int:
        """How many legs there will be at most."""
        legs = len(self.legs_of(sweep))
        return legs if self._search is None or legs == len(sweep.done) else self._search.max_legs

    def best_of(self, sweep: RatioSweep) -> tuple[SweepPoint, float] | None:
        """The first of the points that are best by what chooses the model to keep, and its value."""
        best = None
        for point in sweep.points:
            value = self.kept_by.value(FinishedLeg(point, *sweep.predictions(point)))
            if not math.isnan(value) and (best is None or value > best[1]):
                best = point, value
        return best

    def with_kept(self, sweep: RatioSweep, global_step: int, is_best: bool) -> RatioSweep:
        """The sweep that says which leg's model is kept, by the step that was that leg's last, and why."""
        kept = next((i for i, point in enumerate(sweep.points) if point.global_step == global_step), None)
        because = self.kept_by.because if is_best else "the last leg of the sweep"
        requirement = self.kept_by.requirement
        if requirement is not None and sweep.points and not (choice := sweep.choose(requirement.text)).met:
            because = f"nearest to {requirement.text}, which no leg meets"
            logger.warning("%s", choice)
        if sweep.preview is not None:
            because += f", of a preview: {sweep.what_was_trained}"
        return replace(sweep, kept=kept, kept_because=because)

    def model_digest(self) -> str:
        """Digest of the model that the first leg starts from."""
        if self._trainer.model_init is None:
            return fingerprint.of_model(self._trainer.model)
        set_seed(self._empty.seeds[0])  # the trainer's own model may be trained already
        return fingerprint.of_model(self._trainer.call_model_init())

    @contextmanager
    def begun(self, model_digest: str) -> Iterator[BegunSweep]:
        """Hold the folder, with what it has of this very sweep already.

        Parameters
        ----------
        model_digest : str
            See `model_digest`.

        Raises
        ------
        InvalidInputError
            When it holds another sweep, or another process holds it.
        """
        trainer, args = self._trainer, self._trainer.args
        with ExitStack() as stack:
            for folder in dict.fromkeys(path.resolve() for path in (self.folder, Path(args.output_dir))):
                stack.enter_context(held(folder))
            for left in self.folder.glob(f"{ACTIVATIONS_FOLDER}*"):  # by a preview that was killed
                shutil.rmtree(left)
            digests = {
                "training data": fingerprint.of_dataset(trainer.train_dataset),
                "evaluation data": fingerprint.of_dataset(trainer.eval_dataset),
                "model": model_digest,
            }
            arguments = fingerprint.of_arguments(args) | self._of_preview
            planned = replace(self._empty, fingerprint=digests, arguments=arguments)
            found = found_in(self.folder, planned)
            if found is None:
                yield BegunSweep(replace(planned, folder=self.folder))
            else:
                yield self._going_on(self._searched(found))

    @contextmanager
    def resumed_from(self, begun: BegunSweep) -> Iterator[str | None]:
        """The folder from which the Trainer goes on: a checkpoint, or the mere state between two legs."""
        sweep = begun.sweep
        if begun.checkpoint is not None or not sweep.done:
            yield None if begun.checkpoint is None else str(begun.checkpoint)
            return
        first = sweep.done[0]
        steps_per_leg = first.global_step // (self.legs_of(sweep).index((first.ratio, first.seed)) + 1)
        with tempfile.TemporaryDirectory() as folder:
            write_state(
                Path(folder),
                self._trainer,
                global_step=len(sweep.done) * steps_per_leg,
                max_steps=self.most_legs(sweep) * steps_per_leg,
                train_batch_size=sweep.arguments.get(BATCH_SIZE, self._trainer.args.train_batch_size),
            )
            yield folder

    def draw_charts(self, sweep: RatioSweep) -> None:
        """The charts, in the sweep's folder; what was trained is not lost for one that cannot be drawn."""
        if sweep.points:
            from ..reports.plot import plot_sweep  # here, since matplotlib takes longer to import than all of weighloss

            try:
                plot_sweep(sweep, self.folder)
            except Exception as error:  # whatever matplotlib, its fonts or LaTeX raise
                logger.warning("The charts could not be drawn: %s", error)

    def _going_on(self, sweep: RatioSweep) -> BegunSweep:
        args = self._trainer.args
        begun = self._with_models(sweep)
        sweep, checkpoint = begun.sweep, begun.checkpoint
        legs, done = self.legs_of(sweep), [(leg.ratio, leg.seed) for leg in sweep.done]
        if checkpoint is None and done == legs[: len(done)] != legs and not args.ignore_data_skip:
            checkpoint = newest_within(
                args.output_dir,
                sweep,
                num_legs=self.most_legs(sweep),
                ratio=legs[len(done)][0],
                epochs=1 if has_seeded_order(args) else sweep.epochs_per_ratio,
            )
        logger.warning(
            "Going on with the sweep in %s: %d of %d legs are done%s.",
            self.folder,
            len(done),
            self.most_legs(sweep),
            f", the next one to {checkpoint.name}" if checkpoint and len(done) < len(legs) else "",
        )
        return replace(begun, checkpoint=checkpoint)

    def _with_models(self, sweep: RatioSweep) -> BegunSweep:
        """The sweep without the leg whose model is needed and nowhere on disk."""
        args, legs = self._trainer.args, self.legs_of(sweep)
        output_dir = args.output_dir
        last = sweep.done[-1] if sweep.done else None
        best = self.best_of(sweep) if args.metric_for_best_model is not None else None
        needed, has_model = None, False
        if args.load_best_model_at_end:
            needed = None if best is None else best[0]
            has_model = needed is not None and is_usable(checkpoint_at(output_dir, needed.global_step), sweep)
        elif isinstance(last, SweepPoint) and (last.ratio, last.seed) == legs[-1]:
            needed = last
            checkpoint = checkpoint_at(output_dir, last.global_step)
            if len(sweep.done) == len(legs) and is_usable(checkpoint, sweep):
                return BegunSweep(sweep, best, checkpoint)
        if needed is None or has_model:
            return BegunSweep(sweep, best)
        logger.warning("The model of w_r = %.4g is needed, but not on disk: that leg is trained again.", needed.ratio)
        others = tuple(point for point in sweep.points if point != needed)
        return BegunSweep(self._searched(replace(sweep, points=others)))

    def _searched(self, sweep: RatioSweep) -> RatioSweep:
        """The sweep as far as its legs are those that the search takes, each from those before it."""
        if self._search is None:
            return sweep
        taken = replace(sweep, points=(), failed=())
        for leg in sweep.done:
            if (leg.ratio, leg.seed) not in self.legs_of(taken):
                break
            taken = taken.with_leg(leg)
        return replace(taken, ratios=sorted(ratio for ratio, _ in self.legs_of(taken)))

    def _empty_sweep(self, callback: RatioSweepCallback) -> RatioSweep:
        trainer = self._trainer
        natural = trainer.weights_at(None)
        if self._search is not None:
            ratios = [cast(float, self._search.next_ratio((), natural.natural_ratio))]
        elif callback.ratios is None:
            ratios = ratio_grid(natural.natural_ratio, callback.num_ratios, callback.ratio_span)
        else:
            given = _as_list("ratios", callback.ratios)
            ratios = unique_ratios([trainer.weights_at(r).ratio if isinstance(r, str) else r for r in given])
        for ratio in ratios:
            trainer.weights_at(ratio)  # refuses what has no meaning for these counts
        info = getattr(trainer.train_dataset, "info", None)
        dataset_name = getattr(info, "dataset_name", None)
        if dataset_name == getattr(info, "builder_name", None):
            dataset_name = None  # "csv" names the reader of a file, no data
        return RatioSweep(
            counts=natural.counts.tolist(),
            label_names=list(trainer.class_names),
            positive_label=trainer.positive_label,
            natural_ratio=natural.natural_ratio,
            ratios=ratios,
            seeds=[trainer.args.seed] if callback.seeds is None else _checked_seeds(callback.seeds),
            epochs_per_ratio=callback.epochs_per_ratio,
            model=trainer.model.config._name_or_path,
            dataset=callback.dataset_name or dataset_name or "",
            num_eval=len(cast(Sized, trainer.eval_dataset)),
            requirement=None if self.kept_by.requirement is None else self.kept_by.requirement.text,
            search=None if self._search is None else str(self._search),
            preview=int(callback.preview) or None,
            versions={name: version(name) for name in ("weighloss", "transformers", "torch")},
        )


def _as_list(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name}={values!r} is no list: write {name}=[{values!r}].")
    listed = list(values)
    if not listed:
        raise InvalidInputError(f"{name}={values!r} leaves nothing to sweep over: give a list of at least one number.")
    return listed


def _checked_seeds(seeds: Any) -> list[int]:
    checked = _as_list("seeds", seeds)
    if not all(isinstance(seed, (int, np.integer)) and 0 <= seed < 2**32 for seed in checked):
        raise InvalidInputError(f"seeds={checked!r} are not all seeds: write whole numbers from 0 to 4294967295.")
    return list(dict.fromkeys(map(int, checked)))
