from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError

_STEP = math.log(5)  # outwards
_WIDEST = math.log(1e4)  # from the natural ratio
_NARROW = math.log(1.1)  # ratios closer than this do not differ in practice


@dataclass(frozen=True)
class RatioSearch:
    """Choose the ratios of a sweep one after the other, where the requirement can still gain, instead of a grid.

    The first leg has the natural ratio. What a leg is worth is the score of `RatioSweep.choose`: how well it meets the
    requirement with its best threshold (or as it was trained, with `threshold="argmax"`). The next legs go outwards by a
    factor of 5, to the side where the best leg is at the edge, and then between the best leg and its neighbours. The search
    ends when both neighbours of the best leg are worth no more than `tolerance` less than it, when ratios are too close to
    differ, or when the next ratio would differ from the natural one by a factor of more than ten thousand.

    Parameters
    ----------
    max_legs : int, default 5
    tolerance : float, default 0.01
        In units of that score, to which 1 is added where the bounds hold: see `best_thresholds`.
    """

    max_legs: int = 5
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not isinstance(self.max_legs, int) or self.max_legs < 2:
            raise InvalidInputError(f"max_legs must be an integer of at least 2, got {self.max_legs!r}.")
        if not isinstance(self.tolerance, (int, float)) or not 0 < self.tolerance < 1:
            raise InvalidInputError(f"tolerance must be between 0 and 1, got {self.tolerance!r}.")

    def next_ratio(self, ratios: Sequence[float], scores: Sequence[float], natural_ratio: float) -> float | None:
        """The ratio of the next leg; None when the search has ended.

        Parameters
        ----------
        ratios, scores : sequences of float of shape (n_legs,)
            Ratios of the finished legs, and how well each meets the requirement: the higher the better.
        natural_ratio : float

        Examples
        --------
        >>> RatioSearch().next_ratio([], [], 7.0), RatioSearch().next_ratio([7.0], [0.9], 7.0)
        (7.0, 35.0)
        >>> RatioSearch().next_ratio([1.4, 7.0, 35.0], [0.899, 0.902, 0.895], 7.0) is None
        True
        """
        if not ratios:
            return natural_ratio
        if len(ratios) >= self.max_legs:
            return None
        order = np.argsort(ratios)
        logs, values = np.log(ratios)[order], np.asarray(scores, dtype=np.float64)[order]
        best = int(np.flatnonzero(values == values.max())[-1])  # of legs that find nothing the highest ratio
        if best == len(logs) - 1:
            found = logs[-1] + _STEP
        elif best == 0:
            found = logs[0] - _STEP
        else:
            left, right = logs[best] - logs[best - 1], logs[best + 1] - logs[best]
            is_flat = values[best] - values[[best - 1, best + 1]].min() <= self.tolerance
            if is_flat or max(left, right) < 2 * _NARROW:
                return None
            found = logs[best] + (right / 2 if right >= left else -left / 2)
        middle = math.log(natural_ratio)
        found = min(max(found, middle - _WIDEST), middle + _WIDEST)
        return None if np.abs(logs - found).min() < _NARROW / 2 else round(math.exp(found), 12)
