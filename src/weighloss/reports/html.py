from __future__ import annotations

import os
from collections.abc import Sequence
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
from .comparison import comparison_of, misses_on_test, rule_cells, verdict
from .curves import bands_of, footnote, missing_ratios, plane_of, short
from .text import COLUMNS, marked_choice, rows, rule_in_words, rule_sentence

_CURVE_POINTS = 4000  # of all legs together, and 300 of one: a phone still draws them at once
_SHARES = [share / 100 for share in range(50, 100)]
# By kind of requirement: its words, its values as a page and as `Requirement.parse` has them, and the first one shown.
_KINDS: dict[str, tuple[str, list[tuple[str, str]], int]] = {
    "recall": ("recall at least", [(f"{share:.2f}", f"recall>={share}") for share in _SHARES], 45),
    "precision": ("precision at least", [(f"{share:.2f}", f"precision>={share}") for share in _SHARES], 40),
    "flagged": ("flagged at most", [(f"{n} of 100", f"flagged<={n}%") for n in range(1, 31)], 9),
    "cost": (
        "a miss costs",
        [(f"{n} false alarm{'s' * (n > 1)}", f"cost fp=1 fn={n}") for n in (1, 2, 5, 10, 20, 50, 100)],
        3,
    ),
}
_KINDS_OF_CLASSES: dict[str, tuple[str, list[tuple[str, str]], int]] = {
    "f1": ("highest macro F1", [("", "f1")], 0),
    "recall": ("macro recall at least", _KINDS["recall"][1], 45),
}


def write_report(sweep: RatioSweep, output_dir: str | os.PathLike[str], requirement: str | None = None) -> Path:
    """Write `report.html`, a page on which somebody moves the requirement and sees what it costs.

    The page has the charts of `plot_sweep`, with values on hover, and the table. A slider moves the requirement, and the
    chosen pair of ratio and threshold moves with it in both charts and in a sentence. Each answer is that of
    `RatioSweep.choose`, found for all values of the slider when the page is written. Below the charts is what
    `compare_with_threshold` says about the requirement that is shown first, and, where the sweep had test data, the result
    on them. The page is one file of about 1 MB, which needs no network: it can be sent to who sets the requirement.

    Parameters
    ----------
    sweep : RatioSweep
        With at least one finished leg. Without the predictions on disk the page has no slider.
    output_dir : path
        Folder of `report.html`, which is created if needed.
    requirement : str, optional
        What the page shows first: see `RatioSweep.choose`; the requirement of the sweep when None.

    Returns
    -------
    Path of the file.

    Raises
    ------
    InvalidInputError
        When no leg has finished, or predictions cannot be read.
    """
    if not sweep.points:
        raise InvalidInputError("the sweep has no finished leg to show: let it run.")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # no browser reads NaN
    template = environment.from_string(Path(__file__).with_name("report_template.html").read_text(encoding="utf-8"))
    page = template.render(
        sweep=sweep,
        what=f"“{sweep.positive_name}”" if sweep.task is Task.BINARY else f"{len(sweep.label_names)} labels",
        note=footnote(sweep, "95% bootstrap bands" if bands_of(sweep) else ""),
        columns=COLUMNS,
        rows=rows(sweep, requirement),
        compared=_compared(sweep, requirement),
        content=_ratio_chart(sweep) | _plane_chart(sweep) | _answers(sweep, requirement),
        library=_library(),
    )
    file = folder / "report.html"
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
    curve, bands = sweep.curve("precision", "recall"), bands_of(sweep)
    ratios = curve["ratio"].tolist()
    missing = missing_ratios(sweep)
    lines = []
    for name in ("precision", "recall"):
        for i, ratio in enumerate(ratios):
            ends = _numbers(bands[name][i]) if name in bands else [None, None]
            lines.append({"ratio": ratio, "series": name, "value": curve[name][i], "low": ends[0], "high": ends[1]})
        lines += [{"ratio": ratio, "series": name, "value": None, "low": None, "high": None} for ratio in missing]
    break_even = sweep.break_even()
    return {
        "lines": lines,
        "missing": missing,
        "empty": [ratio for ratio in ratios if sweep.predicts_no_positive(ratio)],
        "natural": sweep.natural_ratio,
        "breakEven": None if break_even is None else {"ratio": break_even, "value": sweep.at(break_even, "precision")},
    }


def _plane_chart(sweep: RatioSweep) -> dict[str, Any]:
    """Each leg over its thresholds, thinned; the frontier of all pairs; and the trained ratios."""
    plane = plane_of(sweep)
    size = max(30, min(300, _CURVE_POINTS // max(1, len(plane.legs))))
    legs: list[dict[str, Any]] = []
    for point, recall, precision, thresholds in plane.legs:
        kept = _thinned(recall, precision, size)
        columns = {"recall": recall, "precision": precision, "threshold": thresholds}
        leg = {name: _numbers(values[kept]) for name, values in columns.items()}
        legs.append({"ratio": point.ratio, "seed": point.seed} | leg)
    recall, precision = plane.frontier
    kept = _thinned(recall, precision, 300)
    return {
        "legs": legs,
        "frontier": {"recall": _numbers(recall[kept]), "precision": _numbers(precision[kept])},
        "argmax": [dict(zip(plane.argmax, row, strict=True)) for row in zip(*plane.argmax.values(), strict=True)],
        "names": [
            dict(zip(("recall", "precision", "text", "side"), placed, strict=True))
            for placed in plane.names(sweep.natural_ratio)
        ],
        "left": max(0.0, plane.left),
        "bottom": max(0.0, plane.bottom),
    }


def _compared(sweep: RatioSweep, requirement: str | None) -> dict[str, Any]:
    """The rules that `compare_with_threshold` compares, by the data that they were measured on, and what they say."""
    compared, asked = comparison_of(sweep, requirement), marked_choice(sweep, requirement)
    sentences = [] if compared is None else [*misses_on_test(compared), *verdict(compared)]
    if asked is not None and sweep.has_predictions(asked.point.leg, "test"):
        point = sweep.at_threshold(asked.point.leg, asked.point.threshold, "test")
        sentences.insert(0, f"On the test data, on which nothing was chosen. {rule_sentence(sweep, point)}")
    if compared is None:
        return {"groups": {}, "sentences": sentences}
    data = {"evaluation data, on which they were chosen": compared.rules}
    if compared.on_test is not None:
        data["test data, on which nothing was chosen"] = compared.on_test
    return {
        "requirement": compared.requirement.text,
        "columns": _results_first(RULE_COLUMNS),
        "groups": {
            name: {kind: _results_first(rule_cells(rule, sweep.task)) for kind, rule in rules.items()}
            for name, rules in data.items()
        },
        "sentences": sentences,
    }


def _results_first(cells: Sequence[str]) -> list[str]:
    """The cells of a rule with w_r and threshold last: a phone shows those that fit without moving the table."""
    return [*cells[2:], *cells[:2]]


def _answers(sweep: RatioSweep, requirement: str | None) -> dict[str, Any]:
    """The kinds of requirement, each with its values, and the number of the answer to each; and the answers."""
    points: dict[OperatingPoint, int] = {}  # many values have the same answer
    kinds = []

    def add(name: str, label: str, texts: Sequence[str], choices: Sequence[Choice], start: int) -> None:
        values = []
        for text, choice in zip(texts, choices, strict=True):
            miss = "" if choice.met else _miss(sweep, f"{label} {text}" if text else choice.requirement.text, choice)
            values.append({"text": text, "answer": points.setdefault(choice.point, len(points)), "miss": miss})
        kinds.append({"name": name, "label": label, "values": values, "start": start})

    asked = marked_choice(sweep, requirement)
    if asked is not None:
        is_default = requirement is None and (sweep.requirement, sweep.threshold) == ("f1", "argmax")
        label = "the default: best F1, threshold not moved" if is_default else f"as asked: {asked.requirement.text}"
        add("asked", label, [""], [asked], 0)
    if sweep.is_measurable:
        of_task = _KINDS_OF_CLASSES if sweep.task is Task.MULTICLASS else _KINDS
        wanted = [Requirement.parse(text) for _, values, _ in of_task.values() for _, text in values]
        found = iter(choose_each(sweep, wanted))
        for name, (label, values, start) in of_task.items():
            add(name, label, [text for text, _ in values], [next(found) for _ in values], start)
    return {"kinds": kinds, "answers": [_answer(sweep, point) for point in points]}


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


def _thinned(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Indices of at most so many points of a curve, at equal distances along it."""
    if len(x) <= size:
        return np.arange(len(x))
    length = np.cumsum(np.abs(np.diff(x, prepend=x[:1])) + np.abs(np.diff(y, prepend=y[:1])))
    return np.unique(np.searchsorted(length, np.linspace(0, length[-1], size)))


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(f"{value:.4g}") for value in values.tolist()]
