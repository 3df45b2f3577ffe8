"""The comparison of ratio, threshold and both as a table and a sentence, for the text and the page."""

from __future__ import annotations

from ..results.comparison import PAIR, THRESHOLD, Comparison, compare
from ..results.operating_point import OperatingPoint
from ..results.points import with_interval
from ..results.ratio_sweep import RatioSweep
from ..results.requirement import Requirement
from ..weighting.task import Task

COLUMNS = ("w_r", "threshold", "precision", "recall", "flagged")  # of each rule
_OBJECTIVES = {"f": "F-measure", "mcc": "Matthews correlation", "cost": "saving per item"}


def compare_with_threshold(sweep: RatioSweep, requirement: str | None = None) -> str:
    """Is weighting worth it for a requirement, or does moving the threshold do as well?

    Parameters
    ----------
    sweep : RatioSweep
    requirement : str, optional
        See `RatioSweep.choose`; the requirement of the sweep when None. A confidence (`@90%`) is left out.

    Returns
    -------
    str
        A table with precision, recall and the share flagged, with 95% intervals, of the natural ratio, the best ratio, the
        unweighted leg with its best threshold, and the best pair of ratio and threshold; on the evaluation data and, where
        the sweep had a test set, on that. Then a sentence that says whether the best pair is better than the threshold
        alone. Empty without predictions on disk, and for the break-even, which is a question about the ratio.
    """
    compared = comparison_of(sweep, requirement)
    if compared is None:
        return ""
    lines = [[f"For {compared.requirement.text}", *COLUMNS]]
    for data, rules in (("", compared.rules), (" (test data)", compared.on_test or {})):
        lines += [[name + data, *rule_cells(rule, sweep.task)] for name, rule in rules.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines]
    return "\n".join(rows + conclusions(compared))


def comparison_of(sweep: RatioSweep, requirement: str | None = None) -> Comparison | None:
    """What `compare_with_threshold` shows, if there is anything to compare."""
    asked = requirement or sweep.requirement
    if not sweep.is_measurable or Requirement.parse(asked).objective == "break-even":
        return None
    return compare(sweep, asked)


def rule_cells(rule: OperatingPoint, task: Task) -> list[str]:
    """The cells of the columns `COLUMNS`."""
    threshold = "argmax" if rule.is_argmax else rule.threshold_text.split(" ", 2)[2]
    flagged = "" if task is Task.MULTICLASS else f"{rule.flagged:.1%}"
    return [f"{rule.ratio:.4g}", threshold, _measured(rule, "precision"), _measured(rule, "recall"), flagged]


def conclusions(compared: Comparison) -> list[str]:
    """Sentences that say whether the best pair beats the threshold alone, and which bounds it misses on the test data."""
    sentences, wanted = [], compared.requirement
    if compared.difference is not None and compared.difference_interval is not None:
        sentences.append(_verdict(compared, compared.difference, *compared.difference_interval))
    if compared.on_test is None:
        return sentences
    pair = compared.on_test[PAIR]
    for name in [name for name, gap in wanted.missing(pair).items() if gap > 0]:
        bound = dict(wanted.bounds)[name]
        if name == "flagged":
            sentences.append(f"On the test data {pair.flagged:.1%} are flagged, and at most {bound:.1%} are allowed.")
        else:
            found = _measured(pair, name)
            sentences.append(f"On the test data {name} is {found}, and at least {bound:.4g} is required.")
    return sentences


def _verdict(compared: Comparison, difference: float, low: float, high: float) -> str:
    if compared.rules[PAIR].ratio == compared.rules[THRESHOLD].ratio:
        return "The best leg is the unweighted one: here the threshold does all that weighting could do."
    is_worth_it = "Weighting is" if low > 0 else "Weighting is not" if high < 0 else "It is open whether weighting is"
    objective = compared.requirement.objective
    same = ""
    if compared.is_matched:
        same = f"at the same {compared.requirement.bounds[0][0].replace('flagged', 'share flagged')}, "
    data = "test data" if compared.on_test else "evaluation data, on which both were chosen"
    return (
        f"{is_worth_it} worth it here: {same}with ratio and threshold the {_OBJECTIVES.get(objective, objective)} is "
        f"{difference:+.3f} compared with the threshold alone (95% interval {low:+.3f} to {high:+.3f}, on the {data})."
    )


def _measured(rule: OperatingPoint, name: str) -> str:
    return with_interval(getattr(rule, name), getattr(rule, f"{name}_interval"))
