"""What the charts on paper and on the page have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results.points import SweepPoint
from ..results.ratio_sweep import RatioSweep
from ..results.thresholds import confusion_at_thresholds, over_all_thresholds
from ..weighting.task import Task


def band_of(sweep: RatioSweep, name: str) -> np.ndarray:
    """Lower and upper end of precision or recall, shape (n_ratios, 2).

    NaN where a single seed has no intervals, and for precision where nothing is predicted positive.
    """
    ends = []
    for ratio, points in sweep.by_ratio(name).items():
        values = [getattr(point, name) for point in points]
        band = (min(values), max(values)) if len(sweep.seeds) > 1 else getattr(points[0], f"{name}_interval")
        if name == "precision" and sweep.predicts_no_positive(ratio):  # it may be anything
            band = None
        ends.append(band or (math.nan, math.nan))
    return np.array(ends, dtype=np.float64)


@dataclass(frozen=True)
class Plane:
    """What the precision-recall plane of a sweep shows."""

    # With predictions on disk; recall, precision and thresholds of each, which for several classes have no numbers.
    legs: list[tuple[SweepPoint, np.ndarray, np.ndarray, np.ndarray]]
    frontier: tuple[np.ndarray, np.ndarray]  # recall, descending, and precision of pairs to which no other is superior
    argmax: list[dict[str, float]]  # `ratio`, `recall` and `precision` of the trained ratios, without those omitted
    names: list[dict[str, Any]]  # the ratios as `text`, on the left (`side` -1) or right (1) of `recall`, `precision`
    omitted: list[float]  # ratios at which nothing is predicted positive
    left: float  # where the axes begin
    bottom: float


def plane_of(sweep: RatioSweep) -> Plane:
    """Read the predictions of a sweep for the precision-recall plane."""
    legs = []
    for point in filter(sweep.has_predictions, sweep.points):
        if sweep.task is Task.MULTICLASS:
            confusion = over_all_thresholds(*sweep.predictions(point), sweep.task, counts=sweep.counts)
            thresholds = np.full(len(confusion.recall), np.nan)
        else:
            thresholds, confusion = confusion_at_thresholds(*sweep.positives_and_scores(point))
        legs.append((point, confusion.recall, confusion.precision, thresholds))
    recall, precision = (np.concatenate([np.empty(0), *(leg[i] for leg in legs)]) for i in (1, 2))
    order = np.lexsort((precision, recall))[::-1]
    highest = np.maximum.accumulate(precision[order])  # at this recall or a higher one
    kept = np.diff(highest, prepend=-1) > 0
    curve = {name: values.tolist() for name, values in sweep.curve("recall", "precision").items()}
    points = [dict(zip(curve, row, strict=True)) for row in zip(*curve.values(), strict=True)]
    omitted = [ratio for ratio in curve["ratio"] if sweep.predicts_no_positive(ratio)]
    argmax = [point for point in points if point["ratio"] not in omitted]
    left, bottom = (min([0.6, *(point[name] for point in argmax)]) - 0.1 for name in ("recall", "precision"))
    names = _names(argmax, sweep.natural_ratio, 1.02 - left, 1.02 - bottom)
    return Plane(legs, (recall[order][kept], highest[kept]), argmax, names, omitted, left, bottom)


def _names(argmax: list[dict[str, float]], natural: float, width: float, height: float) -> list[dict[str, Any]]:
    """The names of the ratios, so that none covers another point; points close to each other share one text."""
    together: dict[tuple[float, float], list[str]] = {}
    for point in argmax:
        x, y = point["recall"], point["precision"]
        near = [at for at in together if abs(at[0] - x) / width + abs(at[1] - y) / height < 0.05]
        name = short(point["ratio"]) + " (natural)" * bool(np.isclose(point["ratio"], natural))
        together.setdefault(near[0] if near else (x, y), []).append(name)
    names = []
    for (x, y), texts in together.items():
        text = ", ".join(texts)
        reach = 0.013 * len(text) * width
        covers = any(0 < x - at[0] < reach and abs(y - at[1]) < 0.05 * height for at in together)
        side = 1 if covers and x + reach < 1.02 else -1  # to the left, unless another point is there
        names.append({"recall": x, "precision": y, "text": text, "side": side})
    return names


def missing_ratios(sweep: RatioSweep) -> list[float]:
    """Ratios without a result, because their training failed."""
    return sorted({leg.ratio for leg in sweep.failed} - set(sweep.by_ratio()))


def footnote(sweep: RatioSweep, with_bands: bool = False) -> str:
    """What was measured, and how surely; of a single seed with its bootstrap bands, if a chart shows them."""
    finished = len(sweep.points)
    examples = f"{sweep.num_eval:,} evaluation examples"
    if sweep.unit != "examples":
        examples += f" with {sweep.num_items:,} {sweep.unit}"
    if sweep.task is not Task.MULTICLASS:
        examples += f" ({sweep.points[0].tp + sweep.points[0].fn:,} positive)"
    notes = [examples, f"{sweep.epochs_per_ratio} epoch{'s' * (sweep.epochs_per_ratio > 1)} per ratio"]
    if len(sweep.seeds) > 1:
        notes.append(f"means of {len(sweep.seeds)} seeds, bands from lowest to highest")
    else:
        notes.append(f"one seed ({sweep.seeds[0]}), other seeds give other curves")
        if with_bands and np.isfinite(band_of(sweep, "recall")).any():
            notes.append("95% bootstrap bands")
    if finished < len(sweep.legs):
        failed = f", {len(sweep.failed)} failed" if sweep.failed else ""
        notes.append(f"{finished} of {len(sweep.legs)} legs{failed}")
    if left_out := finished - sum(map(len, sweep.by_ratio("precision").values())):
        notes.append(f"{left_out} of {finished} legs left out of precision: nothing predicted positive")
    return "; ".join(notes)


def short(ratio: float) -> str:
    """A ratio with three digits."""
    return f"{ratio:.3g}" if ratio < 999.5 else f"{ratio:.0f}"
