import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from weighloss import InvalidInputError
from weighloss.cli.demo_data import builtin_data
from weighloss.cli.data import DataArguments, load_data, tokenize

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
    with pytest.raises(InvalidInputError, match="all training labels are 'spam'"):
        load_data(DataArguments(train_file=file))
    other = str(tmp_path / "other.parquet")
    Dataset.from_dict({"text": ["a", "b"], "label": ["ham", "spam"]}).to_parquet(other)
    with pytest.raises(InvalidInputError, match="all training labels are 'spam'"):  # not that the other's are unknown
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
    assert "10 of 10 validation texts are training texts too" in capsys.readouterr().out


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
    test = write(tmp_path, "test.TSV".lower(), {"sms": ["cash", "home"], "label": ["spam", "ham"]})
    data = load_data(DataArguments(train_file=file, validation_file=file, test_file=test, max_predict_samples=1))
    assert len(data["test"]) == 1
    assert data["test"].features == data["train"].features


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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_file": "missing.csv"}, "there is no file missing.csv"),
        ({"text_column_names": "smss"}, "no text column 'smss': its columns are 'sms', 'label'"),
        ({"label_column_name": "target"}, "no column 'target': its columns are 'sms', 'label'"),
        ({"columns": ROWS | {"other": ROWS["sms"]}, "text_column_names": None}, "could be in 'sms', 'other'"),
        ({"columns": {"sms": ["a"] * 9, "label": ["ham"] * 9}}, "all training labels are 'ham'"),
        ({"columns": {"sms": ["a"] * 4, "label": ["ham", "spam", "", "ham"]}}, "1 of 4 rows .* no label, row 3 is"),
        ({"columns": {"sms": ["a"] * 4, "label": [0.5, 1.5, 2.5, 0.5]}}, "not classes"),
        ({"columns": {"sms": ["a", "b"], "label": [[0], [1]]}, "name": "data.json"}, "not classes"),
        ({"raw": "", "name": "data.json"}, "cannot be read as JSON|has no rows"),
        ({"raw": "sms,label\n", "name": "data.csv"}, "cannot be read as CSV|has no rows"),
        ({"max_train_samples": 0}, "0 examples for the train data are none"),
        ({"dataset_name": "imdb"}, "were both given"),
        ({"train_file": None, "validation_file": "x.csv"}, "without --train_file"),
        ({"train_file": None, "dataset_name": "no/such/data"}, "no/such/data cannot be loaded"),
        (
            {"train_file": None, "dataset_name": "imdb", "test_file": "x.csv"},
            "with --dataset_name: write --validation_s",
        ),
        ({"test_split_name": "test"}, "without --dataset_name: write --validation_file and"),
        ({"columns": {"sms": ["a"] * 4, "label": ["ham", "ham", "ham", "spam"]}}, "every class on both sides"),
        ({"validation_split_percentage": 100}, "validation_split_percentage=100"),
        ({"validation": {"sms": ["a"], "label": ["spma"]}}, "the label 'spma', which the training data has not"),
        ({"name": "data.txt"}, "none of .csv, .tsv, .json"),
        ({"raw": "{broken", "name": "data.json"}, "cannot be read as JSON"),
        ({"raw": 'sms,label\n"a,ham\n', "name": "data.csv"}, "cannot be read as CSV"),
        ({"raw": "PAR1", "name": "data.parquet"}, "cannot be read as PARQUET"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, change, sentence):
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


def test_the_built_in_data_are_real_sentences_at_the_articles_imbalance():
    data = builtin_data()
    for split, size in (("train", 1600), ("validation", 600)):
        assert np.bincount(data[split]["label"]).tolist() == [size * 88 // 100, size * 12 // 100]
    texts = [*data["train"]["text"], *data["validation"]["text"]]
    assert len(set(texts)) == len(texts)
    assert all(60 <= len(text) <= 200 for text in texts)
    assert builtin_data()["train"]["text"][:] == data["train"]["text"][:]


def test_tokens_are_cut_but_not_padded(minilm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    data = load_data(DataArguments())
    lengths = [len(row) for row in tokenize(data, tokenizer, DataArguments(max_seq_length=16))["train"]["input_ids"]]
    assert max(lengths) == 16
    assert len(set(lengths)) > 1
