from __future__ import annotations

import csv
import glob
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset, load_from_disk

from ..errors import InvalidInputError, reason
from .arguments import DataArguments
from .demo_data import demo_data

_LOADERS = {"csv": "csv", "tsv": "csv", "json": "json", "jsonl": "json", "parquet": "parquet"}


def load_data(args: DataArguments, token: str | None = None) -> DatasetDict:
    """Splits `train`, `validation` and, where it is named, `test`, with columns `text` (string) and `label` (ClassLabel).

    Text columns are joined, and labels get the classes of the training data. Without evaluation data a stratified share of
    the training data is held out for it. Prints that, and the number of repeated texts. `token` is for data from the Hub.

    Raises
    ------
    InvalidInputError
        When a file or data set cannot be read, a column is missing, or the labels are not at least two classes.
    """
    args.check()
    say = PartialState().print  # on the main process only
    if args.is_demo:
        data = demo_data()
    else:
        data = _text_and_label(_load_files(args) if args.train_file else _load_from_hub(args, token), args)
    stratified: dict[str, Any] = {"stratify_by_column": "label", "seed": args.shuffle_seed}
    if "validation" not in data:
        share = args.validation_split_percentage
        try:
            parts = data["train"].train_test_split(share / 100, **stratified)
        except ValueError as error:
            raise InvalidInputError(
                f"the data cannot be split with every class on both sides ({error}): give --validation_file, or more "
                "examples."
            ) from None
        data["train"], data["validation"] = parts["train"], parts["test"]
        say(f"No evaluation data given: {share}% of the training data, stratified by label, is held out for it.")
    limits = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_predict_samples}
    for split, part in data.items():
        if (limit := limits[split]) is not None and limit < len(part):
            try:
                data[split] = part = part.train_test_split(limit, **stratified)["test"]
            except ValueError:  # so few, or nearly all, that the classes cannot be on both sides
                data[split] = part = part.shuffle(seed=args.shuffle_seed).select(range(limit))
        if len(labels := part.unique("label")) < 2:
            raise InvalidInputError(
                f"all {split} labels are {part.features['label'].int2str(labels[0])!r}, and precision and recall need "
                "examples of another class too: check the label column, or give more examples."
            )
    known = set(data["train"]["text"][:])
    for split, part in data.items():
        repeated = 0 if split == "train" else sum(text in known for text in part["text"][:])
        if repeated:
            of = f"{repeated:,} of {len(part):,} {split} texts"
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


def _load_files(args: DataArguments) -> DatasetDict:
    files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
    return DatasetDict({split: _load_file(split, name, args.encoding) for split, name in files.items() if name})


def _load_file(split: str, name: str, encoding: str) -> Dataset:
    file = Path(name)
    suffix = file.suffix.lower().removeprefix(".")
    if not file.is_file():
        raise InvalidInputError(
            f"there is no file {name}: give --{split}_file the path of one file, neither a pattern nor a list; a folder is "
            "for --dataset_name."
        )
    if suffix not in _LOADERS:
        raise InvalidInputError(
            f"{name} is none of .csv, .tsv, .json, .jsonl and .parquet: convert it to one of them."
        )
    options: dict[str, Any] = {} if suffix == "parquet" else {"encoding": encoding}
    try:
        if suffix in ("csv", "tsv"):
            # Blank stays blank, and a class may be called "None" or "NA".
            options |= {"sep": "\t" if suffix == "tsv" else ",", "keep_default_na": False}
            _check_rows(file, options["sep"], encoding)
        elif options:
            file.read_text(encoding=encoding)  # to refuse another encoding, which the loader may not see
        return load_dataset(_LOADERS[suffix], data_files=glob.escape(str(file.resolve())), split="train", **options)
    except InvalidInputError:
        raise
    except Exception as error:  # datasets wraps what its many readers raise
        raise InvalidInputError(
            f"{name} cannot be read as {suffix.upper()} ({reason(error)}): check its format, and name its encoding if it "
            "is not UTF-8, for example --encoding latin-1 or --encoding utf-16."
        ) from None


def _check_rows(file: Path, separator: str, encoding: str) -> None:
    """Refuse rows with more or fewer fields than the header, for which pandas would shift or fill columns."""
    csv.field_size_limit(2**31 - 1)  # long texts
    with file.open(encoding=encoding, newline="") as lines:
        rows = csv.reader(lines, delimiter=separator)
        header = next(rows, [])
        line = rows.line_num + 1
        for row in rows:
            if len(row) != len(header) and "".join(row).strip():
                raise InvalidInputError(
                    f"line {line} of {file} must have {len(header)} fields as its header, got {len(row)}: quote fields "
                    f"that contain {separator!r}, and close every quote."
                )
            line = rows.line_num + 1


def _load_from_hub(args: DataArguments, token: str | None) -> DatasetDict:
    name, revision = str(args.dataset_name), args.dataset_revision
    try:
        if any(Path(name, file).is_file() for file in ("state.json", "dataset_dict.json")):  # of save_to_disk
            data = load_from_disk(name)
        else:
            data = load_dataset(name, args.dataset_config_name, revision=revision, token=token)
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
    return DatasetDict({split: data[own] for split, own in splits.items() if own is not None})


def _text_and_label(data: DatasetDict, args: DataArguments) -> DatasetDict:
    label = args.label_column_name
    _require(data, [label], "--label_column_name")
    if args.text_column_names is not None:
        texts = [name.strip() for name in args.text_column_names.split(",")]
    else:
        strings = (Value("string"), Value("large_string"))
        texts = [name for name, kind in data["train"].features.items() if kind in strings and name != label]
        if len(texts) != 1:
            raise InvalidInputError(
                f"the texts could be in {_listed(texts) or 'no column'}: name their column with --text_column_names."
            )
    _require(data, texts, "--text_column_names")
    names, ids = _class_ids(data, label)
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})

    def read(batch: dict[str, list[Any]], ids: dict[Any, int]) -> dict[str, list[Any]]:
        rows = zip(*(batch[name] for name in texts), strict=True)
        joined = [args.text_column_delimiter.join("" if text is None else str(text) for text in row) for row in rows]
        return {"text": joined, "label": [ids[value] for value in batch[label]]}

    options: dict[str, Any] = {"batched": True, "features": features, "desc": "Reading"}
    for split, part in data.items():
        data[split] = part.map(read, fn_kwargs={"ids": ids[split]}, remove_columns=part.column_names, **options)
    return data


def _require(data: DatasetDict, columns: list[str], flag: str) -> None:
    for split, part in data.items():
        if missing := [column for column in columns if column not in part.column_names]:
            raise InvalidInputError(
                f"the {split} data has no column {missing[0]!r}, only {_listed(part.column_names)}: give {flag} one of "
                "them; if these are not names, add a header line, and separate the columns with commas in .csv and tabs in "
                ".tsv."
            )


def _class_ids(data: DatasetDict, column: str) -> tuple[list[str], dict[str, dict[Any, int]]]:
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
    labels = part.unique(column) if isinstance(feature, ClassLabel | Value) else []  # lists have no unique()
    none = (None, "", -1) if isinstance(feature, ClassLabel) else (None, "")
    if any(x in none or x != x for x in labels):  # NaN is not itself
        rows = [i for i, x in enumerate(part[column][:], start=1) if x in none or x != x]
        raise InvalidInputError(
            f"{len(rows):,} of {len(part):,} rows of the {split} data have no label, row {rows[0]} first: drop these rows, "
            "or fill in their labels."
        )
    if isinstance(feature, ClassLabel):
        return {x: feature.int2str(x) for x in labels}
    fractions = [f"numbers such as {x}" for x in labels if isinstance(x, float) and not x.is_integer()]
    if fractions or not labels:
        raise InvalidInputError(
            f"the {split} labels are {(fractions or [feature])[0]}, not classes: give a column with one name or whole "
            "number for each text; several labels for each text need the Python API."
        )
    return {x: str(int(x)) if isinstance(x, float) else str(x) for x in labels}


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
