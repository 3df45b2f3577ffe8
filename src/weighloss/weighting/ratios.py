from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from ..errors import InvalidInputError


def ratio_grid(natural_ratio: float, num_ratios: int = 13, ratio_span: float = 100.0) -> list[float]:
    """The ratios of a sweep: log-spaced from natural/span to natural·span, with the natural ratio and w_r = 1 among them.

    Parameters
    ----------
    natural_ratio : float
    num_ratios : int, default 13
        Number of log-spaced ratios; w_r = 1 comes on top of them where it is none of them.
    ratio_span : float, default 100
        The outermost ratios are the natural one divided and multiplied by this factor.

    Returns
    -------
    list of float, ascending.

    Raises
    ------
    InvalidInputError
        For num_ratios < 2 or a span that is not a finite number above 1.
    """
    if not isinstance(num_ratios, (int, np.integer)) or num_ratios < 2:
        raise InvalidInputError(f"num_ratios={num_ratios!r} makes no sweep: write a whole number from 2.")
    if not isinstance(ratio_span, (int, float, np.number)) or not 1 < ratio_span < math.inf:
        raise InvalidInputError(
            f"ratio_span={ratio_span!r} spans nothing: write a finite number above 1, such as 100."
        )
    factors = np.geomspace(1 / ratio_span, ratio_span, num_ratios)
    if num_ratios % 2:
        factors[num_ratios // 2] = 1  # the natural ratio itself, not its rounding neighbour
    return unique_ratios([*(natural_ratio * factors), natural_ratio, 1.0])


def unique_ratios(ratios: Sequence[float]) -> list[float]:
    """The ratios checked, ascending, each once (to a relative 1e-9)."""
    kept: list[float] = []
    for ratio in sorted(checked_ratio(ratio) for ratio in ratios):
        if not kept or not math.isclose(ratio, kept[-1], rel_tol=1e-9):
            kept.append(ratio)
    return kept


def checked_ratio(ratio: float) -> float:
    """The ratio as a float, or an InvalidInputError where it is not a positive finite number."""
    if not isinstance(ratio, (int, float, np.number)) or not 0 < float(ratio) < math.inf:
        raise InvalidInputError(
            f"{ratio!r} is no weight ratio: write a positive finite number, or leave it out for the natural ratio."
        )
    return float(ratio)


def resolved_ratio(ratio: float | str | None, natural_ratio: float, sizes: np.ndarray | None = None) -> float:
    """A ratio that is given as a number, by the name of a scheme, or not at all.

    Parameters
    ----------
    ratio : float or str, optional
        See `ClassWeights.from_counts`; the natural ratio when None.
    natural_ratio : float
    sizes : int array (2,), optional
        Numbers of negatives and positives, where there are but these two classes.

    Raises
    ------
    InvalidInputError
        When it is no positive finite number and no scheme.
    """
    if ratio is None:
        return natural_ratio
    if not isinstance(ratio, str):
        return checked_ratio(ratio)
    with suppress(ValueError):  # of float(), and of a number that is no ratio
        return checked_ratio(float(ratio))
    schemes = {"natural": natural_ratio, "unweighted": 1.0, "sqrt": math.sqrt(natural_ratio)}
    if ratio in schemes:
        return schemes[ratio]
    scheme, _, given = ratio.partition(":")
    with suppress(ValueError):
        if scheme == "effective" and sizes is not None and 0 <= (beta := float(given)) < 1:
            # Weights are 1 / effective number, which is (1 - beta^n) / (1 - beta).
            numbers = -np.expm1(sizes * math.log(beta)) if beta else np.ones(2)
            return float(numbers[0] / numbers[1])
    known = ", ".join(schemes) + (" or effective:0.999" if sizes is not None else "")
    raise InvalidInputError(f"{ratio!r} is no weight ratio: write a positive finite number, {known}.")
