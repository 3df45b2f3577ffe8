from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

from . import report
from .demo_data import POSITIVE_PACKAGE
from ..sweep.checkpoints import checkpoints_in, is_whole
from ..training.config import WeightedLossConfig
from .data import DataArguments, load_data, tokenize
from ..errors import InvalidInputError, PushError, SweepStoppedError
from .model import ModelArguments, classifier_init, load_tokenizer
from ..results.ratio_sweep import RatioSweep
from ..sweep.search import RatioSearch
from ..results.files import PREVIEW_FOLDER, has_no_room
from ..sweep.callback import RatioSweepCallback
from ..training.trainer import WeightedLossTrainer

_TAKES_TOKEN = re.compile(r"--token|--hub[_-]t\w*").fullmatch  # argparse takes abbreviations


def run(
    main: Callable[..., None],
    arguments: Sequence[Any],
    description: str,
    usage: str,
    goes_on: bool = False,
    **defaults: Any,
) -> None:
    """Parse a script's flags and call its main function with them; what cannot work ends in one sentence.

    SIGINT and SIGTERM end it as cleanly, with the command to go on.

    Parameters
    ----------
    main : callable
        Takes one instance of each class of `arguments`.
    arguments : sequence of dataclass
        The training arguments last.
    description, usage : str
        For `--help`.
    goes_on : bool
        Whether the same command goes on where it was stopped.
    **defaults
        Flags whose default is not that of their class.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parser = HfArgumentParser(tuple(arguments), usage=usage, description=description)
    parser.set_defaults(
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=torch.cuda.is_available(),
        **defaults,
    )
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(return_remaining_strings=True)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(without_tokens(unknown))}")
        with _stopping_cleanly():
            main(*parsed)
    except (InvalidInputError, PushError, SweepStoppedError) as error:
        sys.exit(f"error: {error}")
    except _Stopped as stop:
        command, output_dir = [sys.executable, *without_tokens(sys.argv)], parsed[-1].output_dir
        checkpoints = [] if goes_on else [path for path in checkpoints_in(output_dir) if is_whole(path)]
        if checkpoints:
            goes_on, command = True, [*command, "--resume_from_checkpoint", str(checkpoints[-1])]
        again = shlex.join(command)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            again = f"{again} as before, under torchrun or accelerate launch"
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"\nstopped; to {'go on' if goes_on else 'start again'}, run {again}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except Exception as error:
        if not has_no_room(error):
            raise
        file = getattr(error, "filename", None) or "a file"
        sys.exit(f"error: {file} could not be written, no room is left: make room, and run the same again.")


def without_tokens(command: Sequence[str]) -> list[str]:
    """The words of a command, with stars for what follows a flag that takes a token."""
    shown: list[str] = []
    for word in command:
        flag, equals, _ = word.partition("=")
        if equals and _TAKES_TOKEN(flag):
            word = f"{flag}=***"
        elif shown and _TAKES_TOKEN(shown[-1]):
            word = "***"
        shown.append(word)
    return shown


class _Stopped(KeyboardInterrupt):
    """A signal that ends the script."""

    def __init__(self, number: int, frame: Any) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def _stopping_cleanly() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise _Stopped(number, frame)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_trainer(
    model_args: ModelArguments, data_args: DataArguments, args: WeightedLossConfig, callbacks: Sequence[Any] = ()
) -> tuple[WeightedLossTrainer, Any]:
    """The trainer of a text classifier as the flags have it, and its test data if any; says how imbalanced the data is.

    Raises
    ------
    InvalidInputError
        As `load_data`, `load_tokenizer`, `classifier_init` and `WeightedLossTrainer`.
    PushError
        When it is to push, and the Hub refuses.
    """
    if data_args.is_builtin and args.positive_label is None:
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
    trainer.accelerator.print(report.imbalance(trainer.class_weights, labels))
    return trainer, data.get("test")


def preview_and_refine(
    trainer: WeightedLossTrainer, callback: RatioSweepCallback, num_ratios: int
) -> RatioSweepCallback:
    """Preview the sweep in a folder of its own, then sweep with the whole model over the ratios around the chosen one.

    Returns
    -------
    RatioSweepCallback
        That of the second sweep, whose model the trainer holds.
    """
    args, say = trainer.args, trainer.accelerator.print
    output_dir, args.output_dir = args.output_dir, str(Path(args.output_dir) / PREVIEW_FOLDER)
    try:
        trainer.train()
    finally:
        args.output_dir = output_dir
    require_points(callback.sweep)
    say(report.table(callback.sweep), "", report.summary(callback.sweep), "", sep="\n")
    around: str | float = "f1"
    wanted, kept = callback.sweep.requirement, callback.sweep.kept_point
    if wanted is not None:
        around = wanted
    elif isinstance(callback.ratios, RatioSearch):
        around = callback.ratios.requirement
    elif args.load_best_model_at_end and kept is not None:
        around = kept.ratio  # by --metric_for_best_model
    ratios = callback.sweep.ratios_around(around, num_ratios)
    refined = RatioSweepCallback(
        ratios, callback.seeds, callback.epochs_per_ratio, dataset_name=callback.dataset_name, choose=wanted
    )
    trainer.remove_callback(callback)
    trainer.add_callback(refined)
    args.weight_ratio = None  # the preview's, which is not the user's
    trainer.train()
    return refined


def require_points(sweep: RatioSweep) -> None:
    """Refuse to say anything of a sweep without a finished leg.

    Raises
    ------
    InvalidInputError
        With what the first leg failed of.
    """
    if not sweep.points:
        why = sweep.failed[0].reason if sweep.failed else "the training was stopped before its end"
        raise InvalidInputError(f"no leg came to any figures: {why}.")


def finish(trainer: WeightedLossTrainer, data_args: DataArguments, test: Any, push_predictions: bool = False) -> None:
    """Test the trainer's model on data that no choice saw, save it with its card, and push it where that is asked.

    Raises
    ------
    PushError
        When the Hub refuses or cannot be reached; everything is saved by then.
    """
    say = trainer.accelerator.print
    if test is not None:
        metrics = trainer.evaluate(test, metric_key_prefix="test")
        trainer.save_metrics("test", metrics)
        say(f"On the test data, which no choice saw, the model has {_figures(metrics, 'test')}.")
    card: dict[str, Any] = {"dataset": data_args.name, "dataset_tags": data_args.dataset_name}
    if trainer.args.push_to_hub:
        trainer.push_to_hub(push_predictions=push_predictions, **card)
        say(f"Pushed to {trainer.hub_model_id}.")
    else:
        trainer.save_model()
        trainer.create_model_card(**card)


def say_evaluation(trainer: WeightedLossTrainer, metrics: dict[str, float]) -> None:
    """Print the figures of an evaluation."""
    trainer.accelerator.print(f"On the evaluation data the model has {_figures(metrics, 'eval')}.")


def _figures(metrics: dict[str, float], prefix: str) -> str:
    precision, recall, f1 = (metrics[f"{prefix}_{name}"] for name in ("precision", "recall", "f1"))
    return f"precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}"
