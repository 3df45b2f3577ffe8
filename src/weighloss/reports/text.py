from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from scipy.special import expit

from ..errors import InvalidInputError
from ..results.metrics import expected_calibration_error
from ..results.operating_point import LegThresholds, ThresholdPoint
from ..results.points import SweepPoint, with_interval
from ..results.ratio_sweep import RatioSweep
from ..results.requirement import Choice, Requirement, calls_everything_positive
from ..weighting.class_weights import ClassWeights
from ..weighting.task import Task

_FEW_STEPS = 100  # on real data, the results of shorter legs jump from nothing found to everything
COLUMNS = ("w_r", "x natural", "1/(1+w_r)", "precision", "recall", "F1", "TP", "FP", "FN", "TN", "")  # of the table


def imbalance(class_weights: ClassWeights, label_names: Sequence[str]) -> str:
    """The number of training labels of each class and the natural ratio, in one sentence.

    Examples
    --------
    >>> imbalance(ClassWeights.from_counts([8800, 1200]), ["ham", "spam"])
    'Training labels: 8,800 ham, 1,200 spam. Natural weight ratio: 7.333. Precision and recall are those of spam.'
    """
    counts, natural = class_weights.counts, f"{class_weights.natural_ratio:.4g}"
    if class_weights.task is Task.MULTILABEL:
        shares = ", ".join(f"{n[1]:,} of {n.sum():,} {name}" for name, n in zip(label_names, counts, strict=True))
        return f"Training labels: {shares}. Natural weight ratio of the most imbalanced: {natural}."
    named = ", ".join(f"{count:,} {name}" for name, count in zip(label_names, counts, strict=True))
    text = f"Training labels: {named}. Natural weight ratio: {natural}."
    if class_weights.task is Task.BINARY:
        positive, other = (label_names[i] for i in (class_weights.positive_label, 1 - class_weights.positive_label))
        text += f" Precision and recall are those of {positive}."
        if class_weights.natural_ratio < 1:
            text += f" That is the larger class: to look for {other}, write --positive_label {other}."
    return text


def summary(sweep: RatioSweep, requirement: str | None = None) -> str:
    """The results of a sweep in plain words.

    Says what the natural ratio and the chosen one mean, where the break-even is, which legs failed or are missing, and
    compares the chosen leg with a threshold (see `compare_with_threshold`).

    Parameters
    ----------
    sweep : RatioSweep
    requirement : str, optional
        See `RatioSweep.choose`; the requirement of the sweep when None.

    Returns
    -------
    str, one line for each statement.
    """
    lines = [f"Failed. At w_r = {leg.ratio:.4g} with seed {leg.seed}: {leg.reason}." for leg in sweep.failed]
    if len(sweep.done) < len(sweep.legs):
        lines.append(
            f"Unfinished. {len(sweep.done)} of {len(sweep.legs)} legs are done: run the sweep again for the others."
        )
    if not sweep.points:
        return "\n".join(lines)
    natural = next((ratio for ratio in sweep.by_ratio() if np.isclose(ratio, sweep.natural_ratio)), None)
    lines += [] if natural is None else [f"Natural ratio. {sentence(sweep, natural)}"]
    if (marked := marked_leg(sweep, requirement)) is not None:
        point, why = marked
        lines.append(f"{why[0].upper()}{why[1:]}. {sentence(sweep, point.ratio)}")
    else:
        name = sweep.positive_name if sweep.task is Task.BINARY else "label"
        found = any(point.tp for point in sweep.points)
        what = f"No leg is better than calling everything {name}" if found else f"No leg found any {name}"
        lines.append(f"Nothing learned. {what}: train longer, or raise the learning rate.")
    if (steps := sweep.points[0].global_step) < _FEW_STEPS:
        lines.append(
            f"Short legs. Each had {steps} optimizer steps: where the curves jump, train longer (epochs_per_ratio), with a "
            "higher learning rate or with smaller batches."
        )
    break_even = sweep.break_even()
    if break_even is None:
        lines.append("The curves of precision and recall do not cross: no break-even.")
    else:
        value, ends = sweep.at(break_even, "precision"), sweep.break_even_interval()
        interval = "" if ends is None else f" (95% interval {ends[0]:.3g} to {ends[1]:.3g})"
        lines.append(f"Break-even. Precision equals recall, {value:.3f}, at about w_r = {break_even:.4g}{interval}.")
    return "\n".join([*lines, *compare_with_threshold(sweep, requirement).splitlines()])


def table(sweep: RatioSweep, requirement: str | None = None) -> str:
    """The sweep as a table with one row for each ratio: w_r, its multiple of the natural ratio, metrics and counts.

    1/(1 + w_r) is the threshold on the probability of the unweighted model that does the same in theory (Elkan 2001).
    Marks show the natural ratio, the chosen leg (see `marked_leg`) and the leg whose model is kept. The interpolated
    break-even has a row, and so has a ratio whose legs all failed. With several seeds the numbers are means: see
    `RatioSweep.curve`.
    """
    cells = rows(sweep, requirement)
    width = max([9, *(len(row[3]) for row in cells)])
    line = f"{{:>9}} {{:>9}} {{:>9}}  {{:>{width}}} {{:>{width}}} {{:>6}}  {{:>6}} {{:>6}} {{:>6}} {{:>6}}  {{}}"
    return "\n".join(line.format(*row).rstrip() for row in (COLUMNS, *cells))


def rows(sweep: RatioSweep, requirement: str | None = None) -> list[list[str]]:
    """The cells of `table`: in each row ten numbers and the marks.

    Precision and recall have their 95% bootstrap intervals where there is one seed.
    """
    ends = {
        (name, point.ratio): " {:.3f}-{:.3f}".format(*ends)
        for point in (sweep.points if len(sweep.seeds) == 1 else ())
        for name, ends in (("precision", point.precision_interval), ("recall", point.recall_interval))
        if ends is not None
    }
    break_even, kept = sweep.break_even(), sweep.kept_point
    marked, why = marked_leg(sweep, requirement) or (None, "")
    curve = sweep.curve("precision", "recall", "f1", "tp", "fp", "fn", "tn")
    cells = {}
    for i, ratio in enumerate(curve["ratio"].tolist()):
        marks = {
            "natural": np.isclose(ratio, sweep.natural_ratio),
            "unweighted": ratio == 1,
            "break-even": ratio == break_even,
            why: marked is not None and ratio == marked.ratio,
            "nothing predicted positive": sweep.predicts_no_positive(ratio),
            "model kept": kept is not None and ratio == kept.ratio,
        }
        scores = [f"{curve[name][i]:.3f}" + ends.get((name, ratio), "") for name in ("precision", "recall", "f1")]
        counts = [f"{curve[name][i]:.1f}".removesuffix(".0") for name in ("tp", "fp", "fn", "tn")]
        cells[ratio] = [*scores, *counts, ", ".join(mark for mark, holds in marks.items() if holds)]
    if break_even is not None and break_even not in cells:
        cells[break_even] = [f"{sweep.at(break_even, 'precision'):.3f}"] * 3 + [""] * 4 + ["break-even (interpolated)"]
    for leg in sweep.failed:
        cells.setdefault(leg.ratio, [""] * 7 + ["failed"])
    thresholds = {r: f"{1 / (1 + r):.3g}" if sweep.task is Task.BINARY else "" for r in cells}
    return [[f"{r:.4g}", f"{r / sweep.natural_ratio:.3g}", thresholds[r], *cells[r]] for r in sorted(cells)]


def sentence(sweep: RatioSweep, ratio: float) -> str:
    """The precision and recall of one ratio as parts of 100, for someone who acts on the predictions.

    Raises
    ------
    InvalidInputError
        When the sweep has no finished leg at that ratio, compared with the digits that `table` prints.
    """
    ratio = next((known for known in sweep.by_ratio() if math.isclose(ratio, known, rel_tol=1e-3)), ratio)
    if ratio not in sweep.by_ratio():
        known = ", ".join(f"{known:.4g}" for known in sweep.by_ratio())
        raise InvalidInputError(f"the sweep has no leg at w_r = {ratio}: write one of {known}.")
    precision, recall = (
        100 * fmean(getattr(point, metric) for point in sweep.by_ratio(metric)[ratio])
        for metric in ("precision", "recall")
    )
    name, unit = sweep.positive_name, sweep.unit
    flagged, found, nothing = {
        Task.BINARY: (
            f"of 100 {unit} flagged as {name}, {precision:.0f} are {name}",
            f"of 100 {name} {unit}, {recall:.0f} are found",
            f"nothing is flagged as {name}",
        ),
        Task.MULTICLASS: (
            f"of 100 {unit} put into a class, {precision:.0f} belong there",
            f"of 100 {unit} of a class, {recall:.0f} are found, on average over the classes",
            "no label is given",
        ),
        Task.MULTILABEL: (
            f"of 100 labels given, {precision:.0f} are right",
            f"of 100 labels that there are, {recall:.0f} are found",
            "no label is given",
        ),
    }[sweep.task]
    return f"At w_r = {ratio:.4g}: {nothing if sweep.predicts_no_positive(ratio) else flagged}; {found}."


def marked_leg(sweep: RatioSweep, requirement: str | None = None) -> tuple[SweepPoint, str] | None:
    """The leg to mark in tables and charts, and why it is marked.

    Parameters
    ----------
    sweep : RatioSweep
    requirement : str, optional
        See `RatioSweep.choose`; the requirement of the sweep when None.

    Returns
    -------
    (SweepPoint, str) or None
        The chosen leg and "best F1" or, for example, "chosen for recall>=0.95". None where no leg is better than calling
        everything positive, or nothing.
    """
    if not any(point.tp and not calls_everything_positive(point) for point in sweep.points):
        return None
    try:
        choice = sweep.choose(requirement)
    except (
        InvalidInputError
    ):  # a requirement with "@" needs predictions, which may not have been pushed with the sweep
        if requirement is not None or sweep.kept_point is None:
            raise
        return sweep.kept_point, f"model kept for {Requirement.parse(sweep.requirement).text}"
    wanted, point = choice.requirement, choice.point
    if wanted.kind == "f" and (point.tp == 0 or calls_everything_positive(point)):
        return None
    if wanted.text == "f1":
        return point, "best F1"
    return point, f"chosen for {wanted.text}" if choice.met else f"nearest to {wanted.text}, which no leg meets"


def compare_with_threshold(sweep: RatioSweep, requirement: str | None = None) -> str:
    """Compare the leg that a requirement chooses with moving the threshold of the unweighted leg.

    Parameters
    ----------
    sweep : RatioSweep
    requirement : str, optional
        See `RatioSweep.choose`; the requirement of the sweep when None. A confidence (`@90%`) is left out.

    Returns
    -------
    str
        A table of precision and recall with their 95% intervals: of the chosen leg at argmax, of the unweighted leg with
        the threshold that meets the requirement best, and with the threshold 1/(1 + w_r), which does the same as the
        weights in theory (Elkan 2001). Then a sentence on the calibration of the chosen leg. Several labels per example
        have a ratio each, so that the third row and the sentence are missing. Only a sentence where only a threshold meets
        the requirement. Empty where nothing meets it, where there are more than two classes, and without an unweighted leg
        of the same seed and its predictions.
    """
    compared = leg_and_threshold(sweep, requirement)
    if compared is None:
        return ""
    choice, thresholds, best = compared
    if not choice.met:
        return (
            f"No leg meets {choice.requirement.text}, but the unweighted leg does at the threshold {best.threshold:.3g}: "
            f"precision {_cells(best)[0]}, recall {_cells(best)[1]}."
        )
    point = choice.point
    lines = [
        [f"For {choice.requirement.text}", "precision", "recall"],
        [f"w_r = {point.ratio:.4g} at argmax", *_cells(point)],
        [f"w_r = 1 at its best threshold {best.threshold:.3g}", *_cells(best)],
    ]
    if sweep.task is Task.BINARY and point.ratio != 1:
        equivalent = thresholds.at(1 / (1 + point.ratio))
        by_theory = f"w_r = 1 at the threshold 1/(1 + {point.ratio:.4g}) = {equivalent.threshold:.3g}"
        lines.append([by_theory, *_cells(equivalent)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines)
    return f"{text}\n{_calibration(sweep, point)}" if sweep.task is Task.BINARY else text


def leg_and_threshold(
    sweep: RatioSweep, requirement: str | None = None
) -> tuple[Choice, LegThresholds, ThresholdPoint] | None:
    """The leg that a requirement chooses, the unweighted leg of the same seed, and its threshold that meets it best.

    None where `compare_with_threshold` has nothing to compare.
    """
    if sweep.task is Task.MULTICLASS or not sweep.points:
        return None
    choice = sweep.choose((requirement or sweep.requirement).partition("@")[0])
    unweighted = next((p for p in sweep.points if (p.ratio, p.seed) == (1, choice.point.seed)), None)
    if unweighted is None or not all(map(sweep.has_predictions, (unweighted, choice.point))):
        return None
    thresholds = LegThresholds(sweep, unweighted)
    best = thresholds.best(choice.requirement)
    return (choice, thresholds, best) if choice.met or choice.requirement.score(best) >= 1 else None


def _cells(point: SweepPoint | ThresholdPoint) -> tuple[str, str]:
    precision = with_interval(point.precision, point.precision_interval)
    return precision, with_interval(point.recall, point.recall_interval)


def _calibration(sweep: RatioSweep, point: SweepPoint) -> str:
    positives, scores = sweep.positives_and_scores(point)
    errors = []
    for shift in (0, math.log(point.ratio)):
        probabilities = expit(scores - shift)
        brier, gap = np.mean((probabilities - positives) ** 2), expected_calibration_error(probabilities, positives)
        errors.append(f"Brier score {brier:.4f}, expected calibration error {gap:.4f}")
    undone = "" if point.ratio == 1 else f" Without the weighting (logits - log w): {errors[1]}."
    return f"Probabilities at w_r = {point.ratio:.4g}: {errors[0]}.{undone}"
