from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

MEASURED = ("tp", "fp", "fn", "tn", "precision", "recall", "f1")
_NUMBERS: dict[Any, Any] = {"int": int, "float": (int, float)}  # by what the fields are annotated with


@dataclass(frozen=True)
class SweepPoint:
    """What one leg of a sweep, a fine-tune at one ratio and seed, came to on the evaluation set.

    Attributes
    ----------
    ratio, seed
        The weight ratio w_r and the seed of the leg.
    tp, fp, fn, tn : int
        Confusion counts of the positive label (sums over the classes with more than two, over the labels where an
        example has several).
    precision, recall, f1 : float
        Of the positive label (averages: see `RatioSweep.average`); 0 where nothing was predicted positive.
    eval_loss, eval_plain_loss : float
        Mean loss over the evaluation set, weighted and not; only the plain one compares across ratios.
    seconds : float
        Wall-clock time of the leg, its evaluation included.
    global_step : int
        Optimizer steps of the whole sweep when the leg ended, as in the Trainer's checkpoint names.
    predictions : str
        The Parquet file with logits and labels, relative to the sweep's folder.
    precision_interval, recall_interval : list of two floats, optional
        Their 95% bootstrap intervals: see `bootstrap.Intervals`.
    other_metrics : dict of str to float
        What the trainer's own `compute_metrics` measured.
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
        """Whether anything was predicted positive; otherwise precision is 0 by convention only."""
        return self.tp + self.fp > 0

    @property
    def metrics(self) -> dict[str, Any]:
        """Precision, recall, F1 and the losses, as an evaluation reports them, and the intervals."""
        names = ("precision", "recall", "f1", "precision_interval", "recall_interval")
        losses = {"loss": self.eval_loss, "plain_loss": self.eval_plain_loss}
        return {name: getattr(self, name) for name in names} | losses


@dataclass(frozen=True)
class FailedLeg:
    """A leg of a sweep that came to nothing.

    Attributes
    ----------
    ratio, seed
        As in `SweepPoint`.
    reason : str
        Why there are no figures.
    global_step : int
        As in `SweepPoint`.
    """

    ratio: float
    seed: int
    reason: str
    global_step: int


Leg = TypeVar("Leg", SweepPoint, FailedLeg)


def with_interval(value: float, ends: Sequence[float] | None) -> str:
    """A figure, with its interval where it has one."""
    return f"{value:.3f}" + (" ({:.3f} to {:.3f})".format(*ends) if ends else "")


def read_legs(file: Path, content: dict[str, Any], name: str, kind: type[Leg]) -> Iterator[tuple[int, Leg]]:
    """The legs that a `sweep.json` lists by a name, with their places in the list, without the damaged ones."""
    for i, leg in enumerate(content.get(name) or []):
        try:
            read = kind(**leg)
            if not all(
                isinstance(getattr(read, f.name), _NUMBERS[f.type]) for f in fields(kind) if f.type in _NUMBERS
            ):
                raise TypeError("there is no number where one must be")
        except TypeError as error:
            logger.warning("%s: number %d of its %s is damaged (%s) and left out.", file, i, name, error)
        else:
            yield i, read
