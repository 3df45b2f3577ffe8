from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download

from ..errors import InvalidInputError, reason
from ..weighting.class_weights import ClassWeights
from ..weighting.task import Task
from .bootstrap import Intervals, bootstrap, interval
from .choice import Choice, choose, leg_scores, recorded_choice
from .files import PREDICTIONS_FOLDER, SWEEP_FILE
from .points import FailedLeg, SweepPoint
from .record import read_record
from .requirement import Requirement
from .sweep_data import SweepData, Thresholds


@dataclass(frozen=True)
class RatioSweep(SweepData):
    """The results of a sweep: what was swept over, one point for each finished leg, and what follows from them.

    Its attributes are those of `SweepData`.
    """

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RatioSweep:
        """Load the sweep of a folder, or of a `sweep.json`.

        Nothing in the file is trusted: types, ranges, names and paths are checked.

        Raises
        ------
        InvalidInputError
            When there is no sweep, or the file is not one that this version can read: a damaged leg is named, with its
            field.
        """
        path = Path(path)
        file = path / SWEEP_FILE if path.is_dir() else path
        try:
            return read_record(cls, file)
        except FileNotFoundError:
            raise InvalidInputError(
                f"there is no sweep at {path}: give the output folder of a sweep, which contains {SWEEP_FILE}."
            ) from None

    @classmethod
    def from_hub(cls, repo_id: str, revision: str | None = None, token: str | None = None) -> RatioSweep:
        """Load the sweep that was pushed with a model, with its predictions if they were pushed too.

        Raises
        ------
        InvalidInputError
            When the repository cannot be read or contains no sweep.
        """
        try:
            patterns = [SWEEP_FILE, f"{PREDICTIONS_FOLDER}/*"]
            folder = snapshot_download(
                repo_id, revision=revision, token=token.strip() if token else None, allow_patterns=patterns
            )
        except Exception as error:  # whatever the client raises
            raise InvalidInputError(
                f"{repo_id} cannot be read ({reason(error)}): check its name, the login and the network."
            ) from None
        if not (Path(folder) / SWEEP_FILE).exists():
            raise InvalidInputError(
                f"{repo_id} contains no {SWEEP_FILE}: give the repository of a model from a sweep."
            )
        return cls.load(folder)

    def with_leg(self, leg: SweepPoint | FailedLeg) -> RatioSweep:
        """The sweep with one more leg, or a new result of one that it has, in the order of `legs`."""
        name = "failed" if isinstance(leg, FailedLeg) else "points"
        order = self.legs
        others = [other for other in getattr(self, name) if (other.ratio, other.seed) != (leg.ratio, leg.seed)]
        legs = sorted([*others, leg], key=lambda leg: order.index((leg.ratio, leg.seed)))
        changed: dict[str, Any] = {name: tuple(legs)}
        chosen = self.operating_point
        if chosen is not None and (chosen.ratio, chosen.seed) == (leg.ratio, leg.seed):
            changed["operating_point"] = replace(chosen, leg=leg) if isinstance(leg, SweepPoint) else None
        return replace(self, **changed)

    def ratio_of(self, scheme: str) -> float:
        """The ratio of a named scheme, such as `sqrt`, for the training labels: see `ClassWeights.from_counts`."""
        if self.task is Task.MULTILABEL:
            return ClassWeights.from_multi_label_counts(np.array(self.counts), scheme).ratio
        return ClassWeights.from_counts(np.array(self.counts), scheme, self.positive_label).ratio

    def by_ratio(self, metric: str | None = None) -> dict[float, list[SweepPoint]]:
        """The points of each ratio, ratios ascending.

        Parameters
        ----------
        metric : str, optional
            Leave out the points for which this metric is undefined, unless it is undefined for all points of a ratio. The
            precision of a leg that predicts nothing positive is 0 only by convention; scikit-learn leaves it out of
            averages with `zero_division=nan`.
        """
        groups: dict[float, list[SweepPoint]] = {}
        for ratio in self.ratios:
            if points := [point for point in self.points if point.ratio == ratio]:
                defined = [point for point in points if metric != "precision" or point.predicts_positives]
                groups[ratio] = defined or points
        return groups

    def curve(self, *names: str) -> dict[str, np.ndarray]:
        """The points as arrays over the ratios; means over the seeds for which a metric is defined (see `by_ratio`).

        Parameters
        ----------
        *names : str
            Attributes of the points.

        Returns
        -------
        dict of float64 arrays of shape (n_ratios,)
            `ratio` (ascending) and one array for each name; only ratios with a finished leg.
        """
        columns = {"ratio": np.array(list(self.by_ratio()))}
        for name in names:
            of_ratios = self.by_ratio(name).values()
            columns[name] = np.array([fmean(getattr(point, name) for point in points) for points in of_ratios])
        return columns

    def at(self, ratio: float, name: str) -> float:
        """An attribute of the points at any ratio, interpolated in log w_r between ratios at which positives are found."""
        curve = self.curve(name, "tp")
        found = curve["tp"] > 0
        return float(np.interp(math.log(ratio), np.log(curve["ratio"][found]), curve[name][found]))

    def predicts_no_positive(self, ratio: float) -> bool:
        """Whether no leg at a ratio predicts anything positive, so that its precision of 0 is only a convention."""
        return not any(point.predicts_positives for point in self.by_ratio()[ratio])

    def choose(self, requirement: str | None = None, threshold: Thresholds | None = None) -> Choice:
        """Choose the leg, and the threshold on its log-odds, that meet a requirement best.

        All pairs of a leg and a threshold are compared on the saved predictions, and nothing is trained. The pair with the
        best mean score over bootstrap resamples of the evaluation set is chosen: see `best_thresholds`. With a confidence,
        `recall>=0.95 @90%`, the leg is chosen on a third of the evaluation set and the threshold is certified on the
        others: see `certified_threshold`.

        A leg is one ratio with one seed. With several seeds the best single leg is chosen, since its model is kept.

        Parameters
        ----------
        requirement : str, optional
            `f1`, `f0.5`, `mcc`, `recall>=0.95`, `precision>=0.9`, `flagged<=200 per 10000`, several of these bounds joined
            by `and`, `cost fp=1 fn=20`, `cost [[0, 1, 1], [20, 0, 5], [1, 1, 0]]` or `break-even` (see
            `Requirement.parse`); the requirement of the sweep when None.
        threshold : {"any", "argmax"}, optional
            "argmax" compares the trained ratios alone. So does `break-even`, which is a question about the ratio. When
            None, "any" for a requirement that is given, and that of the sweep for its own.

        Raises
        ------
        InvalidInputError
            When that is not a requirement or none for this task, no leg has finished, or what it compares needs the
            predictions, and they are not on disk.

        Examples
        --------
        >>> print(sweep.choose("recall>=0.95", threshold="argmax"))  # doctest: +SKIP
        recall>=0.95 chooses w_r = 0.6457: precision 0.947, recall 0.953.
        """
        if threshold not in ("any", "argmax", None):
            raise InvalidInputError(f"threshold must be 'any' or 'argmax', got {threshold!r}.")
        threshold = threshold or (self.threshold if requirement is None else "any")
        wanted = self._requirement(requirement)
        if wanted.confidence is not None and self.points and self.unit == "tokens":
            raise InvalidInputError(
                f"{wanted.text} needs independent examples, which tokens are not: leave the @ out."
            )
        if wanted.confidence is not None and threshold == "argmax":
            raise InvalidInputError(
                f"{wanted.text} needs a threshold that is certified: leave out threshold='argmax'."
            )
        if not self.points:
            raise InvalidInputError("the sweep has no finished leg to choose from: let it run.")
        if (threshold == "any" or wanted.costs) and not self.is_measurable:
            if self.operating_point is not None and (wanted, threshold) == (self._requirement(), self.threshold):
                return recorded_choice(wanted, self.operating_point, self.kept_because)
            why = "prices what each class is taken for" if wanted.costs else "compares thresholds"
            instead = "f1 and threshold='argmax'" if wanted.costs else "threshold='argmax'"
            raise InvalidInputError(
                f"{wanted.text} {why}, which needs the predictions, and they are not here: write {instead} to compare the "
                "trained ratios alone."
            )
        return choose(self, wanted, threshold)

    def scores(self) -> list[float]:
        """How well each point meets the requirement of the sweep, as `choose` compares them."""
        return leg_scores(self, self._requirement(), self.threshold)

    def _requirement(self, text: str | None = None) -> Requirement:
        requirement = Requirement.parse(self.requirement if text is None else text)
        return requirement.for_classes(self.task, len(self.label_names), self.positive_label)

    def break_even(self) -> float | None:
        """The ratio at which precision equals recall, interpolated in log w_r; None when the curves do not cross.

        Precision equals recall exactly where as many items are predicted positive as are positive. Where no positive is
        found, P = R = 0 does not count as a crossing. Of several crossings, the one nearest to the natural ratio.
        """
        curve = self.curve("precision", "recall", "tp")
        return _crossing(curve["ratio"], curve["precision"] - curve["recall"], curve["tp"] > 0, self.natural_ratio)

    def break_even_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Bootstrap interval of the break-even of a sweep with one seed.

        None for several seeds, without predictions, or where the curves cross in a smaller share of the resamples than
        `level`.
        """
        intervals = self.intervals(level) if len(self.seeds) == 1 and self.points else None
        if intervals is None:
            return None
        ratios = np.array([point.ratio for point in self.points])
        order = np.argsort(ratios)
        precision, recall = intervals.resampled_precision[:, order], intervals.resampled_recall[:, order]
        resamples = zip(precision - recall, recall > 0, strict=True)
        crossings = [_crossing(ratios[order], gap, found, self.natural_ratio) for gap, found in resamples]
        known = [crossing for crossing in crossings if crossing is not None]
        if len(known) < level * len(crossings):
            return None
        low, high = interval(np.array(known), level).tolist()
        return low, high

    def intervals(self, level: float = 0.95) -> Intervals | None:
        """Bootstrap intervals of the points, in their order; None where predictions are not on disk.

        Raises
        ------
        InvalidInputError
            When a file with predictions is damaged.
        """
        if not all(map(self.has_predictions, self.points)):
            return None
        predictions = [self.predictions(point) for point in self.points]
        return bootstrap(predictions, self.task, self.positive_label, level)


def _crossing(ratios: np.ndarray, gap: np.ndarray, found: np.ndarray, natural_ratio: float) -> float | None:
    """The ratio where the gap precision − recall passes 0 among the ratios at which positives are found."""
    ratios, gap = ratios[found], gap[found]
    crossings = ratios[gap == 0].tolist()
    for i in np.flatnonzero(gap[:-1] * gap[1:] < 0):
        low, high = ratios[i : i + 2]
        crossings.append(float(low * (high / low) ** (gap[i] / (gap[i] - gap[i + 1]))))
    return min(crossings, key=lambda ratio: abs(math.log(ratio / natural_ratio)), default=None)
