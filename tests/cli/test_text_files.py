import pytest

from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import load_data
from weighloss.errors import InvalidInputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.jsonl"])
def test_a_file_in_any_encoding_is_read_with_encoding_and_otherwise_refused(tmp_path, name, encoding):
    texts, labels = ["café fermé", "win cash", "où?", "prix gagné"], ["légitime", "spam", "légitime", "spam"]
    file = tmp_path / name
    if name == "data.jsonl":
        rows = [f'{{"text": "{text}", "label": "{label}"}}' for text, label in zip(texts, labels, strict=True)]
    else:
        sep = "\t" if name == "data.tsv" else ","
        rows = [sep.join(row) for row in [("text", "label"), *zip(texts, labels, strict=True)]]
    file.write_bytes("\n".join([*rows, ""]).encode(encoding))
    args = DataArguments(train_file=str(file), validation_file=str(file), encoding=encoding)
    data = load_data(args)
    assert data["train"]["text"][:] == texts
    assert data["train"].features["label"].names == ["légitime", "spam"]
    if not encoding.startswith("utf-8"):
        with pytest.raises(InvalidInputError, match=r"name its encoding .* --encoding utf-16|no column"):
            load_data(DataArguments(train_file=str(file), validation_file=str(file)))


def test_an_unknown_encoding_is_refused_by_name(tmp_path):
    (tmp_path / "data.csv").write_text("text,label\na,ham\nb,spam\n")
    with pytest.raises(InvalidInputError, match=r"cannot be read as CSV \(unknown encoding: utf8x\)"):
        load_data(DataArguments(train_file=str(tmp_path / "data.csv"), encoding="utf8x"))
    with pytest.raises(InvalidInputError, match=r"cannot be read as CSV \(UTF-16 .*\): .* name its encoding"):
        load_data(DataArguments(train_file=str(tmp_path / "data.csv"), encoding="utf-16"))


@pytest.mark.parametrize(
    ("raw", "line", "fields"),
    [
        ("sms,label\na,ham,x\nb,spam,y\n", 2, 3),  # pandas makes the first column an index
        ("sms,label\na,ham\nb,spam,x\n", 3, 3),
        ("sms,label\na,ham\nb\n", 3, 1),
        ('sms,label\n"a\nb",ham\nb, c,spam\n', 4, 3),  # by the line of the file, not the row
        ("sms,label\na,ham,\n", 2, 3),
        ("sms,label\r\na,ham\r\n\r\nb\r\n", 4, 1),
    ],
)
def test_rows_with_other_fields_than_the_header_are_refused_by_line(tmp_path, raw, line, fields):
    for suffix, sep in ((".csv", ","), (".tsv", "\t")):
        file = tmp_path / f"data{suffix}"
        file.write_text(raw.replace(",", sep), newline="")
        with pytest.raises(
            InvalidInputError, match=f"line {line} of .*data{suffix} must have 2 fields as its header, got {fields}:"
        ):
            load_data(DataArguments(train_file=str(file)))


def test_blank_lines_quotes_and_long_texts_are_no_faults_of_a_csv_file(tmp_path):
    file = tmp_path / "data.csv"
    long = "word " * 50_000  # csv.reader refuses fields of more than 131,072 characters by default
    file.write_text(f'sms,label\n"a, ""b""\nc",ham\n\n{long},spam\n')
    data = load_data(DataArguments(train_file=str(file), validation_file=str(file)))
    assert data["train"]["text"][:] == ['a, "b"\nc', long]


@pytest.mark.parametrize(
    ("name", "sep"), [("data.csv", ";"), ("data.csv", "\t"), ("data.csv", "|"), ("data.tsv", ",")]
)
def test_another_separator_is_named_as_the_cause(tmp_path, name, sep):
    (tmp_path / name).write_text(f"sms{sep}label\nsee you{sep}ham\nwin{sep}spam\n")
    with pytest.raises(InvalidInputError, match=r"no column 'label', only .* separate the columns with") as caught:
        load_data(DataArguments(train_file=str(tmp_path / name)))
    assert repr(f"sms{sep}label") in str(caught.value)
