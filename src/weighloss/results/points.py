from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, FiniteFloat


def _is_inside(path: str) -> str:
    """The path of a file in the folder of the sweep, whatever system reads it."""
    paths = PurePosixPath(path), PureWindowsPath(path)
    if not path.isprintable() or any(p.is_absolute() or p.drive or p.root or ".." in p.parts for p in paths):
        raise ValueError(f"must be a path inside the folder of the sweep, got {path!r:.80}")
    return path


def _ascends(ends: list[float]) -> list[float]:
    if ends[0] > ends[1]:
        raise ValueError(f"must have its lower end first, got {ends}")
    return ends


# The types of a record say what a value may be: it is checked where a `sweep.json` is read, which may be a stranger's.
Count = Annotated[int, Field(ge=0, le=2**53)]
Ratio = Annotated[FiniteFloat, Field(ge=1e-100, le=1e100)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=10_000)]
PathInside = Annotated[Text, Field(min_length=1), AfterValidator(_is_inside)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
Ends = Annotated[list[Share], Field(min_length=2, max_length=2), AfterValidator(_ascends)]

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

    ratio: Ratio
    seed: Count
    tp: Count
    fp: Count
    fn: Count
    tn: Count
    precision: Share
    recall: Share
    f1: Share
    eval_loss: FiniteFloat
    eval_plain_loss: FiniteFloat
    seconds: FiniteFloat
    global_step: Count
    predictions: PathInside
    precision_interval: Ends | None = field(default=None, hash=False)
    recall_interval: Ends | None = field(default=None, hash=False)
    other_metrics: dict[Text, FiniteFloat] = field(default_factory=dict, hash=False)

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

    ratio: Ratio
    seed: Count
    reason: Text
    global_step: Count


def printable(name: str) -> str:
    """A name from the data without what would steer a terminal, such as colours."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def with_interval(value: float, ends: Sequence[float] | None) -> str:
    """A value, with its interval if it has one, as text."""
    return f"{value:.3f}" + (" ({:.3f} to {:.3f})".format(*ends) if ends else "")
