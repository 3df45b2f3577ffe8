import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss

from results.sweeps import golden_sweep, make_point, make_sweep, write_leg, write_sweep
from weighloss import RatioSweep, reports
from weighloss.results.comparison import compare
from weighloss.results.files import of_split, write_predictions


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def with_test_set(folder) -> RatioSweep:
    """A sweep whose legs have predictions of a test set as well, on which the second leg is much better."""
    sweep = write_sweep(folder)
    labels = (np.random.default_rng(5).random(600) < 0.15).astype(int)
    for point, strength in zip(sweep.points, (0.5, 6), strict=True):
        scores = np.random.default_rng(6).normal(labels * strength - strength / 2, 1)
        logits = np.stack([np.zeros(600), scores], axis=1).astype(np.float32)
        write_predictions(folder / of_split(point.predictions, "test"), logits, labels, {})
    return sweep


def test_four_rules_stand_in_one_table_with_intervals_and_then_a_sentence(tmp_path):
    sweep = write_sweep(tmp_path)
    header, *rows, verdict = reports.compare_with_threshold(sweep, "recall>=0.9").splitlines()
    assert cells(header) == ["For recall>=0.9", "w_r", "threshold", "precision", "recall", "flagged"]
    rules = compare(sweep, "recall>=0.9").rules
    assert [cells(row)[0] for row in rows] == list(rules) == [
        "natural ratio at argmax",
        "best ratio at argmax",
        "unweighted, best threshold",
        "best ratio and threshold",
    ]  # fmt: skip
    for row, rule in zip(rows, rules.values(), strict=True):
        for cell, name in zip(cells(row)[3:5], ("precision", "recall"), strict=True):
            ends = getattr(rule, f"{name}_interval")
            assert cell == f"{getattr(rule, name):.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")
        assert cells(row)[5] == f"{(rule.tp + rule.fp) / 400:.1%}"
    assert (rules["natural ratio at argmax"].ratio, rules["unweighted, best threshold"].ratio) == (7, 1)
    # Both legs rank the items alike, so that weighting gives nothing that a threshold does not.
    assert "the threshold does all that weighting could do" in verdict or "+0.000" in verdict
    assert reports.compare_with_threshold(sweep, "recall>=0.9 @90%").splitlines()[0] == header
    assert reports.summary(sweep, "recall>=0.9").endswith("\n".join([header, *rows, verdict]))


def test_where_there_is_a_test_set_the_verdict_is_of_its_results(tmp_path):
    sweep = with_test_set(tmp_path)
    compared = compare(sweep, "recall>=0.9")
    labels = (np.random.default_rng(5).random(600) < 0.15).astype(int)
    for rule in compared.on_test.values():
        logits, found = sweep.predictions(rule.leg, "test")
        assert np.array_equal(found, labels)
        assert rule.tp == np.sum((logits[:, 1] > rule.threshold) & (labels == 1))
    text = reports.compare_with_threshold(sweep, "recall>=0.9")
    assert [cells(row)[0] for row in text.splitlines()[5:9]] == [f"{name} (test data)" for name in compared.rules]
    if compared.rules["best ratio and threshold"].ratio == 7:
        assert compared.difference_interval[0] > 0
        assert "Weighting is worth it here: at the same recall, with ratio and threshold the precision is +" in text
        assert "on the test data" in text


def test_the_difference_is_that_of_both_rules_on_the_same_items(tmp_path):
    labels = (np.arange(400) < 80).astype(int)
    weak, strong = (np.random.default_rng(0).normal(labels * s - s / 2, 1) for s in (2.5, 5.0))
    points = [write_leg(tmp_path, 1.0, weak, labels), write_leg(tmp_path, 7.0, strong, labels)]
    make_sweep(points).save(tmp_path)
    compared = compare(RatioSweep.load(tmp_path), "precision>=0.9")
    best, threshold = compared.rules["best ratio and threshold"], compared.rules["unweighted, best threshold"]
    assert (best.ratio, threshold.ratio) == (7, 1)
    unweighted = np.sort(weak)[::-1]
    as_precise = [t for t in unweighted if np.mean(labels[weak >= t]) >= best.precision]
    highest = max((np.mean(weak[labels == 1] >= t) for t in as_precise), default=0)
    assert compared.difference == pytest.approx(best.recall - highest)
    low, high = compared.difference_interval
    assert low < compared.difference < high
    assert low > 0
    text = reports.compare_with_threshold(RatioSweep.load(tmp_path), "precision>=0.9")
    assert "Weighting is worth it here: at the same precision, with ratio and threshold the recall is +" in text


def test_the_calibration_of_the_chosen_leg_is_in_the_summary(tmp_path):
    sweep = write_sweep(tmp_path)
    ratio = sweep.choose().point.ratio
    positives, scores = sweep.positives_and_scores(sweep.choose().point.leg)
    (line,) = [line for line in reports.summary(sweep).splitlines() if line.startswith("Probabilities")]
    assert f"w_r = {ratio:g}: Brier score {brier_score_loss(positives, expit(scores)):.4f}" in line
    if ratio != 1:
        assert f"log w): Brier score {brier_score_loss(positives, expit(scores - np.log(ratio))):.4f}" in line


@pytest.mark.parametrize(("name", "requirement"), [("several_classes", "f1"), ("several_labels", "recall>=0.8")])
def test_several_classes_and_several_labels_are_compared_too(name, requirement):
    text = reports.compare_with_threshold(golden_sweep(name), requirement)
    assert [cells(row)[0] for row in text.splitlines()[1:5]] == list(compare(golden_sweep(name), requirement).rules)


@pytest.mark.parametrize("lost", [0, 1])
def test_without_predictions_and_for_the_break_even_nothing_is_compared(tmp_path, lost):
    sweep = write_sweep(tmp_path)
    assert reports.compare_with_threshold(sweep, "break-even") == ""
    (tmp_path / sweep.points[lost].predictions).unlink()
    assert reports.compare_with_threshold(sweep, "recall>=0.9") == ""
    assert reports.compare_with_threshold(make_sweep([make_point(7, 15, 3, 5, 77)])) == ""
    assert reports.compare_with_threshold(make_sweep([])) == ""


def test_without_an_unweighted_leg_three_rules_are_compared_without_a_verdict(tmp_path):
    sweep = write_sweep(tmp_path)
    alone = replace(sweep, points=sweep.points[1:], ratios=[7.0])
    rows = reports.compare_with_threshold(alone, "recall>=0.9").splitlines()[1:]
    assert [cells(row)[0] for row in rows] == [
        "natural ratio at argmax",
        "best ratio at argmax",
        "best ratio and threshold",
    ]


def test_a_positive_that_only_the_evaluation_data_has_is_no_merit_of_the_other_leg(tmp_path):
    """To find it as well the unweighted leg would need a much lower threshold there, but not on the test data."""
    labels = (np.arange(300) < 40).astype(int)
    scores = np.random.default_rng(0).normal(labels * 8 - 4, 1)
    with_a_miss = np.where(np.arange(300) == 0, -20, scores)
    points = [write_leg(tmp_path, ratio, s, labels) for ratio, s in ((1.0, with_a_miss), (7.0, scores))]
    make_sweep(points).save(tmp_path)
    for point in points:
        logits = np.stack([np.zeros(300), scores], axis=1).astype(np.float32)
        write_predictions(tmp_path / of_split(point.predictions, "test"), logits, labels, {})
    compared = compare(RatioSweep.load(tmp_path), "recall>=0.9")
    assert compared.rules["best ratio and threshold"].ratio == 7
    assert compared.difference == 0
    assert compared.difference_interval == (0, 0)


def test_a_requirement_that_is_missed_on_the_test_data_is_said_so(tmp_path):
    sweep = write_sweep(tmp_path)
    labels = (np.arange(600) < 60).astype(int)
    found = labels * (np.arange(600) % 2)  # every second positive, and nothing else
    logits = np.stack([np.zeros(600), 100.0 * found - 50], axis=1).astype(np.float32)
    for point in sweep.points:
        write_predictions(tmp_path / of_split(point.predictions, "test"), logits, labels, {})
    text = reports.compare_with_threshold(sweep, "recall>=0.9")
    assert re.search(r"On the test data recall is 0\.500 \(0\.\d+ to 0\.\d+\), and at least 0\.9 is required\.$", text)
    assert "On the test data 5.0% are flagged, and at most 4.0% are allowed." in reports.compare_with_threshold(
        sweep, "flagged<=0.04"
    )
    assert "is required" not in reports.compare_with_threshold(sweep, "precision>=0.9")
