from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import evaluate
import numpy as np
from scipy.special import expit
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import brier_score_loss

from ..results.bootstrap import bootstrap
from ..results.calibration import expected_calibration_error
from ..results.requirement import calls_everything_positive
from ..errors import InvalidInputError
from ..results.evaluate_metric import PrecisionRecall
from ..results.metrics import decisions, precision_recall
from ..results.points import MEASURED, SweepPoint, with_interval
from ..results.ratio_sweep import RatioSweep
from ..results.operating_point import ThresholdPoint, UnweightedThresholds
from ..weighting.class_weights import ClassWeights

_FEW_STEPS = 100  # of a leg: on real data, fine-tunes of so few jump from nothing found to everything
COLUMNS = ("w_r", "x natural", "1/(1+w_r)", "precision", "recall", "F1", "TP", "FP", "FN", "TN", "")  # of the table


def imbalance(class_weights: ClassWeights, label_names: Sequence[str]) -> str:
    """The training data's imbalance and its natural ratio, in one sentence."""
    counts = class_weights.counts
    if counts.ndim == 2:
        shares = ", ".join(f"{n[1]:,} of {n.sum():,} {name}" for name, n in zip(label_names, counts, strict=True))
        return f"Training labels: {shares}. Natural weight ratio of the most imbalanced: {class_weights.natural_ratio:.4g}."
    named = ", ".join(f"{count:,} {name}" for name, count in zip(label_names, counts, strict=True))
    text = f"Training labels: {named}. Natural weight ratio: {class_weights.natural_ratio:.4g}."
    if len(label_names) == 2:
        positive, other = (label_names[i] for i in (class_weights.positive_label, 1 - class_weights.positive_label))
        text += f" Precision and recall are those of {positive}."
        if class_weights.natural_ratio < 1:
            text += f" That is the larger class: to look for {other}, write --positive_label {other}."
    return text


def summary(sweep: RatioSweep) -> str:
    """What the natural and the best ratio mean, in plain words, the break-even, and what reweighting buys."""
    failed = [f"Failed. At w_r = {leg.ratio:.4g} with seed {leg.seed}: {leg.reason}." for leg in sweep.failed]
    if not sweep.points:
        return "\n".join(failed)
    lines = [
        f"Natural ratio. {sentence(sweep, ratio)}"
        for ratio in sweep.by_ratio()
        if np.isclose(ratio, sweep.natural_ratio)
    ]
    if sweep.preview is not None:
        lines.insert(
            0,
            f"Preview. {sweep.what_was_trained.capitalize()}: refine the ratio that you choose with the whole model.",
        )
    name = sweep.positive_name if sweep.average == "binary" else "label"
    if sweep.curve("f1")["f1"].max() == 0:
        lines.append(f"No ratio found any {name}: train longer, or raise the learning rate.")
    else:
        lines.append(f"Best F1. {sentence(sweep, sweep.best('f1'))}")
        if not any(point.predicts_positives and not calls_everything_positive(point) for point in sweep.points):
            lines.append(f"Every ratio calls everything {name}, or nothing: train longer, or raise the learning rate.")
    if (steps := sweep.done[0].global_step) < _FEW_STEPS:
        lines.append(
            f"Short legs. {steps} optimizer steps each: where the curves jump, train longer (epochs_per_ratio), with a "
            "higher learning rate or in smaller batches."
        )
    break_even = sweep.break_even()
    if break_even is None:
        lines.append("The curves of precision and recall do not cross: no break-even.")
    else:
        value = sweep.at(break_even, "precision")
        ends = sweep.break_even_interval()
        sure = "" if ends is None else f" (95% interval {ends[0]:.3g} to {ends[1]:.3g})"
        lines.append(f"Break-even. Precision equals recall, {value:.3f}, at about w_r = {break_even:.4g}{sure}.")
    lines += worth(sweep, sweep.requirement).splitlines()
    return "\n".join([*lines, *failed])


def table(sweep: RatioSweep) -> str:
    """The sweep as a table, one row per ratio: w_r, its multiple of the natural ratio, precision, recall, F1, TP FP FN TN.

    1/(1 + w_r) is the threshold on the unweighted model's probability that would do the same in theory (Elkan 2001).
    The natural ratio, the best and that of the model which was kept are marked; the break-even, interpolated, has a row of
    its own, and so has a ratio whose legs all failed. Means over the seeds: see `RatioSweep.curve`.

    Parameters
    ----------
    sweep : RatioSweep

    Returns
    -------
    str, one line per row.
    """
    cells = rows(sweep)
    width = max(9, *(len(row[3]) for row in cells))
    line = f"{{:>9}} {{:>9}} {{:>9}}  {{:>{width}}} {{:>{width}}} {{:>6}}  {{:>6}} {{:>6}} {{:>6}} {{:>6}}  {{}}"
    return "\n".join(line.format(*row).rstrip() for row in (COLUMNS, *cells))


def rows(sweep: RatioSweep) -> list[list[str]]:
    """The cells of `table`: ten numbers and what is worth a mark.

    Precision and recall have their 95% bootstrap intervals where there is one seed.
    """
    ends = {
        (name, point.ratio): " {:.3f}-{:.3f}".format(*ends)
        for point in (sweep.points if len(sweep.seeds) == 1 else ())
        for name, ends in (("precision", point.precision_interval), ("recall", point.recall_interval))
        if ends is not None
    }
    best, break_even = sweep.best("f1") if sweep.points else None, sweep.break_even()
    kept = None if sweep.kept_point is None else sweep.kept_point.ratio
    curve = sweep.curve("precision", "recall", "f1", "tp", "fp", "fn", "tn")
    cells = {}
    for i, ratio in enumerate(curve["ratio"].tolist()):
        marks = {
            "natural": np.isclose(ratio, sweep.natural_ratio),
            "unweighted": ratio == 1,
            "break-even": ratio == break_even,
            "best F1": ratio == best and curve["f1"][i] > 0,
            "nothing predicted positive": sweep.predicts_no_positive(ratio),
            "model kept": ratio == kept,
        }
        scores = [f"{curve[name][i]:.3f}" + ends.get((name, ratio), "") for name in ("precision", "recall", "f1")]
        counts = [f"{curve[name][i]:.1f}".removesuffix(".0") for name in ("tp", "fp", "fn", "tn")]
        cells[ratio] = [*scores, *counts, ", ".join(mark for mark, holds in marks.items() if holds)]
    if break_even is not None and break_even not in cells:
        cells[break_even] = [f"{sweep.at(break_even, 'precision'):.3f}"] * 3 + [""] * 4 + ["break-even (interpolated)"]
    for leg in sweep.failed:
        cells.setdefault(leg.ratio, [""] * 7 + ["failed"])
    thresholds = {r: f"{1 / (1 + r):.3g}" if sweep.average == "binary" else "" for r in cells}
    return [[f"{r:.4g}", f"{r / sweep.natural_ratio:.3g}", thresholds[r], *cells[r]] for r in sorted(cells)]


def sentence(sweep: RatioSweep, ratio: float) -> str:
    """What one ratio of the sweep means for someone who acts on the predictions, in plain words.

    Raises
    ------
    InvalidInputError
        When the sweep has no finished leg at that ratio, to the digits that `table` prints.
    """
    ratio = next((known for known in sweep.by_ratio() if math.isclose(ratio, known, rel_tol=1e-3)), ratio)
    if ratio not in sweep.by_ratio():
        known = ", ".join(f"{known:.4g}" for known in sweep.by_ratio())
        raise InvalidInputError(f"the sweep has no leg at w_r = {ratio}: write one of {known}.")
    precision, recall = (
        100 * fmean(getattr(point, metric) for point in sweep.by_ratio(metric)[ratio])
        for metric in ("precision", "recall")
    )
    if sweep.average == "macro":
        flagged = f"of 100 {sweep.unit} put into a class, {precision:.0f} belong there"
        found = f"of 100 {sweep.unit} of a class, {recall:.0f} are found, on average over the classes"
    elif sweep.average == "micro":
        flagged = f"of 100 labels given, {precision:.0f} are right"
        found = f"of 100 labels that there are, {recall:.0f} are found"
    else:
        name = sweep.positive_name
        flagged = f"of 100 {sweep.unit} flagged as {name}, {precision:.0f} are {name}"
        found = f"of 100 {name} {sweep.unit}, {recall:.0f} are found"
    if sweep.predicts_no_positive(ratio):
        flagged = f"nothing is flagged as {sweep.positive_name}" if sweep.average == "binary" else "no label is given"
    return f"At w_r = {ratio:.4g}: {flagged}; {found}."


def worth(sweep: RatioSweep, requirement: str | None = None) -> str:
    """What reweighting buys over moving the threshold of the unweighted model, and what it does to the probabilities.

    Parameters
    ----------
    sweep : RatioSweep
    requirement : str, optional
        Where they are compared: see `RatioSweep.choose`; `f1` when None.

    Returns
    -------
    str
        Two lines; one for several labels per example, each of which has its own weights, and where only a threshold meets
        the requirement; empty where nothing does, or there is no such comparison: without a leg at w_r = 1 of the same
        seed, its predictions, and one class or label to look for.
    """
    if sweep.average == "macro" or not sweep.points:
        return ""
    choice = sweep.choose((requirement or "f1").partition("@")[0])  # a threshold is asked for no confidence either
    ratio, seed = choice.point.ratio, choice.point.seed
    unweighted = next((point for point in sweep.points if (point.ratio, point.seed) == (1, seed)), None)
    if unweighted is None or not sweep.has_predictions(unweighted):
        return ""
    thresholds = UnweightedThresholds(sweep, unweighted)
    moved = thresholds.best(choice.requirement)
    if not choice.met:
        line = (
            f"No leg meets {choice.requirement.text}, but the unweighted model does with its threshold moved to "
            f"{moved.threshold:.3g}: {_precision_and_recall(moved)}."
        )
        return line if choice.requirement.score(moved) >= 1 else ""
    if not sweep.has_predictions(choice.point):
        return ""
    line = (
        f"At {choice.requirement.text} reweighting (w_r = {ratio:.4g}) gives {_precision_and_recall(choice.point)}; moving "
        f"the threshold of the unweighted model to {moved.threshold:.3g} gives {_precision_and_recall(moved)}"
    )
    if sweep.average == "micro":  # each label has a ratio of its own, and no one threshold is theirs
        return f"{line}."
    equivalent = thresholds.at(1 / (1 + ratio))
    return (
        f"{line}, and to 1/(1 + w_r) = {equivalent.threshold:.3g}, which would do the same in theory (Elkan 2001), "
        f"{_precision_and_recall(equivalent)}.\n{_calibration(sweep, choice.point)}"
    )


def _precision_and_recall(point: SweepPoint | ThresholdPoint) -> str:
    precision = with_interval(point.precision, point.precision_interval)
    return f"precision {precision}, recall {with_interval(point.recall, point.recall_interval)}"


def _calibration(sweep: RatioSweep, point: SweepPoint) -> str:
    positives, scores = sweep.positives_and_scores(point)
    errors = []
    for shift in (0, math.log(point.ratio)):
        probabilities = expit(scores - shift)
        brier = brier_score_loss(positives, probabilities)
        gap = expected_calibration_error(probabilities, positives)
        errors.append(f"Brier score {brier:.4f}, expected calibration error {gap:.4f}")
    return (
        f"The reweighted model's probabilities have {errors[0]}; without the weighting (logits - log w) {errors[1]}."
    )


def recomputed(sweep: RatioSweep) -> RatioSweep:
    """The sweep with its points' metrics and intervals computed anew from the predictions on disk.

    Raises
    ------
    InvalidInputError
        When a leg's predictions cannot be read.
    """
    points = []
    for point in sweep.points:
        predictions = sweep.predictions(point)
        measured: dict[str, Any] = precision_recall(**decisions(*predictions, sweep.positive_label))
        intervals = bootstrap([predictions], sweep.positive_label).of_point()
        points.append(replace(point, **{name: measured[name] for name in MEASURED}, **intervals))
    return replace(sweep, points=tuple(points))


def score(sweep: RatioSweep, metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """Other metrics of every ratio, computed from the predictions on disk with `evaluate`, means over the seeds as in
    `RatioSweep.curve`.

    Parameters
    ----------
    sweep : RatioSweep
        Loaded from disk.
    metrics : sequence of str
        What `PrecisionRecall` returns (`f1`, `accuracy`, `matthews_correlation`), by name and without the Hub, or any
        other metric by its evaluate name (from the Hub) or the path of its folder.

    Returns
    -------
    dict of float64 arrays of shape (n_ratios,), one for each number that the metrics return.

    Raises
    ------
    InvalidInputError
        When a metric cannot be loaded, or a leg's predictions cannot be read.
    """
    if not metrics:
        return {}
    own = PrecisionRecall()
    known = [
        metric for metric in metrics if metric in ("precision", "recall", "f1", "accuracy", "matthews_correlation")
    ]
    others = [_load_metric(metric) for metric in metrics if metric not in known]

    def of_point(point: SweepPoint) -> dict[str, float]:
        decided = decisions(*sweep.predictions(point), sweep.positive_label)
        with warnings.catch_warnings(category=UndefinedMetricWarning, action="ignore"):  # the chart marks such ratios
            results = own.compute(**decided)
        found = {name: results[name] for name in known}
        for other in others:
            found |= other.compute(predictions=decided["predictions"], references=decided["references"])
        return {name: float(value) for name, value in found.items() if np.ndim(value) == 0}

    scores = {point: of_point(point) for point in sweep.points}
    return {
        name: np.array([fmean(scores[point][name] for point in points) for points in sweep.by_ratio(name).values()])
        for name in next(iter(scores.values()), ())
    }


def _load_metric(metric: str) -> Any:
    try:
        return evaluate.load(metric)
    except Exception as error:  # evaluate raises what the Hub client, the file system or the metric's own module raise
        raise InvalidInputError(
            f"the metric {metric!r} is neither built in nor can it be loaded: write precision, recall, f1, accuracy or "
            "matthews_correlation, a metric's folder, or an evaluate name while the Hub is reachable."
        ) from error
