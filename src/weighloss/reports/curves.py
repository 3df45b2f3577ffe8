"""What the charts on paper and on the page have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..results.ratio_sweep import RatioSweep
from ..weighting.task import Task


def bands_of(sweep: RatioSweep) -> dict[str, np.ndarray]:
    """Lower and upper end of precision and recall, shape (n_ratios, 2); empty where a single seed has no intervals."""
    bands = {}
    for name in ("precision", "recall"):
        groups = sweep.by_ratio(name).values()
        if len(sweep.seeds) > 1:
            values = [[getattr(point, name) for point in points] for points in groups]
            ends = [[min(of_seeds), max(of_seeds)] for of_seeds in values]
        else:
            ends = [getattr(points[0], f"{name}_interval") for points in groups]
        if None not in ends:
            bands[name] = np.array(ends, dtype=np.float64)
    if "precision" in bands:  # where nothing is predicted positive, precision may be anything
        bands["precision"][[sweep.predicts_no_positive(ratio) for ratio in sweep.by_ratio()]] = np.nan
    return bands


def frontier(reached: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Recall, descending, and precision of those pairs of both to which no other pair is superior."""
    recall, precision = np.array(sorted(reached, reverse=True)).T
    highest = np.maximum.accumulate(precision)
    kept = np.append(True, np.diff(highest) > 0)
    return recall[kept], highest[kept]


def placed_names(
    recall: np.ndarray, precision: np.ndarray, names: Sequence[str], width: float, height: float
) -> list[tuple[float, float, str, int]]:
    """Names beside points, so that no name covers another point; points close to each other share one text.

    Returns
    -------
    list of (recall, precision, text, side), the side being -1 for the left and 1 for the right.
    """
    together: dict[tuple[float, float], list[str]] = {}
    for x, y, name in zip(recall, precision, names, strict=True):
        near = [at for at in together if abs(at[0] - x) / width + abs(at[1] - y) / height < 0.05]
        together.setdefault(near[0] if near else (x, y), []).append(name)
    placed = []
    for (x, y), texts in together.items():
        text = ", ".join(texts)
        reach = 0.013 * len(text) * width
        covers = any(0 < x - at[0] < reach and abs(y - at[1]) < 0.05 * height for at in together)
        side = 1 if covers and x + reach < 1.02 else -1  # to the left, unless another point is there
        placed.append((float(x), float(y), text, side))
    return placed


def footnote(sweep: RatioSweep, bands: str) -> str:
    """What was measured, and how surely."""
    finished = len(sweep.points)
    examples = f"{sweep.num_eval:,} evaluation examples"
    if sweep.unit != "examples":
        examples += f" with {sweep.num_items:,} {sweep.unit}"
    if sweep.task is not Task.MULTICLASS:
        examples += f" ({sweep.points[0].tp + sweep.points[0].fn:,} positive)"
    notes = [examples, f"{sweep.epochs_per_ratio} epoch{'s' if sweep.epochs_per_ratio > 1 else ''} per ratio"]
    if len(sweep.seeds) > 1:
        notes.append(f"means of {len(sweep.seeds)} seeds, bands from lowest to highest")
    else:
        notes.append(f"one seed ({sweep.seeds[0]}), other seeds give other curves")
        notes += [bands] if bands else []
    if finished < len(sweep.legs):
        failed = f", {len(sweep.failed)} failed" if sweep.failed else ""
        notes.append(f"{finished} of {len(sweep.legs)} legs{failed}")
    if left_out := finished - sum(map(len, sweep.by_ratio("precision").values())):
        notes.append(f"{left_out} of {finished} legs left out of precision: nothing predicted positive")
    return "; ".join(notes)


def short(ratio: float) -> str:
    """A ratio with three digits."""
    return f"{ratio:.3g}" if ratio < 999.5 else f"{ratio:.0f}"
