import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import brier_score_loss, precision_recall_curve

from results.sweeps import make_point, make_sweep
from weighloss import RatioSweep, precision_recall, report
from weighloss.results.calibration import expected_calibration_error
from weighloss.results.requirement import Requirement
from weighloss.results.files import write_predictions
from weighloss.results.operating_point import UnweightedThresholds


def write_sweep(folder, seed: int = 0, size: int = 400) -> RatioSweep:
    """An unweighted leg and one at w_r = 7, whose log odds are those of the first and log 7."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(size) < 0.15).astype(int)
    scores = np.round(generator.normal(labels * 2.5 - 2, 1), 2)  # some are equal
    points = []
    for ratio in (1.0, 7.0):
        logits = np.stack([np.zeros(size), scores + np.log(ratio)], axis=1).astype(np.float32)
        found = precision_recall(logits.argmax(-1), labels)
        point = make_point(ratio, *(found[name] for name in ("tp", "fp", "fn", "tn")))
        write_predictions(folder / point.predictions, logits, labels, {})
        points.append(point)
    make_sweep(points).save(folder)
    return report.recomputed(RatioSweep.load(folder))


@given(seed=st.integers(0, 10**6), requirement=st.sampled_from(["f1", "recall>=0.9", "precision>=0.8", "break-even"]))
@settings(max_examples=20, deadline=None)
def test_no_threshold_of_the_precision_recall_curve_is_better(tmp_path_factory, seed, requirement):
    sweep = write_sweep(tmp_path_factory.mktemp("sweep"), seed, 120)
    best = UnweightedThresholds(sweep, sweep.points[0]).best(Requirement.parse(requirement))
    precision, recall, _ = (
        curve[:-1] for curve in precision_recall_curve(*sweep.positives_and_scores(sweep.points[0]))
    )
    if requirement == "f1":
        assert best.f1 == pytest.approx((2 * precision * recall / np.maximum(precision + recall, 1e-9)).max())
    elif requirement == "recall>=0.9":
        assert best.precision == pytest.approx(precision[recall >= 0.9].max())
    elif requirement == "precision>=0.8":
        meeting = recall[precision >= 0.8]
        assert (best.recall == pytest.approx(meeting.max())) if meeting.size else best.precision < 0.8
    else:
        found = recall > 0
        assert abs(best.precision - best.recall) == pytest.approx(np.abs(precision - recall)[found].min())


def test_a_threshold_of_one_half_is_the_leg_itself_and_elkans_is_the_weighted_one_where_theory_holds(tmp_path):
    sweep = write_sweep(tmp_path)
    thresholds = UnweightedThresholds(sweep, sweep.points[0])
    for threshold, point in ((0.5 + 1e-9, sweep.points[0]), (1 / 8 + 1e-9, sweep.points[1])):
        found = thresholds.at(threshold)
        assert (found.tp, found.fp, found.fn, found.tn) == (point.tp, point.fp, point.fn, point.tn)
        assert (found.precision, found.recall, found.f1) == pytest.approx((point.precision, point.recall, point.f1))
        assert found.precision_interval[0] < found.precision < found.precision_interval[1]


def test_the_calibration_error_is_its_formula():
    generator = np.random.default_rng(0)
    probabilities = generator.random(5000)
    positives = generator.random(5000) < probabilities
    assert expected_calibration_error(probabilities, positives) < 0.02
    shifted = expit(np.log(probabilities / (1 - probabilities)) + 2)
    bins = np.clip(np.digitize(shifted, np.linspace(0, 1, 16)) - 1, 0, 14)
    gaps = [abs(shifted[bins == b].mean() - positives[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert expected_calibration_error(shifted, positives) == pytest.approx(sum(gaps))
    assert sum(gaps) > 0.2
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0


def test_a_leg_is_held_against_the_unweighted_one_of_its_own_seed(tmp_path):
    points = []
    for seed, strength in ((1, 0.5), (2, 3.0)):
        labels = (np.arange(200) < 40).astype(int)
        scores = np.random.default_rng(seed).normal(labels * strength - strength / 2, 1)
        logits = np.stack([np.zeros(200), scores], axis=1).astype(np.float32)
        found = precision_recall(logits.argmax(-1), labels)
        point = make_point(1.0, *(found[name] for name in ("tp", "fp", "fn", "tn")), seed=seed)
        write_predictions(tmp_path / point.predictions, logits, labels, {})
        points.append(point)
    make_sweep(points, seeds=[1, 2]).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    assert sweep.choose("f1").point.seed == 2
    itself = f"precision {points[1].precision:.3f}"
    assert report.worth(sweep).count(itself) >= 2  # the leg, and its own threshold of 1/2


def test_what_reweighting_buys_is_said_with_the_threshold_that_does_the_same_and_the_calibration(tmp_path):
    sweep = write_sweep(tmp_path)
    requirement = f"recall>={sweep.points[1].recall - 0.001:.3f}"
    line, calibration = report.worth(sweep, requirement).splitlines()
    moved = UnweightedThresholds(sweep, sweep.points[0]).best(Requirement.parse(requirement))
    assert f"reweighting (w_r = 7) gives precision {sweep.points[1].precision:.3f} (" in line
    assert f"to {moved.threshold:.3g} gives precision {moved.precision:.3f} (" in line
    assert "1/(1 + w_r) = 0.125" in line
    positives, scores = sweep.positives_and_scores(sweep.points[1])
    assert f"Brier score {brier_score_loss(positives, expit(scores)):.4f}" in calibration
    assert f"log w) Brier score {brier_score_loss(positives, expit(scores - np.log(7))):.4f}" in calibration


def test_where_no_leg_meets_a_requirement_a_threshold_that_does_is_named(tmp_path):
    sweep = write_sweep(tmp_path)
    moved = UnweightedThresholds(sweep, sweep.points[0]).best(Requirement.parse("recall>=1"))
    assert max(point.recall for point in sweep.points) < 1 == moved.recall
    least, most = moved.precision_interval
    assert report.worth(sweep, "recall>=1").startswith(
        "No leg meets recall>=1, but the unweighted model does with its threshold moved to "
        f"{moved.threshold:.3g}: precision {moved.precision:.3f} ({least:.3f} to {most:.3f}), recall 1.000 ("
    )
    labels = np.array([0, 1] * 50)  # of pairs with one score, where no threshold is more precise than a half
    logits = np.stack([np.zeros(100), np.repeat(np.linspace(-1, 1, 50), 2)], axis=1).astype(np.float32)
    write_predictions(tmp_path / sweep.points[0].predictions, logits, labels, {})
    assert report.worth(sweep, "precision>=0.999") == ""


def test_without_predictions_or_an_unweighted_leg_nothing_is_compared(tmp_path):
    sweep = write_sweep(tmp_path)
    (tmp_path / sweep.points[0].predictions).unlink()
    assert report.worth(sweep) == ""
    assert report.worth(make_sweep([make_point(7, 15, 3, 5, 77)])) == ""
