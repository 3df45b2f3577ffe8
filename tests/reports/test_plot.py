import dataclasses
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from results.sweeps import ARTICLE, golden_sweep, make_point, make_sweep
from weighloss import FailedLeg, InvalidInputError, OperatingPoint, RatioSweep, plot_sweep
from weighloss.results.files import write_predictions
from weighloss.results.thresholds import over_all_thresholds


def text_of(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))


def at(ratio: float) -> str:
    return f"$w_r$\u00a0=\u00a0{ratio:.3g}"


@pytest.fixture
def sweep(tmp_path) -> RatioSweep:
    """The article's shape with an unweighted leg whose predictions are on disk."""
    generator = np.random.default_rng(0)
    labels = (np.arange(100) < 20).astype(int)
    logits = np.stack([-generator.normal(labels * 2, 1), np.zeros(100)], axis=1)
    unweighted = make_point(1.0, 9, 2, 11, 78)
    sweep = make_sweep([*ARTICLE, unweighted])
    write_predictions(tmp_path / unweighted.predictions, logits, labels, {})
    sweep.save(tmp_path)
    return RatioSweep.load(tmp_path)


def test_both_charts_are_written_as_png_and_svg(sweep, tmp_path):
    plot_sweep(sweep, tmp_path / "charts")
    for name in ("precision_recall", "precision_recall_plane"):
        assert matplotlib.image.imread(tmp_path / "charts" / f"{name}.png").std() > 0.01
        assert ElementTree.parse(tmp_path / "charts" / f"{name}.svg").getroot().tag.endswith("svg")


def test_the_same_sweep_is_drawn_to_the_same_bytes(sweep, tmp_path):
    for folder in ("a", "b"):
        plot_sweep(sweep, tmp_path / folder)
    for file in ("precision_recall.png", "precision_recall.svg", "precision_recall_plane.svg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_first_chart_shows_the_points_and_marks_natural_break_even_and_best(sweep):
    figure = plot_sweep(sweep)["precision_recall"]
    axes = figure.axes[0]
    curve = sweep.curve("precision", "recall")
    drawn = {line.get_label(): line for line in axes.lines}
    assert axes.get_xscale() == "log"
    for name in ("precision", "recall"):
        assert np.array_equal(drawn[name].get_xdata(), curve["ratio"])
        assert np.array_equal(drawn[name].get_ydata(), curve[name])
    marks = {label.split(" ")[0]: line for label, line in drawn.items()}
    assert set(marks["natural"].get_xdata()) == {7.0}
    assert list(marks["break-even"].get_xdata()) == [sweep.break_even()]
    best = max(sweep.points, key=lambda point: point.f1)
    assert list(marks["best"].get_xdata()) == [best.ratio] * 2
    assert list(marks["best"].get_ydata()) == [best.precision, best.recall]
    assert list(marks["nothing"].get_xdata()) == [0.07]
    assert "spam" in figure.get_suptitle()


def test_the_curves_can_be_told_apart_without_colours(sweep):
    lines = {line.get_label(): line for line in plot_sweep(sweep)["precision_recall"].axes[0].lines}
    assert lines["precision"].get_linestyle() != lines["recall"].get_linestyle()
    assert lines["precision"].get_marker() != lines["recall"].get_marker()


def test_a_chart_from_one_seed_says_so_and_one_from_several_draws_bands(sweep):
    one = plot_sweep(sweep)
    for figure in one.values():
        assert "one seed (42)" in text_of(figure)
    points = [
        make_point(r, tp, 3, 20 - tp, 77, seed)
        for seed, shift in ((1, 0), (2, 2))
        for r, tp in ((2.0, 8 + shift), (7.0, 12 + shift))
    ]
    several = plot_sweep(make_sweep(points, seeds=[1, 2]))["precision_recall"]
    assert "means of 2 seeds" in text_of(several)
    band = several.axes[0].collections[1].get_paths()[0].vertices  # the second band is the recall's
    assert band[:, 1].min() == pytest.approx(8 / 20)
    assert band[:, 1].max() == pytest.approx(14 / 20)


def test_a_seed_that_predicts_nothing_positive_does_not_pull_the_curve_of_precision_down():
    points = [make_point(7.0, 12, 3, 8, 77, 1), make_point(7.0, 0, 0, 20, 80, 2), make_point(9.0, 12, 3, 8, 77, 1)]
    figure = plot_sweep(make_sweep(points, seeds=[1, 2]))["precision_recall"]
    axes = figure.axes[0]
    line = next(line for line in axes.lines if line.get_label() == "precision")
    assert list(line.get_ydata()) == pytest.approx([0.8, 0.8])
    assert axes.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(0.8)
    assert "1 of 3 legs left out of precision: nothing predicted positive" in text_of(figure).replace("\n", " ")


def test_the_plane_has_the_threshold_curve_of_the_unweighted_leg_under_the_points(sweep):
    axes = plot_sweep(sweep)["precision_recall_plane"].axes[0]
    logits, labels = sweep.predictions(sweep.points[-1])
    precision, recall, _ = precision_recall_curve(labels, logits[:, 1] - logits[:, 0])
    threshold = next(line for line in axes.lines if line.get_label() == "the unweighted leg, over all thresholds")
    assert threshold.get_xdata()[::-1] == pytest.approx(recall[:-1])
    assert threshold.get_ydata()[::-1] == pytest.approx(precision[:-1])
    labels = ", ".join(text.get_text() for text in axes.texts).split(", ")
    assert sorted(labels) == sorted(["0.7", "1", "7 (natural)", "70", "700"])  # not 0.07: P = 0 by convention
    assert "nothing predicted positive at 0.07" in text_of(axes.figure)
    assert "(20 positive)" in text_of(axes.figure)


def test_a_label_in_the_plane_covers_no_other_point():
    points = [make_point(7.0, 120, 60, 60, 760), make_point(15.0, 112, 60, 68, 760)]
    figure = plot_sweep(make_sweep(points))["precision_recall_plane"]
    figure.draw_without_rendering()
    axes = figure.axes[0]
    drawn = axes.transData.transform([(point.recall, point.precision) for point in points])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["7 (natural)", "15"]
    assert not any(box.contains(*at) for box in boxes for at in drawn)


def test_without_predictions_the_plane_says_why_it_has_no_threshold_curves():
    figure = plot_sweep(make_sweep(ARTICLE))["precision_recall_plane"]
    assert "no predictions on disk" in text_of(figure)


@pytest.mark.parametrize(
    ("name", "requirement"), [("binary", "recall>=0.9"), ("several_classes", "f1"), ("several_labels", "recall>=0.8")]
)
def test_the_frontier_is_above_every_leg_and_the_choice_has_its_intervals(name, requirement):
    sweep = golden_sweep(name)
    axes = plot_sweep(sweep, requirement=requirement)["precision_recall_plane"].axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    frontier = np.array(lines["frontier of all ratios and thresholds"].get_xydata())
    assert (np.diff(frontier[:, 0]) < 0).all()
    assert (np.diff(frontier[:, 1]) > 0).all()
    for point in sweep.points:
        counts = over_all_thresholds(*sweep.predictions(point), sweep.task, sweep.positive_label, sweep.counts)
        for recall, precision in zip(counts.recall, counts.precision, strict=True):
            assert any(at >= recall - 1e-9 and best >= precision - 1e-9 for at, best in frontier)
    choice = sweep.choose(requirement)
    star = next(line for label, line in lines.items() if str(label).startswith(choice.because))
    assert (star.get_xdata(), star.get_ydata()) == ([choice.point.recall], [choice.point.precision])
    assert any(list(line.get_xdata()) == choice.point.recall_interval for line in axes.lines)


def test_a_sweep_that_is_not_finished_says_so(sweep):
    failed = (FailedLeg(8888.0, 42, "its loss is nan", 10),)
    unfinished = dataclasses.replace(sweep, ratios=[*sweep.ratios, 8888.0, 9999.0], failed=failed)
    chart = plot_sweep(unfinished)["precision_recall"]
    assert "6 of 8 legs, 1 failed" in text_of(chart).replace("\n", " ")
    assert "missing: training failed at 8888" in text_of(chart)
    with pytest.raises(InvalidInputError, match="no finished leg to draw"):
        plot_sweep(make_sweep([], ratios=[7.0]))


def test_names_from_the_data_are_not_read_as_formulas(sweep):
    odd = dataclasses.replace(sweep, label_names=["ham", "$x_"], dataset=r"a $\frac")
    plot_sweep(odd, other_metrics={"$y": sweep.curve("f1")["f1"]})["precision_recall"].draw_without_rendering()


def test_other_metrics_are_drawn_beside_precision_and_recall(sweep):
    figure = plot_sweep(sweep, other_metrics={"f1": sweep.curve("f1")["f1"]})["precision_recall"]
    line = next(line for line in figure.axes[0].lines if line.get_label() == "f1")
    assert np.array_equal(line.get_ydata(), sweep.curve("f1")["f1"])


def test_a_sweep_in_which_nothing_is_learned_has_no_best_mark():
    nothing = make_sweep([make_point(1.0, 0, 0, 20, 80), make_point(7.0, 20, 80, 0, 0)])
    assert "best F1" not in text_of(plot_sweep(nothing)["precision_recall"])


def test_an_empty_sweep_is_refused():
    with pytest.raises(InvalidInputError, match="no finished leg"):
        plot_sweep(make_sweep([]))


def test_schemes_are_marked_on_the_axis_and_the_chosen_ratio_on_the_curves(sweep):
    figure = plot_sweep(sweep, requirement="recall>=0.9", marks=["sqrt", "effective:0.99"])["precision_recall"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [f"{name} {sweep.ratio_of(name):.3g}" for name in ("sqrt", "effective:0.99")]
    choice = sweep.choose("recall>=0.9", "any" if sweep.is_measurable else "argmax")
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert f"chosen for recall>=0.9: {at(choice.point.ratio)}" in [text.replace("\n", " ") for text in legend]
    assert any(list(line.get_xdata()) == [choice.point.ratio] * 2 for line in figure.axes[0].lines)
    plane = plot_sweep(sweep, requirement="recall>=0.9")["precision_recall_plane"]
    star = next(line for line in plane.axes[0].lines if line.get_label().startswith("chosen for recall>=0.9"))
    assert (star.get_xdata(), star.get_ydata()) == ([choice.point.recall], [choice.point.precision])


@pytest.mark.parametrize("chart", ["precision_recall", "precision_recall_plane"])
def test_the_legend_hides_nothing_that_is_drawn(sweep, chart):
    wanted = "recall>=0.9912 and precision>=0.9912 and flagged<=0.9912"
    chosen = dataclasses.replace(OperatingPoint.at_argmax(sweep.points[1]), threshold=-12.34)
    sweep = dataclasses.replace(sweep, requirement=wanted, threshold="any", operating_point=chosen)
    figure = plot_sweep(sweep, other_metrics={"f1": sweep.curve("f1")["f1"]}, marks=["sqrt"])[chart]
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
    boxes = [text.get_window_extent() for text in axes.get_legend().get_texts()]
    assert all(0 <= box.x0 < box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_where_nothing_is_predicted_positive_precision_has_no_band():
    ends = {"precision_interval": [0.0, 1.0], "recall_interval": [0.0, 0.1]}
    points = [dataclasses.replace(point, **ends) for point in ARTICLE[:3]]
    precision, recall = plot_sweep(make_sweep(points))["precision_recall"].axes[0].collections
    assert precision.get_paths()[0].vertices[:, 0].min() == points[1].ratio
    assert recall.get_paths()[0].vertices[:, 0].min() == points[0].ratio


def test_one_seed_draws_its_intervals_as_bands():
    intervals = {"precision_interval": [0.5, 0.9], "recall_interval": [0.2, 0.3]}
    points = [make_point(1, 8, 1, 12, 79), make_point(7, 15, 3, 5, 77)]
    figure = plot_sweep(make_sweep([dataclasses.replace(point, **intervals) for point in points]))["precision_recall"]
    assert len(figure.axes[0].collections) == 2
    assert "95% bootstrap bands" in figure.get_supxlabel().replace("\n", " ")


def test_a_sweep_from_elsewhere_shows_what_was_chosen_without_its_predictions():
    points = [make_point(1, 8, 1, 12, 79), make_point(7, 15, 3, 5, 77)]
    rule = dataclasses.replace(OperatingPoint.at_argmax(points[1]), threshold=0.5)
    chosen = {"requirement": "recall>=0.7 @90%", "threshold": "any", "operating_point": rule}
    figures = plot_sweep(make_sweep(points, **chosen))
    legend = [text.get_text() for text in figures["precision_recall"].axes[0].get_legend().get_texts()]
    said = f"chosen for recall>=0.7 @90%: {at(7)}, the threshold 0.5 (probability 0.622)"
    assert said in " ".join(legend).replace("\n", " ")
    assert "no predictions on disk" in text_of(figures["precision_recall_plane"])


def test_with_several_seeds_the_star_is_the_leg_that_is_chosen():
    points = [make_point(1, 14, 2, 6, 78, 1), make_point(7, 19, 1, 1, 79, 1)]
    points += [make_point(1, 14, 2, 6, 78, 2), make_point(7, 2, 3, 18, 77, 2)]
    for chart in plot_sweep(make_sweep(points, seeds=[1, 2])).values():
        (star,) = [line for line in chart.axes[0].lines if line.get_label() == f"best F1: {at(7)}, seed 1"]
        assert star.get_ydata()[0] == points[1].precision
