from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from ..weighting.task import Task
from .bootstrap import bootstrap
from .metrics import Confusion
from .points import SweepPoint
from .ratio_sweep import RatioSweep
from .requirement import Requirement


@dataclass(frozen=True)
class ThresholdPoint:
    """Result of one leg where its threshold on the probability of the positive label is not 1/2.

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


class LegThresholds:
    """One leg of a sweep at every threshold: what moving the threshold gives without another fine-tune.

    Parameters
    ----------
    sweep : RatioSweep
        Of two classes, or of several labels per example.
    point : SweepPoint
        A leg whose predictions are on disk.
    """

    def __init__(self, sweep: RatioSweep, point: SweepPoint) -> None:
        self._positives, self._scores = sweep.positives_and_scores(point)
        self._cuts, self._confusion = confusion_at_thresholds(self._positives, self._scores)

    def best(self, requirement: Requirement) -> ThresholdPoint:
        """The threshold that meets a requirement best, as `RatioSweep.choose` finds the leg; `@` is not regarded."""
        return self._at_score(float(self._cuts[np.argmax(requirement.score(self._confusion))]))

    def at(self, threshold: float) -> ThresholdPoint:
        """The leg at a threshold on its probability, between 0 and 1."""
        return self._at_score(float(np.log(threshold) - np.log1p(-threshold)))

    def _at_score(self, score: float) -> ThresholdPoint:
        predicted, positives = self._scores >= score, self._positives
        tp, fp, fn = (predicted & positives).sum(), (predicted & ~positives).sum(), (~predicted & positives).sum()
        counts = Confusion(*(np.array([n]) for n in (tp, fp, fn, len(positives) - tp - fp - fn)))
        of_items = np.eye(2)[predicted.astype(int)], positives.astype(int)
        measured: dict[str, Any] = counts.metrics() | bootstrap([of_items], Task.BINARY).of_point()
        return ThresholdPoint(threshold=float(expit(score)), **measured)


def confusion_at_thresholds(positives: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, Confusion]:
    """Confusion counts of a classifier at each of its thresholds.

    Parameters
    ----------
    positives : bool array of shape (n_items,)
    scores : float array of shape (n_items,)
        The higher, the more probably positive.

    Returns
    -------
    thresholds : float array of shape (n_thresholds,), descending
        The distinct scores. An item is predicted positive where its score is at least the threshold.
    confusion : Confusion of arrays of shape (n_thresholds, 1)
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of the items with the same score
    tp = np.cumsum(positives[order])[last][:, None]
    fp = np.flatnonzero(last)[:, None] + 1 - tp
    return scores[order][last], Confusion(tp, fp, positives.sum() - tp, (~positives).sum() - fp)
