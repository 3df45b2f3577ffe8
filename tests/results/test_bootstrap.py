from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from weighloss.results.bootstrap import bootstrap, interval
from weighloss.weighting.task import Task


def of_scikit_learn(references, predictions, average: str = "binary") -> dict[str, float]:
    found = precision_recall_fscore_support(references, predictions, average=average, zero_division=0)
    return {"precision": found[0], "recall": found[1]}


def leg(generator, size: int, share: float, recall: float, false_alarms: float):
    labels = (generator.random(size) < share).astype(int)
    predicted = np.where(labels == 1, generator.random(size) < recall, generator.random(size) < false_alarms)
    return np.stack([1.0 - predicted, predicted], axis=1), labels


@pytest.mark.parametrize(
    ("size", "share", "recall", "false_alarms"),
    [(1000, 0.12, 0.95, 0.01), (500, 0.3, 0.8, 0.1), (1000, 0.12, 0.6, 0.05)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(size, share, recall, false_alarms):
    generator = np.random.default_rng(0)
    precision = share * recall / (share * recall + (1 - share) * false_alarms)
    hits = {0.8: [], 0.95: []}
    for seed in range(70):
        drawn = [leg(generator, size, share, recall, false_alarms) for _ in range(10)]
        intervals = bootstrap(drawn, num_resamples=400, seed=seed)
        for level, found in hits.items():
            of_level = replace(intervals, level=level)
            ends = zip(of_level.precision, of_level.recall, strict=True)
            found += [(low <= precision <= high, lower <= recall <= upper) for (low, high), (lower, upper) in ends]
    for level, found in hits.items():
        assert np.abs(np.mean(found, axis=0) - level).max() < 0.03


def test_the_resampled_values_lie_around_the_legs_own_and_tell_legs_apart():
    generator = np.random.default_rng(1)
    logits, labels = leg(generator, 2000, 0.2, 0.9, 0.03)
    found = logits[:, 1] == 1
    found[np.flatnonzero(found & (labels == 1))[:20]] = False  # the same leg without 20 of its hits
    legs = [(logits, labels), (np.stack([1.0 - found, found], axis=1), labels)]
    intervals = bootstrap(legs)
    for i, (scores, _) in enumerate(legs):
        own = of_scikit_learn(labels, scores.argmax(-1))
        assert intervals.precision[i, 0] < own["precision"] < intervals.precision[i, 1]
        assert intervals.recall[i, 0] < own["recall"] < intervals.recall[i, 1]
    low, high = interval(intervals.resampled_recall[:, 0] - intervals.resampled_recall[:, 1], 0.95)
    assert 0 < low < 20 / labels.sum() < high
    assert high - low < intervals.recall[0, 1] - intervals.recall[0, 0]  # the same resamples for both


def test_a_leg_without_an_error_is_not_certain_and_one_that_finds_nothing_has_precision_near_nothing():
    labels = np.array([1] * 16 + [0] * 84)
    perfect = np.stack([1.0 - labels, labels], axis=1)
    nothing = np.stack([np.ones(100), np.zeros(100)], axis=1)
    intervals = bootstrap([(perfect, labels), (nothing, labels)])
    assert 0.7 < intervals.precision[0, 0] < 0.97
    assert intervals.precision[0, 1] == 1
    assert intervals.recall[1, 0] == 0
    assert intervals.recall[1, 1] < 0.25


@pytest.mark.parametrize("kind", ["three_classes", "several_labels"])
def test_averages_have_intervals_around_them(kind):
    generator = np.random.default_rng(2)
    if kind == "three_classes":
        labels = generator.integers(0, 3, 600)
        logits = np.eye(3)[np.where(generator.random(600) < 0.8, labels, generator.integers(0, 3, 600))]
        own = of_scikit_learn(labels, logits.argmax(-1), "macro")
    else:
        labels = (generator.random((300, 4)) < 0.3).astype(int)
        logits = np.where(generator.random((300, 4)) < 0.85, labels, 1 - labels) - 0.5
        own = of_scikit_learn(labels, (logits > 0).astype(int), "micro")
    task = Task.MULTICLASS if kind == "three_classes" else Task.MULTILABEL
    intervals = bootstrap([(logits, labels)], task)
    for name, ends in (("precision", intervals.precision), ("recall", intervals.recall)):
        assert ends[0, 0] < own[name] < ends[0, 1]
        assert ends[0, 1] - ends[0, 0] < 0.15
    (resampled,) = intervals.resampled
    counts = [part.sum(axis=1) for part in (resampled.tp, resampled.fp, resampled.fn, resampled.tn)]
    true_negatives = (
        np.sum((logits <= 0) & (labels == 0))
        if kind == "several_labels"
        else 2 * np.sum(labels == logits.argmax(-1)) + np.sum(labels != logits.argmax(-1))
    )
    assert counts[3].mean() == pytest.approx(true_negatives, rel=0.02)


def test_the_same_seed_draws_the_same_intervals():
    logits, labels = leg(np.random.default_rng(3), 300, 0.2, 0.9, 0.05)
    once, again, other = (bootstrap([(logits, labels)], seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(once.precision, again.precision)
    assert not np.array_equal(once.precision, other.precision)


@pytest.mark.parametrize(("classes", "size", "absent"), [(50, 10, False), (3, 200, True)])
def test_averages_over_many_small_classes_or_one_that_is_never_right_lie_in_their_interval(classes, size, absent):
    generator = np.random.default_rng(4)
    labels = np.repeat(np.arange(classes - absent), size)
    wrong = generator.random(len(labels)) < 0.1
    predicted = np.where(wrong, classes - 1 if absent else generator.integers(0, classes, len(labels)), labels)
    own = of_scikit_learn(labels, predicted, "macro")
    intervals = bootstrap([(np.eye(classes)[predicted], labels)], Task.MULTICLASS)
    assert intervals.precision[0, 0] <= own["precision"] <= intervals.precision[0, 1]
    assert intervals.recall[0, 0] <= own["recall"] <= intervals.recall[0, 1]


@pytest.mark.parametrize("labels_per_example", [1, 5])
def test_items_that_are_drawn_together_since_they_are_many_have_the_intervals_of_items_drawn_alone(
    monkeypatch, labels_per_example
):
    generator = np.random.default_rng(4)
    legs = [leg(generator, 3000, 0.2, recall, 0.03) for recall in (0.9, 0.6)]
    task = Task.BINARY
    if labels_per_example > 1:
        legs = [(logits[:, 1].reshape(-1, 5) - 0.5, labels.reshape(-1, 5)) for logits, labels in legs]
        task = Task.MULTILABEL
    alone = bootstrap(legs, task, num_resamples=4000)
    monkeypatch.setattr("weighloss.results.bootstrap._MANY_ITEMS", 0)
    together = bootstrap(legs, task, num_resamples=4000)
    for name in ("precision", "recall"):
        width = np.diff(getattr(alone, name))
        assert np.abs(getattr(together, name) - getattr(alone, name)).max() < 0.1 * width.min()
    gaps = [np.std(of.resampled_recall[:, 0] - of.resampled_recall[:, 1]) for of in (alone, together)]
    assert gaps[1] == pytest.approx(gaps[0], rel=0.1)
