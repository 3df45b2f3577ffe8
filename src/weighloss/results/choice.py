from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..weighting.task import Task
from .guarantee import certified_threshold, items_needed, split_to_certify, starting_threshold
from .metrics import positives_and_scores
from .operating_point import OperatingPoint, Threshold, at_thresholds
from .points import SweepPoint
from .requirement import Requirement, calls_everything_positive
from .sweep_data import SweepData, Thresholds
from .thresholds import best_thresholds


@dataclass(frozen=True)
class Choice:
    """The leg of a sweep, and its threshold, that a requirement chooses.

    Attributes
    ----------
    requirement : Requirement
    point : OperatingPoint
        The leg and its threshold, with what they give on the evaluation set.
    met : bool
        Whether the bounds of the requirement hold on the evaluation set, or with the required confidence; if not, this is
        the nearest leg. True for a requirement without bounds.
    why_not : str
        Why no guarantee could be given; empty where one is given, or none was asked for.
    not_counted : tuple of float
        Ratios whose legs call everything positive at argmax, and so reach no least recall or precision.
    cost : float or None
        Expected cost per item on the evaluation set, for a requirement of costs; None for a cost matrix of several classes
        whose predictions are not on disk.
    """

    requirement: Requirement
    point: OperatingPoint
    met: bool
    why_not: str = ""
    not_counted: tuple[float, ...] = ()
    cost: float | None = None

    @property
    def because(self) -> str:
        """Why this leg: "best F1", "chosen for recall>=0.95", or "nearest to recall>=0.95, which no leg meets"."""
        wanted = self.requirement.text
        if self.why_not:
            return f"chosen for {wanted}, without a guarantee"
        if not self.met:
            return f"nearest to {wanted}, which no leg meets"
        return "best F1" if wanted == "f1" and self.point.is_argmax else f"chosen for {wanted}"

    def __str__(self) -> str:
        """Say the choice in one sentence, or two."""
        wanted, point = self.requirement, self.point
        with_threshold = "" if point.is_argmax else f" with {point.threshold_text}"
        at = f"w_r = {point.ratio:.4g}{with_threshold}: precision {point.precision:.3f}, recall {point.recall:.3f}"
        if not point.is_argmax and isinstance(point.threshold, float):
            at += f", {point.flagged:.1%} flagged"
        if self.cost is not None:
            at += f", cost {self.cost:.4g} per item"
        if calls_everything_positive(point):
            at += "; it calls everything positive"
        if self.met:
            sure = ""
            if wanted.confidence is not None:
                sure = (
                    f" On new data of the same kind the bound holds with {100 * wanted.confidence:.4g}% probability."
                )
            return f"{wanted.text} chooses {at}.{sure}"
        if self.why_not:
            return f"{wanted.text} cannot be guaranteed: {self.why_not}. Without a guarantee, the choice is {at}."
        but = ""
        if self.not_counted:
            ratios = ", ".join(f"{ratio:.4g}" for ratio in self.not_counted)
            but = f" except by calling everything positive (w_r = {ratios}), which does not count"
        missed = [f"{name} by {gap:.3f}" for name, gap in wanted.missing(point).items() if gap > 0]
        by = f", which misses {' and '.join(missed)}" if len(wanted.bounds) > 1 else ""
        return f"No leg meets {wanted.text}{but}; the nearest is {at}{by}."


def choose(
    sweep: SweepData, requirement: Requirement, threshold: Thresholds = "any", legs: Sequence[SweepPoint] | None = None
) -> Choice:
    """Choose the leg, and its threshold, that meets a requirement best: see `RatioSweep.choose`.

    Parameters
    ----------
    sweep : SweepData
        Its predictions are read only where the threshold may move, or for a cost matrix.
    requirement : Requirement
    threshold : {"any", "argmax"}
    legs : sequence of SweepPoint, optional
        Those to choose from, at least one; all of the sweep when None.
    """
    legs = sweep.points if legs is None else legs
    if threshold == "argmax" or requirement.objective == "break-even":
        return _at_argmax(sweep, requirement, legs)
    if requirement.confidence is not None:
        return _certified(sweep, requirement, legs)
    return choose_each(sweep, [requirement], legs)[0]


def choose_each(
    sweep: SweepData, requirements: Sequence[Requirement], legs: Sequence[SweepPoint] | None = None
) -> list[Choice]:
    """Choose as `choose` does, over all thresholds, for each of several requirements without a confidence.

    Each leg is read, and resampled, once for all requirements.
    """
    legs = sweep.points if legs is None else legs
    chosen = []
    for found in zip(*_thresholds_of(sweep, requirements, legs), strict=True):
        best = int(np.argmax([score for score, _ in found]))
        chosen.append((best, found[best][1]))
    distinct = sorted(set(chosen))
    predictions = lru_cache(maxsize=1)(sweep.predictions)  # rules of the same leg follow one another
    rules = [(legs[i], threshold) for i, threshold in distinct]
    points = at_thresholds(rules, predictions, sweep.task, sweep.positive_label)
    measured = [points[distinct.index(rule)] for rule in chosen]
    return [_choice(sweep, *pair) for pair in zip(requirements, measured, strict=True)]


def leg_scores(sweep: SweepData, requirement: Requirement, threshold: Thresholds = "any") -> list[float]:
    """How well each leg meets a requirement; the parameters are those of `choose`."""
    if threshold == "argmax" or requirement.objective == "break-even":  # which is a question about the ratio
        return [_score(sweep, requirement, OperatingPoint.at_argmax(leg)) for leg in sweep.points]
    return [found[0][0] for found in _thresholds_of(sweep, [requirement], sweep.points)]


def recorded_choice(requirement: Requirement, point: OperatingPoint, because: str) -> Choice:
    """The choice that a sweep was kept with, without the predictions that it was made on."""
    met = not because.startswith("nearest") and "without a guarantee" not in because
    has_cost = requirement.objective == "cost" and not requirement.costs
    return Choice(requirement, point, met, cost=float(requirement.cost(point)) if has_cost else None)


def _thresholds_of(
    sweep: SweepData, requirements: Sequence[Requirement], legs: Sequence[SweepPoint]
) -> list[list[tuple[float, Threshold]]]:
    """For each leg the score, and the best threshold, of each requirement."""
    given = sweep.task, sweep.positive_label
    return [best_thresholds(requirements, *sweep.predictions(leg), *given, counts=sweep.counts) for leg in legs]


def _at_argmax(sweep: SweepData, requirement: Requirement, legs: Sequence[SweepPoint]) -> Choice:
    points = [OperatingPoint.at_argmax(leg) for leg in legs]
    point = max(points, key=lambda point: _score(sweep, requirement, point))
    everything = {leg.ratio for leg in legs if requirement.bounds and calls_everything_positive(leg)}
    return replace(_choice(sweep, requirement, point), not_counted=tuple(sorted(everything)))


def _certified(sweep: SweepData, requirement: Requirement, legs: Sequence[SweepPoint]) -> Choice:
    """The leg is chosen on some items, and its threshold certified on the others, so that luck does no harm."""
    part, rest = split_to_certify(len(sweep.predictions(legs[0])[1]))
    of_part = []
    for leg in legs:
        logits, labels = sweep.predictions(leg)
        of_part += best_thresholds([requirement], logits[part], labels[part], positive_label=sweep.positive_label)
    best = int(np.argmax([value for value, _ in of_part]))
    positives, scores = positives_and_scores(*sweep.predictions(legs[best]), Task.BINARY, sweep.positive_label)
    start = starting_threshold(requirement, positives[part], scores[part])
    threshold = certified_threshold(requirement, positives[rest], scores[rest], start)
    if threshold is not None:
        point = sweep.at_threshold(legs[best], threshold)
        if not calls_everything_positive(point):
            return Choice(requirement, point, met=True)
    point = sweep.at_threshold(legs[best], of_part[best][1])
    ((name, _),) = requirement.bounds
    needed, there = items_needed(requirement), int(positives[rest].sum())
    kept = "the two thirds of the evaluation data that are kept for it"
    why = f"no threshold of the chosen leg reaches it surely on {kept}"
    if there < needed:
        what = "positive examples without a miss" if name == "recall" else "flagged examples without an error"
        why = f"it needs at least {needed} {what} in {kept}, where {there} are positive"
    return Choice(requirement, point, met=False, why_not=why)


def _choice(sweep: SweepData, requirement: Requirement, point: OperatingPoint) -> Choice:
    score = _score(sweep, requirement, point)
    cost = -score if requirement.objective == "cost" else None
    return Choice(requirement, point, not requirement.bounds or score >= 1, cost=cost)


def _score(sweep: SweepData, requirement: Requirement, point: OperatingPoint) -> float:
    if not requirement.costs:
        return float(requirement.score(point))
    logits, labels = sweep.predictions(point.leg)
    return -float(requirement.costs_of(logits - np.asarray(point.threshold), labels).mean())
