from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from ..weighting.task import Task
from .bootstrap import bootstrap, interval, resampled_sums, resamples
from .choice import choose
from .files import Split
from .operating_point import OperatingPoint, as_vector
from .ratio_sweep import RatioSweep
from .requirement import Requirement
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
        if there is one. Where the requirement has one bound, both legs have the best threshold with which they have, on
        these items, at least the recall (precision) that the pair has on them, or at most its share flagged: it is the
        difference of two curves at the same recall. Not with several labels per example, which have a threshold each. None
        without such a leg.
    difference_interval : tuple of two floats, or None
        95% bootstrap interval of the difference, both legs on the same resamples.
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
    rules[RATIO] = choose(sweep, wanted, "argmax").point
    if unweighted is not None:
        rules[THRESHOLD] = choose(sweep, wanted, legs=[unweighted]).point
    rules[PAIR] = best.point
    has_test = all(sweep.has_predictions(rule.leg, "test") for rule in rules.values())
    split: Split = "test" if has_test else "evaluation"
    on_test = {name: _on(sweep, rule, "test") for name, rule in rules.items()} if has_test else None
    if unweighted is None:
        return Comparison(wanted, rules, on_test)
    is_matched = len(wanted.bounds) == 1 and sweep.task is not Task.MULTILABEL
    differences = (_matched if is_matched else _as_chosen)(sweep, wanted, best.point, rules[THRESHOLD], split)
    low, high = interval(differences[1:], 0.95).tolist()
    return Comparison(wanted, rules, on_test, float(differences[0]), (low, high), is_matched)


def _matched(
    sweep: RatioSweep, wanted: Requirement, pair: OperatingPoint, alone: OperatingPoint, split: Split
) -> np.ndarray:
    """Differences of the best objectives of both legs where they have the recall of the pair, on items and resamples."""
    ((name, _),) = wanted.bounds
    same = replace(wanted, bounds=((name, getattr(_on(sweep, pair, split), name)),))
    given: Any = sweep.task, sweep.positive_label, sweep.counts
    families = [family_of(*sweep.predictions(rule.leg, split), *given) for rule in (pair, alone)]
    num_items, generator = families[0].num_items, np.random.default_rng(0)
    drawn = resamples(num_items, np.full(num_items, 1 / num_items), _NUM_RESAMPLES, generator)
    differences = []
    for numbers in chain([np.ones((1, num_items))], drawn):
        scores = [same.score(family.confusion(numbers)).max(axis=1) for family in families]
        of_pair, of_alone = (np.maximum(0, score - 1) for score in scores)  # 1 is added where the bound holds
        differences.append(of_pair - of_alone)
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
    measured = [_on(sweep, rule, split) for rule in (pair, alone)]
    difference = wanted.objective_of(measured[0]) - wanted.objective_of(measured[1])
    return np.append(difference, wanted.objective_of(of_pair) - wanted.objective_of(of_alone))


def _decided(sweep: RatioSweep, rule: OperatingPoint, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose argmax is the rule, and labels."""
    logits, labels = sweep.predictions(rule.leg, split)
    return logits - as_vector(rule.threshold, logits.shape[1], sweep.task, sweep.positive_label), labels


def _on(sweep: RatioSweep, rule: OperatingPoint, split: Split) -> OperatingPoint:
    """What a rule gives on a split."""
    return rule if split == "evaluation" else sweep.at_threshold(rule.leg, rule.threshold, split)
