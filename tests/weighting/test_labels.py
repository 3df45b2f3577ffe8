from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, concatenate_datasets
from transformers import DataCollatorWithPadding, default_data_collator

from conftest import make_data
from weighloss.errors import InvalidInputError
from weighloss.weighting import labels
from weighloss.weighting.labels import (
    IGNORE_INDEX,
    class_names,
    column_names,
    count_labels,
    count_multi_labels,
    find_label_column,
    label_id,
)


class Rows(torch.utils.data.Dataset):
    """A dataset of torch whose items draw random numbers, as augmentation does."""

    def __len__(self):
        return 30

    def __getitem__(self, i):
        return {"noise": torch.rand(3) + np.random.rand(), "labels": torch.tensor(int(i % 3 == 0))}


class Stream(torch.utils.data.IterableDataset):
    """A stream that knows its length."""

    def __len__(self):
        return 4

    def __iter__(self):
        return iter([{"label": 0}, {"label": 1}] * 2)


@pytest.mark.parametrize("column", ["label", "labels", "label_ids"])
def test_the_label_column_is_found_under_each_name_that_collators_know(column):
    dataset = make_data(50, seed=3).rename_columns({"label": column} if column != "label" else {})
    assert find_label_column(dataset) == column
    assert count_labels(dataset).tolist() == np.bincount(dataset[column][:]).tolist()


def test_a_named_label_column_is_counted():
    assert count_labels(Dataset.from_dict({"spam": [0, 1, 1], "label": [0, 0, 0]}), "spam").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (["label", "labels"], "got 'label', 'labels': remove all but one, for example with dataset.remove_columns"),
        (["labels", "label_ids"], "got 'labels', 'label_ids'"),
        (["label_ids", "labels", "label"], "got 'label', 'labels', 'label_ids'"),
    ],
)
def test_several_label_columns_are_refused(columns, sentence):
    data = Dataset.from_dict({column: [0, 1] for column in columns})
    for dataset in (data, list(data)):
        with pytest.raises(InvalidInputError, match=sentence):
            count_labels(dataset)
    assert count_labels(data, columns[0]).tolist() == [1, 1]


def test_collators_differ_in_which_of_several_label_columns_they_take():
    """The reason why several are refused; a choice of ours would be right for one collator only."""

    class Tokenizer:
        def pad(self, features, **_):
            return {name: torch.tensor([feature[name] for feature in features]) for name in features[0]}

    collators = (default_data_collator, DataCollatorWithPadding(Tokenizer()))
    row = {"label": 0, "labels": 1}
    assert [collator([dict(row)])["labels"].item() for collator in collators] == [1, 0]


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
        "transform": data.select([5, 3, 1]).with_transform(lambda rows: {"label": [9] * len(rows["label"])}),
        "rows twice": data.select([*range(20), *range(10), 499]),
        "none": data.select([]),
    }
    for name, view in views.items():
        expected = np.bincount([row["label"] for row in view.with_format(None)], minlength=2)
        assert count_labels(view).tolist() == expected.tolist(), name


@pytest.mark.parametrize("view", ["whole", "shuffled"])
def test_counting_takes_constant_memory_in_the_rows(view, tmp_path):
    def peak(size):
        drawn = np.random.default_rng(0).integers(2, size=size)
        Dataset.from_dict({"label": drawn}).save_to_disk(tmp_path / str(size))
        data = Dataset.load_from_disk(tmp_path / str(size))
        data = data.shuffle(seed=0) if view == "shuffled" else data
        default, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
        pa.set_memory_pool(pool)
        try:
            count_labels(data)
        finally:
            pa.set_memory_pool(default)
        return pool.max_memory()

    assert peak(4_000_000) <= 1.1 * peak(2_000_000) + 1e6


@pytest.mark.parametrize("num_classes", [1, 2, 3, 9, 300])
def test_any_number_of_classes_is_counted(num_classes, monkeypatch):
    monkeypatch.setattr(labels, "_BATCH", 100)
    drawn = np.random.default_rng(0).integers(num_classes, size=1000)
    expected = np.bincount(drawn).tolist()
    assert count_labels(Dataset.from_dict({"label": drawn})).tolist() == expected
    with_ignored = np.insert(drawn, [0, 500, 1000], IGNORE_INDEX)
    assert count_labels(Dataset.from_dict({"label": with_ignored})).tolist() == expected


INTEGERS = ["uint8", "int8", "int16", "int32", "int64", "uint64"]
FLOATS = ["float16", "float32", "float64"]


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_class_ids_of_any_dtype_are_counted_floats_that_are_whole_numbers_too(dtype, num_classes):
    drawn = np.random.default_rng(1).integers(num_classes, size=100)
    data = Dataset.from_dict({"label": drawn.astype(dtype)}, features=Features({"label": Value(dtype)}))
    expected = np.bincount(drawn).tolist()
    assert count_labels(data).tolist() == expected
    assert count_labels([{"label": label} for label in drawn.astype(dtype)]).tolist() == expected


@pytest.mark.parametrize("dtype", [dtype for dtype in [*INTEGERS, *FLOATS] if not dtype.startswith("u")])
def test_labels_of_tokens_are_counted_without_the_ignored_ones(dtype):
    features = Features({"labels": List(Value(dtype))})
    dataset = Dataset.from_dict({"labels": [[-100, 0, 1], [2, -100], [0, 0]]}, features=features)
    assert count_labels(dataset).tolist() == [3, 1, 1]
    assert count_labels([{"labels": torch.tensor(row)} for row in dataset["labels"]]).tolist() == [3, 1, 1]


def test_bool_labels_are_counted_as_0_and_1():
    assert count_labels(Dataset.from_dict({"label": [True, False, True]})).tolist() == [1, 2]
    assert count_labels([{"label": True}, {"label": np.bool_(False)}, {"label": torch.tensor(True)}]).tolist() == [
        1,
        2,
    ]


def test_ids_from_1_have_a_count_of_0_for_id_0():
    assert count_labels(Dataset.from_dict({"label": [1, 2, 2]})).tolist() == [0, 1, 2]


def test_classes_without_labels_have_the_count_0():
    named = make_data(30, seed=5, names=("a", "b", "c")).filter(lambda row: row["label"] != 2)
    expected = Counter(named["label"])
    assert count_labels(named).tolist() == [expected[0], expected[1], 0]
    assert count_labels(Dataset.from_dict({"label": [0, 1]}), num_classes=4).tolist() == [1, 1, 0, 0]
    assert count_labels(Dataset.from_dict({"label": [0, 1, 2]}), num_classes=2).tolist() == [1, 1, 1]


def test_a_plain_torch_dataset_is_counted():
    assert count_labels(Rows()).tolist() == [20, 10]
    assert count_labels(torch.utils.data.Subset(Rows(), range(6))).tolist() == [4, 2]


def test_counting_draws_no_random_numbers():
    torch.manual_seed(0), np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0), np.random.seed(0)
    assert count_labels(Rows()).tolist() == [20, 10]
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize("kind", ["float32", "int64", "bool"])
def test_several_labels_are_counted_from_arrow_and_from_any_dataset(kind, monkeypatch):
    hot = np.random.default_rng(0).random((50, 3)) < [0.1, 0.5, 0.0]
    data = Dataset.from_dict({"labels": hot.astype(kind).tolist()})
    expected = np.stack([(~hot).sum(0), hot.sum(0)], axis=1).tolist()
    assert count_multi_labels([{"labels": torch.tensor(row)} for row in hot.astype(kind)]).tolist() == expected
    for batch in (labels._BATCH, 7):
        monkeypatch.setattr(labels, "_BATCH", batch)
        assert count_multi_labels(data).tolist() == expected
        assert count_multi_labels(data.shuffle(seed=0)).tolist() == expected
        fixed = data.cast(Features({"labels": List(Value(kind), length=3)}))
        assert count_multi_labels(fixed).tolist() == expected


def test_several_labels_that_do_not_count_are_left_out():
    data = Dataset.from_dict({"labels": [[1.0, -100.0], [0.0, 1.0]]})
    assert count_multi_labels(data).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ([1, 1], "a 0 or 1 for each label .* got int64 with the values 1"),
        ([[1, 0], [1]], "a 0 or 1 for each label"),
        ([[0.3, 0.7]], "a 0 or 1 for each label .* with the values 0.3, 0.7"),
        ([["a"]], "a 0 or 1 for each label"),
        ([[0, 1, 2]], "a 0 or 1 for each label .* with the values 2"),
        ([[1, None]], "1 empty labels"),
        ([None, [1, 0]], "1 empty labels"),
    ],
)
@pytest.mark.parametrize("batch", [labels._BATCH, 1])
def test_examples_without_a_0_or_1_for_each_label_are_refused(column, sentence, batch, monkeypatch):
    monkeypatch.setattr(labels, "_BATCH", batch)
    with pytest.raises(InvalidInputError, match=sentence):
        count_multi_labels(Dataset.from_dict({"labels": column}))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"text": ["a"]}, "no label column 'label' or 'labels' or 'label_ids', its items have 'text': rename"),
        ({"label": ["ham", "spam"]}, "string with the values 'ham', 'spam': .*class_encode_column"),
        ({"label": ["0", "1"]}, "string with the values '0', '1'"),
        ({"label": [0, None, 1]}, "1 empty labels"),
        ({"label": [[0], None, [None, 1]]}, "2 empty labels"),
        ({"label": [0, -1, 1]}, "ids from 0, or -100 .* got -1:"),
        ({"label": [0, -1000, IGNORE_INDEX]}, "ids from 0, or -100 .* got -1000:"),
        ({"label": [0, 1, 10**10]}, "got 10000000000:"),
        ({"label": [0.0, 0.5]}, "integer class ids, got double with the values 0.5:"),
        ({"label": [[0.0, 1.5], [2.0]]}, "got list<.*> with the values 1.5:"),
        ({"label": [0.0, float("nan")]}, "got double with the values nan:"),
    ],
)
def test_labels_that_are_not_class_ids_are_refused(columns, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        count_labels(Dataset.from_dict(columns))


def test_a_missing_named_column_is_refused():
    with pytest.raises(InvalidInputError, match="no label column 'spam', its items have 'label': rename"):
        count_labels(Dataset.from_dict({"label": [0]}), "spam")


@pytest.mark.parametrize("dataset", [Stream(), make_data(10, seed=0).to_iterable_dataset(), iter([]), None])
def test_a_dataset_that_cannot_be_indexed_is_not_counted(dataset):
    with pytest.raises(InvalidInputError, match=r"cannot be counted .* class_counts=\[8800, 1200\]"):
        count_labels(dataset)


def test_the_label_column_of_a_stream_is_found_where_its_columns_are_known():
    stream = make_data(10, seed=0).to_iterable_dataset()
    assert find_label_column(stream) == "label"
    assert column_names(Stream()) == []
    with pytest.raises(InvalidInputError, match=r"cannot be counted .* class_counts"):
        find_label_column(Stream())


@pytest.mark.parametrize("kind", [DatasetDict, dict])
def test_several_splits_instead_of_one_are_refused(kind):
    data = make_data(10, seed=0)
    sentence = rf"the dataset is a {kind.__name__} with the splits 'train', 'test': .* data\['train'\]"
    for refusing in (count_labels, count_multi_labels, find_label_column, column_names):
        with pytest.raises(InvalidInputError, match=sentence):
            refusing(kind(train=data, test=data))


@pytest.mark.parametrize(
    "dataset", [torch.utils.data.TensorDataset(torch.zeros(3, 2), torch.zeros(3)), [(1, 0)], [], torch.zeros(3)]
)
def test_items_that_are_not_mappings_are_refused_without_printing_them(dataset):
    with pytest.raises(InvalidInputError, match=r"its items have no known columns: .* class_counts") as refusal:
        count_labels(dataset)
    assert "tensor" not in str(refusal.value)
    assert column_names(dataset) == []


def test_a_data_frame_is_refused_with_what_to_write():
    with pytest.raises(InvalidInputError, match=r"is a DataFrame, .*write datasets\.Dataset\.from_pandas\(data\)"):
        count_labels(pd.DataFrame({"label": [0, 1]}))


def test_class_names_are_those_of_a_class_label_also_of_tokens():
    features = Features(
        {"label": ClassLabel(names=["a", "b"]), "tags": List(ClassLabel(names=["x"])), "id": Value("int8")}
    )
    data = Dataset.from_dict({"label": [0], "tags": [[0]], "id": [0]}, features=features)
    assert [class_names(data, column) for column in ("label", "tags", "id", "none")] == [["a", "b"], ["x"], [], []]
    assert class_names([{"label": 0}], "label") == []


def test_a_label_is_given_by_name_or_id():
    names = ["ham", "spam", "0"]
    assert [label_id(label, names) for label in ("spam", 1, np.int64(1), "1", "0")] == [1, 1, 1, 1, 2]
    assert label_id("1", []) == 1


@pytest.mark.parametrize(
    ("label", "names", "sentence"),
    [
        ("spma", ["ham", "spam"], " or one of the class names 'ham', 'spam', got 'spma'"),
        ("spam", [], ", got 'spam'"),
        (1.0, ["ham", "spam"], " or .*, got 1.0"),
        (None, ["ham", "spam"], " or .*, got None"),
    ],
)
def test_a_label_that_is_neither_a_name_nor_an_id_is_refused(label, names, sentence):
    with pytest.raises(InvalidInputError, match=f"positive_label must be a class id{sentence}"):
        label_id(label, names)
    with pytest.raises(InvalidInputError, match="class_weights must be a class id"):
        label_id(label, names, "class_weights")
