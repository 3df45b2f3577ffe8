"""The files of a running sweep, in the order that loses nothing when it is killed."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import InvalidInputError
from ..results.files import LEGS_FOLDER, of_split, write_predictions
from ..results.points import FailedLeg, SweepPoint
from ..results.ratio_sweep import RatioSweep
from .checkpoints import remove_checkpoints
from .leg import FinishedLeg, Leg
from .resume import model_folder
from .settings import SweepSettings

logger = logging.getLogger(__name__)


class SweepOutput:
    """Writes the results of the legs: predictions first, then the model if it is the best so far, then the point.

    Used by one process only. It starts from a sweep with a folder, and with the legs that an earlier run left there.
    """

    def __init__(self, settings: SweepSettings, sweep: RatioSweep) -> None:
        assert sweep.folder is not None
        self.settings, self.sweep, self.folder = settings, sweep, sweep.folder
        self.again: list[Leg] = []  # legs whose result is there, but whose model is not
        best = self._best()
        if best is not None and model_folder(sweep, best) is None:
            logger.warning("The model of w_r = %.4g is not on disk: that leg is trained again.", best.ratio)
            self.again = [best]

    @property
    def num_legs(self) -> int:
        """Number of legs in all; of a search the largest possible number."""
        return len(self.sweep.legs) if self.settings.search is None else self.settings.search.max_legs

    def remaining(self) -> list[Leg]:
        """The legs that are not done, in their order; of a search the next one, which those before it determine."""
        sweep, search = self.sweep, self.settings.search
        if search is None:
            missing = [self._leg(number, *leg) for number, leg in enumerate(sweep.legs) if leg not in sweep.done]
            return [*self.again, *missing]
        if self.again:
            return self.again
        ratios, seed = [point.ratio for point in sweep.points], sweep.seeds[0]
        ratio = search.next_ratio(ratios, sweep.scores(), sweep.natural_ratio)
        if ratio is None or (ratio, seed) in sweep.done:  # done, but without a result: that leg has failed
            return []
        self.sweep = replace(sweep, ratios=sorted({*sweep.ratios, ratio}))
        return [self._leg(len(sweep.done), ratio, seed)]

    def add_predictions(self, finished: FinishedLeg) -> bool:
        """Write the predictions of a leg. Returns whether it is the best so far, so that its model has to be saved next."""
        point = finished.result
        if isinstance(point, FailedLeg):
            logger.warning("w_r = %.4g, seed %d: %s.", point.ratio, point.seed, point.reason)
            return False
        of_leg = {"weight_ratio": point.ratio, "seed": point.seed}
        if finished.test is not None:
            write_predictions(self.folder / of_split(point.predictions, "test"), *finished.test, of_leg)
        write_predictions(self.folder / point.predictions, finished.logits, finished.labels, of_leg)
        return self.sweep.with_leg(point).choose().point.leg == point

    def add_point(self, finished: FinishedLeg) -> RatioSweep:
        """Write the point of a leg, now that its model is safe, and only then remove what is not needed any more."""
        before = self._best()
        self.sweep = self._with_batch_size(finished).with_leg(finished.result)
        self.again = [leg for leg in self.again if leg != finished.leg]
        self.sweep.save(self.folder)
        if before is not None and before != self._best():
            _remove_files(before)
        remove_checkpoints(finished.leg.folder)
        return self.sweep

    def choose(self) -> RatioSweep:
        """Choose the leg whose model the trainer is to hold."""
        if self.sweep.points:
            choice = self.sweep.choose()
            if not choice.met:
                logger.warning("%s", choice)
            self.sweep = replace(self.sweep, operating_point=choice.point, kept_because=choice.because)
        return self.sweep

    def finish(self) -> RatioSweep:
        """Write which leg was chosen, now that its model is in the output folder, and remove it elsewhere."""
        self.sweep.save(self.folder)
        for leg in map(self.leg_of, self.sweep.points):  # of all, since a killed run may have left some half deleted
            _remove_files(leg)
        with suppress(OSError):  # there may be files of somebody else
            (self.folder / LEGS_FOLDER).rmdir()
        return self.sweep

    def leg_of(self, point: SweepPoint) -> Leg:
        """The leg of a point; its files have one name."""
        return Leg(Path(point.predictions).stem, point.ratio, point.seed, self.folder)

    def _with_batch_size(self, finished: FinishedLeg) -> RatioSweep:
        """The sweep with the batch size of the batch-size finder, which all legs must have in common."""
        arguments, size = self.sweep.arguments, finished.batch_size
        if size is not None and arguments.get("found_batch_size", size) != size:
            raise InvalidInputError(
                f"{self.folder} has legs with batches of {arguments['found_batch_size']}, but now the batch-size finder "
                f"needs {size}: set per_device_train_batch_size to a size that fits, and give another output folder."
            )
        return self.sweep if size is None else replace(self.sweep, arguments={**arguments, "found_batch_size": size})

    def _best(self) -> Leg | None:
        return self.leg_of(self.sweep.choose().point.leg) if self.sweep.points else None

    def _leg(self, number: int, ratio: float, seed: int) -> Leg:
        return Leg(f"leg-{number:02d}_ratio-{ratio:.4g}_seed-{seed}", ratio, seed, self.folder)


def _remove_files(leg: Leg) -> None:
    """Remove model and checkpoints of a leg. Whenever this is killed, the folder of the model is whole or gone."""
    removed = leg.folder / "removed"
    shutil.rmtree(removed, ignore_errors=True)
    if leg.model_folder.is_dir():
        leg.model_folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
    remove_checkpoints(leg.folder)
