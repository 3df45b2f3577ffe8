"""What the charts on paper and on the page have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..results.points import SweepPoint
from ..results.ratio_sweep import RatioSweep
from ..results.thresholds import confusion_at_thresholds, over_all_thresholds
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


@dataclass(frozen=True)
class Plane:
    """What the precision-recall plane of a sweep shows.

    Attributes
    ----------
    legs : list of (SweepPoint, recall, precision, thresholds)
        Those with predictions on disk, at each of their thresholds; several classes have no numbers for these.
    frontier : (recall, precision)
        Recall, descending, and precision of those pairs of ratio and threshold to which no other is superior.
    argmax : dict of arrays
        `recall`, `precision` and `ratio` of the trained ratios at argmax, without those at `omitted`.
    omitted : array
        Ratios at which nothing is predicted positive.
    left, bottom : float
        Where the axes begin.
    """

    legs: list[tuple[SweepPoint, np.ndarray, np.ndarray, np.ndarray]]
    frontier: tuple[np.ndarray, np.ndarray]
    argmax: dict[str, np.ndarray]
    omitted: np.ndarray
    left: float
    bottom: float

    def names(self, natural_ratio: float) -> list[tuple[float, float, str, int]]:
        """The ratios as texts beside their points: see `placed_names`."""
        recall, precision, ratios = self.argmax.values()
        names = [short(ratio) + " (natural)" * bool(np.isclose(ratio, natural_ratio)) for ratio in ratios]
        return placed_names(recall, precision, names, 1.02 - self.left, 1.02 - self.bottom)


def plane_of(sweep: RatioSweep) -> Plane:
    """Read the predictions of a sweep for the precision-recall plane."""
    legs, counts = [], np.asarray(sweep.counts)
    for point in filter(sweep.has_predictions, sweep.points):
        if sweep.task is Task.MULTICLASS:
            confusion = over_all_thresholds(*sweep.predictions(point), sweep.task, counts=counts)
            thresholds = np.full(len(confusion.recall), np.nan)
        else:
            thresholds, confusion = confusion_at_thresholds(*sweep.positives_and_scores(point))
        legs.append((point, confusion.recall, confusion.precision, thresholds))
    edge = np.empty(0), np.empty(0)
    if legs:
        edge = frontier(*(np.concatenate([leg[i] for leg in legs]) for i in (1, 2)))
    curve = sweep.curve("precision", "recall")
    drawn = np.array([not sweep.predicts_no_positive(ratio) for ratio in curve["ratio"].tolist()])
    argmax = {name: curve[name][drawn] for name in ("recall", "precision", "ratio")}
    left, bottom = (min(argmax[name].min(initial=1) - 0.1, 0.5) for name in ("recall", "precision"))
    return Plane(legs, edge, argmax, curve["ratio"][~drawn], left, bottom)


def frontier(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall, descending, and precision of those pairs of both to which no other pair is superior."""
    order = np.lexsort((precision, recall))[::-1]
    recall, highest = recall[order], np.maximum.accumulate(precision[order])
    kept = np.append(True, np.diff(highest) > 0)
    return recall[kept], highest[kept]


def missing_ratios(sweep: RatioSweep) -> list[float]:
    """Ratios without a result, because their training failed."""
    return sorted({leg.ratio for leg in sweep.failed} - set(sweep.by_ratio()))


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
