import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import load_data, tokenize
from weighloss.cli.demo_data import demo_data
from weighloss.errors import InvalidInputError

ROWS = {
    "sms": [
        "win a prize now",
        'he said "hi, there"',
        "call me",
        "free entry",
        "see you",
        "NA",
        "lunch?",
        "cash!",
        "ok",
        "bye",
    ],
    "label": ["spam", "ham", "ham", "spam", "ham", "ham", "ham", "spam", "ham", "ham"],
}


def write(folder, name, columns=ROWS):
    dataset, path = Dataset.from_dict(columns), str(folder / name)
    if name.endswith((".csv", ".tsv")):
        dataset.to_csv(path, sep="\t" if name.endswith(".tsv") else ",")
    elif name.endswith(".parquet"):
        dataset.to_parquet(path)
    else:
        dataset.to_json(path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.json", "data.jsonl", "data.parquet"])
def test_every_file_format_gives_the_same_texts_and_labels(tmp_path, name):
    file = write(tmp_path, name)
    data = load_data(DataArguments(train_file=file, validation_file=file))
    assert data["train"].features["label"] == ClassLabel(names=["ham", "spam"])
    for split in ("train", "validation"):
        assert data[split]["text"][:] == ROWS["sms"]
        assert [data[split].features["label"].int2str(label) for label in data[split]["label"]] == ROWS["label"]


def test_a_path_with_brackets_is_no_pattern(tmp_path):
    for folder, rows in (("a[1]", ROWS), ("a1", ROWS | {"sms": ["another"] * 10})):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "data.csv", rows)
    file = str(tmp_path / "a[1]" / "data.csv")
    assert load_data(DataArguments(train_file=file, validation_file=file))["train"]["text"][:] == ROWS["sms"]


def test_the_only_label_is_called_by_its_name(tmp_path):
    feature = ClassLabel(names=["ham", "spam"])
    file = str(tmp_path / "data.parquet")
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 1]}).cast_column("label", feature).to_parquet(file)
    other = str(tmp_path / "other.parquet")
    Dataset.from_dict({"text": ["a", "b"], "label": ["ham", "spam"]}).to_parquet(other)
    with pytest.raises(InvalidInputError, match="all train labels are 'spam'"):  # not that the other's are unknown
        load_data(DataArguments(train_file=file, validation_file=other))


def test_without_evaluation_data_a_stratified_share_is_held_out_and_said_so(tmp_path, capsys):
    columns = {"text": [f"text {i}" for i in range(500)], "label": [int(i % 10 == 0) for i in range(500)]}
    args = DataArguments(train_file=write(tmp_path, "data.csv", columns))
    data = load_data(args)
    assert (len(data["train"]), len(data["validation"])) == (400, 100)
    assert sum(data["train"]["label"]) == 40
    assert not set(data["train"]["text"][:]) & set(data["validation"]["text"][:])
    assert "20% of the training data" in capsys.readouterr().out
    assert load_data(args)["validation"]["text"][:] == data["validation"]["text"][:]


@pytest.mark.parametrize("share", [0.2, 0.33])
def test_the_split_is_that_of_datasets(tmp_path, share):
    columns = {"text": [f"text {i}" for i in range(301)], "label": [int(i % 7 == 0) for i in range(301)]}
    data = load_data(DataArguments(train_file=write(tmp_path, "data.csv", columns), test_size=share, shuffle_seed=5))
    labels = ClassLabel(names=["0", "1"])
    whole = Dataset.from_dict(columns).cast_column("label", labels)
    expected = whole.train_test_split(test_size=share, stratify_by_column="label", seed=5)
    assert data["test"]["text"][:] == expected["test"]["text"][:]


def test_a_limited_number_of_samples_keeps_the_share_of_each_class(tmp_path):
    columns = {"text": [f"text {i}" for i in range(500)], "label": [int(i < 100) for i in range(500)]}
    data = load_data(
        DataArguments(train_file=write(tmp_path, "data.csv", columns), max_train_samples=50, max_eval_samples=20)
    )
    assert (len(data["train"]), len(data["validation"])) == (50, 20)
    assert sum(data["train"]["label"]) == 10
    assert sum(data["validation"]["label"]) == 4


def test_evaluation_texts_that_are_training_texts_too_are_counted(tmp_path, capsys):
    file = write(tmp_path, "data.csv")
    load_data(DataArguments(train_file=file, validation_file=file))
    assert "10 of 10 validation texts are in the training data too" in capsys.readouterr().out


def test_text_columns_are_joined(tmp_path):
    columns = {"title": ["a", "b"], "body": ["x", "y"], "label": [0, 1]}
    file = write(tmp_path, "data.csv", columns)
    args = DataArguments(
        train_file=file, validation_file=file, text_column_names="title,body", text_column_delimiter=" | "
    )
    assert load_data(args)["train"]["text"][:] == ["a | x", "b | y"]


def test_integer_and_boolean_labels_become_classes_by_their_names(tmp_path):
    for labels, names in (([7, 3, 7], ["3", "7"]), ([True, False, True], ["False", "True"])):
        file = write(tmp_path, f"{names[0]}.parquet", {"text": ["a", "b", "c"], "label": labels})
        train = load_data(DataArguments(train_file=file, validation_file=file))["train"]
        assert train.features["label"].names == names
        assert train["label"][:] == [1, 0, 1]


def test_test_data_are_read_with_the_classes_of_the_training_data(tmp_path):
    file = write(tmp_path, "data.csv")
    test = write(tmp_path, "test.tsv", {"sms": ["cash", "home", "win"], "label": ["spam", "ham", "spam"]})
    data = load_data(DataArguments(train_file=file, validation_file=file, test_file=test, max_predict_samples=2))
    assert len(data["test"]) == 2
    assert data["test"].features == data["train"].features


def test_a_share_of_the_training_data_can_be_held_out_as_test_data(tmp_path):
    texts = [f"message {i}" for i in range(100)]
    file = write(tmp_path, "data.csv", {"sms": texts, "label": ["spam" if i % 5 == 0 else "ham" for i in range(100)]})
    data = load_data(DataArguments(train_file=file, test_size=0.2, validation_split_percentage=25))
    assert {split: len(part) for split, part in data.items()} == {"train": 60, "validation": 20, "test": 20}
    assert sorted(text for part in data.values() for text in part["text"]) == sorted(texts)  # each once
    spam = data["test"].features["label"].str2int("spam")
    assert data["test"]["label"][:].count(spam) == 4


def test_classes_of_other_splits_are_matched_by_name_not_by_id(tmp_path):
    files = {}
    for split, names in (("train", ["ham", "spam"]), ("validation", ["spam", "ham"])):
        files[split] = str(tmp_path / f"{split}.parquet")
        rows = Dataset.from_dict({"text": ["win cash", "see you"], "label": [names.index("spam"), names.index("ham")]})
        rows.cast_column("label", ClassLabel(names=names)).to_parquet(files[split])
    data = load_data(DataArguments(train_file=files["train"], validation_file=files["validation"]))
    assert data["validation"]["label"][:] == data["train"]["label"][:] == [1, 0]
    assert data["validation"].features == data["train"].features


def test_the_label_column_may_be_called_text_and_another_column_label(tmp_path):
    columns = {"sms": ["a", "b"], "text": ["spam", "ham"], "label": ["x", "y"]}
    file = write(tmp_path, "data.csv", columns)
    args = DataArguments(train_file=file, validation_file=file, text_column_names="sms", label_column_name="text")
    data = load_data(args)
    assert data["train"].column_names == ["text", "label"]
    assert data["train"].features["label"].names == ["ham", "spam"]


def test_nearly_all_samples_can_be_asked_for(tmp_path):
    file = write(tmp_path, "data.csv")
    assert len(load_data(DataArguments(train_file=file, validation_file=file, max_train_samples=9))["train"]) == 9


def test_class_labels_stay_as_they_are(tmp_path):
    file = str(tmp_path / "data.parquet")
    feature = ClassLabel(names=["spam", "ham", "other"])
    Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).cast_column("label", feature).to_parquet(file)
    assert load_data(DataArguments(train_file=file, validation_file=file))["train"].features["label"] == feature


LABELLED = {"sms": ["a", "b", "c", "d"]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_file": "missing.csv"}, "there is no file missing.csv: give --train_file the path of one file"),
        ({"train_file": "a.csv,b.csv"}, "there is no file a.csv,b.csv: .*neither a pattern nor a list"),
        ({"train_file": "*.csv"}, "neither a pattern nor a list"),
        (
            {"train_file": "."},
            ". is a folder: give --train_file the path of one file.* a folder is for --dataset_name",
        ),
        ({"validation_file": "missing.csv"}, "there is no file missing.csv: give --validation_file"),
        ({"text_column_names": "smss"}, "no column 'smss', only 'sms', 'label': give --text_column_names one of them"),
        ({"label_column_name": "target"}, "no column 'target', only 'sms', 'label': give --label_column_name one"),
        ({"raw": "win cash,spam\nsee you,ham\n"}, "no column 'label', only 'win cash', 'spam': .* add a header line"),
        ({"columns": ROWS | {"other": ROWS["sms"]}, "text_column_names": None}, "could be in 'sms', 'other'"),
        ({"columns": {"sms": [1, 2], "label": ["a", "b"]}, "text_column_names": None}, "could be in no column"),
        ({"columns": {"sms": ["a"] * 9, "label": ["ham"] * 9}}, "all train labels are 'ham'"),
        ({"columns": LABELLED | {"label": ["ham", "spam", "", "ham"]}}, "1 of 4 rows .* no label, row 3 first"),
        ({"columns": LABELLED | {"label": [0.5, 1.5, 2.5, 0.5]}}, "numbers such as 0.5, not classes"),
        ({"columns": LABELLED | {"label": [1.0, 0.0, float("nan"), 0.0]}, "name": "data.parquet"}, "no label, row 3"),
        ({"columns": LABELLED | {"label": [1, 0, 0, None]}, "name": "data.parquet"}, "no label, row 4"),
        (
            {"columns": LABELLED | {"label": [[0], [1], [0, 1], []]}, "name": "data.json"},
            "several labels .* Python API",
        ),
        ({"columns": LABELLED | {"label": [{"a": 1}] * 4}, "name": "data.json"}, "not one class for each text"),
        ({"raw": "", "name": "data.json"}, "cannot be read as JSON|has no rows"),
        ({"raw": ""}, "cannot be read as CSV"),
        ({"raw": "sms,label\n"}, "cannot be read as CSV|has no rows"),
        ({"max_train_samples": 0}, "--max_train_samples must be at least 1, got 0"),
        ({"max_seq_length": 0}, "--max_seq_length must be at least 1, got 0"),
        ({"preprocessing_num_workers": 0}, "--preprocessing_num_workers must be at least 1, got 0"),
        ({"dataset_name": "imdb"}, "--dataset_name has no effect on files"),
        (
            {"train_file": None, "validation_file": "x.csv", "text_column_names": None},
            "--validation_file has no effect on",
        ),
        ({"train_file": None}, "--text_column_names has no effect on the built-in sentences: add --train_file or"),
        ({"train_file": None, "dataset_name": "no/such/data"}, "no/such/data cannot be loaded"),
        (
            {"train_file": None, "dataset_name": "imdb", "test_file": "x.csv"},
            "--test_file has no effect with --dataset_name",
        ),
        (
            {"test_split_name": "test"},
            "--test_split_name has no effect on files: use --validation_file and --test_file",
        ),
        ({"columns": {"sms": ["a"] * 4, "label": ["ham", "ham", "ham", "spam"]}}, "every class on both sides"),
        ({"validation_split_percentage": 100}, "--validation_split_percentage must be from 1 to 99, got 100"),
        ({"validation": {"sms": ["a"], "label": ["spma"]}}, "the label 'spma', which is not in the training data"),
        ({"validation": {"sms": ["a"], "label": ["spam"]}}, "all validation labels are 'spam'"),
        ({"validation": {"sms": ["a"], "label": ["ham"]}}, "all validation labels are 'ham'"),
        ({"name": "data.txt"}, "none of .csv, .tsv, .json"),
        ({"raw": "{broken", "name": "data.json"}, "cannot be read as JSON"),
        ({"raw": 'sms,label\n"a,ham\n'}, "line 2 of .* must have 2 fields as its header, got 1: .* close every quote"),
        ({"raw": "PAR1", "name": "data.parquet"}, "cannot be read as PARQUET"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, change, sentence):
    change = dict(change)
    name = change.pop("name", "data.csv")
    if "raw" in change:
        (tmp_path / name).write_text(change.pop("raw"))
        file = str(tmp_path / name)
    else:
        file = write(tmp_path, name, change.pop("columns", ROWS))
    if "validation" in change:
        change["validation_file"] = write(tmp_path, "validation.csv", change.pop("validation"))
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        load_data(DataArguments(**{"train_file": file, "text_column_names": "sms"} | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("twin", ["ham ", " ham", "HAM", "Ham", "h am", "ham\u00a0"])
@pytest.mark.parametrize("where", ["train", "validation", "ClassLabel"])
def test_class_names_that_differ_only_in_blanks_or_capitals_are_refused_by_name(tmp_path, twin, where):
    file = str(tmp_path / "data.parquet")
    names = ["ham", "spam", *([twin] if where != "validation" else [])]
    data = Dataset.from_dict({"text": names, "label": names})
    if where == "ClassLabel":
        data = data.cast_column("label", ClassLabel(names=names))
    data.to_parquet(file)
    other = write(tmp_path, "other.parquet", {"text": ["a"], "label": [twin if where == "validation" else "ham"]})
    with pytest.raises(InvalidInputError, match="differ only in blanks or capitals") as caught:
        load_data(DataArguments(train_file=file, validation_file=other))
    assert repr(twin) in str(caught.value)
    assert "'ham'" in str(caught.value)


def test_whole_float_labels_are_the_classes_of_their_whole_numbers(tmp_path):
    floats = write(tmp_path, "floats.csv", {"text": ["a", "b", "c"], "label": [0.0, 1.0, 10.0]})
    wholes = write(tmp_path, "wholes.parquet", {"text": ["d", "e"], "label": [10, 1]})
    data = load_data(DataArguments(train_file=floats, validation_file=wholes))
    assert data["train"].features["label"].names == ["0", "1", "10"]
    assert data["validation"]["label"][:] == [2, 1]


def test_labels_one_and_two_are_classes_with_these_names(tmp_path):
    file = write(tmp_path, "data.csv", {"text": ["a", "b"], "label": [2, 1]})
    assert load_data(DataArguments(train_file=file, validation_file=file))["train"].features["label"].names == [
        "1",
        "2",
    ]


@pytest.mark.parametrize("kind", ["one data set", "with splits"])
def test_a_folder_of_save_to_disk_is_a_data_set(tmp_path, kind):
    data = Dataset.from_dict({"text": list("abcdefghij"), "label": [0, 1] * 5})
    whole = data if kind == "one data set" else DatasetDict({"train": data, "validation": data.select(range(4))})
    whole.save_to_disk(str(tmp_path / "saved"))
    loaded = load_data(DataArguments(dataset_name=str(tmp_path / "saved")))
    assert len(loaded["validation"]) == (2 if kind == "one data set" else 4)
    with pytest.raises(InvalidInputError, match="has no split 'test', only 'train'"):
        load_data(DataArguments(dataset_name=str(tmp_path / "saved"), test_split_name="test"))


def test_empty_texts_are_counted_once_for_each_split(tmp_path, capsys):
    file = write(tmp_path, "data.parquet", {"text": ["", None, " \n", "a", "b"], "label": [0, 1, 0, 1, 0]})
    other = write(tmp_path, "other.parquet", {"text": ["", "x"], "label": [0, 1]})
    load_data(DataArguments(train_file=file, validation_file=other))
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "empty" in line] == [
        "3 of 5 train texts are empty.",
        "1 of 2 validation texts are empty.",
    ]


@pytest.mark.parametrize("field", [
    "text_column_names", "text_column_delimiter", "label_column_name", "validation_file", "test_file", "encoding",
    "validation_split_percentage", "train_split_name", "dataset_config_name",
])  # fmt: skip
def test_flags_of_ones_own_data_are_refused_without_it_even_at_their_default(field):
    with pytest.raises(InvalidInputError, match=f"--{field} has no effect on the built-in sentences"):
        DataArguments().check({field, "learning_rate"})
    DataArguments(max_seq_length=16, max_train_samples=10, shuffle_seed=1).check({"max_seq_length"})


def test_the_built_in_data_are_real_sentences_at_the_articles_imbalance():
    data = demo_data()
    for split, size in (("train", 1600), ("validation", 600)):
        assert np.bincount(data[split]["label"]).tolist() == [size * 88 // 100, size * 12 // 100]
    texts = [*data["train"]["text"], *data["validation"]["text"]]
    assert len(set(texts)) == len(texts)
    assert all(60 <= len(text) <= 200 for text in texts)
    assert demo_data()["train"]["text"][:] == data["train"]["text"][:]


def test_tokens_are_cut_but_not_padded(minilm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    data = load_data(DataArguments())
    lengths = [len(row) for row in tokenize(data, tokenizer, DataArguments(max_seq_length=16))["train"]["input_ids"]]
    assert max(lengths) == 16
    assert len(set(lengths)) > 1
