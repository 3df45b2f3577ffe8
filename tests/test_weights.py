import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from conftest import make_data
from weighloss import ClassWeights, InvalidInputError, count_labels, labels, ratio_grid
from weighloss.weighting.labels import IGNORE_INDEX, count_multi_labels

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


@given(counts=st.tuples(sizes, sizes).filter(lambda pair: pair[0] > pair[1]), ratio=ratios)
def test_one_rare_label_is_weighed_like_two_classes(counts, ratio):
    label = ClassWeights.from_multi_label_counts([counts], ratio)
    classes = ClassWeights.from_counts(counts, ratio)
    assert label.weights[0] == pytest.approx(classes.weights, rel=1e-6)
    assert label.natural_ratio == classes.natural_ratio


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
        ([[90, 10], [50]], {}, "without and with each label"),
        ([[100, 0], [0, 100]], {}, "no label that some examples have"),
        ([[50, 50], [10, 10]], {"ratio": 3}, "as frequent as not"),
        ([[90, 10]], {"ratio": 3, "pos_weights": [2]}, "both given"),
        ([[90, 10]], {"pos_weights": [2, 3]}, "1 positive finite numbers"),
    ],
)
def test_labels_that_cannot_be_weighed_are_refused(counts, given, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        ClassWeights.from_multi_label_counts(counts, **given)


@pytest.mark.parametrize("kind", ["float32", "int64", "bool"])
def test_several_labels_are_counted_from_arrow_and_from_any_dataset(kind):
    hot = np.random.default_rng(0).random((50, 3)) < [0.1, 0.5, 0.0]
    data = Dataset.from_dict({"labels": hot.astype(kind).tolist()})
    expected = np.stack([(~hot).sum(0), hot.sum(0)], axis=1).tolist()
    assert count_multi_labels(data).tolist() == expected
    assert count_multi_labels([{"labels": torch.tensor(row)} for row in hot.astype(kind)]).tolist() == expected


def test_several_labels_that_do_not_count_are_left_out():
    data = Dataset.from_dict({"labels": [[1.0, -100.0], [0.0, 1.0]]})
    assert count_multi_labels(data).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([1, 0], "int64 values"),
        ([[1, 0], [1]], "a 0 or 1 for each label"),
        ([[0.3, 0.7]], "a 0 or 1 for each label"),
        ([[1, None]], "1 empty labels"),
        ([None, [1, 0]], "1 empty labels"),
    ],
)
def test_examples_without_a_0_or_1_for_each_label_are_refused(labels, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        count_multi_labels(Dataset.from_dict({"labels": labels}))


def test_counting_draws_no_random_numbers():
    class Augmented(torch.utils.data.Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return {"label": i % 2, "noise": torch.rand(3) + np.random.rand()}

    torch.manual_seed(0), np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0), np.random.seed(0)
    assert count_labels(Augmented()).tolist() == [3, 2]
    assert (torch.rand(1), np.random.rand()) == expected


@given(counts=st.tuples(sizes, sizes), positive=st.sampled_from([0, 1]), beta=st.sampled_from([0.0, 0.9, 0.999]))
def test_schemes_are_ratios(counts, positive, beta):
    def ratio(scheme):
        return ClassWeights.from_counts(counts, scheme, positive).ratio

    natural = counts[1 - positive] / counts[positive]
    assert ratio("natural") == natural
    assert ratio("unweighted") == 1
    assert ratio("sqrt") == pytest.approx(natural**0.5)
    assert ratio("7.5") == 7.5
    weights = [(1 - beta) / (1 - beta**n) for n in counts]  # Cui et al. 2019, equation 2
    assert ratio(f"effective:{beta}") == pytest.approx(weights[positive] / weights[1 - positive], rel=1e-9)


def test_schemes_of_several_classes_and_labels_are_those_of_their_family():
    weights = ClassWeights.from_counts([100, 25, 4], "sqrt").weights
    assert weights / weights[0] == pytest.approx([1, 2, 5])  # as 1 / sqrt(n_c)
    assert ClassWeights.from_multi_label_counts([[90, 10], [50, 50]], "sqrt").ratio == 3


@pytest.mark.parametrize("name", ["sqrtt", "effective", "effective:1", "effective:x", "-1", "nan", ""])
def test_what_is_no_scheme_is_refused(name):
    with pytest.raises(InvalidInputError, match="is no weight ratio"):
        ClassWeights.from_counts([90, 10], name)
    with pytest.raises(InvalidInputError, match="unweighted, sqrt"):
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"counts": [5, 0]}, "all 5 labels are of class 0"),
        ({"counts": [0, 0]}, "there is no label"),
        ({"counts": [5, -1]}, "whole number"),
        ({"counts": [0.5, 0.5]}, "whole number"),
        ({"counts": [5, 5, 5], "ratio": 3}, "none is the rarest"),
        ({"counts": [5, 3], "positive_label": 2}, "positive_label=2 is not a class"),
        ({"counts": [5, 3], "weights": [1, 0]}, "2 positive finite numbers"),
        ({"counts": [5, 3], "weights": [1, 2, 3]}, "2 positive finite numbers"),
        ({"counts": [5, 3], "weights": [1, 2], "ratio": 2}, "both given"),
    ],
)
def test_counts_and_weights_that_make_no_sense_are_refused(arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        ClassWeights.from_counts(**arguments)


@pytest.mark.parametrize("column", ["label", "labels", "label_ids"])
def test_the_label_column_is_found_as_the_trainer_finds_it(column):
    dataset = make_data(50, seed=3).rename_columns({"label": column} if column != "label" else {})
    expected = np.bincount(dataset[column][:], minlength=2)
    assert ClassWeights.from_dataset(dataset).counts.tolist() == expected.tolist()


@pytest.mark.parametrize("batch", [labels._BATCH, 7])
def test_only_the_rows_of_the_view_are_counted(monkeypatch, batch):
    monkeypatch.setattr(labels, "_BATCH", batch)
    data = make_data(500, seed=4)
    views = {
        "select": data.select(range(100)),
        "shuffle": data.shuffle(seed=1),
        "split": data.train_test_split(0.3, seed=2)["test"],
        "filter": data.filter(lambda row: len(row["input_ids"]) > 8),
        "concatenated": concatenate_datasets([data.select(range(10)), data.shuffle(seed=3).select(range(20))]),
        "torch format": data.shuffle(seed=5).select(range(77)).with_format("torch"),
        "rows twice": data.select([*range(20), *range(10), 499]),
        "none": data.select([]),
    }
    for name, view in views.items():
        expected = np.bincount([row["label"] for row in view.with_format(None)], minlength=2)
        assert count_labels(view).tolist() == expected.tolist(), name


@pytest.mark.parametrize("num_classes", [1, 2, labels._FEW_CLASSES, labels._FEW_CLASSES + 1, 300])
def test_any_number_of_classes_is_counted(num_classes, monkeypatch):
    monkeypatch.setattr(labels, "_BATCH", 100)
    drawn = np.random.default_rng(0).integers(num_classes, size=1000)
    expected = np.bincount(drawn).tolist()
    assert count_labels(Dataset.from_dict({"label": drawn})).tolist() == expected
    with_ignored = np.insert(drawn, [0, 500, 1000], IGNORE_INDEX)
    assert count_labels(Dataset.from_dict({"label": with_ignored})).tolist() == expected


def test_labels_of_tokens_are_counted_without_the_ignored_ones():
    dataset = Dataset.from_dict({"labels": [[-100, 0, 1], [2, -100], [0, 0]]})
    assert count_labels(dataset).tolist() == [3, 1, 1]


def test_a_plain_torch_dataset_is_counted():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 30

        def __getitem__(self, i):
            return {"input_ids": torch.zeros(4), "labels": torch.tensor(int(i % 3 == 0))}

    assert count_labels(Rows()).tolist() == [20, 10]


def test_classes_of_a_class_label_column_have_names_and_count_without_labels():
    dataset = make_data(30, seed=5, names=("a", "b", "c")).filter(lambda row: row["label"] != 2)
    assert len(count_labels(dataset)) == 3
    by_name = ClassWeights.from_dataset(make_data(30, seed=5), positive_label="ham")
    assert by_name.positive_label == 0


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"text": ["a"]}, "no label column 'label' or 'labels' or 'label_ids'"),
        ({"label": ["ham", "spam"]}, "class_encode_column"),
        ({"label": [0, None, 1]}, "1 empty labels"),
        ({"label": [0, -1, 1]}, "label -1 .* is not a class id"),
        ({"label": [0, 1, 10**10]}, "label 10000000000 .* is not a class id"),
        ({"label": [0.0, 1.0]}, "not class ids"),
    ],
)
def test_labels_that_are_no_class_ids_are_refused(columns, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        ClassWeights.from_dataset(Dataset.from_dict(columns))


def test_a_dataset_that_cannot_be_counted_is_refused():
    with pytest.raises(InvalidInputError, match="class_counts"):
        ClassWeights.from_dataset(make_data(10, seed=0).to_iterable_dataset())


def test_an_unknown_positive_label_is_refused_with_the_names_there_are():
    with pytest.raises(
        InvalidInputError, match="positive_label names 'spma', which is not a class: the classes are 'ham', 'spam'"
    ):
        ClassWeights.from_dataset(make_data(10, seed=0), positive_label="spma")


@given(natural=st.floats(1e-3, 1e5), num=st.integers(2, 40), span=st.floats(1.01, 1e4))
def test_the_grid_spans_what_it_says_with_the_natural_ratio_and_one_in_it(natural, num, span):
    grid = ratio_grid(natural, num, span)
    assert grid == sorted(grid)
    assert any(ratio == pytest.approx(natural, rel=1e-9) for ratio in grid)
    assert any(ratio == pytest.approx(1, rel=1e-9) for ratio in grid)
    assert min(grid) == pytest.approx(min(natural / span, 1))
    assert max(grid) == pytest.approx(max(natural * span, 1))
    assert len(grid) <= num + 2


def test_the_default_grid_is_thirteen_ratios_and_one():
    grid = ratio_grid(88 / 12)
    assert len(grid) == 14
    assert 88 / 12 in grid
    assert 1.0 in grid


@pytest.mark.parametrize(("arguments", "sentence"), [((7, 1), "num_ratios"), ((7, 13, 1.0), "ratio_span")])
def test_a_grid_that_spans_nothing_is_refused(arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        ratio_grid(*arguments)
