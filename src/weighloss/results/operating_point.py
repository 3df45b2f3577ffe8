from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat

from ..weighting.task import Task
from .bootstrap import bootstrap
from .metrics import averaged, decisions
from .points import INTERVALS, MEASURED, Count, Ends, Share, SweepPoint
from .requirement import flagged

_LogOdds = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
Threshold = _LogOdds | tuple[_LogOdds, ...]
Predictions = Callable[[SweepPoint], tuple[np.ndarray, np.ndarray]]  # logits and labels of a leg


@dataclass(frozen=True)
class OperatingPoint:
    """A decision rule, that is a leg of a sweep with a threshold, and what it gives on the evaluation set.

    Attributes
    ----------
    leg : SweepPoint
    threshold : float or tuple of float
        With two classes, the log-odds above which an item is predicted positive. With several labels per example one for
        each label. With more classes, what is subtracted from each logit, before the highest one is taken. 0 is argmax.
    tp, fp, fn, tn : int
    precision, recall, f1 : float
        As in `SweepPoint`.
    precision_interval, recall_interval : list of two floats, optional
        95% bootstrap intervals for this rule: how much other evaluation data of this size would move them.
    """

    leg: SweepPoint
    threshold: Threshold
    tp: Count
    fp: Count
    fn: Count
    tn: Count
    precision: Share
    recall: Share
    f1: Share
    precision_interval: Ends | None = field(default=None, hash=False)
    recall_interval: Ends | None = field(default=None, hash=False)

    @classmethod
    def at_argmax(cls, leg: SweepPoint) -> OperatingPoint:
        """The rule of a leg as it was trained."""
        return cls(leg, 0.0, **{name: getattr(leg, name) for name in (*MEASURED, *INTERVALS)})

    @property
    def ratio(self) -> float:
        """Weight ratio w_r that the leg was trained with."""
        return self.leg.ratio

    @property
    def seed(self) -> int:
        """Seed of the leg."""
        return self.leg.seed

    @property
    def is_argmax(self) -> bool:
        """Whether the rule is that of the model as it was trained."""
        return not np.any(self.threshold)

    @property
    def probability(self) -> float | tuple[float, ...]:
        """The threshold as a probability of the positive label, or of each label."""
        values = (0.5 + 0.5 * np.tanh(0.5 * np.asarray(self.threshold))).tolist()
        return values if isinstance(values, float) else tuple(values)

    @property
    def threshold_text(self) -> str:
        """The threshold in words, as log-odds and as a probability."""
        if isinstance(self.threshold, float):
            return f"the threshold {self.threshold:.3g} (probability {self.probability:.3g})"
        return "the thresholds " + ", ".join(f"{threshold:.3g}" for threshold in self.threshold)

    @property
    def metrics(self) -> dict[str, Any]:
        """Precision, recall and F1, their intervals, and the losses of the leg, as an evaluation reports them."""
        return self.leg.metrics | {name: getattr(self, name) for name in ("precision", "recall", "f1", *INTERVALS)}

    @property
    def flagged(self) -> float:
        """Share of the items that are predicted positive."""
        return float(flagged(self))


def at_thresholds(
    rules: Sequence[tuple[SweepPoint, Threshold]],
    predictions: Predictions,
    task: Task,
    positive_label: int = 1,
) -> list[OperatingPoint]:
    """What each of several pairs of a leg and a threshold gives; all are measured on the same resamples.

    Drawing the resamples takes most of the time, and they are drawn once for many pairs.
    """
    points: list[OperatingPoint] = []
    while len(points) < len(rules):
        num_items = len(predictions(rules[len(points)][0])[1])
        part = rules[len(points) : len(points) + max(1, 10_000_000 // num_items)]  # which bounds the memory
        shifted = []
        for leg, threshold in part:
            logits, labels = predictions(leg)
            shifted.append((logits - as_vector(threshold, logits.shape[-1], task, positive_label), labels))
        intervals = bootstrap(shifted, task, positive_label).of_points()
        for (leg, threshold), predicted, ends in zip(part, shifted, intervals, strict=True):
            measured = averaged(*decisions(*predicted, task), task, positive_label)
            values: dict[str, Any] = {name: measured[name] for name in MEASURED}
            points.append(OperatingPoint(leg, threshold, **values, **ends))
    return points


def as_vector(threshold: Threshold, num_labels: int, task: Task, positive_label: int = 1) -> np.ndarray:
    """What a threshold subtracts from each logit: float array of shape (num_labels,)."""
    if np.ndim(threshold) == 0 and task is Task.BINARY:
        return np.where(np.arange(num_labels) == positive_label, threshold, 0.0)
    return np.broadcast_to(np.asarray(threshold, dtype=np.float64), (num_labels,)).copy()
