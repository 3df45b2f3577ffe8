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
from sklearn.metrics import precision_recall_curve

from ..results.ratio_sweep import RatioSweep
from .text import worth

_STYLE: list[Any] = ["tableau-colorblind10", {"svg.hashsalt": "weighloss", "font.size": 10}]
_GREY = "0.35"


def plot_sweep(
    sweep: RatioSweep,
    output_dir: str | os.PathLike[str] | None = None,
    other_metrics: Mapping[str, np.ndarray] | None = None,
    requirement: str | None = None,
    marks: Sequence[str] = (),
) -> dict[str, Figure]:
    """Both charts of a sweep: which ratio do I want, and does reweighting buy me anything over moving the threshold?

    `precision_recall` is precision and recall against the weight ratio w_r, with the natural ratio, the break-even
    (P = R) and the ratio that the requirement chooses (the best F1 without one) marked. The bands are 95% bootstrap
    intervals or, with several seeds, from the lowest to the highest of them around their mean; a leg that predicts nothing
    positive is left out of those of precision.
    `precision_recall_plane` is the ratios in the precision-recall plane over the threshold curve of the unweighted leg:
    points above the curve are out of reach for a threshold.

    Parameters
    ----------
    sweep : RatioSweep
        With at least one finished leg; loaded from disk, with its predictions, for the second chart's threshold curve.
    output_dir : path, optional
        Where the charts are written, each as PNG and SVG.
    other_metrics : dict of arrays of shape (n_ratios,), optional
        More curves for the first chart, by name: one value for each ratio of `sweep.curve()`.
    requirement : str, optional
        See `RatioSweep.choose`; that which the sweep's model was chosen for when None.
    marks : sequence of str
        Weighting schemes to mark on the first chart's axis, such as `sqrt`: see `RatioSweep.ratio_of`.

    Returns
    -------
    dict of str to matplotlib Figure, `precision_recall` and `precision_recall_plane`.

    Raises
    ------
    InvalidInputError
        When no leg has finished, or the predictions of the unweighted leg cannot be read.
    """
    with matplotlib.style.context(_STYLE):
        figures = {
            "precision_recall": _ratio_chart(sweep, other_metrics or {}, _chosen(sweep, requirement), marks),
            "precision_recall_plane": _plane_chart(
                sweep, requirement or sweep.requirement, _chosen(sweep, requirement)
            ),
        }
        if output_dir is not None:
            folder = Path(output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for name, figure in figures.items():
                figure.savefig(folder / f"{name}.png", dpi=160)
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return figures


def _ratio_chart(
    sweep: RatioSweep, other_metrics: Mapping[str, np.ndarray], chosen: tuple[float, str] | None, marks: Sequence[str]
) -> Figure:
    break_even = sweep.break_even()
    bands = _bands(sweep)
    curve = sweep.curve("precision", "recall")
    ratios = curve["ratio"]
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes = figure.subplots()

    preview = sweep.previewed()
    missing = sorted({leg.ratio for leg in sweep.failed} - set(ratios.tolist()))
    gaps = np.searchsorted(ratios, missing)  # the lines do not run through what is missing
    for name, style, marker in (("precision", "-", "o"), ("recall", "--", "s")):
        x, y = np.insert(ratios, gaps, missing), np.insert(curve[name], gaps, np.nan)
        (line,) = axes.plot(x, y, linestyle=style, marker=marker, markersize=5, label=name)
        if preview is not None:
            shape = preview.curve(name)
            axes.plot(
                shape["ratio"], shape[name], linestyle=style, linewidth=1.2, alpha=0.75, color=line.get_color(),
                label=f"{name}, preview", zorder=1,
            )  # fmt: skip
        if name in bands:
            axes.fill_between(ratios, *bands[name].T, color=line.get_color(), alpha=0.2, linewidth=0)
    for name, values in other_metrics.items():
        axes.plot(ratios, values, linestyle=":", marker=".", label=name)

    none = [ratio for ratio in ratios if sweep.predicts_no_positive(ratio)]
    if none:
        axes.plot(
            none,
            [0] * len(none),
            "x",
            color=_GREY,
            markersize=9,
            zorder=5,
            label="nothing predicted positive (P = 0 by convention)",
        )
    if missing:
        axes.plot(
            missing,
            [0.5] * len(missing),
            marker="$?$",
            linestyle="none",
            color=_GREY,
            markersize=9,
            label=f"missing: training failed at {', '.join(map(_short, missing))}",
        )
    axes.axvline(
        sweep.natural_ratio,
        color=_GREY,
        linestyle=(0, (5, 4)),
        linewidth=1,
        label=f"natural ratio {_short(sweep.natural_ratio)}",
    )
    for mark in marks:
        at = sweep.ratio_of(mark)
        axes.annotate(
            f"{mark} {_short(at)}", (at, 0), xycoords=("data", "axes fraction"), xytext=(0, 26), textcoords="offset points",
            rotation=90, ha="center", fontsize=8, color=_GREY, arrowprops={"arrowstyle": "->", "color": _GREY},
        )  # fmt: skip
    if break_even is not None:
        value = sweep.at(break_even, "precision")
        axes.plot(
            break_even, value, "D", color="black", markersize=8, markerfacecolor="none", markeredgewidth=1.6, zorder=6,
            linestyle="none", label=f"break-even P = R = {value:.3g} at {_short(break_even)}",
        )  # fmt: skip
    if chosen is not None:
        ratio, label = chosen
        at_chosen = [float(curve[name][ratios == ratio][0]) for name in ("precision", "recall")]
        axes.plot([ratio, ratio], at_chosen, "*", color="black", markersize=12, zorder=7, label=label)

    _log_axis(axes, sweep)
    axes.set(
        ylim=(-0.03, 1.03),
        ylabel=", ".join(["precision", "recall", *other_metrics]),
    )
    figure.suptitle(_title(sweep, "Precision and recall against the weight ratio"))
    axes.grid(alpha=0.3)
    _legend(axes, 3)
    _footnote(figure, sweep, bool(bands))
    return figure


def _legend(axes: Any, columns: int) -> None:
    """Beside what is drawn, wherever that is: below the title, which is the figure's."""
    legend = axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_text(textwrap.fill(text.get_text(), 100 // columns))


def _chosen(sweep: RatioSweep, requirement: str | None) -> tuple[float, str] | None:
    """The ratio to mark, and why: by the requirement, by that which the sweep was for, or by the best F1."""
    if requirement is not None:
        choice = sweep.choose(requirement)
        ratio, why = choice.point.ratio, f"{'chosen for' if choice.met else 'nearest to'} {choice.requirement.text}"
        return ratio, f"{why}: {_short(ratio)}"
    if sweep.requirement is not None and sweep.kept_point is not None:
        # Not chosen anew: the predictions need not be here.
        return sweep.kept_point.ratio, f"{sweep.kept_because}: {_short(sweep.kept_point.ratio)}"
    best, highest = sweep.best("f1"), sweep.curve("f1")["f1"].max()
    return (best, f"best F1 = {highest:.3g} at {_short(best)}") if highest > 0 else None


def _plane_chart(sweep: RatioSweep, requirement: str | None, chosen: tuple[float, str] | None) -> Figure:
    curve = sweep.curve("precision", "recall")
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()

    unweighted = [point for point in sweep.points if point.ratio == 1]
    there = [point for point in unweighted if sweep.has_predictions(point)]
    if sweep.average != "macro" and there:
        for point in there:
            precision, recall, _ = precision_recall_curve(*sweep.positives_and_scores(point))
            label = "moving the threshold of the unweighted model" if point is there[0] else None
            axes.plot(recall[:-1], precision[:-1], color=_GREY, linewidth=1, label=label)
    else:
        if not unweighted:
            reason = "no leg at w_r = 1, so no threshold curve"
        elif sweep.average == "macro":
            reason = "more than two classes have no one threshold"
        else:
            reason = "the predictions are not here, so no threshold curve"
        axes.plot([], [], " ", color=_GREY, label=reason)

    drawn = [i for i, ratio in enumerate(curve["ratio"]) if not sweep.predicts_no_positive(ratio)]
    recall, precision, ratios = (curve[name][drawn] for name in ("recall", "precision", "ratio"))
    axes.plot(recall, precision, "o", markersize=6, label="reweighting, one point per $w_r$")
    if chosen is not None and chosen[0] in ratios:
        at = ratios == chosen[0]
        axes.plot(recall[at], precision[at], "*", color="black", markersize=12, zorder=7, label=chosen[1])
    if len(drawn) < len(curve["ratio"]):
        omitted = ", ".join(_short(ratio) for ratio in curve["ratio"] if ratio not in ratios)
        axes.plot([], [], " ", color=_GREY, label=f"nothing predicted positive at {omitted}")
    left, bottom = (min(values.min(initial=1) - 0.1, 0.5) for values in (recall, precision))
    width, height = 1.02 - left, 1.02 - bottom
    together: dict[tuple[float, float], list[str]] = {}  # points too close to be labelled each have one label together
    for x, y, ratio in zip(recall, precision, ratios, strict=True):
        near = [at for at in together if abs(at[0] - x) / width + abs(at[1] - y) / height < 0.05]
        together.setdefault(near[0] if near else (x, y), []).append(
            _short(ratio) + (" (natural)" if np.isclose(ratio, sweep.natural_ratio) else "")
        )
    for (x, y), texts in together.items():
        text = ", ".join(texts)
        reach = 0.013 * len(text) * width
        covered = any(0 < x - at[0] < reach and abs(y - at[1]) < 0.05 * height for at in together)
        side = (
            1 if covered and x + reach < 1.02 else -1
        )  # to the left, where no other point is and to the right is room
        align = "left" if side > 0 else "right"
        axes.annotate(text, (x, y), (7 * side, -9), textcoords="offset points", fontsize=8, ha=align)

    axes.set(
        xlabel="recall",
        ylabel="precision",
        xlim=(left, 1.02),
        ylim=(bottom, 1.02),
    )
    figure.suptitle(_title(sweep, "Reweighting and the threshold"))
    axes.grid(alpha=0.3)
    _legend(axes, 2)
    _footnote(figure, sweep, below=worth(sweep, requirement).partition("\n")[0])
    return figure


def _bands(sweep: RatioSweep) -> dict[str, np.ndarray]:
    """Lower and upper end (n_ratios, 2) of precision and recall; nothing where a single seed has no intervals."""
    bands = {}
    for name in ("precision", "recall"):
        groups = sweep.by_ratio(name).values()
        if len(sweep.seeds) > 1:
            values = [[getattr(point, name) for point in points] for points in groups]
            ends = [[min(of_seeds), max(of_seeds)] for of_seeds in values]
        else:
            ends = [getattr(points[0], f"{name}_interval") for points in groups]
        if None not in ends:
            bands[name] = np.array(ends)
    if "precision" in bands:  # where nothing is predicted positive, precision may be anything
        bands["precision"][[sweep.predicts_no_positive(ratio) for ratio in sweep.by_ratio()]] = np.nan
    return bands


def _log_axis(axes: Any, sweep: RatioSweep) -> None:
    of = {
        "binary": f"“{_plain(sweep.positive_name)}” over the other class",
        "macro": "the rarest over the commonest class",
        "micro": "minority over majority of the most imbalanced label",
    }
    axes.set_xscale("log")
    axes.set_xlabel(f"weight ratio $w_r$, of {of[sweep.average]} (log scale)")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _title(sweep: RatioSweep, text: str) -> str:
    of = {
        "binary": f"“{sweep.positive_name}”",
        "macro": f"macro average of {len(sweep.label_names)} classes",
        "micro": f"micro average of {len(sweep.label_names)} labels",
    }
    preview = "" if sweep.preview is None else f"; a preview, {sweep.what_was_trained}"
    return _plain(f"{text}\n{of[sweep.average]}, {sweep.dataset or 'evaluation set'}{preview}")


def _short(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 999.5 else f"{ratio:.0f}"


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # else matplotlib reads a formula


def _footnote(figure: Figure, sweep: RatioSweep, bands: bool = False, below: str = "") -> None:
    seeds = (
        f"mean of {len(sweep.seeds)} seeds, bands from lowest to highest"
        if len(sweep.seeds) > 1
        else f"one seed ({sweep.seeds[0]}), another one moves these curves"
        + ("; 95% bootstrap bands" if bands else "")
    )
    finished = len(sweep.points)
    planned = len(sweep.ratios) * len(sweep.seeds)
    unfinished = f"; {finished} of {planned} legs" if finished < planned else ""
    if sweep.failed:
        unfinished += f", {len(sweep.failed)} failed"
    if left_out := finished - sum(map(len, sweep.by_ratio("precision").values())):
        unfinished += f"; {left_out} of {finished} legs left out of precision: nothing predicted positive"
    epochs = f"{sweep.epochs_per_ratio} epoch{'s' if sweep.epochs_per_ratio > 1 else ''} per ratio"
    examples = f"{sweep.num_eval:,} evaluation examples"
    if sweep.unit != "examples":
        examples += f" with {sweep.num_items:,} {sweep.unit}"
    if sweep.average != "macro":
        examples += f" ({sweep.points[0].tp + sweep.points[0].fn:,} positive)"
    if (preview := sweep.previewed()) is not None:
        examples += f"; faint: the preview, {preview.what_was_trained}"
    width = int(16 * figure.get_figwidth())
    lines = [f"{examples}; {epochs}; {seeds}{unfinished}", *([below] if below else [])]
    figure.supxlabel("\n".join(_plain(textwrap.fill(line, width)) for line in lines), fontsize=8, color=_GREY)
