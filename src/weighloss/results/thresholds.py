"""The thresholds of a leg, and the one among them that meets a requirement best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..weighting.class_weights import ClassWeights
from ..weighting.task import Task
from .metrics import Confusion, positives_and_scores
from .operating_point import Threshold
from .requirement import Requirement

_NUM_RESAMPLES = 100
_MISSED_HERE = 10  # more than scores can differ
_MAX_CUTS = 1000  # of one leg; more are not told apart by a few thousand positives
MIN_GAP = 1e-4  # between scores: a threshold in a smaller one would decide otherwise on another machine
_EXPONENTS = np.linspace(-2, 2, 41)


def best_thresholds(
    requirements: Sequence[Requirement],
    logits: np.ndarray,
    labels: np.ndarray,
    task: Task = Task.BINARY,
    positive_label: int = 1,
    counts: Any = None,
) -> list[tuple[float, Threshold]]:
    """How well one leg can meet each requirement, and the threshold with which it does.

    The threshold that is best on the very items has partly been lucky. So it is the one with the best mean score over
    bootstrap resamples of them. Where a bound holds, 1 is added to a score, so that it holds on most resamples, and
    probably on new data too. A threshold that misses a bound on the items themselves is taken only where all of them do.

    Parameters
    ----------
    requirements : sequence of Requirement
        The leg is resampled once for all of them.
    logits, labels : arrays as `RatioSweep.predictions` returns them
    task : Task
    positive_label : int, default 1
    counts : int array of shape (n_classes,), optional
        Training labels of each class. With more than two classes the thresholds are −log w(r′), the weights of these counts
        at a ratio r′ that is applied after training.

    Returns
    -------
    list with a pair for each requirement
        score : float, the mean of `Requirement.score`, less 10 where no threshold holds the bounds on these items.
        threshold : float or tuple of float, see `OperatingPoint`.
    """
    if task is not Task.MULTILABEL:
        family = family_of(logits, labels, task, positive_label, counts)
        found = _steadied(requirements, family)
        return [(value, family.threshold(position)) for value, position in found]
    of_labels = []
    for of_label, truth in zip(logits.T, labels.T, strict=True):
        positives, scores = positives_and_scores(of_label, truth, task)
        if positives.any():
            of_labels.append(_steadied(requirements, Cuts(positives, scores)))
        else:  # there is nothing to choose a threshold by
            of_labels.append([(math.nan, 0.0)] * len(requirements))
    best: list[tuple[float, Threshold]] = []
    for of_requirement in zip(*of_labels, strict=True):
        values, thresholds = zip(*of_requirement, strict=True)
        best.append((float(np.nanmean(values)), tuple(thresholds)))
    return best


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
    numbers = np.flatnonzero(last) + 1
    return scores[order][last], _confusion(positives[order].astype(np.int64), np.ones(len(order), np.int64), numbers)


def over_all_thresholds(
    logits: np.ndarray, labels: np.ndarray, task: Task, positive_label: int = 1, counts: Any = None
) -> Confusion:
    """Confusion counts of a leg at every threshold of `best_thresholds`; several labels per example have a common one.

    Returns
    -------
    Confusion of arrays of shape (n_thresholds, 1), or (n_thresholds, n_classes) with more than two classes.
    """
    if task is Task.MULTICLASS:
        family = family_of(logits, labels, task, positive_label, counts)
        return Confusion(*(part[0] for part in vars(family.confusion(np.ones((1, len(labels))))).values()))
    return confusion_at_thresholds(*positives_and_scores(logits, labels, task, positive_label))[1]


def family_of(
    logits: np.ndarray, labels: np.ndarray, task: Task, positive_label: int = 1, counts: Any = None
) -> Cuts | Exponents:
    """The thresholds of a leg among which the best is looked for, for two classes or several; see `best_thresholds`."""
    if task is Task.MULTICLASS:
        return Exponents(logits, labels, np.asarray(counts))
    return Cuts(*positives_and_scores(logits, labels, task, positive_label))


def _confusion(positives: np.ndarray, weights: np.ndarray, numbers: np.ndarray) -> Confusion:
    """Counts where each of these numbers of items are predicted positive; the items are in descending order of score."""
    none = [(0, 0)] * (weights.ndim - 1) + [(1, 0)]
    tp = np.pad(np.cumsum(positives * weights, axis=-1), none)
    predicted = np.pad(np.cumsum(weights, axis=-1), none)
    num_positive, num_items = tp[..., -1:], predicted[..., -1:]
    tp, fp = tp[..., numbers], (predicted - tp)[..., numbers]
    counts = tp, fp, num_positive - tp, num_items - num_positive - fp
    return Confusion(*(part[..., None] for part in counts))


class Cuts:
    """The thresholds of two classes that can be best: halfway between a positive and the next lower score, or above all."""

    def __init__(self, positives: np.ndarray, scores: np.ndarray) -> None:
        self.num_items, self._order = len(scores), np.argsort(-scores, kind="stable")
        self._positives, scores = positives[self._order].astype(np.float64), scores[self._order]
        ends = np.flatnonzero(np.append(-np.diff(scores) > MIN_GAP, True))
        num_positives = np.cumsum(self._positives)[ends]
        useful = ends[np.diff(num_positives, prepend=0) > 0]
        if len(useful) > _MAX_CUTS:
            useful = useful[np.linspace(0, len(useful) - 1, _MAX_CUTS).astype(int)]
        self._numbers = np.append(0, useful + 1)
        between = (scores + np.append(scores[1:], scores[-1] - 1)) / 2
        self.positions = np.append(scores[0] + 1, between[useful])

    def threshold(self, position: float) -> Threshold:
        """The threshold at one of the positions."""
        return position

    def confusion(self, weights: np.ndarray) -> Confusion:
        """Counts on resamples, (n_resamples, n_items), at each position: arrays (n_resamples, n_positions, 1)."""
        return _confusion(self._positives, weights[:, self._order], self._numbers)


class Exponents:
    """The thresholds of more than two classes: α·log n_c, which is −log w_c at the ratio natural^α."""

    def __init__(self, logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> None:
        self.num_items, self._labels = len(labels), labels
        log_weights = np.log(ClassWeights.from_counts(counts).weights)
        self._per_exponent = -(log_weights - log_weights.mean())
        self.positions = _EXPONENTS if np.ptp(self._per_exponent) > 0 else np.zeros(1)
        self._predictions = [(logits - exponent * self._per_exponent).argmax(-1) for exponent in self.positions]
        self._classes = np.unique(np.concatenate([labels, *self._predictions]))

    def threshold(self, exponent: float) -> Threshold:
        """The threshold at one of the positions."""
        return tuple((exponent * self._per_exponent).tolist())

    def confusion(self, weights: np.ndarray) -> Confusion:
        """Counts on resamples, (n_resamples, n_items), at each position: arrays (n_resamples, n_positions, n_classes)."""
        actual = weights @ (self._labels[:, None] == self._classes)
        counts = []
        for predictions in self._predictions:
            of_class = predictions[:, None] == self._classes
            predicted = weights @ of_class
            tp = weights @ (of_class & (predictions == self._labels)[:, None])
            counts.append((tp, predicted - tp, actual - tp, weights.sum(-1, keepdims=True) - predicted - actual + tp))
        return Confusion(*(np.stack(part, axis=-2) for part in zip(*counts, strict=True)))

    def expected_costs(self, costs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Mean cost of an item on resamples, at each position: float array (n_resamples, n_positions)."""
        # One product for each exponent: of equal decisions the costs are equal to the last bit, and the first is chosen.
        of_exponents = [weights @ costs[self._labels, predictions] for predictions in self._predictions]
        return np.stack(of_exponents, axis=-1) / weights.sum(-1, keepdims=True)


def _steadied(requirements: Sequence[Requirement], family: Cuts | Exponents) -> list[tuple[float, float]]:
    """How well the family can meet each requirement, and where: see `best_thresholds`."""
    resamples, size = _resamples(family.num_items), max(1, 2_000_000 // family.num_items)
    values = np.zeros((len(requirements), len(family.positions)))
    for start in range(0, len(resamples), size):  # which bounds the memory
        weights = resamples[start : start + size].astype(np.float64)
        counts = family.confusion(weights)
        for requirement, of_requirement in zip(requirements, values, strict=True):
            if requirement.costs and isinstance(family, Exponents):
                scores = -family.expected_costs(np.array(requirement.costs), weights)
            else:
                scores = requirement.score(counts)
            of_requirement += scores.sum(axis=0) / len(resamples)
    on_items = family.confusion(np.ones((1, family.num_items)))
    for requirement, of_requirement in zip(requirements, values, strict=True):
        if requirement.bounds:
            of_requirement -= _MISSED_HERE * (requirement.score(on_items)[0] < 1)
    best = values.argmax(axis=1)
    return list(zip(values.max(axis=1).tolist(), family.positions[best].tolist(), strict=True))


@lru_cache(maxsize=2)
def _resamples(num_items: int) -> np.ndarray:
    """How often each item is drawn: the same for every leg, so that legs are compared on the same items."""
    draws = np.random.default_rng(0).multinomial(num_items, np.full(num_items, 1 / num_items), _NUM_RESAMPLES)
    return draws.astype(np.int16)
