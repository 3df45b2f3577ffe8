from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

from ..errors import InvalidInputError, PushError, SweepStoppedError
from ..reports.text import imbalance
from ..results.files import CLASS_WEIGHTS_FILE, SWEEP_FILE, has_no_room
from ..training.config import GROUPED
from ..training.trainer import WeightedLossTrainer
from .arguments import DataArguments, ModelArguments, at_least_one
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
        flags = [word.partition("=")[0] for word in self.words if word.startswith("--")]
        self.given = {flag.removeprefix("--").replace("-", "_") for flag in flags}

    def parse(
        self, dataclasses: Any, description: str, positional: str = "", usage: str | None = None, **defaults: Any
    ) -> tuple[Any, ...]:
        """An instance of each dataclass, and a namespace with the positional argument if the command has one."""
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        # No abbreviations, so that a flag was given exactly if its name is among the words.
        words: dict[str, Any] = {"prog": self.name, "usage": usage, "description": description, "allow_abbrev": False}
        parser = HfArgumentParser(dataclasses, **words)
        parser.set_defaults(**defaults)
        if positional:
            parser.add_argument(positional, help="Output folder of sweep or train.")
        try:
            *parsed, unknown = parser.parse_args_into_dataclasses(
                self.words, return_remaining_strings=True, look_for_args_file=False
            )
        except (ValueError, ImportError) as error:  # the arguments' own checks
            sys.exit(f"error: {' '.join(str(error).split())}")
        if unknown:
            hint = "" if unknown[0].startswith("-") else " (give a flag one value, and quote one with blanks)"
            parser.error(f"unrecognized arguments: {without_tokens(unknown)}{hint}")
        return tuple(parsed)

    def parse_training(self, dataclasses: Any, description: str, **defaults: Any) -> tuple[Any, ...]:
        """As `parse`, with the defaults for training a text classifier."""
        return self.parse(
            dataclasses,
            f"{description} The flags are those of transformers' run_classification.py and training arguments, and ours.",
            usage="%(prog)s [--train_file FILE --text_column_names COLUMN --positive_label NAME] [flags]",
            per_device_train_batch_size=16,
            per_device_eval_batch_size=64,
            dataloader_pin_memory=torch.cuda.is_available(),
            **GROUPED,
            **defaults,
        )

    def refuse(self, flags: Collection[str], why: str) -> None:
        """Refuse those of the flags that were given, with the reason why they have no effect and what to do."""
        for flag in flags:
            if flag in self.given:
                raise InvalidInputError(f"--{flag} has no effect {why}.")

    @contextmanager
    def ends_in_one_sentence(self, goes_on: bool = False, checkpoints_in: str | None = None) -> Iterator[None]:
        """Turn the user's errors, a full disk, SIGINT and SIGTERM into one sentence and an exit status.

        After a signal it says which command resumes the work: the same where `goes_on`, or one with the last checkpoint.
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
            sys.exit(128 + (stopped.args or (signal.SIGINT,))[0])
        except Exception as error:
            if not has_no_room(error):
                raise
            file = getattr(error, "filename", None) or "a file"
            sys.exit(f"error: no room is left to write {file}: make room, and run the same command again.")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def without_tokens(words: Sequence[str]) -> str:
    """A command to show, with stars in place of what follows a flag that takes a token."""
    return re.sub(r"(--token|--hub[_-]t\w*)([ =])\S+", r"\1\2***", shlex.join(words))


def _last_checkpoint(folder: str) -> Path | None:
    # Not get_last_checkpoint: the signal may have come while the last was being written, of which the state is last.
    complete = [state.parent for state in Path(folder).glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=lambda checkpoint: int(checkpoint.name.split("-")[1]), default=None)


def check_training(args: Any, data_args: DataArguments) -> None:
    """Refuse arguments and an output folder that cannot work, before any data is loaded."""
    data_args.check()
    at_least_one(args, "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and args.world_size == 1:
        raise InvalidInputError(
            f"{os.environ['WORLD_SIZE']} processes were started, but they do not work together without GPUs: add "
            "--use_cpu True."
        )
    if args.max_steps != -1:  # the default
        at_least_one(args, "max_steps")
    folder = Path(args.output_dir)
    config, card = folder / "config.json", folder / "README.md"
    ours = any((folder / name).exists() for name in (SWEEP_FILE, CLASS_WEIGHTS_FILE)) or (
        config.exists() and '"weight_ratio"' in config.read_text(encoding="utf-8", errors="ignore")
    )
    if not ours and (found := [file for file in (config, card) if file.exists()]):
        raise InvalidInputError(
            f"{found[0]} would be overwritten, and weighloss did not write it: give another --output_dir."
        )
    make_writable(folder)


def make_writable(folder: str | Path) -> None:
    """Create an output folder, or refuse one that cannot be written to."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InvalidInputError(
            f"the folder {folder} cannot be written to ({error.strerror}): give another --output_dir."
        ) from None


def make_trainer(
    model_args: ModelArguments, data_args: DataArguments, args: Any, callbacks: Sequence[Any] = ()
) -> tuple[WeightedLossTrainer, Any]:
    """The trainer of a text classifier, and its test data if any; prints how imbalanced the training data is."""
    if data_args.is_demo and args.positive_label is None:
        args.positive_label = POSITIVE_PACKAGE
    args.hub_token = args.hub_token or model_args.token
    tokenizer = load_tokenizer(model_args)
    with args.main_process_first():
        data = load_data(data_args, model_args.token)
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
    trainer.accelerator.print(imbalance(trainer.class_weights, labels))
    return trainer, data.get("test")


def finish(trainer: WeightedLossTrainer, data_args: DataArguments, test: Any, push_predictions: bool = False) -> None:
    """Test the trainer's model on held-out data, write its card, and push both when `push_to_hub` is set."""
    if test is not None:
        print_evaluation(trainer, "test", trainer.evaluate(test, metric_key_prefix="test"))
    card: dict[str, Any] = {"dataset": data_args.name, "dataset_tags": data_args.dataset_name}
    if trainer.args.push_to_hub:
        trainer.push_to_hub(push_predictions=push_predictions, **card)
        trainer.accelerator.print(f"Pushed to {trainer.hub_model_id}.")
    else:
        trainer.create_model_card(**card)


def print_evaluation(trainer: WeightedLossTrainer, split: str, metrics: dict[str, float]) -> None:
    """Save the metrics of the "eval" or "test" data, and print the main ones."""
    trainer.save_metrics(split, metrics)
    data = "held-out test data" if split == "test" else "evaluation data"
    scores = ", ".join(f"{label} {metrics[f'{split}_{label.lower()}']:.3f}" for label in ("precision", "recall", "F1"))
    trainer.accelerator.print(f"On the {data} the model has {scores}.")
