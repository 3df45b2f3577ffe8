"""Thresholds for which a least recall or precision holds on new data with a stated probability."""

from __future__ import annotations

import math

import numpy as np

from .requirement import Requirement
from .thresholds import MIN_GAP, confusion_at_thresholds

_SHARE_TO_CHOOSE = 1 / 3  # of the items; the others certify


def certified_threshold(
    requirement: Requirement, positives: np.ndarray, scores: np.ndarray, start: float = math.inf
) -> float | None:
    """A threshold for which a least recall or precision holds on new data, if one can be certified.

    With the probability `requirement.confidence` over the drawing of these items, the rule "positive above this threshold"
    has at least the required recall, or precision, in the population. Thresholds are tested one after the other, in an
    order that does not depend on these items, and the last one before the first that fails is returned: for a least recall
    from the lowest threshold upwards, for a least precision from `start` downwards. The p-value of a threshold is the
    binomial probability of as many hits as there are, if the recall or precision was just the least one (Clopper and
    Pearson 1934).

    Parameters
    ----------
    requirement : Requirement
        With a single least recall or precision, and a confidence.
    positives : bool array of shape (n_items,)
    scores : float array of shape (n_items,)
        Items that had no influence on the model, on `start`, or on which model it is.
    start : float
        Where the tests for a least precision begin.

    Returns
    -------
    float or None

    References
    ----------
    Angelopoulos, A. et al. (2021), Learn then Test, arXiv 2110.01052.
    """
    ((name, least),) = requirement.bounds
    distinct, confusion = confusion_at_thresholds(positives, scores)
    safe = np.append(-np.diff(distinct) > MIN_GAP, True)
    between = ((distinct + np.append(distinct[1:], distinct[-1] - 1)) / 2)[safe]
    tp, fp = confusion.tp[safe, 0], confusion.fp[safe, 0]
    trials = positives.sum() if name == "recall" else tp + fp
    passes = _p_values(tp, trials, least) <= 1 - _level(requirement)
    if name == "recall":
        return float(between[passes][0]) if passes.any() else None  # passes() never falls again as the threshold falls
    at_start = np.searchsorted(-between, -start)
    failed = np.flatnonzero(~passes[at_start:])
    last = (len(between) if not len(failed) else at_start + failed[0]) - 1
    return float(between[last]) if last >= at_start else None


def split_to_certify(num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Items to choose a leg on and items to certify its threshold on: two int arrays, drawn at random."""
    order = np.random.default_rng(0).permutation(num_items)
    num_chosen = round(num_items * _SHARE_TO_CHOOSE)
    return np.sort(order[:num_chosen]), np.sort(order[num_chosen:])


def starting_threshold(requirement: Requirement, positives: np.ndarray, scores: np.ndarray) -> float:
    """The threshold at which a least precision is the surest on these items, which take no part in the tests."""
    ((_, least),) = requirement.bounds
    distinct, confusion = confusion_at_thresholds(positives, scores)
    tp = confusion.tp[:, 0]
    return float(distinct[np.argmin(_p_values(tp, tp + confusion.fp[:, 0], least))])


def items_needed(requirement: Requirement) -> int:
    """Number of items without an error that the confidence needs: positives for a recall, flagged ones for a precision.

    Examples
    --------
    >>> items_needed(Requirement.parse("recall>=0.96 @90%"))
    57
    """
    ((_, least),) = requirement.bounds
    return math.ceil(math.log(1 - _level(requirement)) / math.log(least) - 1e-9)


def _p_values(hits: np.ndarray, trials: np.ndarray, share: float) -> np.ndarray:
    """Probability of at least as many hits, if each trial is one with this probability."""
    from scipy.stats import binom  # takes longer to import than all of weighloss

    return binom.sf(hits - 1, trials, share)


def _level(requirement: Requirement) -> float:
    assert requirement.confidence is not None
    return requirement.confidence
