import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from conftest import make_data
from weighloss.errors import InvalidInputError
from weighloss.weighting.class_weights import ClassWeights
from weighloss.weighting.ratios import ratio_grid, resolved_ratio, unique_ratios
from weighloss.weighting.task import Task

sizes = st.integers(1, 10**9)
ratios = st.floats(1e-12, 1e12)


@given(counts=st.lists(sizes, min_size=2, max_size=8, unique=True), ratio=ratios)
def test_the_mean_weight_over_the_training_labels_is_one(counts, ratio):
    weights = ClassWeights.from_counts(counts, ratio).weights
    assert np.dot(counts, weights) == pytest.approx(sum(counts), rel=1e-12)


@given(counts=st.tuples(sizes, sizes), ratio=ratios, positive=st.sampled_from([0, 1]))
def test_the_ratio_of_two_weights_is_the_ratio_asked_for(counts, ratio, positive):
    class_weights = ClassWeights.from_counts(counts, ratio, positive)
    assert class_weights.weights[positive] / class_weights.weights[1 - positive] == pytest.approx(ratio, rel=1e-9)
    assert class_weights.natural_ratio == counts[1 - positive] / counts[positive]


@given(counts=st.lists(sizes, min_size=2, max_size=8, unique=True))
def test_natural_weights_are_scikit_learns_balanced_ones(counts):
    small = [1 + count % 50 for count in counts]
    labels = np.repeat(np.arange(len(small)), small)
    balanced = compute_class_weight("balanced", classes=np.arange(len(small)), y=labels)
    assert ClassWeights.from_counts(small).weights == pytest.approx(balanced, rel=1e-9)


@given(counts=st.lists(sizes, min_size=3, max_size=8, unique=True), ratio=ratios)
def test_rarest_and_commonest_of_several_classes_stand_at_the_ratio_and_the_others_between(counts, ratio):
    class_weights = ClassWeights.from_counts(counts, ratio)
    rarest, commonest = np.argmin(counts), np.argmax(counts)
    weights = class_weights.weights
    assert weights[rarest] / weights[commonest] == pytest.approx(ratio, rel=1e-9)
    by_size = np.log(weights[np.argsort(counts)])
    steps = np.diff(by_size)
    assert (steps <= 1e-9).all() or (steps >= -1e-9).all()


@given(counts=st.tuples(sizes, sizes), weights=st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), scale=ratios)
def test_scaling_all_weights_changes_nothing(counts, weights, scale):
    once = ClassWeights.from_counts(counts, weights=weights)
    scaled = ClassWeights.from_counts(counts, weights=np.array(weights) * scale)
    assert scaled.weights == pytest.approx(once.weights, rel=1e-12)
    assert scaled.ratio == pytest.approx(weights[1] / weights[0], rel=1e-9)


label_counts = st.lists(st.tuples(sizes, sizes), min_size=1, max_size=6).filter(
    lambda counts: any(negative != positive for negative, positive in counts)
)


@given(counts=label_counts, ratio=ratios)
def test_of_several_labels_each_has_mean_weight_one_and_the_most_imbalanced_stands_at_the_ratio(counts, ratio):
    class_weights = ClassWeights.from_multi_label_counts(counts, ratio)
    counts, weights = np.array(counts), class_weights.weights
    assert (counts * weights).sum(axis=1) == pytest.approx(counts.sum(axis=1), rel=1e-9)
    imbalances = counts.max(axis=1) / counts.min(axis=1)
    most = imbalances.argmax()
    minority, majority = counts[most].argmin(), counts[most].argmax()
    assert weights[most, minority] / weights[most, majority] == pytest.approx(ratio, rel=1e-6)
    assert class_weights.natural_ratio == imbalances[most]
    log_ratios = np.log(weights[:, 1] / weights[:, 0])
    assert np.abs(log_ratios).max() <= abs(np.log(ratio)) * (1 + 1e-6) + 1e-9


@given(counts=label_counts)
def test_naturally_weighted_labels_are_each_balanced_and_at_ratio_one_unweighted(counts):
    counts = np.array(counts)
    natural = ClassWeights.from_multi_label_counts(counts).weights * counts
    assert natural[:, 0] == pytest.approx(natural[:, 1], rel=1e-6)
    assert (ClassWeights.from_multi_label_counts(counts, 1).weights == 1).all()


def test_naturally_weighted_labels_have_each_scikit_learns_balanced_weights():
    hot = np.random.default_rng(0).random((200, 3)) < [0.05, 0.5, 0.8]
    weights = ClassWeights.from_multi_label_counts(np.stack([(~hot).sum(0), hot.sum(0)], axis=1)).weights
    for column, found in zip(hot.T, weights, strict=True):
        assert found == pytest.approx(compute_class_weight("balanced", classes=np.array([False, True]), y=column))


def test_explicit_weights_of_several_labels_are_those_of_positives_over_negatives():
    class_weights = ClassWeights.from_multi_label_counts([[90, 10], [70, 30], [100, 0]], pos_weights=[9, 2, 5])
    assert class_weights.weights[:, 1] / class_weights.weights[:, 0] == pytest.approx([9, 2, 5])
    assert class_weights.ratio == pytest.approx(9)


def test_a_label_that_none_or_all_have_is_not_weighted():
    weights = ClassWeights.from_multi_label_counts([[90, 10], [100, 0], [0, 100], [0, 0]]).weights
    assert weights[1:].tolist() == [[1, 1]] * 3
    assert np.isfinite(weights).all()


@pytest.mark.parametrize(
    ("counts", "given", "sentence"),
    [
        ([90, 10], {}, "without and with each label"),
        ([[90, 10.5]], {}, "without and with each label"),
        ([[100, 0], [0, 100]], {}, "both positive and negative training examples"),
        ([[50, 50], [10, 10]], {"ratio": 3}, "must be 1 where all classes have the same size, got 3"),
        ([[90, 10]], {"ratio": 3, "pos_weights": [2]}, "weight_ratio must be None where class_weights are given"),
        ([[90, 10]], {"pos_weights": [2, 3]}, "1 positive finite numbers"),
    ],
)
def test_labels_that_cannot_be_weighed_are_refused(counts, given, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        ClassWeights.from_multi_label_counts(counts, **given)


@given(counts=st.tuples(sizes, sizes), positive=st.sampled_from([0, 1]), beta=st.sampled_from([0.0, 0.9, 0.999]))
def test_named_ratios_are_those_of_their_formulas(counts, positive, beta):
    def ratio(scheme):
        return ClassWeights.from_counts(counts, scheme, positive).ratio

    natural = counts[1 - positive] / counts[positive]
    assert ratio("natural") == natural
    assert ratio("unweighted") == 1
    assert ratio("sqrt") == pytest.approx(natural**0.5)
    assert ratio("7.5") == 7.5
    weights = [(1 - beta) / (1 - beta**n) for n in counts]  # Cui et al. 2019, equation 2
    assert ratio(f"effective:{beta}") == pytest.approx(weights[positive] / weights[1 - positive], rel=1e-9)


def test_named_ratios_work_for_several_classes_and_several_labels():
    weights = ClassWeights.from_counts([100, 25, 4], "sqrt").weights
    assert weights / weights[0] == pytest.approx([1, 2, 5])  # as 1 / sqrt(n_c)
    assert ClassWeights.from_multi_label_counts([[90, 10], [50, 50]], "sqrt").ratio == 3


@pytest.mark.parametrize("name", ["sqrtt", "effective", "effective:1", "effective:x", "-1", "nan", ""])
def test_an_unknown_name_of_a_ratio_is_refused_with_the_known_ones(name):
    with pytest.raises(InvalidInputError, match=f"positive finite number or one of .*, got '{name}'"):
        ClassWeights.from_counts([90, 10], name)
    with pytest.raises(InvalidInputError, match=r"'unweighted', 'sqrt', 'natural\*5', got 'effective:0\.9'"):
        ClassWeights.from_counts([90, 10, 5], "effective:0.9")


def test_ratio_one_is_unweighted_to_the_last_bit():
    for counts in ([88, 12], [7, 3, 5], [5, 5, 5]):
        assert (ClassWeights.from_counts(counts, 1).weights == 1).all()


def test_a_class_without_labels_weighs_what_the_rarest_does():
    weights = ClassWeights.from_counts([100, 10, 0]).weights
    assert weights[2] == weights[1]


def test_extreme_ratios_stay_finite():
    for ratio in (1e-300, 1e300):
        class_weights = ClassWeights.from_counts([10**9, 1], ratio)
        assert np.isfinite(class_weights.weights).all()


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf"), "seven"])
def test_a_ratio_that_is_not_positive_and_finite_is_refused(ratio):
    with pytest.raises(InvalidInputError, match="positive finite number"):
        ClassWeights.from_counts([88, 12], ratio)
    with pytest.raises(InvalidInputError, match="positive finite number"):
        unique_ratios([2, ratio])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"counts": [5, 0]}, r"at least two classes must have training labels, got the counts \[5, 0\]"),
        ({"counts": [0, 0]}, "at least two classes"),
        ({"counts": [5, -1]}, r"integers of at least 0, such as \[8800, 1200\], got \[5, -1\]"),
        ({"counts": [0.5, 0.5]}, "integers of at least 0"),
        ({"counts": [[5, 3], [2, 1]]}, "integers of at least 0"),
        ({"counts": 5}, "integers of at least 0"),
        ({"counts": []}, "integers of at least 0"),
        ({"counts": [5, 5, 5], "ratio": 3}, "must be 1 where all classes have the same size, got 3"),
        ({"counts": [5, 3], "positive_label": 2}, "class id from 0 to 1, got 2"),
        ({"counts": [5, 3], "positive_label": "spam"}, "class id from 0 to 1, got 'spam'"),
        ({"counts": [5, 3], "weights": [1, 0]}, "2 positive finite numbers"),
        ({"counts": [5, 3], "weights": [1, 2, 3]}, "2 positive finite numbers"),
        ({"counts": [5, 3], "weights": ["a", "b"]}, "2 positive finite numbers"),
        ({"counts": [5, 3], "weights": [1, 2], "ratio": 2}, "weight_ratio must be None where class_weights are given"),
    ],
)
def test_counts_and_weights_that_make_no_sense_are_refused(arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        ClassWeights.from_counts(**arguments)


@given(natural=st.floats(1e-3, 1e5), num=st.integers(2, 40), span=st.floats(1.01, 1e4))
def test_the_grid_spans_what_it_says_with_the_natural_ratio_and_one_in_it(natural, num, span):
    grid = ratio_grid(natural, num, span)
    assert grid == sorted(grid)
    assert any(ratio == pytest.approx(natural, rel=1e-9) for ratio in grid)
    assert any(ratio == pytest.approx(1, rel=1e-9) for ratio in grid)
    assert min(grid) == pytest.approx(min(natural / span, 1))
    assert max(grid) == pytest.approx(max(natural * span, 1))
    assert len(grid) <= num + 2


def test_the_default_grid_is_seven_ratios_and_one():
    grid = ratio_grid(88 / 12)
    assert len(grid) == 8
    assert 88 / 12 in grid
    assert 1.0 in grid


@pytest.mark.parametrize(("arguments", "sentence"), [((7, 1), "num_ratios"), ((7, 13, 1.0), "ratio_span")])
def test_a_grid_that_spans_nothing_is_refused(arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        ratio_grid(*arguments)


def test_unique_ratios_ascend_without_near_duplicates():
    assert unique_ratios([3, 1 + 1e-12, np.float32(0.5), 1]) == [0.5, 1, 3]


def test_a_ratio_is_a_number_a_name_or_the_natural_one():
    given = (None, 2, np.int64(3), "4", "sqrt", "natural*5", "natural*0.5")
    assert [resolved_ratio(ratio, 9.0) for ratio in given] == [9, 2, 3, 4, 3, 45, 4.5]


def test_weights_know_their_task():
    assert ClassWeights.from_counts([5, 3]).task is Task.BINARY
    assert ClassWeights.from_counts([5, 3, 0]).task is Task.MULTICLASS
    assert ClassWeights.from_multi_label_counts([[5, 3], [1, 7]]).task is Task.MULTILABEL


def test_the_positive_label_of_a_dataset_is_a_name_or_an_id():
    data = make_data(30, seed=5)
    counts = np.bincount(data["label"][:])
    for positive_label in ("ham", 0):
        class_weights = ClassWeights.from_dataset(data, positive_label=positive_label, ratio="natural")
        assert class_weights.counts.tolist() == counts.tolist()
        assert class_weights.positive_label == 0
        assert class_weights.ratio == counts[1] / counts[0]
