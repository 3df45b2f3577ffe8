import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import confusion_matrix, precision_recall_curve

from results.sweeps import at_threshold, make_point
from weighloss import Task
from weighloss.results.metrics import Confusion, confusion, expected_calibration_error
from weighloss.results.requirement import Requirement
from weighloss.results.thresholds import best_thresholds, confusion_at_thresholds

REQUIREMENTS = [
    "f1", "f0.5", "mcc", "recall>=0.8", "precision>=0.7", "flagged<=0.3", "recall>=0.8 and precision>=0.5",
    "cost fp=1 fn=20", "cost fp=0 fn=1", "break-even",
]  # fmt: skip
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


@pytest.mark.parametrize(
    "requirement", ["recall>=0.9", "precision>=0.8", "flagged<=20%", "recall>=0.8 and precision>=0.5"]
)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_threshold_meets_the_bounds_wherever_some_threshold_does(requirement, seed):
    wanted, (logits, labels) = Requirement.parse(requirement), scored_items(seed, 150)
    scores = (logits[:, 1] - logits[:, 0]).astype(float)
    _, all_of_them = confusion_at_thresholds(labels == 1, scores)
    possible = (wanted.score(all_of_them) >= 1).any()
    value, threshold = best_thresholds([wanted], logits, labels)[0]
    counts = confusion(scores > threshold, labels == 1, [1])
    assert (wanted.score(counts) >= 1) == possible
    assert np.isfinite(value)


@pytest.mark.parametrize("requirement", ["f1", "f2", "mcc", "cost fp=1 fn=20"])
def test_on_many_items_the_threshold_is_that_of_the_best_point_of_the_curve(requirement):
    wanted, (logits, labels) = Requirement.parse(requirement), scored_items(0, 20_000)
    scores = (logits[:, 1] - logits[:, 0]).astype(float)
    _, threshold = best_thresholds([wanted], logits, labels)[0]
    _, all_of_them = confusion_at_thresholds(labels == 1, scores)
    counts = confusion(scores > threshold, labels == 1, [1])
    assert wanted.score(counts) == pytest.approx(wanted.score(all_of_them).max(), abs=0.005)


def test_the_order_of_the_classes_and_the_place_of_the_positive_one_change_nothing():
    wanted, (logits, labels) = Requirement.parse("recall>=0.9"), scored_items(0, 500)
    value, threshold = best_thresholds([wanted], logits, labels)[0]
    swapped = best_thresholds([wanted], logits[:, ::-1].copy(), 1 - labels, positive_label=0)[0]
    assert swapped == (pytest.approx(value), pytest.approx(threshold))
    leg = make_point(1, 8, 2, 12, 78)
    first, second = (
        at_threshold(leg, found, truth, threshold, Task.BINARY, positive)
        for found, truth, positive in ((logits, labels, 1), (logits[:, ::-1], 1 - labels, 0))
    )
    assert first == second
    assert first.tp == np.sum((logits[:, 1] - logits[:, 0] > threshold) & (labels == 1))


def test_no_threshold_is_within_rounding_of_a_score():
    wanted, (logits, labels) = Requirement.parse("recall>=0.9"), scored_items(3, 4000)
    logits = logits * 1e-3  # scores so close that many differ by rounding only
    _, threshold = best_thresholds([wanted], logits, labels)[0]
    assert np.abs(logits[:, 1] - logits[:, 0] - threshold).min() > 0.4e-4


def test_to_flag_nothing_is_a_choice_too():
    labels = np.r_[np.zeros(5), np.ones(38), np.zeros(357)].astype(int)
    logits = np.stack([np.zeros(400), np.linspace(3, -3, 400)], axis=1)  # the highest scores are negatives
    _, threshold = best_thresholds([Requirement.parse("cost fp=10 fn=1")], logits, labels)[0]
    assert threshold > 3
    point = at_threshold(make_point(1, 8, 2, 12, 78), logits, labels, threshold, Task.BINARY)
    assert (point.tp, point.fp) == (0, 0)


def test_a_label_without_a_positive_example_keeps_its_threshold_at_argmax():
    logits, labels = np.random.default_rng(0).normal(size=(50, 3)), np.zeros((50, 3), dtype=int)
    labels[::3, 0] = 1
    labels[:, 2] = -100
    value, thresholds = best_thresholds([Requirement.parse("f1")], logits, labels, Task.MULTILABEL)[0]
    assert thresholds[1:] == (0.0, 0.0)
    alone = best_thresholds(
        [Requirement.parse("f1")], np.stack([0 * logits[:, 0], logits[:, 0]], axis=1), labels[:, 0]
    )[0]
    assert (value, thresholds[0]) == (pytest.approx(alone[0]), pytest.approx(alone[1]))


def test_several_labels_have_a_threshold_each_and_meet_the_requirement_each():
    wanted = Requirement.parse("recall>=0.8")
    of_labels = [scored_items(seed, 300) for seed in range(3)]
    logits = np.stack([logits[:, 1] - logits[:, 0] for logits, _ in of_labels], axis=1)
    labels = np.stack([labels for _, labels in of_labels], axis=1)
    labels[:50, 0] = -100
    _, thresholds = best_thresholds([wanted], logits, labels, Task.MULTILABEL)[0]
    for i, threshold in enumerate(thresholds):
        counted = labels[:, i] >= 0
        alone = best_thresholds(
            [wanted], np.stack([0 * logits[counted, i], logits[counted, i]], 1), labels[counted, i]
        )[0]
        assert threshold == pytest.approx(alone[1])
        assert np.mean(logits[labels[:, i] == 1, i] > threshold) >= 0.8
    point = at_threshold(make_point(1, 8, 2, 12, 78), logits, labels, thresholds, Task.MULTILABEL)
    assert point.tp == np.sum((logits > thresholds) & (labels == 1))


def test_several_classes_are_moved_along_the_family_of_the_weights():
    generator, counts = np.random.default_rng(0), np.array([700, 200, 100])
    labels = generator.choice(3, 900, p=counts / counts.sum())
    logits = generator.normal(0, 1, (900, 3)) + np.log(counts) + 2 * np.eye(3)[labels]
    wanted = Requirement.parse("recall>=0.99")  # out of reach: the highest macro recall is the nearest
    value, thresholds = best_thresholds([wanted], logits, labels, Task.MULTICLASS, counts=counts)[0]
    exponent = (thresholds[0] - thresholds[2]) / np.log(7)
    assert thresholds[0] - thresholds[1] == pytest.approx(exponent * np.log(3.5))
    assert exponent == pytest.approx(1, abs=0.25)  # the Bayes rule of the balanced error subtracts log n_c
    moved = at_threshold(make_point(1, 8, 2, 12, 78), logits, labels, thresholds, Task.MULTICLASS)
    recalls = [np.mean((logits - thresholds).argmax(1)[labels == i] == i) for i in range(3)]
    assert moved.recall == pytest.approx(np.mean(recalls))
    assert moved.recall > 0.05 + np.mean([np.mean(logits.argmax(1)[labels == i] == i) for i in range(3)])
    assert value < 0


def scored_items(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a classifier whose log-odds overlap; a fifth of the items is positive."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(size) % 5 == 0).astype(int)
    scores = generator.normal(labels * 2 - 1, 1)
    return np.stack([-scores / 2, scores / 2], axis=1), labels


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
