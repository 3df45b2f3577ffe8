import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import confusion_matrix, precision_recall_curve

from results.sweeps import make_point, make_sweep, write_sweep
from weighloss import InvalidInputError
from weighloss.results.metrics import Confusion, expected_calibration_error
from weighloss.results.operating_point import LegThresholds, confusion_at_thresholds
from weighloss.results.requirement import Requirement

REQUIREMENTS = ["f1", "f0.5", "f2", "recall>=0.8", "precision>=0.7", "cost fp=1 fn=20", "cost fp=0 fn=1", "break-even"]
scored = st.lists(st.tuples(st.booleans(), st.integers(-9, 9)), min_size=1, max_size=40).filter(
    lambda items: any(positive for positive, _ in items)
)


@given(items=scored)
def test_confusion_at_thresholds_is_the_precision_recall_curve_of_scikit_learn(items):
    positives, scores = (np.array(column) for column in zip(*items, strict=True))
    thresholds, found = confusion_at_thresholds(positives, scores)
    precision, recall, expected = precision_recall_curve(positives, scores)
    assert np.array_equal(thresholds[::-1], expected)
    assert found.precision[::-1] == pytest.approx(precision[:-1])
    assert found.recall[::-1] == pytest.approx(recall[:-1])
    for i, threshold in enumerate(thresholds):
        counts = confusion_matrix(positives, scores >= threshold, labels=[False, True]).ravel().tolist()
        assert [part[i, 0] for part in (found.tn, found.fp, found.fn, found.tp)] == counts


@given(items=scored, requirement=st.sampled_from(REQUIREMENTS))
def test_the_score_of_many_thresholds_is_the_score_of_each(items, requirement):
    requirement = Requirement.parse(requirement)
    _, found = confusion_at_thresholds(*(np.array(column) for column in zip(*items, strict=True)))
    scores = requirement.score(found)
    assert scores.shape == (len(found.tp),)
    for i, score in enumerate(scores):
        alone = Confusion(*(part[i] for part in (found.tp, found.fp, found.fn, found.tn)))
        point = make_point(1, *(int(part[i, 0]) for part in (found.tp, found.fp, found.fn, found.tn)))
        assert requirement.score(alone) == pytest.approx(score)
        assert requirement.score(point) == pytest.approx(score)


@given(seed=st.integers(0, 10**6), requirement=st.sampled_from(["f1", "recall>=0.9", "precision>=0.8", "break-even"]))
@settings(max_examples=20, deadline=None)
def test_no_threshold_of_the_precision_recall_curve_is_better(tmp_path_factory, seed, requirement):
    sweep = write_sweep(tmp_path_factory.mktemp("sweep"), seed, 120)
    best = LegThresholds(sweep, sweep.points[0]).best(Requirement.parse(requirement))
    curve = precision_recall_curve(*sweep.positives_and_scores(sweep.points[0]))
    precision, recall = curve[0][:-1], curve[1][:-1]
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


def test_a_threshold_of_one_half_is_argmax_and_elkans_threshold_is_the_weighted_leg_where_the_theory_holds(tmp_path):
    sweep = write_sweep(tmp_path)
    thresholds = LegThresholds(sweep, sweep.points[0])
    for threshold, point in ((0.5 + 1e-9, sweep.points[0]), (1 / 8 + 1e-9, sweep.points[1])):
        found = thresholds.at(threshold)
        assert (found.tp, found.fp, found.fn, found.tn) == (point.tp, point.fp, point.fn, point.tn)
        assert (found.precision, found.recall, found.f1) == pytest.approx((point.precision, point.recall, point.f1))
        assert found.precision_interval[0] < found.precision < found.precision_interval[1]


def test_more_than_two_classes_have_no_threshold():
    sweep = make_sweep([make_point(1, 8, 2, 12, 78)], label_names=["a", "b", "c"])
    with pytest.raises(InvalidInputError, match="3 classes have no single score"):
        LegThresholds(sweep, sweep.points[0])


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
