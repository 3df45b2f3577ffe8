from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..weighting.task import Task
from .bootstrap import bootstrap, interval, resampled_sums
from .choice import choose
from .files import Split
from .operating_point import OperatingPoint, as_vector, at_threshold
from .ratio_sweep import RatioSweep
from .requirement import Requirement
from .thresholds import best_threshold

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
        if there is one. Where the requirement has one bound, the unweighted leg has the threshold with which it has at
        least the recall (precision) of the pair on the evaluation set, or at most its share flagged; not with several
        labels per example, which have a threshold each. None without such a leg.
    difference_interval : tuple of two floats, or None
        95% bootstrap interval of the difference, both rules on the same resamples.
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
    alone, is_matched = rules[THRESHOLD], False
    if len(wanted.bounds) == 1 and sweep.task is not Task.MULTILABEL:
        logits, labels = sweep.predictions(unweighted)
        same = replace(wanted, bounds=tuple((name, getattr(best.point, name)) for name, _ in wanted.bounds))
        given = logits, labels, sweep.task, sweep.positive_label, sweep.counts
        threshold = best_threshold(same, *given, num_resamples=0)[1]
        alone = at_threshold(unweighted, logits, labels, threshold, sweep.task, sweep.positive_label)
        is_matched = float(same.score(alone)) >= 1
        alone = alone if is_matched else rules[THRESHOLD]
    predictions = []
    for rule in (best.point, alone):
        logits, labels = sweep.predictions(rule.leg, split)
        predictions.append(
            (logits - as_vector(rule.threshold, logits.shape[1], sweep.task, sweep.positive_label), labels)
        )
    if wanted.costs:
        of_pair_items, of_threshold_items = (wanted.costs_of(*predicted) for predicted in predictions)
        saved = of_threshold_items - of_pair_items
        difference = saved.mean()
        resampled = resampled_sums(saved[:, None], 1000, np.random.default_rng(0))[:, 0] / len(saved)
    else:
        of_pair, of_threshold = bootstrap(predictions, sweep.task, sweep.positive_label).resampled
        resampled = wanted.objective_of(of_pair) - wanted.objective_of(of_threshold)
        measured = [_on_test(sweep, rule) if has_test else rule for rule in (best.point, alone)]
        difference = wanted.objective_of(measured[0]) - wanted.objective_of(measured[1])
    low, high = interval(resampled, 0.95).tolist()
    return Comparison(wanted, rules, on_test, float(difference), (low, high), is_matched)


def _on_test(sweep: RatioSweep, rule: OperatingPoint) -> OperatingPoint:
    logits, labels = sweep.predictions(rule.leg, "test")
    return at_threshold(rule.leg, logits, labels, rule.threshold, sweep.task, sweep.positive_label)
