from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import HfArgumentParser

from ..errors import InvalidInputError
from ..results.files import SWEEP_FILE
from ..training.config import WeightedLossConfig
from ..weighting.class_weights import ClassWeights
from .arguments import DataArguments, ModelArguments
from .common import Command, check_training, finish, make_trainer, print_evaluation, training_parser


def make_parser(prog: str = "weighloss train") -> HfArgumentParser:
    """Parser of the flags."""
    return training_parser(
        prog,
        [ModelArguments, DataArguments, WeightedLossConfig],
        "Fine-tune once at one weight ratio: the natural one, or one that a sweep showed, for as many epochs as you like.",
        "--train_file spam.csv --text_column_names sms --positive_label spam --weight_ratio 7 --num_train_epochs 3",
        output_dir="train_output",
        save_strategy="no",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run `weighloss train` with these words, or the script with those of `sys.argv`."""
    command = Command("train", argv)
    model_args, data_args, args = command.parse(make_parser)
    with command.ends_in_one_sentence(checkpoints_in=args.output_dir):
        check(args)
        check_training(args, data_args, command.given)
        trainer, test = make_trainer(model_args, data_args, args)
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        print_evaluation(trainer, "eval")
        trainer.save_model()
        finish(trainer, data_args, test)


def check(args: WeightedLossConfig) -> None:
    """Refuse arguments that cannot work for this command."""
    if args.class_weights is None:
        ClassWeights.from_counts([2, 1], args.weight_ratio)  # refuses what no data makes a ratio
    if args.num_train_epochs <= 0 and args.max_steps == -1:
        raise InvalidInputError(f"--num_train_epochs must be above 0, got {args.num_train_epochs:g}.")
    if args.load_best_model_at_end and args.save_strategy == "no":
        raise InvalidInputError(
            "--load_best_model_at_end has no effect without checkpoints: add --eval_strategy epoch --save_strategy epoch."
        )
    if Path(str(args.output_dir), SWEEP_FILE).exists():
        raise InvalidInputError(
            f"{args.output_dir} holds a sweep, whose model would be overwritten: give another --output_dir."
        )
