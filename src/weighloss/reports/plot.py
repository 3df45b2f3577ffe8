from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..errors import InvalidInputError
from ..results.choice import Choice
from ..results.ratio_sweep import RatioSweep
from ..weighting.task import Task
from .curves import band_of, footnote, missing_ratios, plane_of, short
from .text import marked_choice

_STYLE: list[Any] = ["tableau-colorblind10", {"svg.hashsalt": "weighloss", "font.size": 10}]
_GREY = "0.35"
_FIRST_COLOUR = "#006BA4"  # of the style, which a figure has forgotten when a notebook draws it
_SECOND_COLOUR = "#FF800E"
_HOLLOW: dict[str, Any] = {"color": "black", "markerfacecolor": "none", "markeredgewidth": 1.6, "linestyle": "none"}


def plot_sweep(
    sweep: RatioSweep,
    output_dir: str | os.PathLike[str] | None = None,
    other_metrics: Mapping[str, np.ndarray] | None = None,
    requirement: str | None = None,
    marks: Sequence[str] = (),
) -> dict[str, Figure]:
    """Draw both charts of a sweep. Which ratio do I want? Does reweighting give more than moving the threshold?

    `precision_recall` shows precision and recall against the weight ratio w_r, and marks the natural ratio, the break-even
    (P = R) and the leg that the requirement chooses. The bands are 95% bootstrap intervals. With several seeds the curves
    are means and the bands reach from the lowest to the highest seed. A leg that predicts nothing positive is left out of
    the curve of precision.

    `precision_recall_plane` shows the ratios in the precision-recall plane, with the curve of each leg over all thresholds,
    that of the unweighted leg among them, and the frontier of all pairs of ratio and threshold. What lies between the curve
    of the unweighted leg and the frontier is what weighting adds to moving the threshold. The chosen pair has its 95%
    bootstrap intervals.

    Parameters
    ----------
    sweep : RatioSweep
        With at least one finished leg. The curves over the thresholds need the predictions on disk.
    output_dir : path, optional
        Folder to which each chart is written as PNG and SVG.
    other_metrics : dict of arrays of shape (n_ratios,), optional
        More curves for the first chart, by name: one value for each ratio of `sweep.curve()`.
    requirement : str, optional
        See `RatioSweep.choose`; the requirement of the sweep when None.
    marks : sequence of str
        Weighting schemes to mark on the axis of the first chart, such as `sqrt`: see `RatioSweep.ratio_of`.

    Raises
    ------
    InvalidInputError
        When no leg has finished, or predictions cannot be read.
    """
    if not sweep.points:
        raise InvalidInputError("the sweep has no finished leg to draw: let it run.")
    choice = marked_choice(sweep, requirement)
    with matplotlib.style.context(_STYLE):
        figures = {
            "precision_recall": _ratio_chart(sweep, other_metrics or {}, choice, marks),
            "precision_recall_plane": _plane_chart(sweep, choice),
        }
        if output_dir is not None:
            folder = Path(output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for name, figure in figures.items():
                figure.savefig(folder / f"{name}.png", dpi=160)
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return figures


def _ratio_chart(
    sweep: RatioSweep, other_metrics: Mapping[str, np.ndarray], choice: Choice | None, marks: Sequence[str]
) -> Figure:
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes = figure.subplots()
    curve, missing = sweep.curve("precision", "recall"), missing_ratios(sweep)
    ratios = curve["ratio"]
    gaps = np.searchsorted(ratios, missing)  # the lines are broken where a ratio is missing
    for name, style, marker in (("precision", "-", "o"), ("recall", "--", "s")):
        x, y = np.insert(ratios, gaps, missing), np.insert(curve[name], gaps, np.nan)
        (line,) = axes.plot(x, y, linestyle=style, marker=marker, markersize=5, label=name)
        axes.fill_between(ratios, *band_of(sweep, name).T, color=line.get_color(), alpha=0.2, linewidth=0)
    for name, values in other_metrics.items():
        axes.plot(ratios, values, linestyle=":", marker=".", label=_plain(name))

    if none := [ratio for ratio in ratios if sweep.predicts_no_positive(ratio)]:
        label = "nothing predicted positive (P = 0 by convention)"
        axes.plot(none, [0] * len(none), "x", color=_GREY, markersize=9, zorder=5, label=label)
    if missing:
        label = f"missing: training failed at {', '.join(map(short, missing))}"
        middle = [0.5] * len(missing)
        axes.plot(missing, middle, marker="$?$", linestyle="none", color=_GREY, markersize=9, label=label)
    label = f"natural ratio {short(sweep.natural_ratio)}"
    axes.axvline(sweep.natural_ratio, color=_GREY, linestyle=(0, (5, 4)), linewidth=1, label=label)
    for scheme in marks:
        at = sweep.ratio_of(scheme)
        axes.annotate(
            f"{scheme} {short(at)}", (at, 0), xycoords=("data", "axes fraction"), xytext=(0, 26), rotation=90, ha="center",
            textcoords="offset points", fontsize=8, color=_GREY, arrowprops={"arrowstyle": "->", "color": _GREY},
        )  # fmt: skip
    if (break_even := sweep.break_even()) is not None:
        value = sweep.at(break_even, "precision")
        label = f"break-even P = R = {value:.3g} at {short(break_even)}"
        axes.plot(break_even, value, "D", markersize=8, zorder=6, label=label, **_HOLLOW)
    if choice is not None:
        _star(axes, [choice.point.ratio] * 2, [choice.point.precision, choice.point.recall], sweep, choice)

    of = {
        Task.BINARY: f"“{_plain(sweep.positive_name)}” over the other class",
        Task.MULTICLASS: "the rarest over the commonest class",
        Task.MULTILABEL: "minority over majority of the most imbalanced label",
    }[sweep.task]
    axes.set(xscale="log", xlabel=f"weight ratio $w_r$, of {of} (log scale)")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(ylim=(-0.03, 1.03), ylabel=_plain(", ".join(["precision", "recall", *other_metrics])))
    _finish(figure, sweep, "Precision and recall against the weight ratio", 3, footnote(sweep, with_bands=True))
    return figure


def _plane_chart(sweep: RatioSweep, choice: Choice | None) -> Figure:
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    plane = plane_of(sweep)
    others: dict[str, Any] = {"color": "0.75", "linewidth": 0.7, "label": "the other legs, over all thresholds"}
    unweighted = {"color": "black", "linewidth": 1, "label": "the unweighted leg, over all thresholds"}
    if plane.legs:
        for leg, recall, precision, _ in sorted(plane.legs, key=lambda leg: leg[0].ratio == 1):
            style = unweighted if leg.ratio == 1 else others
            axes.plot(recall, precision, **style)
            style["label"] = None  # the legend has one line for all of them
        label = "frontier of all ratios and thresholds"
        axes.step(*plane.frontier, where="post", color=_SECOND_COLOUR, linewidth=1.6, linestyle="--", label=label)
    else:
        axes.plot([], [], " ", label="no predictions on disk, so no curves over the thresholds")
    x, y = ([point[name] for point in plane.argmax] for name in ("recall", "precision"))
    axes.plot(x, y, "o", color=_FIRST_COLOUR, markersize=6, label="reweighting, one point per $w_r$")
    if choice is not None and choice.point.tp + choice.point.fp:
        point = choice.point
        _star(axes, [point.recall], [point.precision], sweep, choice)
        if point.recall_interval and point.precision_interval:
            axes.plot(point.recall_interval, [point.precision] * 2, color="black", linewidth=1, zorder=6)
            axes.plot([point.recall] * 2, point.precision_interval, color="black", linewidth=1, zorder=6)
    if plane.omitted:
        axes.plot([], [], " ", label=f"nothing predicted positive at {', '.join(map(short, plane.omitted))}")
    for name in plane.names:
        at = name["recall"], name["precision"]
        align = "left" if name["side"] > 0 else "right"
        axes.annotate(name["text"], at, (7 * name["side"], -9), textcoords="offset points", fontsize=8, ha=align)
    axes.set(xlabel="recall", ylabel="precision", xlim=(plane.left, 1.02), ylim=(plane.bottom, 1.02))
    _finish(figure, sweep, "Reweighting, the threshold, and both", 2, footnote(sweep))
    return figure


def _star(axes: Any, x: Sequence[float], y: Sequence[float], sweep: RatioSweep, choice: Choice) -> None:
    # With spaces at which the legend breaks no line.
    ratio = f"$w_r$ = {short(choice.point.ratio)}".replace(" ", "\N{NO-BREAK SPACE}")
    label = f"{choice.because}: {ratio}"
    label += f", seed {choice.point.seed}" if len(sweep.seeds) > 1 else ""
    label += "" if choice.point.is_argmax else f", {choice.point.threshold_text}"
    axes.plot(x, y, "*", color="black", markersize=12, zorder=7, label=label)


def _finish(figure: Figure, sweep: RatioSweep, title: str, columns: int, note: str) -> None:
    """Title, legend above the axes, where it covers nothing, and footnote."""
    of = {
        Task.BINARY: f"“{sweep.positive_name}”",
        Task.MULTICLASS: f"macro average of {len(sweep.label_names)} classes",
        Task.MULTILABEL: f"micro average of {len(sweep.label_names)} labels",
    }[sweep.task]
    figure.suptitle(_plain(f"{title}\n{of}, {sweep.dataset or 'evaluation set'}"))
    axes = figure.axes[0]
    axes.grid(alpha=0.3)
    legend = axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_text(textwrap.fill(text.get_text(), 100 // columns))
    note = textwrap.fill(note, int(16 * figure.get_figwidth()))
    figure.supxlabel(_plain(note), fontsize=8, color=_GREY)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # otherwise matplotlib reads a formula
