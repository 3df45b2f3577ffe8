from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from .bootstrap import bootstrap
from .requirement import Requirement
from .metrics import precision_recall
from .points import MEASURED, SweepPoint

if TYPE_CHECKING:
    from .ratio_sweep import RatioSweep


@dataclass(frozen=True)
class ThresholdPoint:
    """What the unweighted model comes to when it predicts the positive label from another probability on than 1/2.

    Attributes
    ----------
    threshold : float
        Least probability of the positive label that is predicted positive.
    tp, fp, fn, tn : int
    precision, recall, f1 : float
    precision_interval, recall_interval : list of two floats
        95% bootstrap intervals.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    tn: int
    precision: float
    recall: float
    f1: float
    precision_interval: list[float]
    recall_interval: list[float]


class UnweightedThresholds:
    """The unweighted leg of a sweep at every threshold: what there is without any reweighting.

    Parameters
    ----------
    sweep : RatioSweep
        Not one that averages over classes.
    point : SweepPoint
        Its leg at w_r = 1, whose predictions are on disk.
    """

    def __init__(self, sweep: RatioSweep, point: SweepPoint) -> None:
        self._positives, self._scores = sweep.positives_and_scores(point)
        order = np.argsort(-self._scores, kind="stable")
        last = np.append(np.diff(self._scores[order]) != 0, True)  # of the items with the same score
        self._cuts = self._scores[order][last]
        self._tp = np.cumsum(self._positives[order])[last]
        self._predicted = np.flatnonzero(last) + 1

    def best(self, requirement: Requirement) -> ThresholdPoint:
        """The threshold that a requirement chooses, as it chooses among the ratios; its `confidence` is left aside."""
        scores = [
            requirement.score(_Confusion(int(tp), int(predicted), int(self._positives.sum()), len(self._scores)))
            for tp, predicted in zip(self._tp, self._predicted, strict=True)
        ]
        return self._at_score(float(self._cuts[int(np.argmax(scores))]))

    def at(self, threshold: float) -> ThresholdPoint:
        """The unweighted model at a threshold on its probability, between 0 and 1."""
        return self._at_score(float(np.log(threshold) - np.log1p(-threshold)))

    def _at_score(self, score: float) -> ThresholdPoint:
        predicted, labels = (self._scores >= score).astype(np.int64), self._positives.astype(np.int64)
        measured: dict[str, Any] = precision_recall(predicted, labels)
        intervals = bootstrap([(np.eye(2)[predicted], labels)]).of_point()
        return ThresholdPoint(
            threshold=float(expit(score)), **{name: measured[name] for name in MEASURED}, **intervals
        )


class _Confusion:
    """What a requirement looks at, of every threshold."""

    def __init__(self, tp: int, predicted: int, actual: int, total: int) -> None:
        self.tp, self.fp, self.fn = tp, predicted - tp, actual - tp
        self.tn = total - predicted - self.fn
        self.precision = tp / predicted if predicted else 0.0
        self.recall = tp / actual if actual else 0.0
        self.f1 = 2 * tp / (predicted + actual) if predicted + actual else 0.0
