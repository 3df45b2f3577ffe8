from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..weighting.task import Task
from .metrics import Confusion, decisions

_MANY_ITEMS = 20_000


@dataclass(frozen=True)
class Intervals:
    """Percentile bootstrap intervals of the legs of a sweep: how much other evaluation data of this size would move them.

    They do not cover another seed of the fine-tune, or data from elsewhere.

    Attributes
    ----------
    level : float
        The share of intervals that hold the true value, 0.95 for example.
    resampled : tuple of Confusion, of arrays of shape (n_resamples, n_classes)
        The counts of each leg; one row of all legs is measured on the same resample.
    """

    level: float
    resampled: tuple[Confusion, ...]

    def of_points(self) -> list[dict[str, Any]]:
        """Intervals of each leg, by the names of the fields of `SweepPoint`."""
        ends = zip(self.precision.tolist(), self.recall.tolist(), strict=True)
        return [{"precision_interval": precision, "recall_interval": recall} for precision, recall in ends]

    @property
    def resampled_precision(self) -> np.ndarray:
        """Precision of the resamples: float array of shape (n_resamples, n_legs)."""
        return np.stack([leg.precision for leg in self.resampled], axis=1)

    @property
    def resampled_recall(self) -> np.ndarray:
        """Recall of the resamples: float array of shape (n_resamples, n_legs)."""
        return np.stack([leg.recall for leg in self.resampled], axis=1)

    @property
    def precision(self) -> np.ndarray:
        """Lower and upper end of precision: float array of shape (n_legs, 2)."""
        return interval(self.resampled_precision, self.level)

    @property
    def recall(self) -> np.ndarray:
        """Lower and upper end of recall: float array of shape (n_legs, 2)."""
        return interval(self.resampled_recall, self.level)


def bootstrap(
    predictions: Sequence[tuple[np.ndarray, np.ndarray]],
    task: Task = Task.BINARY,
    positive_label: int = 1,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Intervals:
    """Bootstrap precision and recall of several legs on the same evaluation set.

    Examples are drawn with replacement, the same ones for every leg, so that differences between legs have intervals
    too. Tokens are drawn one by one. For the positive label of two classes, and for micro averages, a hit, a false alarm
    and a miss are added, each drawn once on average: without this, a leg without an error on few items would have an
    interval of width 0.

    Parameters
    ----------
    predictions : sequence of (logits, labels)
        One pair for each leg, as `RatioSweep.predictions` returns them.
    task : Task
    positive_label : int, default 1
    level : float, default 0.95
    num_resamples : int, default 1000
    seed : int, default 0

    Returns
    -------
    Intervals

    References
    ----------
    Efron, B. and Tibshirani, R. (1993), An Introduction to the Bootstrap, chapter 13.
    """
    outcomes = [_outcomes(logits, labels, task, positive_label) for logits, labels in predictions]
    flat = np.concatenate([leg.reshape(len(leg), -1) for leg in outcomes], axis=1).astype(np.float32)
    generator = np.random.default_rng(seed)
    sums = resampled_sums(flat, num_resamples, generator)
    # Macro averages get no added items: they are over many items, and one item more in each class would bias them.
    added = generator.poisson(1, size=(3, num_resamples, 1)) * (task is not Task.MULTICLASS)
    hit, false, missed = added
    legs = []
    ends = np.cumsum([leg[0].size for leg in outcomes])[:-1]
    for summed in np.split(sums, ends, axis=1):
        true, predicted, actual, counted = np.moveaxis(summed.reshape(num_resamples, 4, -1), 1, 0)
        negative = counted - predicted - actual + true
        legs.append(Confusion(true + hit, predicted - true + false, actual - true + missed, negative))
    return Intervals(level, tuple(legs))


def resampled_sums(values: np.ndarray, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Sums over the items of each bootstrap resample: float array (n_items, n_columns) to (n_resamples, n_columns)."""
    num_items = len(values)
    shares = np.full(num_items, 1 / num_items)
    if num_items > _MANY_ITEMS:  # equal rows are drawn together: the same distribution, in seconds instead of minutes
        rows = np.ascontiguousarray(values).view(f"V{values.itemsize * values.shape[1]}").ravel()
        _, first, numbers = np.unique(rows, return_index=True, return_counts=True)
        values, shares = values[first].astype(np.float64), numbers / num_items
    drawn = resamples(num_items, shares, num_resamples, generator)
    return np.concatenate([numbers.astype(values.dtype) @ values for numbers in drawn])


def resamples(
    num_items: int, shares: np.ndarray, num_resamples: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """How often each row is drawn, in parts: int arrays of shape (n_resamples of the part, n_rows)."""
    chunk = max(1, 2_000_000 // len(shares))  # which bounds the memory
    for start in range(0, num_resamples, chunk):
        yield generator.multinomial(num_items, shares, min(chunk, num_resamples - start))


def interval(values: np.ndarray, level: float) -> np.ndarray:
    """Lower and upper end, shape (..., 2), of the central share `level` of resampled values (n_resamples, ...)."""
    tail = (1 - level) / 2
    return np.moveaxis(np.quantile(values, [tail, 1 - tail], axis=0), 0, -1)


def _outcomes(logits: np.ndarray, labels: np.ndarray, task: Task, positive_label: int) -> np.ndarray:
    """True, predicted and actual positives of every item, and the number of its labels that count: shape
    (n_items, 4, n_classes), with one class unless averages are macro.
    """
    if task is Task.MULTILABEL:  # an example and its several labels are drawn together
        counted = labels >= 0
        predicted, actual = (logits > 0) & counted, (labels == 1) & counted
        parts = [part.sum(axis=1) for part in (predicted & actual, predicted, actual, counted)]
        return np.stack(parts, axis=1)[:, :, None]
    predictions, references = decisions(logits, labels, task)
    classes = [positive_label] if task is Task.BINARY else np.union1d(predictions, references)
    predicted, actual = (ids[:, None] == classes for ids in (predictions, references))
    return np.stack([predicted & actual, predicted, actual, np.ones_like(actual)], axis=1)
