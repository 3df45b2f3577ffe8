from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit

from ..errors import InvalidInputError
from ..results.choice import Choice
from ..results.metrics import expected_calibration_error
from ..results.operating_point import OperatingPoint
from ..results.points import SweepPoint, printable
from ..results.ratio_sweep import RatioSweep
from ..results.requirement import calls_everything_positive
from ..weighting.class_weights import ClassWeights
from ..weighting.task import Task
from .comparison import compare_with_threshold

_FEW_STEPS = 100  # on real data, the results of shorter legs jump from nothing found to everything
_COUNTS = ("tp", "fp", "fn", "tn")
COLUMNS = ("w_r", "x natural", "1/(1+w_r)", "precision", "recall", "F1", "TP", "FP", "FN", "TN", "")  # of the table


def imbalance(class_weights: ClassWeights, label_names: Sequence[str]) -> str:
    """The number of training labels of each class and the natural ratio, in one sentence.

    Examples
    --------
    >>> imbalance(ClassWeights.from_counts([8800, 1200]), ["ham", "spam"])
    'Training labels: 8,800 ham, 1,200 spam. Natural weight ratio: 7.333. Precision and recall are those of spam.'
    """
    natural = f"{class_weights.natural_ratio:.4g}"
    names = [printable(name) for name in label_names]
    labels = zip(names, class_weights.counts, strict=True)
    if class_weights.task is Task.MULTILABEL:
        shares = ", ".join(f"{n[1]:,} of {n.sum():,} {name}" for name, n in labels)
        return f"Training labels: {shares}. Natural weight ratio of the most imbalanced: {natural}."
    text = f"Training labels: {', '.join(f'{n:,} {name}' for name, n in labels)}. Natural weight ratio: {natural}."
    if class_weights.task is Task.BINARY:
        other = names[1 - class_weights.positive_label]
        text += f" Precision and recall are those of {names[class_weights.positive_label]}."
        if class_weights.natural_ratio < 1:
            text += f" That is the larger class: to look for {other}, write --positive_label {other}."
    return text


def summary(sweep: RatioSweep, requirement: str | None = None) -> str:
    """The results of a sweep in plain words, one line for each statement.

    Says what the natural ratio and the chosen one mean, where the break-even is, which legs failed or are missing, and
    compares the chosen leg with a threshold (see `compare_with_threshold`). The `requirement` is one of
    `RatioSweep.choose`; that of the sweep when None.
    """
    lines = [f"Failed. At w_r = {leg.ratio:.4g} with seed {leg.seed}: {leg.reason}." for leg in sweep.failed]
    if len(sweep.done) < len(sweep.legs):
        done = f"{len(sweep.done)} of {len(sweep.legs)} legs are done"
        lines.append(f"Unfinished. {done}: run the sweep again for the others.")
    if not sweep.points:
        return "\n".join(lines)
    natural = [ratio for ratio in sweep.by_ratio() if np.isclose(ratio, sweep.natural_ratio)]
    lines += [f"Natural ratio. {sentence(sweep, ratio)}" for ratio in natural[:1]]
    if (choice := marked_choice(sweep, requirement)) is not None:
        because = choice.because[0].upper() + choice.because[1:]
        but = f" But {choice.why_not}." if choice.why_not else ""
        lines.append(f"{because}. {rule_sentence(sweep, choice.point)}{but}")
    if choice is None or not _has_learned(sweep):
        name = sweep.positive_name if sweep.task is Task.BINARY else "label"
        found = any(point.tp for point in sweep.points)
        what = f"is better than calling everything {name}" if found else f"finds any {name}"
        lines.append(f"Nothing learned. At argmax no leg {what}: train longer, or raise the learning rate.")
    if (steps := sweep.points[0].global_step) < _FEW_STEPS:
        lines.append(
            f"Short legs. Each had {steps} optimizer steps: where the curves jump, train longer (epochs_per_ratio), with a "
            "higher learning rate or with smaller batches."
        )
    if (break_even := sweep.break_even()) is None:
        lines.append("The curves of precision and recall do not cross: no break-even.")
    else:
        value, ends = sweep.at(break_even, "precision"), sweep.break_even_interval()
        interval = "" if ends is None else f" (95% interval {ends[0]:.3g} to {ends[1]:.3g})"
        lines.append(f"Break-even. Precision equals recall, {value:.3f}, at about w_r = {break_even:.4g}{interval}.")
    if choice is not None and sweep.task is Task.BINARY and sweep.is_measurable:
        lines.append(_calibration(sweep, choice.point.leg))
    if choice is not None and requirement is None and (sweep.requirement, sweep.threshold) == ("f1", "argmax"):
        lines.append("Default choice. The highest F1 of the ratios at argmax; to move the threshold too, choose f1.")
    return "\n".join([*lines, *compare_with_threshold(sweep, requirement).splitlines()])


def table(sweep: RatioSweep, requirement: str | None = None) -> str:
    """The sweep as a table with one row for each ratio: w_r, its multiple of the natural ratio, metrics and counts.

    1/(1 + w_r) is the threshold on the probability of the unweighted model that does the same in theory (Elkan 2001).
    Marks show the natural ratio, the choice and the leg whose model is kept. The interpolated break-even has a row, and so
    has a ratio whose legs all failed. With several seeds the numbers are means: see `RatioSweep.curve`. With one seed,
    precision and recall have their 95% bootstrap intervals.
    """
    cells = rows(sweep, requirement)
    width = max([9, *(len(row[3]) for row in cells)])
    line = f"{{:>9}} {{:>9}} {{:>9}}  {{:>{width}}} {{:>{width}}} {{:>6}}  {{:>6}} {{:>6}} {{:>6}} {{:>6}}  {{}}"
    return "\n".join(line.format(*row).rstrip() for row in (COLUMNS, *cells))


def rows(sweep: RatioSweep, requirement: str | None = None) -> list[list[str]]:
    """The cells of `table`: in each row ten numbers and the marks."""
    break_even, kept, choice = sweep.break_even(), sweep.kept_point, marked_choice(sweep, requirement)
    curve = sweep.curve("precision", "recall", "f1", *_COUNTS)
    cells = {leg.ratio: [""] * 7 + ["failed"] for leg in sweep.failed}
    if break_even is not None:
        cells[break_even] = [f"{sweep.at(break_even, 'precision'):.3f}"] * 3 + [""] * 4 + ["break-even (interpolated)"]
    for i, (ratio, points) in enumerate(sweep.by_ratio().items()):
        marks = {
            "natural": np.isclose(ratio, sweep.natural_ratio),
            "unweighted": ratio == 1,
            "break-even": ratio == break_even,
            choice.because if choice else "": choice and choice.point.is_argmax and choice.point.ratio == ratio,
            "nothing predicted positive": sweep.predicts_no_positive(ratio),
            "model kept": kept is not None and ratio == kept.ratio,
        }
        numbers = _numbers({name: values[i] for name, values in curve.items()}, points[0], len(sweep.seeds) == 1)
        cells[ratio] = [*numbers, ", ".join(mark for mark, holds in marks.items() if holds)]
    table = []
    for ratio in sorted(cells):
        threshold = f"{1 / (1 + ratio):.3g}" if sweep.task is Task.BINARY else ""
        table.append([f"{ratio:.4g}", f"{ratio / sweep.natural_ratio:.3g}", threshold, *cells[ratio]])
    if choice is not None and not choice.point.is_argmax:
        rule, mark = choice.point, f"{choice.because}, {choice.point.threshold_text}"
        table.append([f"{rule.ratio:.4g}", "", "", *_numbers(vars(rule), rule), mark])
    return table


def sentence(sweep: RatioSweep, ratio: float) -> str:
    """The precision and recall of one ratio as parts of 100, for someone who acts on the predictions.

    Raises
    ------
    InvalidInputError
        When the sweep has no finished leg at that ratio, compared with the digits that `table` prints.
    """
    curve = sweep.curve("precision", "recall")
    found = np.flatnonzero(np.isclose(curve["ratio"], ratio, rtol=1e-3, atol=0))
    if not len(found):
        known = ", ".join(f"{known:.4g}" for known in curve["ratio"])
        raise InvalidInputError(f"the sweep has no leg at w_r = {ratio}: write one of {known}.")
    ratio, precision, recall = (column[found[0]].item() for column in curve.values())
    return f"At w_r = {ratio:.4g}: {of_100(sweep, precision, recall, sweep.predicts_no_positive(ratio))}."


def rule_sentence(sweep: RatioSweep, point: OperatingPoint) -> str:
    """The precision and recall of a leg at its threshold as parts of 100, as `sentence` says them."""
    if point.is_argmax:
        return f"At w_r = {point.ratio:.4g}: {of_100(sweep, point.precision, point.recall, not point.tp + point.fp)}."
    return f"At w_r = {point.ratio:.4g} with {point.threshold_text}: {rule_in_words(sweep, point)}."


def rule_in_words(sweep: RatioSweep, point: OperatingPoint) -> str:
    """The precision and recall of a leg at its threshold, and the share that it flags, as parts of 100."""
    text = of_100(sweep, point.precision, point.recall, not point.tp + point.fp)
    if sweep.task is Task.MULTICLASS:
        return text
    return f"{text}; {100 * point.flagged:.3g} of 100 {sweep.unit} are flagged"


def of_100(sweep: RatioSweep, precision: float, recall: float, flags_nothing: bool) -> str:
    """Precision and recall as parts of 100."""
    name, unit = sweep.positive_name, sweep.unit
    precision, recall = 100 * precision, 100 * recall
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
    return f"{nothing if flags_nothing else flagged}; {found}"


def marked_choice(sweep: RatioSweep, requirement: str | None = None) -> Choice | None:
    """The choice to mark in tables and charts, for a requirement or that of the sweep.

    Without predictions on disk, the requirement is asked of the trained ratios alone. None where the choice finds nothing,
    or calls everything positive, or leaves legs at argmax of which all do.
    """
    if not sweep.points:
        return None
    is_recorded = requirement is None and (sweep.operating_point is not None or sweep.threshold == "argmax")
    if sweep.is_measurable or is_recorded:
        choice = sweep.choose(requirement)
    else:
        choice = sweep.choose((requirement or sweep.requirement).partition("@")[0], "argmax")
    is_bad = _is_useless(choice.point) and choice.requirement.objective == "f" and not choice.requirement.bounds
    return None if is_bad or (choice.point.is_argmax and not _has_learned(sweep)) else choice


def _has_learned(sweep: RatioSweep) -> bool:
    return not all(map(_is_useless, sweep.points))


def _is_useless(point: SweepPoint | OperatingPoint) -> bool:
    return point.tp == 0 or bool(calls_everything_positive(point))


def _numbers(values: Mapping[str, float], leg: SweepPoint | OperatingPoint, has_intervals: bool = True) -> list[str]:
    """Precision, recall, F1 and the counts as cells of `table`, with the intervals of a leg if it has some."""
    cells = [f"{values[name]:.3f}" for name in ("precision", "recall", "f1")]
    for i, ends in enumerate((leg.precision_interval, leg.recall_interval)):
        cells[i] += " {:.3f}-{:.3f}".format(*ends) if ends and has_intervals else ""
    return cells + [f"{values[name]:.1f}".removesuffix(".0") for name in _COUNTS]


def _calibration(sweep: RatioSweep, leg: SweepPoint) -> str:
    ratio, (positives, scores) = leg.ratio, sweep.positives_and_scores(leg)
    errors = []
    for shift in (0, math.log(ratio)):
        probabilities = expit(scores - shift)
        brier, gap = np.mean((probabilities - positives) ** 2), expected_calibration_error(probabilities, positives)
        errors.append(f"Brier score {brier:.4f}, expected calibration error {gap:.4f}")
    undone = "" if ratio == 1 else f" Without the weighting (logits - log w): {errors[1]}."
    return f"Probabilities at w_r = {ratio:.4g}: {errors[0]}.{undone}"
