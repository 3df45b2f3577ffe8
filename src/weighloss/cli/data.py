from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset

from .demo_data import builtin_data
from ..errors import InvalidInputError, reason

_LOADERS = {"csv": "csv", "tsv": "csv", "json": "json", "jsonl": "json", "parquet": "parquet"}


@dataclass
class DataArguments:
    """Which data to use; the names are those of transformers' run_classification.py."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub id of the data set."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the data set."})
    train_split_name: str = field(default="train", metadata={"help": "Training split of the data set."})
    validation_split_name: str | None = field(
        default=None, metadata={"help": "Evaluation split. Default: 'validation' if there is one."}
    )
    test_split_name: str | None = field(
        default=None, metadata={"help": "Split to test the kept model on, which no choice sees. Default: none."}
    )
    train_file: str | None = field(default=None, metadata={"help": "Training data as CSV, TSV, JSON or Parquet."})
    validation_file: str | None = field(default=None, metadata={"help": "Evaluation data, in one of these formats."})
    test_file: str | None = field(
        default=None,
        metadata={"help": "Data to test the kept model on, which no choice sees, in one of these formats."},
    )
    validation_split_percentage: int = field(
        default=20, metadata={"help": "Share of the training data to evaluate on when there is no evaluation data."}
    )
    text_column_names: str | None = field(
        default=None, metadata={"help": "Text columns, separated by commas. Default: the only text column."}
    )
    text_column_delimiter: str = field(default=" ", metadata={"help": "What stands between joined text columns."})
    label_column_name: str = field(default="label", metadata={"help": "Label column."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut to this number of tokens."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only so many training examples."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use only so many evaluation examples."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Use only so many test examples."})
    shuffle_seed: int = field(default=42, metadata={"help": "Seed of the split and of --max_*_samples."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that tokenise."})

    @property
    def is_builtin(self) -> bool:
        """Whether no data is named, so that the built-in sentences are used."""
        return self.dataset_name is None and self.train_file is None

    @property
    def name(self) -> str:
        """Name of the data, for charts and records."""
        return self.dataset_name or (Path(self.train_file).name if self.train_file else "docstring summaries")


def load_data(args: DataArguments, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
    """Training, evaluation and, where it is named, test data with columns `text` and `label`.

    Text columns are joined, labels that are no `ClassLabel` become one with the classes of the training data. Without
    evaluation data a stratified share of the training data is split off, and said so; so are evaluation texts that are
    training texts too.

    Parameters
    ----------
    args : DataArguments
    cache_dir, token : str, optional
        For data from the Hub.

    Returns
    -------
    DatasetDict with splits `train`, `validation` and perhaps `test`, columns `text` (string) and `label` (ClassLabel).

    Raises
    ------
    InvalidInputError
        When a file or data set cannot be read, a column is not there, or the labels make no classes.
    """
    if args.dataset_name and args.train_file:
        raise InvalidInputError("--dataset_name and --train_file were both given: write one of them.")
    if args.is_builtin and (args.validation_file or args.test_file):
        raise InvalidInputError("--validation_file or --test_file was given without --train_file: write that too.")
    if args.dataset_name and (args.validation_file or args.test_file):
        raise InvalidInputError(
            "--validation_file or --test_file was given with --dataset_name: write --validation_split_name and "
            "--test_split_name, or give --train_file."
        )
    if not args.dataset_name and (args.validation_split_name or args.test_split_name):
        raise InvalidInputError(
            "--validation_split_name or --test_split_name was given without --dataset_name: write --validation_file and "
            "--test_file."
        )
    if args.is_builtin:
        data = builtin_data()
    else:
        data = _load_files(args) if args.train_file else _load_from_hub(args, cache_dir, token)
        data = _text_and_label(data, args)
    say = PartialState().print  # on the main process only
    if "validation" not in data:
        share = args.validation_split_percentage
        if not 0 < share < 100:
            raise InvalidInputError(
                f"validation_split_percentage={share} leaves an empty split: write a number from 1 to 99."
            )
        train, validation = _stratified_split(data["train"], share / 100, args.shuffle_seed)
        data["train"], data["validation"] = train, validation
        say(f"No evaluation data given: {share}% of the training data, stratified by label, is held out for it.")
    limits = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_predict_samples}
    for split, limit in limits.items():
        if limit is not None and limit < 1:
            raise InvalidInputError(f"{limit} examples for the {split} data are none: write a number from 1.")
        if limit is not None and limit < len(data.get(split, ())):
            data[split] = _sample(data[split], limit, args.shuffle_seed)
    known = set(data["train"]["text"])
    for split, part in data.items():
        if split != "train" and (repeated := sum(text in known for text in part["text"])):
            say(f"{repeated:,} of {len(part):,} {split} texts are training texts too: figures on them flatter.")
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
    data = {}
    for split, name in files.items():
        if name is None:
            continue
        file = Path(name)
        if not file.is_file():
            raise InvalidInputError(f"there is no file {name}: check the path of --{split}_file.")
        suffix = file.suffix.lower()
        loader = _LOADERS.get(suffix.removeprefix("."))
        if loader is None:
            raise InvalidInputError(
                f"{name} is none of .csv, .tsv, .json, .jsonl and .parquet: convert it to one of them."
            )
        # Blank stays blank, and a class may be called "None" or "NA".
        options = {"sep": "\t" if suffix == ".tsv" else ",", "keep_default_na": False} if loader == "csv" else {}
        try:
            data[split] = load_dataset(loader, data_files=glob.escape(str(file.resolve())), split="train", **options)
        except Exception as error:  # datasets wraps what its many readers raise
            raise InvalidInputError(
                f"{name} cannot be read as {suffix[1:].upper()} ({reason(error)}): check its format."
            ) from error
    return DatasetDict(data)


def _load_from_hub(args: DataArguments, cache_dir: str | None, token: str | None) -> DatasetDict:
    options = {"revision": args.dataset_revision, "cache_dir": cache_dir, "token": token}
    try:
        data = load_dataset(args.dataset_name, args.dataset_config_name, **options)
    except Exception as error:  # datasets and the Hub's client raise much
        raise InvalidInputError(
            f"the data set {args.dataset_name} cannot be loaded ({reason(error)}): check its name, --dataset_config_name "
            "and the login."
        ) from None
    names = {
        "train": args.train_split_name,
        "validation": args.validation_split_name,
        "test": args.test_split_name,
    }
    if names["validation"] is None and "validation" in data:
        names["validation"] = "validation"
    for name in names.values():
        if name is not None and name not in data:
            raise InvalidInputError(
                f"{args.dataset_name} has no split {name!r}: it has {', '.join(map(repr, data))}; write one of them."
            )
    return DatasetDict({split: data[name] for split, name in names.items() if name is not None})


def _text_and_label(data: DatasetDict, args: DataArguments) -> DatasetDict:
    train, label = data["train"], args.label_column_name
    for split, part in data.items():
        if not len(part):
            raise InvalidInputError(f"the {split} data has no rows: give some with examples.")
        if label not in part.column_names:
            raise InvalidInputError(
                f"the {split} data has no column {label!r}: its columns are {', '.join(map(repr, part.column_names))}; "
                "name the labels' with --label_column_name."
            )
    if args.text_column_names is not None:
        texts = args.text_column_names.split(",")
    else:
        strings = (Value("string"), Value("large_string"))
        texts = [name for name, feature in train.features.items() if feature in strings and name != label]
        if len(texts) != 1:
            raise InvalidInputError(
                f"the texts could be in {', '.join(map(repr, texts)) or 'no column'}: name theirs with --text_column_names."
            )
    for split, part in data.items():
        if missing := [name for name in texts if name not in part.column_names]:
            raise InvalidInputError(
                f"the {split} data has no text column {', '.join(map(repr, missing))}: its columns are "
                f"{', '.join(map(repr, part.column_names))}; write those of the texts as --text_column_names."
            )

    names, ids = _class_ids(data, label)
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})

    def read(batch: dict[str, list[Any]], ids: dict[Any, int]) -> dict[str, list[Any]]:
        rows = zip(*(batch[name] for name in texts), strict=True)
        joined = [args.text_column_delimiter.join("" if text is None else str(text) for text in row) for row in rows]
        return {"text": joined, "label": [ids[value] for value in batch[label]]}

    return DatasetDict(
        {
            split: part.map(
                read,
                batched=True,
                fn_kwargs={"ids": ids[split]},
                remove_columns=part.column_names,
                features=features,
                desc="Reading",
            )
            for split, part in data.items()
        }
    )


def _class_ids(data: DatasetDict, column: str) -> tuple[list[str], dict[str, dict[Any, int]]]:
    """The names of the classes, and for each split the id of every label that it has."""
    feature = data["train"].features[column]
    if not isinstance(feature, ClassLabel) and getattr(feature, "dtype", "list").startswith(
        ("float", "list", "struct")
    ):
        raise InvalidInputError(f"the labels are {feature}, not classes: give a column of names or whole numbers.")
    found = {split: set(part.unique(column)) for split, part in data.items()}
    for split, labels in found.items():
        blank = {None, ""} | ({-1} if isinstance(data[split].features[column], ClassLabel) else set())
        if labels & blank:
            rows = [i for i, label in enumerate(data[split][column][:], start=1) if label in blank]
            raise InvalidInputError(
                f"{len(rows):,} of {data[split].num_rows:,} rows of the {split} data have no label, row {rows[0]} "
                "is the first of them: drop or fill them first."
            )
    names = feature.names if isinstance(feature, ClassLabel) else [str(label) for label in sorted(found["train"])]
    if len(found["train"]) < 2:
        (label,) = found["train"]
        only = feature.int2str(label) if isinstance(feature, ClassLabel) else str(label)
        raise InvalidInputError(f"all training labels are {only!r}: check the label column.")

    ids = {}
    for split, labels in found.items():
        own = data[split].features[column]
        called = {label: own.int2str(label) if isinstance(own, ClassLabel) else str(label) for label in labels}
        if unknown := set(called.values()) - set(names):
            raise InvalidInputError(
                f"the {split} data has the label {min(unknown)!r}, which the training data has not: correct it, or drop "
                "those rows."
            )
        ids[split] = {label: names.index(name) for label, name in called.items()}
    return names, ids


def _sample(dataset: Dataset, size: int, seed: int) -> Dataset:
    try:
        return _stratified_split(dataset, size, seed)[1]
    except InvalidInputError:  # so few, or nearly all: the classes cannot be on both sides
        return dataset.shuffle(seed=seed).select(range(size))


def _stratified_split(dataset: Dataset, size: int | float, seed: int) -> tuple[Dataset, Dataset]:
    try:
        parts = dataset.train_test_split(test_size=size, stratify_by_column="label", seed=seed)
    except ValueError as error:
        raise InvalidInputError(
            f"the data cannot be split with every class on both sides ({error}): give --validation_file, or more examples."
        ) from None
    return parts["train"], parts["test"]
