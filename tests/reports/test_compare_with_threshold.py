import re

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss

from results.sweeps import golden_sweep, make_point, make_sweep, write_leg, write_sweep
from weighloss import RatioSweep, reports
from weighloss.results.files import write_predictions
from weighloss.results.operating_point import LegThresholds
from weighloss.results.requirement import Requirement


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def test_leg_and_thresholds_stand_in_one_table_with_intervals_and_then_the_calibration(tmp_path):
    sweep = write_sweep(tmp_path)
    requirement = f"recall>={sweep.points[1].recall - 0.001:.3f}"
    header, *rows, calibration = reports.compare_with_threshold(sweep, requirement).splitlines()
    thresholds = LegThresholds(sweep, sweep.points[0])
    moved, equivalent = thresholds.best(Requirement.parse(requirement)), thresholds.at(1 / 8)
    assert cells(header) == [f"For {requirement}", "precision", "recall"]
    assert [cells(row)[0] for row in rows] == [
        "w_r = 7 at argmax",
        f"w_r = 1 at its best threshold {moved.threshold:.3g}",
        "w_r = 1 at the threshold 1/(1 + 7) = 0.125",
    ]
    assert cells(rows[0])[1:] == [f"{sweep.points[1].precision:.3f}", f"{sweep.points[1].recall:.3f}"]
    for row, point in zip(rows[1:], (moved, equivalent), strict=True):
        for cell, name in zip(cells(row)[1:], ("precision", "recall"), strict=True):
            least, most = getattr(point, f"{name}_interval")
            assert cell == f"{getattr(point, name):.3f} ({least:.3f} to {most:.3f})"
    assert max(map(len, (header, *rows))) < 100
    positives, scores = sweep.positives_and_scores(sweep.points[1])
    assert f"w_r = 7: Brier score {brier_score_loss(positives, expit(scores)):.4f}" in calibration
    assert f"log w): Brier score {brier_score_loss(positives, expit(scores - np.log(7))):.4f}" in calibration
    assert reports.summary(sweep, requirement).endswith(calibration)
    assert reports.compare_with_threshold(sweep, f"{requirement} @90%").startswith(header)


def test_a_leg_is_compared_with_the_unweighted_leg_of_its_own_seed(tmp_path):
    labels = (np.arange(200) < 40).astype(int)
    points = []
    for seed, strength in ((1, 0.5), (2, 3.0)):
        scores = np.random.default_rng(seed).normal(labels * strength - strength / 2, 1)
        points += [
            write_leg(tmp_path, 1.0, scores, labels, seed),
            write_leg(tmp_path, 7.0, scores + 0.3, labels, seed),
        ]
    make_sweep(points, seeds=[1, 2]).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    assert sweep.choose("recall>=0.9").point.seed == 2
    best = LegThresholds(sweep, points[2]).best(Requirement.parse("recall>=0.9"))
    assert f"best threshold {best.threshold:.3g}  {best.precision:.3f} (" in re.sub(
        " {2,}", "  ", reports.compare_with_threshold(sweep, "recall>=0.9")
    )


def test_where_the_unweighted_leg_is_chosen_the_threshold_that_is_argmax_is_left_out(tmp_path):
    sweep = write_sweep(tmp_path)
    assert sweep.choose("precision>=0.7").point.ratio == 1
    _, *rows, calibration = reports.compare_with_threshold(sweep, "precision>=0.7").splitlines()
    assert len(rows) == 2
    assert "Without the weighting" not in calibration


def test_where_no_leg_meets_a_requirement_a_threshold_that_does_is_named(tmp_path):
    sweep = write_sweep(tmp_path)
    moved = LegThresholds(sweep, sweep.points[0]).best(Requirement.parse("recall>=1"))
    assert max(point.recall for point in sweep.points) < 1 == moved.recall
    least, most = moved.precision_interval
    assert reports.compare_with_threshold(sweep, "recall>=1").startswith(
        f"No leg meets recall>=1, but the unweighted leg does at the threshold {moved.threshold:.3g}: "
        f"precision {moved.precision:.3f} ({least:.3f} to {most:.3f}), recall 1.000 ("
    )
    labels = np.array([0, 1] * 50)  # of pairs with one score, where no threshold is more precise than a half
    logits = np.stack([np.zeros(100), np.repeat(np.linspace(-1, 1, 50), 2)], axis=1).astype(np.float32)
    write_predictions(tmp_path / sweep.points[0].predictions, logits, labels, {})
    assert reports.compare_with_threshold(sweep, "precision>=0.999") == ""


def test_several_labels_have_no_threshold_of_the_theory():
    rows = reports.compare_with_threshold(golden_sweep("several_labels"), "recall>=0.8").splitlines()
    assert [cells(row)[0] for row in rows[:2]] == ["For recall>=0.8", "w_r = 5.452 at argmax"]
    assert len(rows) == 3


@pytest.mark.parametrize("lost", [0, 1])
def test_without_predictions_or_an_unweighted_leg_or_with_several_classes_nothing_is_compared(tmp_path, lost):
    sweep = write_sweep(tmp_path)
    requirement = f"recall>={sweep.points[1].recall:.3f}"
    (tmp_path / sweep.points[lost].predictions).unlink()
    assert reports.compare_with_threshold(sweep, requirement) == ""
    assert reports.compare_with_threshold(make_sweep([make_point(7, 15, 3, 5, 77)])) == ""
    assert reports.compare_with_threshold(make_sweep([])) == ""
    assert reports.compare_with_threshold(golden_sweep("several_classes")) == ""
