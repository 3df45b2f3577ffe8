from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from ..errors import InvalidInputError
from ..results.choice import Choice, choose_each
from ..results.operating_point import OperatingPoint
from ..results.ratio_sweep import RatioSweep
from ..results.requirement import Requirement
from ..weighting.task import Task
from .comparison import COLUMNS as RULE_COLUMNS
from .comparison import comparison_of, conclusions, rule_cells
from .curves import band_of, footnote, missing_ratios, plane_of, short
from .text import COLUMNS, marked_choice, rows, rule_in_words, rule_sentence

_CURVE_POINTS = 4000  # of all legs together, and 300 of one: a phone still draws them at once


def write_report(sweep: RatioSweep, output_dir: str | os.PathLike[str], requirement: str | None = None) -> Path:
    """Write `report.html`, a page on which somebody moves the requirement and sees what it costs.

    The page has the charts of `plot_sweep`, with values on hover, and the table. A slider moves the requirement, and the
    chosen pair of ratio and threshold moves with it in both charts and in a sentence. Each answer is that of
    `RatioSweep.choose`, found for all values of the slider when the page is written. Below the charts is what
    `compare_with_threshold` says about the requirement that is shown first, and, where the sweep had test data, the result
    on them. The page is one file of about 1 MB, which needs no network: it can be sent to whoever sets the requirement.
    Returns its path.

    Parameters
    ----------
    sweep : RatioSweep
        With at least one finished leg. Without the predictions on disk the page has no slider.
    output_dir : path
        Folder of `report.html`, which is created if needed.
    requirement : str, optional
        What the page shows first: see `RatioSweep.choose`; the requirement of the sweep when None.

    Raises
    ------
    InvalidInputError
        When no leg has finished, or predictions cannot be read.
    """
    if not sweep.points:
        raise InvalidInputError("the sweep has no finished leg to show: let it run.")
    asked, compared = marked_choice(sweep, requirement), comparison_of(sweep, requirement)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # no browser reads NaN
    template = environment.from_string(Path(__file__).with_name("report_template.html").read_text(encoding="utf-8"))
    page = template.render(
        sweep=sweep,
        what=f"“{sweep.positive_name}”" if sweep.task is Task.BINARY else f"{len(sweep.label_names)} labels",
        note=footnote(sweep, with_bands=True),
        columns=COLUMNS,
        rows=rows(sweep, requirement),
        compared=compared,
        rule_columns=RULE_COLUMNS,
        rule_cells=rule_cells,
        sentences=_on_test(sweep, asked) + (conclusions(compared) if compared else []),
        content=_ratio_chart(sweep) | _plane_chart(sweep) | _answers(sweep, requirement, asked),
        library=_library(),
    )
    file = Path(output_dir, "report.html")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # a name may hold half of a surrogate pair
    return file


@cache
def _library() -> str:
    """Vega-Embed, with Vega-Lite and Vega in it, as the text of one script."""
    import vl_convert  # which takes 90 MB of memory, and only a report needs it

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script")


def _ratio_chart(sweep: RatioSweep) -> dict[str, Any]:
    """Precision and recall against the ratio; a ratio whose training failed is a gap in the lines."""
    curve, missing, break_even = sweep.curve("precision", "recall"), missing_ratios(sweep), sweep.break_even()
    ratios = curve["ratio"].tolist()
    lines: list[dict[str, Any]] = []
    for name in ("precision", "recall"):
        for ratio, value, ends in zip(ratios, curve[name].tolist(), band_of(sweep, name), strict=True):
            low, high = _numbers(ends)
            lines.append({"ratio": ratio, "series": name, "value": value, "low": low, "high": high})
        lines += [{"ratio": ratio, "series": name, "value": None, "low": None, "high": None} for ratio in missing]
    return {
        "lines": lines,
        "missing": missing,
        "empty": [ratio for ratio in ratios if sweep.predicts_no_positive(ratio)],
        "natural": sweep.natural_ratio,
        "breakEven": break_even and {"ratio": break_even, "value": sweep.at(break_even, "precision")},
    }


def _plane_chart(sweep: RatioSweep) -> dict[str, Any]:
    """Each leg over its thresholds, thinned; the frontier of all pairs; and the trained ratios."""
    plane = plane_of(sweep)
    size = max(30, min(300, _CURVE_POINTS // max(1, len(plane.legs))))
    return {
        "legs": [{"ratio": point.ratio, "seed": point.seed} | _thinned(size, *curve) for point, *curve in plane.legs],
        "frontier": _thinned(300, *plane.frontier),
        "argmax": plane.argmax,
        "names": plane.names,
        "left": max(0.0, plane.left),
        "bottom": max(0.0, plane.bottom),
    }


def _on_test(sweep: RatioSweep, asked: Choice | None) -> list[str]:
    """What the rule that is shown first gives on the test data, if there are any."""
    if asked is None or not sweep.has_predictions(asked.point.leg, "test"):
        return []
    point = sweep.at_threshold(asked.point.leg, asked.point.threshold, "test")
    return [f"On the test data, on which nothing was chosen. {rule_sentence(sweep, point)}"]


def _kinds(task: Task) -> list[tuple[str, str, int, list[tuple[str, str]]]]:
    """Each kind of requirement: its name, its words, which value is shown first, and the values.

    A value is its text on the page, and the requirement for `Requirement.parse`.
    """
    shares, costs = [share / 100 for share in range(50, 100)], (1, 2, 5, 10, 20, 50, 100)
    recall = [(f"{share:.2f}", f"recall>={share}") for share in shares]
    if task is Task.MULTICLASS:
        return [("f1", "highest macro F1", 0, [("", "f1")]), ("recall", "macro recall at least", 45, recall)]
    return [
        ("recall", "recall at least", 45, recall),
        ("precision", "precision at least", 40, [(f"{share:.2f}", f"precision>={share}") for share in shares]),
        ("flagged", "flagged at most", 9, [(f"{n} of 100", f"flagged<={n}%") for n in range(1, 31)]),
        ("cost", "a miss costs", 3, [(f"{n} false alarm{'s' * (n > 1)}", f"cost fp=1 fn={n}") for n in costs]),
    ]


def _answers(sweep: RatioSweep, requirement: str | None, asked: Choice | None) -> dict[str, Any]:
    """The kinds of requirement, each with its values, and the number of the answer to each; and the answers."""
    kinds = _kinds(sweep.task) if sweep.is_measurable else []
    wanted = [Requirement.parse(text) for *_, values in kinds for _, text in values]
    choices = choose_each(sweep, wanted) if wanted else []
    if asked is not None:
        is_default = requirement is None and (sweep.requirement, sweep.threshold) == ("f1", "argmax")
        label = "the default: best F1, threshold not moved" if is_default else f"as asked: {asked.requirement.text}"
        kinds, choices = [("asked", label, 0, [("", asked.requirement.text)]), *kinds], [asked, *choices]
    points: dict[OperatingPoint, int] = {}  # many values have the same answer
    shown, found = [], iter(choices)
    for name, label, start, values in kinds:
        answered = []
        for (text, _), choice in zip(values, found, strict=False):
            miss = "" if choice.met else _miss(sweep, f"{label} {text}" if text else choice.requirement.text, choice)
            answered.append({"text": text, "answer": points.setdefault(choice.point, len(points)), "miss": miss})
        shown.append({"name": name, "label": label, "values": answered, "start": start})
    return {"kinds": shown, "answers": [_answer(sweep, point) for point in points]}


def _miss(sweep: RatioSweep, wanted: str, choice: Choice) -> str:
    if choice.why_not:
        return f"{wanted} cannot be guaranteed: {choice.why_not}. Without a guarantee: "
    pair = "pair of ratio and threshold" if sweep.is_measurable else "trained ratio"
    return f"No {pair} meets “{wanted}”. The nearest one: "


def _answer(sweep: RatioSweep, point: OperatingPoint) -> dict[str, Any]:
    """A pair of ratio and threshold as numbers and in words."""
    seed = f", seed {point.seed}," if len(sweep.seeds) > 1 else ""
    threshold = "no change of the threshold" if point.is_argmax else point.threshold_text
    words = rule_in_words(sweep, point)
    text = f"{words[0].upper()}{words[1:]}. This is w_r = {short(point.ratio)}{seed} with {threshold}"
    if point.precision_interval and point.recall_interval:
        ends = (*point.precision_interval, *point.recall_interval)
        text += " (95% intervals: precision {:.2f} to {:.2f}, recall {:.2f} to {:.2f})".format(*ends)
    text += "."
    names = ("ratio", "precision", "recall", "precision_interval", "recall_interval")
    return {name: getattr(point, name) for name in names} | {"text": text}


def _thinned(size: int, *curve: np.ndarray) -> dict[str, list[float | None]]:
    """At most so many points of a curve of recall, precision and perhaps thresholds, at equal distances along it."""
    kept = np.arange(len(curve[0]))
    if len(kept) > size:
        length = np.cumsum(sum(np.abs(np.diff(values, prepend=values[:1])) for values in curve[:2]))
        kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], size)))
    names = ("recall", "precision", "threshold")
    return {name: _numbers(values[kept]) for name, values in zip(names, curve, strict=False)}


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(f"{value:.4g}") for value in values.tolist()]
