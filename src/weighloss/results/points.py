from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MEASURED = ("tp", "fp", "fn", "tn", "precision", "recall", "f1")
INTERVALS = ("precision_interval", "recall_interval")


@dataclass(frozen=True)
class SweepPoint:
    """Result of one leg of a sweep (a fine-tune at one ratio and seed) on the evaluation set.

    Attributes
    ----------
    ratio : float
        Weight ratio w_r.
    seed : int
    tp, fp, fn, tn : int
        Confusion counts of the positive label; with more than two classes the sums over the classes, with several labels
        per example the sums over the labels.
    precision, recall, f1 : float
        Of the positive label, or averages as `RatioSweep.task` has them; 0 where nothing is predicted positive.
    eval_loss, eval_plain_loss : float
        Mean loss over the evaluation set, weighted and unweighted; only the unweighted one can be compared across ratios.
    seconds : float
        Wall-clock time of the leg with its evaluation.
    global_step : int
        Number of optimizer steps of the leg.
    predictions : str
        Parquet file with logits and labels, relative to the folder of the sweep.
    precision_interval, recall_interval : list of two floats, optional
        95% bootstrap intervals: see `bootstrap.Intervals`.
    other_metrics : dict of str to float
        What the `compute_metrics` of the trainer measured.
    """

    ratio: float
    seed: int
    tp: int
    fp: int
    fn: int
    tn: int
    precision: float
    recall: float
    f1: float
    eval_loss: float
    eval_plain_loss: float
    seconds: float
    global_step: int
    predictions: str
    precision_interval: list[float] | None = field(default=None, hash=False)
    recall_interval: list[float] | None = field(default=None, hash=False)
    other_metrics: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def predicts_positives(self) -> bool:
        """Whether anything is predicted positive; if not, the precision of 0 is only a convention."""
        return self.tp + self.fp > 0

    @property
    def metrics(self) -> dict[str, Any]:
        """Precision, recall, F1, the losses as an evaluation reports them, and the intervals."""
        names = ("precision", "recall", "f1", *INTERVALS)
        losses = {"loss": self.eval_loss, "plain_loss": self.eval_plain_loss}
        return {name: getattr(self, name) for name in names} | losses


@dataclass(frozen=True)
class FailedLeg:
    """A leg of a sweep without a result.

    Attributes
    ----------
    ratio, seed
        As in `SweepPoint`.
    reason : str
        Why there is no result.
    global_step : int
        As in `SweepPoint`.
    """

    ratio: float
    seed: int
    reason: str
    global_step: int


def printable(name: str) -> str:
    """A name from the data without what would steer a terminal, such as colours."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def with_interval(value: float, ends: Sequence[float] | None) -> str:
    """A value, with its interval if it has one, as text."""
    return f"{value:.3f}" + (" ({:.3f} to {:.3f})".format(*ends) if ends else "")
