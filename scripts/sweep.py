"""Sweep over weight ratios: how do precision and recall of a class move with its weight in the loss?

python scripts/sweep.py                                   # the built-in demo: no Hub, no files
python scripts/sweep.py --train_file spam.csv --text_column_names sms --positive_label spam \
        --model_name_or_path distilbert/distilbert-base-uncased --output_dir spam_sweep
python scripts/sweep.py --help                            # every other flag
"""

import sys
from dataclasses import dataclass, field

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

from weighloss import (
    InvalidInputError,
    RatioSweepCallback,
    WeightedLossConfig,
    WeightedLossTrainer,
    plot_sweep,
    report,
)
from weighloss.builtin import POSITIVE_PACKAGE
from weighloss.data import DataArguments, load_data, tokenize
from weighloss.model import ModelArguments, classifier_init, load_tokenizer


@dataclass
class SweepArguments:
    """What to sweep over."""

    ratios: list[float] | None = field(
        default=None, metadata={"help": "Weight ratios. Default: a grid around the natural."}
    )
    num_ratios: int = field(default=13, metadata={"help": "Number of ratios of the grid; w_r = 1 comes on top."})
    ratio_span: float = field(default=100.0, metadata={"help": "The grid goes from natural/span to natural*span."})
    seeds: list[int] | None = field(
        default=None, metadata={"help": "One fine-tune per ratio with each. Default: --seed."}
    )
    epochs_per_ratio: int = field(default=1, metadata={"help": "Epochs of each fine-tune."})


def main() -> None:
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, SweepArguments, WeightedLossConfig),
        usage="%(prog)s [--train_file FILE --text_column_names COLUMN --positive_label NAME] [--ratios R ...] [flags]",
        description=f"{__doc__.splitlines()[0]} Flags come in this order: model, data, sweep, transformers' training "
        "arguments (--num_train_epochs is not used, see --epochs_per_ratio), class weights.",
    )
    parser.set_defaults(
        output_dir="sweep_output",
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=torch.cuda.is_available(),
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        save_strategy="best",
        save_total_limit=1,
        save_only_model=True,
    )
    try:
        *arguments, unknown = parser.parse_args_into_dataclasses(return_remaining_strings=True)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        sweep(*arguments)
    except InvalidInputError as error:
        sys.exit(f"error: {error}")


def sweep(
    model_args: ModelArguments, data_args: DataArguments, sweep_args: SweepArguments, args: WeightedLossConfig
) -> None:
    if data_args.is_builtin and args.positive_label is None:
        args.positive_label = POSITIVE_PACKAGE
    tokenizer = load_tokenizer(model_args)
    with args.main_process_first():
        data = load_data(data_args, model_args.cache_dir, model_args.token)
        labels = data["train"].features["label"].names
        data = tokenize(data, tokenizer, data_args)

    callback = RatioSweepCallback(
        ratios=sweep_args.ratios,
        seeds=sweep_args.seeds,
        epochs_per_ratio=sweep_args.epochs_per_ratio,
        num_ratios=sweep_args.num_ratios,
        ratio_span=sweep_args.ratio_span,
        dataset_name=data_args.name,
    )
    trainer = WeightedLossTrainer(
        model_init=classifier_init(model_args, labels),
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.accelerator.print(report.imbalance(trainer.class_weights, labels))
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    test = trainer.evaluate(data["test"], metric_key_prefix="test") if "test" in data else {}
    if test:
        trainer.save_metrics("test", test)

    if trainer.is_world_process_zero():
        results = callback.sweep
        plot_sweep(results, args.output_dir)
        print(report.table(results), "", report.summary(results), sep="\n")
        print(f"Results, charts and the model of w_r = {args.weight_ratio:.4g} are in {args.output_dir}.")
        if test:
            print(
                f"On the test data, which no choice saw, that model has precision {test['test_precision']:.3f}, "
                f"recall {test['test_recall']:.3f}, F1 {test['test_f1']:.3f}."
            )


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    main()
