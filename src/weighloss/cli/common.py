from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, PrinterCallback, ProgressCallback
from transformers.utils import logging

from ..errors import InvalidInputError, PushError, SweepStoppedError
from ..reports.text import imbalance, summary, table
from ..results.files import CLASS_WEIGHTS_FILE, SWEEP_FILE, has_no_room
from ..results.ratio_sweep import RatioSweep
from ..sweep.callback import RatioSweepCallback
from ..training.config import GROUPED
from ..training.trainer import WeightedLossTrainer
from .arguments import DataArguments, ModelArguments, at_least_one
from .config_file import words_of
from .data import load_data, tokenize
from .demo_data import POSITIVE_PACKAGE
from .model import classifier_init, load_tokenizer


class Command:
    """A command as its user called it: its name, its words, and the flags among them.

    With `argv` it is a subcommand of `weighloss`, with None a script with the words of `sys.argv`.
    """

    def __init__(self, name: str, argv: Sequence[str] | None) -> None:
        self.name = f"weighloss {name}" if argv is not None else shlex.join([sys.orig_argv[0], sys.argv[0]])
        self.words = list(sys.argv[1:] if argv is None else argv)
        self.given = _flags(self.words)

    def parse(
        self, make_parser: Callable[[str], HfArgumentParser], main_flags: Mapping[str, str] | None = None
    ) -> tuple[Any, ...]:
        """An instance of each dataclass of the parser, and a namespace of its positional arguments if it has any.

        Flags may also come from the file of `--config`; those on the command line win. With `main_flags`, `--help` shows
        these alone, with these texts where they have one, and `--help-all` every flag.
        """
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        parser = make_parser(self.name)
        if main_flags and {"-h", "--help"} & set(self.words):
            _print_main_help(parser, main_flags)
        try:
            words = ["--help" if word == "--help-all" else word for word in self._with_config()]
            *parsed, unknown = parser.parse_args_into_dataclasses(
                words, return_remaining_strings=True, look_for_args_file=False
            )
        except (ValueError, ImportError) as error:  # the arguments' own checks
            sys.exit(f"error: {' '.join(str(error).split())}")
        if unknown:
            hint = " (give a flag one value, and quote one with blanks)"
            if unknown[0].startswith("-"):
                flags = re.findall(r"--\w+(?![\w-])", parser.format_help())
                nearest = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
                hint = f" (did you mean {nearest[0]}?)" if nearest else ""
            parser.error(f"unrecognized arguments: {without_tokens(unknown)}{hint}")
        return tuple(parsed)

    def _with_config(self) -> list[str]:
        """The words, and those of the file of `--config` whose flags are not among them."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config")
        known, words = parser.parse_known_args(self.words)
        if known.config is None:
            return words
        from_file = words_of(known.config, self.given)
        self.given = (self.given | _flags(from_file)) - {"config"}
        return [*words, *from_file]

    def refuse(self, flags: Collection[str], why: str) -> None:
        """Refuse those of the flags that were given, with the reason why they have no effect and what to do."""
        for flag in flags:
            if flag in self.given:
                raise InvalidInputError(f"--{flag} has no effect {why}.")

    @contextmanager
    def ends_in_one_sentence(self, goes_on: bool = False, checkpoints_in: str | None = None) -> Iterator[None]:
        """Turn the user's errors, a full disk, SIGINT and SIGTERM into one sentence and an exit status.

        After a signal it says which command to run: the same one, which resumes by itself where `goes_on`, or resumes from
        the last checkpoint in a folder, if any.
        """

        def stop(number: int, frame: Any) -> None:
            raise KeyboardInterrupt(number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except (InvalidInputError, PushError, SweepStoppedError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt as stopped:
            again = [*shlex.split(self.name), *self.words]
            if checkpoints_in is not None and (checkpoint := _last_checkpoint(checkpoints_in)):
                goes_on, again = True, [*again, "--resume_from_checkpoint", str(checkpoint)]
            launcher = " with torchrun or accelerate launch" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
            if int(os.environ.get("RANK", 0)) == 0:
                what = "resume" if goes_on else "start again"
                print(f"\nstopped; to {what}, run{launcher} {without_tokens(again)}", file=sys.stderr)
            sys.exit(128 + next((number for number in stopped.args if isinstance(number, int)), signal.SIGINT))
        except Exception as error:
            if not has_no_room(error):
                raise
            file = getattr(error, "filename", None) or "a file"
            sys.exit(f"error: no room is left to write {file}: make room, and run the same command again.")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _flags(words: Sequence[str]) -> set[str]:
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return {flag.removeprefix("--").replace("-", "_") for flag in flags}


def without_tokens(words: Sequence[str]) -> str:
    """A command to show, with stars in place of what follows a flag that takes a token."""
    return re.sub(r"(--token|--hub[_-]t\w*)([ =])\S+", r"\1\2***", shlex.join(words))


def _last_checkpoint(folder: str) -> Path | None:
    # Not get_last_checkpoint: the signal may have come while the last was being written, of which the state is last.
    complete = [state.parent for state in Path(folder).glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=lambda checkpoint: int(checkpoint.name.split("-")[1]), default=None)


def training_parser(
    prog: str, dataclasses: Sequence[Any], description: str, example: str, **defaults: Any
) -> HfArgumentParser:
    """Parser of a command that trains a text classifier, with the defaults for that and those of the command."""
    parser = HfArgumentParser(
        dataclasses,
        prog=prog,
        usage=f"%(prog)s [flags], for example\n\n  %(prog)s {example}",
        description=description,
        allow_abbrev=False,  # so that a flag was given exactly if its name is among the words
    )
    parser.add_argument(
        "--config",
        default=argparse.SUPPRESS,
        help="File of flags, YAML or JSON; those on the command line win. A finished sweep leaves its own, sweep.yaml.",
    )
    parser.set_defaults(
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        **GROUPED,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not sys.stderr.isatty(),  # a log file gets one line for each leg
        **defaults,
    )
    return parser


def _print_main_help(parser: HfArgumentParser, main_flags: Mapping[str, str]) -> None:
    """Print the help of these flags alone, one line each as far as they fit, and exit."""

    class MainHelp(argparse.ArgumentDefaultsHelpFormatter):
        def add_argument(self, action: argparse.Action) -> None:
            if action.dest in main_flags:
                action.help = main_flags[action.dest] or action.help
                action.option_strings = action.option_strings[:1]  # without the same flag with hyphens
                action.default = action.default or argparse.SUPPRESS  # or it ends in "(default: None)"
                super().add_argument(action)

    parser.formatter_class = lambda prog: MainHelp(prog, max_help_position=46, width=119)
    parser.epilog = "--help-all lists every flag, with all training arguments of transformers."
    parser.print_help()
    sys.exit(0)


def check_training(args: Any, data_args: DataArguments, given: Collection[str]) -> None:
    """Refuse arguments and an output folder that cannot work, before any data is loaded."""
    data_args.check(given)
    at_least_one(args, "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and args.world_size == 1:
        raise InvalidInputError(
            f"{os.environ['WORLD_SIZE']} processes cannot work together without GPUs: add --use_cpu True."
        )
    if args.max_steps != -1:  # the default
        at_least_one(args, "max_steps")
    folder = Path(args.output_dir)
    ours = (folder / SWEEP_FILE).exists() or (folder / CLASS_WEIGHTS_FILE).exists()
    with suppress(OSError):
        ours = ours or b'"weight_ratio"' in (folder / "config.json").read_bytes()
    names = ("config.json", "README.md", "model.safetensors", "adapter_model.safetensors")
    for file in (folder / name for name in names):
        if file.exists() and not ours:
            raise InvalidInputError(
                f"{file} would be overwritten, and weighloss did not write it: give another --output_dir."
            )
    check_writable(folder)


def check_writable(folder: str | Path) -> None:
    """Refuse an output folder that cannot be written to, or created, without creating it."""
    path = Path(folder).absolute()
    try:
        there = next(known for known in (path, *path.parents) if known.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise InvalidInputError(
            f"the folder {folder} cannot be written to ({error.strerror}): give another --output_dir."
        ) from None


def make_trainer(
    model_args: ModelArguments, data_args: DataArguments, args: Any, callbacks: Sequence[RatioSweepCallback] = ()
) -> tuple[WeightedLossTrainer, Any]:
    """The trainer of a text classifier, and its test data if any; prints how imbalanced the training data is."""
    if data_args.is_demo and args.positive_label is None:
        args.positive_label = POSITIVE_PACKAGE
    args.hub_token = args.hub_token or model_args.token
    tokenizer = load_tokenizer(model_args)
    with args.main_process_first():
        data = load_data(data_args, model_args.cache_dir, model_args.token)
        labels = data["train"].features["label"].names
        data = tokenize(data, tokenizer, data_args)
    trainer = WeightedLossTrainer(
        model_init=classifier_init(model_args, labels),
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    for callback in callbacks:
        callback.settings = replace(callback.settings, test_dataset=data.get("test"))
    trainer.accelerator.print(imbalance(trainer.class_weights, labels))
    return trainer, data.get("test")


def finish(trainer: WeightedLossTrainer, data_args: DataArguments, test: Any, push_predictions: bool = False) -> None:
    """Test the trainer's model on held-out data, write its card, and push both when `push_to_hub` is set."""
    if test is not None:
        print_evaluation(trainer, "test", test)
    card: dict[str, Any] = {"dataset": data_args.name, "dataset_tags": data_args.dataset_name}
    if trainer.args.push_to_hub:
        trainer.push_to_hub(push_predictions=push_predictions, **card)
        trainer.accelerator.print(f"Pushed to {trainer.hub_model_id}.")
    else:
        trainer.create_model_card(**card)


def print_report(sweep: RatioSweep, requirement: str | None = None) -> None:
    """Print the table and the sentences of a sweep; in a terminal the sentences break between words."""
    print(table(sweep, requirement), "", sep="\n")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for line in summary(sweep, requirement).splitlines():
        print(line if "  " in line else textwrap.fill(line, width, break_long_words=False))  # rows have columns


def print_evaluation(trainer: WeightedLossTrainer, split: str, dataset: Any = None) -> None:
    """Evaluate on the "eval" or "test" data, save the metrics, and print the main ones."""
    for printer in (PrinterCallback, ProgressCallback):  # which would print a dictionary of all metrics
        trainer.remove_callback(printer)
    metrics = trainer.evaluate(dataset, metric_key_prefix=split)
    trainer.save_metrics(split, metrics)
    data = "held-out test data" if split == "test" else "evaluation data"
    scores = ", ".join(f"{label} {metrics[f'{split}_{label.lower()}']:.3f}" for label in ("precision", "recall", "F1"))
    trainer.accelerator.print(f"On the {data} the model has {scores}.")
