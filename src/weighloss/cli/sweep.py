from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from ..errors import InvalidInputError
from ..sweep.callback import RatioSweepCallback
from ..sweep.ray import sweep_on_ray
from ..sweep.search import RatioSearch
from ..training.config import WeightedLossConfig
from .arguments import DataArguments, ModelArguments, SweepArguments
from .common import Command, check_training, finish, make_trainer, print_report, training_parser
from .config_file import CONFIG_FILE, write_config

MAIN_FLAGS = {  # those that --help shows, with what a sweep does with them where that is more than their own text says
    **dict.fromkeys(
        ("config", "model_name_or_path", "dataset_name", "train_file", "validation_file", "test_file"), ""
    ),
    **dict.fromkeys(("test_size", "text_column_names", "label_column_name", "max_seq_length", "positive_label"), ""),
    **dict.fromkeys(("ratios", "quick", "seeds", "epochs_per_ratio", "choose"), ""),
    **dict.fromkeys(("learning_rate", "per_device_train_batch_size"), ""),
    "output_dir": "Folder of the results. To resume a sweep that was interrupted, run the same command again.",
    "report_to": "tensorboard, wandb, mlflow or trackio: one run for each fine-tune.",
    "push_to_hub": "Push the chosen model, its card and the sweep at the end.",
    "hub_model_id": "Repository to push to, user/model.",
}
OF_DEMO = {"learning_rate": 1e-4, "per_device_train_batch_size": 8}  # with others some legs learn nothing in one epoch
QUICK = ["unweighted", "natural", "natural*5"]  # as good as the grid on held-out halves: see benchmarks/NOTES.md


def make_parser(prog: str = "weighloss sweep") -> HfArgumentParser:
    """Parser of the flags."""
    return training_parser(
        prog,
        [ModelArguments, DataArguments, SweepArguments, WeightedLossConfig],
        "Fine-tune at several weight ratios, show how precision and recall of a class move with its weight in the loss, "
        "and keep the model that you choose. Without data it uses built-in sentences.",
        '--train_file spam.csv --text_column_names sms --positive_label spam --quick True --choose "recall>=0.9"',
        output_dir="sweep_output",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run `weighloss sweep` with these words, or the script with those of `sys.argv`."""
    command = Command("sweep", argv)
    parsed = command.parse(make_parser, MAIN_FLAGS)
    model_args, data_args, sweep_args, args = parsed
    with command.ends_in_one_sentence(goes_on=True):
        callback = make_callback(sweep_args, data_args.name, command)
        if data_args.is_demo:
            for name in OF_DEMO.keys() - command.given:
                setattr(args, name, OF_DEMO[name])
        check_training(args, data_args, command.given)
        # The chosen model is tested after the legs, in a run that trackers would give a random name.
        args.run_name = args.run_name or Path(str(args.output_dir)).name
        trainer, test = make_trainer(model_args, data_args, args, [callback])
        trainer.accelerator.print(f"Results go to {args.output_dir}. If it is stopped, the same command resumes.")
        if sweep_args.backend == "ray":
            resources = sweep_args.cpus_per_trial, sweep_args.gpus_per_trial
            sweep_on_ray(trainer, callback, sweep_args.ray_address, *resources)
        else:
            trainer.train()
        sweep: Any = callback.sweep  # which train() has set
        if not sweep.points:
            raise InvalidInputError(f"no leg has results: {sweep.failed[0].reason}.")
        if trainer.is_world_process_zero():
            print_report(sweep)
            print(f"\nResults, charts and the model of w_r = {args.weight_ratio:.4g} are in {args.output_dir}.")
        finish(trainer, data_args, test, sweep_args.push_predictions)
        if trainer.is_world_process_zero():
            write_config(Path(str(args.output_dir), CONFIG_FILE), command.given, parsed)
            print(next_steps(str(args.output_dir), pushed=args.push_to_hub))


def next_steps(output_dir: str, pushed: bool) -> str:
    """The commands that a person would type now."""
    folder = shlex.quote(output_dir)
    lines = [
        "\nWhat next?",
        f"  weighloss plot {folder} --choose 'recall>=0.95' --output_dir other   # ask something else, without training",
        f"  weighloss push {folder} --hub_model_id user/model   # push the model, its card and the sweep to the Hub",
        f"  pipeline('text-classification', model={output_dir!r})   # from transformers: use the model",
    ]
    if pushed:
        del lines[2]
    return "\n".join(lines)


def make_callback(args: SweepArguments, dataset_name: str, command: Command) -> RatioSweepCallback:
    """The callback that the flags describe; refuses values that cannot work, and flags without effect."""
    command.refuse(["num_train_epochs"], "on a sweep: write --epochs_per_ratio instead")
    command.refuse(["weight_ratio"], "on a sweep: write --ratios instead")
    command.refuse(["resume_from_checkpoint"], "on a sweep, which resumes by itself in its --output_dir: leave it out")
    if args.search:
        of_grid = ["ratios", "quick", "num_ratios", "ratio_span"]
        command.refuse(of_grid, "with --search, which chooses the ratios: leave one out")
    else:
        command.refuse(["max_legs"], "without --search True: add it, or write --num_ratios instead")
    if args.ratios or args.quick:
        command.refuse(["num_ratios", "ratio_span"], "with --ratios or --quick: leave one out")
    if args.quick:
        command.refuse(["ratios"], "with --quick: leave one out")
    if args.choose is None:
        command.refuse(["threshold"], "without --choose: add it")
    if args.backend != "ray":
        command.refuse(["ray_address", "cpus_per_trial", "gpus_per_trial"], "without --backend ray: add it")
    elif args.search:
        raise InvalidInputError("--search fine-tunes at one ratio after the other: leave out --backend ray.")
    ratios = RatioSearch(max_legs=args.max_legs) if args.search else QUICK if args.quick else args.ratios
    same = ("seeds", "epochs_per_ratio", "num_ratios", "ratio_span", "choose", "threshold")
    return RatioSweepCallback(ratios, dataset_name=dataset_name, **{name: getattr(args, name) for name in same})
