from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..results.requirement import Requirement, calls_everything_positive

# Slope of the log-odds of precision or recall over log w_r before two ratios are known; measured on one-epoch fine-tunes.
_SLOPE = 0.3
_STEPS = math.log(2), math.log(30)  # smallest and largest step outwards
_WIDEST = math.log(1e4)  # from the natural ratio
_NARROW = math.log(1.1)  # ratios closer than this do not differ in practice
_NOTHING_FOUND = -20.0
_FIRST_STEP = math.log(4)  # towards a maximum


@dataclass(frozen=True)
class RatioSearch:
    """Choose the ratios of a sweep one after the other, for the requirement that chooses its leg, instead of a grid.

    The first ratio is the natural one. For a least recall or precision, or the break-even, the next ratios go outwards
    until the requirement lies between two of them, and then between those: the log-odds of precision or recall, smoothed to
    be monotone, are interpolated over log w_r. For an F-measure or a cost the ratios narrow in on the best one. The search
    ends when the requirement is met within `tolerance`, when two ratios are too close to differ, or when the next ratio
    would differ from the natural one by a factor of more than ten thousand.

    Parameters
    ----------
    max_legs : int, default 6
    tolerance : float, default 0.01
        How far recall or precision may exceed the least one that is required, or differ from each other at the break-even.

    Raises
    ------
    InvalidInputError
        When a parameter is out of its range.
    """

    max_legs: int = 6
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not isinstance(self.max_legs, int) or self.max_legs < 2:
            raise InvalidInputError(f"max_legs must be an integer of at least 2, got {self.max_legs!r}.")
        if not 0 < self.tolerance < 1:
            raise InvalidInputError(f"tolerance must be between 0 and 1, got {self.tolerance!r}.")

    def next_ratio(self, requirement: str, points: Sequence[Any], natural_ratio: float) -> float | None:
        """The ratio of the next leg; None when the search has ended.

        Parameters
        ----------
        requirement : str
            See `Requirement.parse`.
        points : sequence of SweepPoint
            The finished legs.
        natural_ratio : float
        """
        if not points:
            return natural_ratio
        wanted = Requirement.parse(requirement)
        if len(points) >= self.max_legs or self._is_met(wanted, points):
            return None
        logs = np.log([point.ratio for point in points])
        order = np.argsort(logs)
        middle = math.log(natural_ratio)
        if wanted.kind in ("f", "cost"):
            found = _towards_maximum(logs[order], np.array([wanted.score(points[i]) for i in order]))
        else:
            gaps = np.array([self._gap(wanted, points[i]) for i in order])
            found = _towards_zero(logs[order], gaps)
        if found is None:
            return None
        found = min(max(found, middle - _WIDEST), middle + _WIDEST)
        return None if np.abs(logs - found).min() < _NARROW / 2 else math.exp(found)

    def _is_met(self, wanted: Requirement, points: Sequence[Any]) -> bool:
        if wanted.kind == "break-even":
            return any(point.tp and abs(point.precision - point.recall) <= self.tolerance for point in points)
        if wanted.is_least:
            telling = (getattr(point, wanted.kind) for point in points if not calls_everything_positive(point))
            return any(0 <= value - wanted.numbers[0] <= self.tolerance for value in telling)
        return False

    def _gap(self, wanted: Requirement, point: Any) -> float:
        """A quantity that increases with the ratio and is 0 where the requirement is just met."""
        if not point.precision and not point.recall:
            return _NOTHING_FOUND  # nothing is found: the ratio is too low for every requirement
        if wanted.kind == "break-even":
            return _log_odds(point.recall) - _log_odds(point.precision)
        aim = _log_odds(wanted.numbers[0] + min(self.tolerance, 1 - wanted.numbers[0]) / 2)
        return _log_odds(point.recall) - aim if wanted.kind == "recall" else aim - _log_odds(point.precision)


def _log_odds(share: float) -> float:
    share = min(max(share, 0.002), 0.998)
    return math.log(share / (1 - share))


def _towards_zero(logs: np.ndarray, gaps: np.ndarray) -> float | None:
    from sklearn.isotonic import IsotonicRegression  # here, since it takes longer to import than all of weighloss

    smooth = IsotonicRegression().fit_transform(logs, gaps)
    below, above = np.flatnonzero(smooth < 0), np.flatnonzero(smooth >= 0)
    if below.size and above.size:
        low, high = below[-1], above[0]
        width = logs[high] - logs[low]
        if width < _NARROW:
            return None
        share = -smooth[low] / (smooth[high] - smooth[low])
        return float(logs[low] + width * min(max(share, 0.1), 0.9))
    edge = -1 if below.size else 0
    slope = _SLOPE
    if len(logs) > 1:
        slope = max((smooth[-1] - smooth[0]) / (logs[-1] - logs[0]), _SLOPE / 10)
    step = min(max(abs(smooth[edge]) / slope, _STEPS[0]), _STEPS[1])
    return float(logs[edge] + (step if below.size else -step))


def _towards_maximum(logs: np.ndarray, scores: np.ndarray) -> float | None:
    best = int(np.flatnonzero(scores == scores.max())[-1])  # the highest ratio of those that find nothing
    if best == len(logs) - 1:
        return float(logs[-1] + _FIRST_STEP)
    if best == 0:
        return float(logs[0] - _FIRST_STEP)
    left, right = logs[best] - logs[best - 1], logs[best + 1] - logs[best]
    if max(left, right) < 2 * _NARROW:
        return None
    return float(logs[best] + (right / 2 if right >= left else -left / 2))
