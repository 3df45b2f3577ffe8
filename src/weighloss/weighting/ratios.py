"""Weight ratios: a grid of them, and what a number or a name stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from ..errors import InvalidInputError


def ratio_grid(natural_ratio: float, num_ratios: int = 7, ratio_span: float = 10.0) -> list[float]:
    """Ascending log-spaced ratios from natural/span to natural·span, and the natural ratio and 1.

    Parameters
    ----------
    natural_ratio : float
    num_ratios : int, default 7
        Number of log-spaced ratios. The natural ratio and 1 are added where they are not among them.
    ratio_span : float, default 10
        Factor between the natural ratio and the lowest and highest ratio.

    Raises
    ------
    InvalidInputError
        When `num_ratios` is below 2 or `ratio_span` is not a finite number above 1.

    Examples
    --------
    >>> ratio_grid(4.0, num_ratios=3, ratio_span=10)
    [0.4, 1.0, 4.0, 40.0]
    """
    if not isinstance(num_ratios, (int, np.integer)) or num_ratios < 2:
        raise InvalidInputError(f"num_ratios must be an integer of at least 2, got {num_ratios!r}.")
    if not isinstance(ratio_span, (int, float, np.number)) or not 1 < ratio_span < math.inf:
        raise InvalidInputError(f"ratio_span must be a finite number above 1, such as 10, got {ratio_span!r}.")
    factors = np.geomspace(1 / ratio_span, ratio_span, num_ratios)
    if num_ratios % 2:
        factors[num_ratios // 2] = 1  # geomspace may round it
    return unique_ratios([*(natural_ratio * factors), natural_ratio, 1.0])


def unique_ratios(ratios: Sequence[float]) -> list[float]:
    """The ratios in ascending order, each once (to a relative 1e-9). Raises as `checked_ratio`."""
    unique: list[float] = []
    for ratio in sorted(checked_ratio(ratio) for ratio in ratios):
        if not unique or not math.isclose(ratio, unique[-1], rel_tol=1e-9):
            unique.append(ratio)
    return unique


def checked_ratio(ratio: float) -> float:
    """The ratio as a float. Raises InvalidInputError when it is not a positive finite number."""
    if not isinstance(ratio, (int, float, np.number)) or not 0 < float(ratio) < math.inf:
        raise InvalidInputError(f"a weight ratio must be a positive finite number, got {ratio!r}.")
    return float(ratio)


def resolved_ratio(ratio: float | str | None, natural_ratio: float, sizes: np.ndarray | None = None) -> float:
    """Weight ratio given as a number, as a name, or as None for the natural ratio: see `ClassWeights.from_counts`.

    `sizes`, with two classes only, is the int ndarray (n_negative, n_positive), which `effective:β` needs. Raises
    InvalidInputError when `ratio` is neither a positive finite number nor a known name.
    """
    if ratio is None:
        return natural_ratio
    if not isinstance(ratio, str):
        return checked_ratio(ratio)
    named = {"natural": natural_ratio, "unweighted": 1.0, "sqrt": math.sqrt(natural_ratio)}
    if ratio in named:
        return named[ratio]
    name, _, value = ratio.partition(":")
    with suppress(ValueError):  # of float() and checked_ratio()
        if ratio.startswith("natural*"):
            return checked_ratio(natural_ratio * float(ratio.removeprefix("natural*")))
        if name == "effective" and sizes is not None and 0 <= (beta := float(value)) < 1:
            # Cui et al. 2019: the weight of a class is 1 / effective number = (1 - beta) / (1 - beta^n).
            effective = -np.expm1(sizes * math.log(beta)) if beta else np.ones(2)
            return float(effective[0] / effective[1])
        return checked_ratio(float(ratio))
    names = ", ".join(map(repr, [*named, "natural*5"])) + (", 'effective:0.999'" if sizes is not None else "")
    raise InvalidInputError(f"a weight ratio must be a positive finite number or one of {names}, got {ratio!r}.")
