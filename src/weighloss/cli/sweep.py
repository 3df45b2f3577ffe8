from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InvalidInputError
from ..reports.text import summary, table
from ..sweep.callback import RatioSweepCallback
from ..sweep.ray import sweep_on_ray
from ..sweep.search import RatioSearch
from ..training.config import WeightedLossConfig
from .arguments import DataArguments, ModelArguments, SweepArguments
from .common import Command, check_training, finish, make_trainer


def main(argv: Sequence[str] | None = None) -> None:
    """Run `weighloss sweep` with these words, or the script with those of `sys.argv`."""
    command = Command("sweep", argv)
    model_args, data_args, sweep_args, args = command.parse_training(
        (ModelArguments, DataArguments, SweepArguments, WeightedLossConfig),
        "Fine-tune at several weight ratios, show how precision and recall of a class move with its weight in the loss, "
        "and keep the model that you choose.",
        output_dir="sweep_output",
    )
    with command.ends_in_one_sentence(goes_on=True):
        callback = make_callback(sweep_args, data_args.name, command)
        check_training(args, data_args)
        trainer, test = make_trainer(model_args, data_args, args, [callback])
        if sweep_args.backend == "ray":
            resources = sweep_args.cpus_per_trial, sweep_args.gpus_per_trial
            sweep_on_ray(trainer, callback, sweep_args.ray_address, *resources)
        else:
            trainer.train()
        sweep: Any = callback.sweep  # which train() has set
        if not sweep.points:
            raise InvalidInputError(f"no leg has results: {sweep.failed[0].reason}.")
        if trainer.is_world_process_zero():
            print(table(sweep), "", summary(sweep), sep="\n")
            print(f"Results, charts and the model of w_r = {args.weight_ratio:.4g} are in {args.output_dir}.")
        finish(trainer, data_args, test, sweep_args.push_predictions)


def make_callback(args: SweepArguments, dataset_name: str, command: Command) -> RatioSweepCallback:
    """The callback that the flags describe; refuses values that cannot work, and flags without effect."""
    command.refuse(["num_train_epochs"], "on a sweep: write --epochs_per_ratio instead")
    command.refuse(["weight_ratio"], "on a sweep: write --ratios instead")
    command.refuse(["resume_from_checkpoint"], "on a sweep, which resumes by itself in its --output_dir: leave it out")
    if args.search:
        command.refuse(["ratios", "num_ratios", "ratio_span"], "with --search: leave one out")
    else:
        command.refuse(["max_legs"], "without --search True: add it, or write --num_ratios instead")
    if args.ratios:
        command.refuse(["num_ratios", "ratio_span"], "with --ratios: leave one out")
    if args.backend != "ray":
        command.refuse(["ray_address", "cpus_per_trial", "gpus_per_trial"], "without --backend ray: add it")
    elif args.search:
        raise InvalidInputError("--search fine-tunes at one ratio after the other: leave out --backend ray.")
    return RatioSweepCallback(
        ratios=RatioSearch(max_legs=args.max_legs) if args.search else args.ratios,
        seeds=args.seeds,
        epochs_per_ratio=args.epochs_per_ratio,
        num_ratios=args.num_ratios,
        ratio_span=args.ratio_span,
        choose=args.choose,
        dataset_name=dataset_name,
    )
