# ruff: noqa: RUF009  (_flag is a field)
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidInputError
from .demo_data import demo_model


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    """Which model to fine-tune; the names are those of transformers' run_classification.py."""

    _argument_group_name = "model"

    model_name_or_path: str | None = _flag(None, "Hub id or path of the model. Default: that of weighloss[demo].")
    config_name: str | None = _flag(None, "Hub id or path of the config. Default: the model's.")
    tokenizer_name: str | None = _flag(None, "Hub id or path of the tokenizer. Default: the model's.")
    cache_dir: str | None = _flag(None, "Folder that caches models and data from the Hub.")
    model_revision: str = _flag("main", "Branch, tag or commit of the model.")
    token: str | None = _flag(None, "Hub token for private repositories. Default: that of `hf auth login`.")
    trust_remote_code: bool = _flag(False, "Run the code of the model's repository, only if you have read it.")
    ignore_mismatched_sizes: bool = _flag(False, "Start with a new head if the model's has another number of classes.")

    def __post_init__(self) -> None:
        self.token = self.token.strip() if self.token else None

    @property
    def name(self) -> str:
        """Hub id or path of the model; the demo model's when none is given."""
        return self.model_name_or_path or demo_model()


@dataclass
class DataArguments:
    """Which data to use; the names are those of transformers' run_classification.py."""

    _argument_group_name = "data"

    dataset_name: str | None = _flag(None, "Hub id or folder of the data set.")
    dataset_config_name: str | None = _flag(None, "Configuration of the data set.")
    dataset_revision: str | None = _flag(None, "Branch, tag or commit of the data set.")
    train_split_name: str = _flag("train", "Training split of the data set.")
    validation_split_name: str | None = _flag(None, "Evaluation split. Default: 'validation' if it exists.")
    test_split_name: str | None = _flag(None, "Held-out split to test the final model on. Default: none.")
    train_file: str | None = _flag(None, "Training data: a CSV, TSV, JSON, JSON Lines or Parquet file.")
    validation_file: str | None = _flag(None, "Evaluation data, in one of these formats.")
    test_file: str | None = _flag(None, "Held-out data to test the final model on, in one of these formats.")
    encoding: str = _flag("utf-8", "Encoding of the CSV, TSV and JSON files.")
    validation_split_percentage: int = _flag(
        20, "Percentage of training data held out if there is no evaluation data."
    )
    test_size: float | None = _flag(None, "Share of the training data to hold out as test data, such as 0.2.")
    text_column_names: str | None = _flag(None, "Text columns, separated by commas. Default: the only string column.")
    text_column_delimiter: str = _flag(" ", "String between the joined text columns.")
    label_column_name: str = _flag("label", "Label column.")
    max_seq_length: int = _flag(128, "Maximum number of tokens; longer texts are truncated.")
    max_train_samples: int | None = _flag(None, "Maximum number of training examples.")
    max_eval_samples: int | None = _flag(None, "Maximum number of evaluation examples.")
    max_predict_samples: int | None = _flag(None, "Maximum number of test examples.")
    shuffle_seed: int = _flag(42, "Seed of the split and of --max_*_samples.")
    preprocessing_num_workers: int | None = _flag(None, "Number of processes that tokenise.")

    @property
    def is_demo(self) -> bool:
        """Whether no data is named, so that the built-in sentences are used."""
        return self.dataset_name is None and self.train_file is None

    @property
    def name(self) -> str:
        """Name of the data, for charts and records."""
        return self.dataset_name or (Path(self.train_file).name if self.train_file else "docstring summaries")

    def check(self, given: Collection[str] = ()) -> None:
        """Refuse flags that cannot work, or not together, before any data is loaded.

        A flag counts as given when its name is in `given`, or its value is not the default.
        """
        given = {item.name for item in fields(self) if item.name in given or getattr(self, item.name) != item.default}
        if self.is_demo:
            wrong = {name for name in given if not name.startswith("max_")}
            wrong -= {"test_size", "shuffle_seed", "preprocessing_num_workers"}
            why = "on the built-in sentences: add --train_file or --dataset_name to use your own data"
        elif self.train_file:
            wrong = {name for name in given if name.startswith("dataset_") or name.endswith("_split_name")}
            why = "on files: use --validation_file and --test_file, or leave out --train_file"
        else:
            wrong = given & {"validation_file", "test_file", "encoding"}
            why = "with --dataset_name: use --validation_split_name and --test_split_name, or --train_file"
        if wrong:
            raise InvalidInputError(f"--{min(wrong)} has no effect {why}.")
        if not 0 < (share := self.validation_split_percentage) < 100:
            raise InvalidInputError(f"--validation_split_percentage must be from 1 to 99, got {share}.")
        if self.test_size is not None and not 0 < self.test_size < 1:
            raise InvalidInputError(f"--test_size must be between 0 and 1, such as 0.2, got {self.test_size}.")
        if self.test_size is not None and (self.test_file or self.test_split_name):
            raise InvalidInputError("--test_size has no effect where there are test data: leave one out.")
        at_least_one(self, *(item.name for item in fields(self) if item.name.startswith(("max_", "preprocessing_"))))


@dataclass
class SweepArguments:
    """What to sweep over, and how to choose among the legs; a leg is one fine-tune at one ratio with one seed."""

    _argument_group_name = "sweep"

    ratios: list[str] | None = _flag(
        None, "Numbers, natural, natural*5, unweighted, sqrt or effective:0.999. Default: a grid."
    )
    quick: bool = _flag(False, "Three ratios instead of a grid: unweighted, natural and natural*5.")
    num_ratios: int = _flag(7, "Number of ratios in the grid; w_r = 1 is added to it.")
    ratio_span: float = _flag(10.0, "The grid goes from natural/span to natural*span.")
    seeds: list[int] | None = _flag(None, "Each ratio is fine-tuned with each of these seeds. Default: --seed.")
    epochs_per_ratio: int = _flag(1, "Number of epochs of each fine-tune.")
    choose: str | None = _flag(
        None,
        "Requirement that chooses ratio and threshold: 'recall>=0.95', 'precision>=0.9 @90%%', 'flagged<=200 per 10000', "
        "'recall>=0.9 and precision>=0.5', 'cost fp=1 fn=20', f1, f0.5, mcc or break-even. Default: the highest F1 of the "
        "trained ratios.",
    )
    threshold: Literal["any", "argmax"] = _flag("any", "argmax lets --choose choose among the trained ratios alone.")
    search: bool = _flag(False, "Search for the ratio that meets --choose, instead of a grid.")
    max_legs: int = _flag(5, "Maximum number of fine-tunes of a --search.")
    backend: Literal["local", "ray"] = _flag("local", "ray runs the fine-tunes side by side on a Ray cluster.")
    ray_address: str | None = _flag(None, "Address of a running Ray cluster. Default: a new one on this machine.")
    cpus_per_trial: int = _flag(1, "Number of CPUs, and of threads, of each fine-tune on Ray.")
    gpus_per_trial: float = _flag(0.0, "Number of GPUs of each fine-tune on Ray.")
    push_predictions: bool = _flag(False, "Push the logits and labels of the evaluation data with --push_to_hub.")


@dataclass
class PlotArguments:
    """What to draw."""

    metrics: list[str] | None = _flag(None, "More metrics to draw: names in `evaluate`, or paths of their folders.")
    choose: str | None = _flag(None, "Requirement to answer, such as 'recall>=0.95': see `weighloss sweep --help`.")
    marks: list[str] | None = _flag(None, "Weighting schemes to mark: natural, unweighted, sqrt, effective:0.999.")
    output_dir: str | None = _flag(None, "Folder for the charts. Default: the sweep's.")
    trust_remote_code: bool = _flag(False, "Download --metrics from the Hub and run their code, only if you trust it.")


@dataclass
class PushArguments:
    """Where to push to."""

    hub_model_id: str = field(metadata={"help": "Repository on the Hub, user/model; created if it does not exist."})
    hub_token: str | None = _flag(None, "Hub token. Default: that of `hf auth login`.")
    hub_private_repo: bool | None = _flag(None, "Make the repository private.")
    hub_revision: str | None = _flag(None, "Branch to push to.")
    push_predictions: bool = _flag(False, "Push the logits and labels of the evaluation data too.")


def at_least_one(args: Any, *names: str) -> None:
    """Refuse a value below 1 of these arguments; None is allowed."""
    for name in names:
        if (value := getattr(args, name)) is not None and value < 1:
            raise InvalidInputError(f"--{name} must be at least 1, got {value}.")
