from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from ..weighting.task import Task
from .bootstrap import bootstrap, counts_of, interval, outcomes_of, resampled_sums, resamples
from .choice import choose
from .files import Split
from .operating_point import OperatingPoint, as_vector, at_threshold
from .ratio_sweep import RatioSweep
from .requirement import Requirement, flagged
from .thresholds import family_of

_NUM_RESAMPLES = 500
NATURAL, RATIO, THRESHOLD, PAIR = (
    "natural ratio at argmax",
    "best ratio at argmax",
    "unweighted, best threshold",
    "best ratio and threshold",
)


@dataclass(frozen=True)
class Comparison:
    """Four ways to meet a requirement: is weighting worth it, or does moving the threshold do as well?

    Attributes
    ----------
    requirement : Requirement
    rules : dict of str to OperatingPoint
        By what they are; chosen and measured on the evaluation set. A sweep may have no leg at the natural ratio, or no
        unweighted one.
    on_test : dict of str to OperatingPoint, or None
        The same rules, measured on the test set; None where its predictions are not on disk.
    difference : float or None
        Objective of the requirement (see `Requirement`) of the best pair, minus that of the unweighted leg: on the test set
        if there is one. Where the requirement has one bound, the unweighted leg has the best threshold with which it has,
        on the same items, at least the recall (precision) of the pair, or at most its share flagged: that favours the
        unweighted leg. Not with several labels per example, which have a threshold each. None without such a leg.
    difference_interval : tuple of two floats, or None
        95% bootstrap interval of the difference. Both legs are measured on the same resamples, and matched on each of them.
    is_matched : bool
        Whether the difference is one at the same recall, precision or share flagged.
    """

    requirement: Requirement
    rules: dict[str, OperatingPoint]
    on_test: dict[str, OperatingPoint] | None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    is_matched: bool = False


def compare(sweep: RatioSweep, requirement: str | None = None) -> Comparison:
    """Compare the best pair of ratio and threshold with what needs less: see `Comparison`.

    Parameters
    ----------
    sweep : RatioSweep
        With finished legs, and their predictions on disk.
    requirement : str, optional
        See `RatioSweep.choose`; the requirement of the sweep when None. A confidence (`@90%`) is left out.

    Raises
    ------
    InvalidInputError
        As `RatioSweep.choose`.
    """
    best = sweep.choose((requirement or sweep.requirement).partition("@")[0], threshold="any")
    wanted = best.requirement
    of_seed = [leg for leg in sweep.points if leg.seed == best.point.seed]
    natural = next((leg for leg in of_seed if np.isclose(leg.ratio, sweep.natural_ratio)), None)
    unweighted = next((leg for leg in of_seed if leg.ratio == 1), None)
    rules = {} if natural is None else {NATURAL: OperatingPoint.at_argmax(natural)}
    rules[RATIO] = choose(wanted, sweep.points, sweep.predictions, "argmax").point
    if unweighted is not None:
        rules[THRESHOLD] = choose(
            wanted, [unweighted], sweep.predictions, "any", sweep.task, sweep.positive_label, sweep.counts
        ).point
    rules[PAIR] = best.point
    has_test = all(sweep.has_predictions(rule.leg, "test") for rule in rules.values())
    split: Split = "test" if has_test else "evaluation"
    on_test = {name: _on_test(sweep, rule) for name, rule in rules.items()} if has_test else None
    if unweighted is None:
        return Comparison(wanted, rules, on_test)
    is_matched = len(wanted.bounds) == 1 and sweep.task is not Task.MULTILABEL
    differences = (_matched if is_matched else _as_chosen)(sweep, wanted, best.point, rules[THRESHOLD], split)
    low, high = interval(differences[1:], 0.95).tolist()
    return Comparison(wanted, rules, on_test, float(differences[0]), (low, high), is_matched)


def _matched(
    sweep: RatioSweep, wanted: Requirement, pair: OperatingPoint, alone: OperatingPoint, split: Split
) -> np.ndarray:
    """Differences of the objective on the items, and on resamples, where both legs have the recall that the pair has."""
    logits, labels = _decided(sweep, pair, split)
    outcomes = (
        outcomes_of(logits, labels, sweep.task, sweep.positive_label).reshape(len(labels), -1).astype(np.float64)
    )
    unweighted = sweep.predictions(alone.leg, split)
    family = family_of(*unweighted, sweep.task, sweep.positive_label, sweep.counts)
    shares, generator = np.full(len(labels), 1 / len(labels)), np.random.default_rng(0)
    differences = []
    for numbers in chain([np.ones((1, len(labels)))], resamples(len(labels), shares, _NUM_RESAMPLES, generator)):
        of_pair = counts_of(numbers @ outcomes)
        ((name, _),) = wanted.bounds
        reached = flagged(of_pair) if name == "flagged" else getattr(of_pair, name)
        same = replace(wanted, bounds=((name, reached[:, None]),))
        score = same.score(family.confusion(numbers)).max(axis=1)  # above 1 by the objective where the bound holds
        differences.append(wanted.objective_of(of_pair) - np.maximum(0, score - 1))
    return np.concatenate(differences)


def _as_chosen(
    sweep: RatioSweep, wanted: Requirement, pair: OperatingPoint, alone: OperatingPoint, split: Split
) -> np.ndarray:
    """Differences of the objective of both rules as they were chosen, on the items and on resamples."""
    predictions = [_decided(sweep, rule, split) for rule in (pair, alone)]
    if wanted.costs:
        of_pair_items, of_alone_items = (wanted.costs_of(*predicted) for predicted in predictions)
        saved = of_alone_items - of_pair_items
        resampled = resampled_sums(saved[:, None], 1000, np.random.default_rng(0))[:, 0] / len(saved)
        return np.append(saved.mean(), resampled)
    of_pair, of_alone = bootstrap(predictions, sweep.task, sweep.positive_label).resampled
    measured = [_on_test(sweep, rule) if split == "test" else rule for rule in (pair, alone)]
    difference = wanted.objective_of(measured[0]) - wanted.objective_of(measured[1])
    return np.append(difference, wanted.objective_of(of_pair) - wanted.objective_of(of_alone))


def _decided(sweep: RatioSweep, rule: OperatingPoint, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose argmax is the rule, and labels."""
    logits, labels = sweep.predictions(rule.leg, split)
    return logits - as_vector(rule.threshold, logits.shape[1], sweep.task, sweep.positive_label), labels


def _on_test(sweep: RatioSweep, rule: OperatingPoint) -> OperatingPoint:
    logits, labels = sweep.predictions(rule.leg, "test")
    return at_threshold(rule.leg, logits, labels, rule.threshold, sweep.task, sweep.positive_label)
