from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .metrics import decisions


@dataclass(frozen=True)
class Intervals:
    """Percentile bootstrap intervals of a sweep's legs: how far other evaluation data of this size would move them.

    They say nothing of another seed's fine-tune, or of data from elsewhere.

    Attributes
    ----------
    level : float
        The share of intervals that hold the true value, 0.95 for example.
    precision, recall : float array (n_legs, 2)
        Lower and upper end.
    resampled_precision, resampled_recall : float array (n_resamples, n_legs)
        The values themselves; in a row all legs are judged on the same resample.
    """

    level: float
    resampled_precision: np.ndarray
    resampled_recall: np.ndarray

    def of_point(self) -> dict[str, Any]:
        """The intervals of the only leg, by the names that a `SweepPoint` has for them."""
        return {"precision_interval": self.precision[0].tolist(), "recall_interval": self.recall[0].tolist()}

    @property
    def precision(self) -> np.ndarray:  # noqa: D102 — among the attributes
        return interval(self.resampled_precision, self.level)

    @property
    def recall(self) -> np.ndarray:  # noqa: D102
        return interval(self.resampled_recall, self.level)


def bootstrap(
    predictions: Sequence[tuple[np.ndarray, np.ndarray]],
    positive_label: int = 1,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Intervals:
    """Bootstrap precision and recall of several legs on the same evaluation set.

    Examples are drawn with replacement, the same for every leg, so that differences between legs have intervals too. Tokens
    are drawn one by one. To those of one class or label a hit, a false alarm and a miss are added, each drawn once on
    average: without an error among a few items the interval would else have no width.

    Parameters
    ----------
    predictions : sequence of (logits, labels)
        One pair for each leg, as `RatioSweep.predictions` returns them.
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
    counts = [_counts(logits, labels, positive_label) for logits, labels in predictions]  # (items, 3, classes) each
    num_items = len(counts[0])
    flat = np.concatenate([leg.reshape(num_items, -1) for leg in counts], axis=1).astype(np.float32)
    generator = np.random.default_rng(seed)
    chunk = max(1, 20_000_000 // num_items)  # bounds the memory
    sums = np.concatenate(
        [
            generator.multinomial(
                num_items, np.full(num_items, 1 / num_items), min(chunk, num_resamples - start)
            ).astype(np.float32)
            @ flat
            for start in range(0, num_resamples, chunk)
        ]
    )
    # One item more of each kind, drawn like the others: without an error among them a few items would look certain.
    # Averages over classes are not so few, and an item for each class would pull them down.
    added = generator.poisson(1, size=(3, num_resamples, 1))
    precision, recall = [], []
    for leg, summed in zip(
        counts, np.split(sums, np.cumsum([leg[0].size for leg in counts])[:-1], axis=1), strict=True
    ):
        true, predicted, actual = np.moveaxis(summed.reshape(num_resamples, 3, -1), 1, 0)
        hit, false, missed = added if leg.shape[-1] == 1 else np.zeros_like(added)
        precision.append(_mean_share(true + hit, predicted + hit + false))
        recall.append(_mean_share(true + hit, actual + hit + missed))
    return Intervals(level, np.stack(precision, axis=1), np.stack(recall, axis=1))


def interval(values: np.ndarray, level: float) -> np.ndarray:
    """Lower and upper end (..., 2) of the central share `level` of resampled values (n_resamples, ...)."""
    tail = (1 - level) / 2
    return np.moveaxis(np.quantile(values, [tail, 1 - tail], axis=0), 0, -1)


def _counts(logits: np.ndarray, labels: np.ndarray, positive_label: int) -> np.ndarray:
    """True, predicted and actual positives of every item: (items, 3, 1), or (items, 3, classes) to average over."""
    if labels.shape == logits.shape:  # an example and its several labels are drawn together
        counted = labels >= 0
        predicted, actual = (logits > 0) & counted, (labels == 1) & counted
        parts = [(predicted & actual).sum(axis=1), predicted.sum(axis=1), actual.sum(axis=1)]
        return np.stack(parts, axis=1)[:, :, None]
    decided = decisions(logits, labels, positive_label)
    classes: Sequence[int] | np.ndarray = [positive_label]
    if decided["average"] == "macro":
        classes = np.union1d(decided["predictions"], decided["references"])  # those that the averages are over
    predicted, actual = (decided[name][:, None] == classes for name in ("predictions", "references"))
    return np.stack([predicted & actual, predicted, actual], axis=1)


def _mean_share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The mean over the classes of part/whole, 0 where there is nothing, as scikit-learn has it."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0).mean(axis=-1)
