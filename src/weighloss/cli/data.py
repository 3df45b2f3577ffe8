from __future__ import annotations

import csv
import glob
import math
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset, load_from_disk
from datasets.utils.stratify import stratified_shuffle_split_generate_indices

from ..errors import InvalidInputError, reason
from .arguments import DataArguments
from .demo_data import demo_data

_LOADERS = {"csv": "csv", "tsv": "csv", "json": "json", "jsonl": "json", "parquet": "parquet"}


def load_data(args: DataArguments, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
    """Splits `train`, `validation` and, where it is named, `test`, with columns `text` (string) and `label` (ClassLabel).

    Text columns are joined, and labels get the classes of the training data. Without evaluation data a stratified share of
    the training data is held out for it. Prints that, and the numbers of empty and of repeated texts. `cache_dir` and
    `token` are for data from the Hub.
    """
    args.check()
    say = PartialState().print  # on the main process only
    if args.is_demo:
        data = demo_data()
    else:
        files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
        loaded = {split: _load_file(split, name, args.encoding) for split, name in files.items() if name}
        data = _text_and_label(loaded or _load_from_hub(args, cache_dir, token), args)
    if args.test_size is not None:
        data["train"], data["test"] = _stratified_split(data["train"], args.test_size, args.shuffle_seed)
        say(f"{args.test_size:.3g} of the training data, stratified by label, are held out as test data.")
    if "validation" not in data:
        share = args.validation_split_percentage
        data["train"], data["validation"] = _stratified_split(data["train"], share / 100, args.shuffle_seed)
        say(f"No evaluation data given: {share}% of the training data, stratified by label, is held out for it.")
    limits = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_predict_samples}
    for split, part in data.items():
        if (limit := limits[split]) is not None and limit < len(part):
            data[split] = part = _sample(part, limit, args.shuffle_seed)
        if len(labels := set(part["label"][:])) < 2:
            only = part.features["label"].int2str(labels.pop())
            raise InvalidInputError(
                f"all {split} labels are {only!r}: check the label column, or give examples of another class too."
            )
    known = set(data["train"]["text"][:])
    for split, part in data.items():
        texts = part["text"][:]
        if empty := sum(not text.strip() for text in texts):
            say(f"{empty:,} of {len(texts):,} {split} texts are empty.")
        if split != "train" and (repeated := sum(text in known for text in texts)):
            of = f"{repeated:,} of {len(texts):,} {split} texts"
            say(f"{of} are in the training data too: metrics on them are optimistic.")
    return data


def tokenize(data: DatasetDict, tokenizer: Any, args: DataArguments) -> DatasetDict:
    """The data as the model's inputs and `label`, not padded: the collator pads each batch to its longest text."""
    max_length = min(args.max_seq_length, tokenizer.model_max_length)
    return data.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=max_length),
        batched=True,
        remove_columns="text",
        num_proc=args.preprocessing_num_workers,
        desc="Tokenising",
    )


def _load_file(split: str, name: str, encoding: str) -> Dataset:
    file = Path(name)
    suffix = file.suffix.lower().removeprefix(".")
    loader = _LOADERS.get(suffix)
    if not file.is_file():
        is_or_is_not = f"{name} is a folder" if file.is_dir() else f"there is no file {name}"
        raise InvalidInputError(
            f"{is_or_is_not}: give --{split}_file the path of one file, neither a pattern nor a list; a folder is for "
            "--dataset_name."
        )
    if loader is None:
        raise InvalidInputError(f"{name} is none of .csv, .tsv, .json, .jsonl and .parquet: convert it to one.")
    options: dict[str, Any] = {} if loader == "parquet" else {"encoding": encoding}
    try:
        if loader == "csv":
            # Blank stays blank, and a class may be called "None" or "NA".
            options |= {"sep": "\t" if suffix == "tsv" else ",", "keep_default_na": False}
            _check_rows(file, options["sep"], encoding)
        elif loader == "json":
            file.read_text(encoding=encoding)  # to refuse another encoding, which the loader may not see
        return load_dataset(loader, data_files=glob.escape(str(file.resolve())), split="train", **options)
    except InvalidInputError:
        raise
    except LookupError:
        raise InvalidInputError(f"--encoding {encoding!r} is unknown: write for example utf-8 or latin-1.") from None
    except UnicodeError as error:
        guess = "latin-1" if encoding == "utf-8" else "utf-8"
        if file.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff"):  # the mark at the start of UTF-16
            guess = "utf-16"
        raise InvalidInputError(
            f"{name} is not encoded in {encoding} ({reason(error)}): name its encoding, for example --encoding {guess}."
        ) from None
    except Exception as error:  # datasets wraps what its many readers raise
        raise InvalidInputError(
            f"{name} cannot be read as {suffix.upper()} ({reason(error)}): check its format."
        ) from None


def _check_rows(file: Path, separator: str, encoding: str) -> None:
    """Refuse a CSV file whose rows have more or fewer fields than its header: pandas would shift or fill its columns."""
    csv.field_size_limit(2**31 - 1)  # long texts
    with file.open(encoding=encoding, newline="") as lines:
        rows = csv.reader(lines, delimiter=separator)
        header = next(rows, [])
        if other := next((char for char in ";\t|," if len(header) == 1 and char in header[0]), None):
            raise InvalidInputError(
                f"the columns of {file} are separated by {other!r}, not {separator!r}, by its header {header[0]!r}: save "
                "it with commas as .csv, or with tabs as .tsv."
            )
        line = rows.line_num + 1
        for row in rows:
            if len(row) != len(header) and "".join(row).strip():
                raise InvalidInputError(
                    f"line {line} of {file} must have {len(header)} fields as its header, got {len(row)}: quote fields "
                    f"that contain {separator!r}, and close every quote."
                )
            line = rows.line_num + 1


def _load_from_hub(args: DataArguments, cache_dir: str | None, token: str | None) -> dict[str, Dataset]:
    name, revision = str(args.dataset_name), args.dataset_revision
    try:
        if any(Path(name, file).is_file() for file in ("state.json", "dataset_dict.json")):  # of save_to_disk
            data = load_from_disk(name)
        else:
            data = load_dataset(name, args.dataset_config_name, revision=revision, cache_dir=cache_dir, token=token)
    except Exception as error:  # datasets and the Hub's client raise many kinds of errors
        raise InvalidInputError(
            f"the data set {name} cannot be loaded ({reason(error)}): check its name, --dataset_config_name and the login."
        ) from None
    if isinstance(data, Dataset):
        data = DatasetDict({args.train_split_name: data})
    validation = args.validation_split_name or ("validation" if "validation" in data else None)
    splits = {"train": args.train_split_name, "validation": validation, "test": args.test_split_name}
    for split in filter(None, splits.values()):
        if split not in data:
            raise InvalidInputError(f"{name} has no split {split!r}, only {_listed(data)}: give one of them.")
    return {split: data[own] for split, own in splits.items() if own is not None}


def _text_and_label(data: dict[str, Dataset], args: DataArguments) -> DatasetDict:
    label, given = args.label_column_name, args.text_column_names
    if given is not None:
        texts = [name.strip() for name in given.split(",")]
    else:
        strings = (Value("string"), Value("large_string"))
        texts = [name for name, kind in data["train"].features.items() if kind in strings and name != label]
    for column, flag in ({label: "--label_column_name"} | dict.fromkeys(texts, "--text_column_names")).items():
        for split, part in data.items():
            if column not in part.column_names:
                raise InvalidInputError(
                    f"the {split} data has no column {column!r}, only {_listed(part.column_names)}: give {flag} one of "
                    "them, or add a header line to the file if these are not names."
                )
    if given is None and len(texts) != 1:
        raise InvalidInputError(
            f"the texts could be in {_listed(texts) or 'no column'}: name their column with --text_column_names."
        )
    names, ids = _class_ids(data, label)
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})

    def read(batch: dict[str, list[Any]], ids: dict[Any, int]) -> dict[str, list[Any]]:
        rows = zip(*(batch[name] for name in texts), strict=True)
        joined = [args.text_column_delimiter.join("" if text is None else str(text) for text in row) for row in rows]
        return {"text": joined, "label": [ids[value] for value in batch[label]]}

    converted = DatasetDict()
    for split, part in data.items():
        options: dict[str, Any] = {"fn_kwargs": {"ids": ids[split]}, "remove_columns": part.column_names}
        converted[split] = part.map(read, batched=True, features=features, desc="Reading", **options)
    return converted


def _class_ids(data: dict[str, Dataset], column: str) -> tuple[list[str], dict[str, dict[Any, int]]]:
    """Names of the classes, and the id of each label of each split: labels are the same class by their names."""
    called = {split: _label_names(split, part, column) for split, part in data.items()}
    feature, found = data["train"].features[column], called["train"]
    names = feature.names if isinstance(feature, ClassLabel) else [found[label] for label in sorted(found)]
    alike: dict[str, str] = {}
    for name in [*names, *(name for labels in called.values() for name in labels.values())]:
        if name != (other := alike.setdefault("".join(name.split()).casefold(), name)):
            raise InvalidInputError(
                f"the labels {other!r} and {name!r} differ only in blanks or capitals: write them alike, or rename one."
            )
    for split, labels in called.items():
        if unknown := set(labels.values()) - set(names):
            raise InvalidInputError(
                f"the {split} data has the label {min(unknown)!r}, which is not in the training data: correct it, or drop "
                "those rows."
            )
    return names, {split: {x: names.index(name) for x, name in labels.items()} for split, labels in called.items()}


def _label_names(split: str, part: Dataset, column: str) -> dict[Any, str]:
    """The name of each label in a split; 1.0 has the name of 1."""
    feature = part.features[column]
    if not len(part):
        raise InvalidInputError(f"the {split} data has no rows: give data with examples.")
    if not isinstance(feature, ClassLabel | Value):
        raise InvalidInputError(
            f"the {split} labels are {feature}, not one class for each text: give a column of names or whole numbers; "
            "several labels for each text need the Python API."
        )
    labels = part.unique(column)
    none = (None, "", -1) if isinstance(feature, ClassLabel) else (None, "")
    if any(x in none or x != x for x in labels):  # NaN is not itself
        rows = [i for i, x in enumerate(part[column][:], start=1) if x in none or x != x]
        raise InvalidInputError(
            f"{len(rows):,} of {len(part):,} rows of the {split} data have no label, row {rows[0]} first: drop these rows, "
            "or fill in their labels."
        )
    if isinstance(feature, ClassLabel):
        return {x: feature.int2str(x) for x in labels}
    if fractions := [x for x in labels if isinstance(x, float) and not x.is_integer()]:
        raise InvalidInputError(
            f"the {split} labels are numbers such as {fractions[0]}, not classes: give a column of names or whole numbers."
        )
    return {x: str(int(x)) if isinstance(x, float) else str(x) for x in labels}


def _sample(dataset: Dataset, size: int, seed: int) -> Dataset:
    try:
        return _stratified_split(dataset, size, seed)[1]
    except InvalidInputError:  # so few, or nearly all, that the classes cannot be on both sides
        return dataset.shuffle(seed=seed).select(range(size))


def _stratified_split(dataset: Dataset, size: int | float, seed: int) -> tuple[Dataset, Dataset]:
    # Dataset.train_test_split draws the same rows, but reads the labels one by one: minutes for a million.
    labels = np.array(dataset["label"][:])
    num = size if isinstance(size, int) else math.ceil(size * len(labels))
    generator = np.random.default_rng(seed)
    try:
        splits = stratified_shuffle_split_generate_indices(labels, len(labels) - num, num, rng=generator)
        rest, held_out = next(splits)
    except ValueError:
        raise InvalidInputError(
            "the data cannot be split with every class on both sides: give --validation_file, or more examples."
        ) from None
    return dataset.select(rest), dataset.select(held_out)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
