"""Sweep over weight ratios: how do precision and recall of a class move with its weight in the loss?

python scripts/sweep.py                                   # the built-in demo: no Hub, no files
python scripts/sweep.py --train_file spam.csv --text_column_names sms --positive_label spam \
        --model_name_or_path distilbert/distilbert-base-uncased --output_dir spam_sweep
python scripts/sweep.py --help                            # every other flag
"""

from dataclasses import dataclass, field
from typing import Literal

from weighloss import InvalidInputError, RatioSearch, RatioSweepCallback, WeightedLossConfig, report, sweep_on_ray
from weighloss.cli.data import DataArguments
from weighloss.cli.model import ModelArguments
from weighloss.cli.main import finish, make_trainer, preview_and_refine, require_points, run


@dataclass
class SweepArguments:
    """What to sweep over."""

    ratios: list[str] | None = field(
        default=None,
        metadata={"help": "Weight ratios: numbers, natural, unweighted, sqrt, effective:0.999. Default: a grid."},
    )
    num_ratios: int = field(default=13, metadata={"help": "Number of ratios of the grid; w_r = 1 comes on top."})
    ratio_span: float = field(default=100.0, metadata={"help": "The grid goes from natural/span to natural*span."})
    seeds: list[int] | None = field(
        default=None, metadata={"help": "One fine-tune per ratio with each. Default: --seed."}
    )
    epochs_per_ratio: int = field(default=1, metadata={"help": "Epochs of each fine-tune."})
    choose: str | None = field(
        default=None,
        metadata={
            "help": "Requirement that chooses the model to keep: f1, f0.5, 'recall>=0.95', 'precision>=0.9 @90%%', 'cost "
            "fp=1 fn=20' or break-even. Default: --metric_for_best_model."
        },
    )
    search: str | None = field(
        default=None,
        metadata={
            "help": "Requirement to search ratios for instead of a grid; the model that it chooses is kept unless --choose "
            "names another one."
        },
    )
    max_legs: int = field(default=6, metadata={"help": "Fine-tunes that --search may take."})
    preview: bool = field(
        default=False,
        metadata={"help": "Fine-tune the last layers only, from activations that the others compute once: fast."},
    )
    preview_layers: int = field(default=1, metadata={"help": "How many of the last layers a preview fine-tunes."})
    activations_dtype: Literal["float32", "float16", "bfloat16"] = field(
        default="float32", metadata={"help": "What a preview keeps the activations in on disk."}
    )
    refine: int = field(
        default=0,
        metadata={"help": "After the preview, fine-tune all of the model at so many ratios around the chosen one."},
    )
    backend: Literal["local", "ray"] = field(
        default="local", metadata={"help": "ray runs the fine-tunes side by side, as trials of Ray Tune."}
    )
    ray_address: str | None = field(
        default=None, metadata={"help": "Address of a running Ray cluster. Default: one on this machine."}
    )
    cpus_per_trial: int = field(default=1, metadata={"help": "CPUs, and threads, of each fine-tune on Ray."})
    gpus_per_trial: float = field(default=0.0, metadata={"help": "GPUs of each fine-tune on Ray."})
    push_predictions: bool = field(
        default=False, metadata={"help": "With --push_to_hub, push the evaluation set's logits and labels too."}
    )


def sweep(
    model_args: ModelArguments, data_args: DataArguments, sweep_args: SweepArguments, args: WeightedLossConfig
) -> None:
    search = RatioSearch(sweep_args.search, sweep_args.max_legs) if sweep_args.search else None
    callback = RatioSweepCallback(
        ratios=search or sweep_args.ratios,
        seeds=sweep_args.seeds,
        epochs_per_ratio=sweep_args.epochs_per_ratio,
        num_ratios=sweep_args.num_ratios,
        ratio_span=sweep_args.ratio_span,
        dataset_name=data_args.name,
        choose=sweep_args.choose,
        preview=sweep_args.preview and sweep_args.preview_layers,
        activations_dtype=sweep_args.activations_dtype,
    )
    if sweep_args.preview and sweep_args.preview_layers < 1:
        raise InvalidInputError(f"--preview_layers {sweep_args.preview_layers} trains none: write a number from 1.")
    if sweep_args.refine and not sweep_args.preview:
        raise InvalidInputError("--refine refines a preview: write --preview True too.")
    trainer, test = make_trainer(model_args, data_args, args, [callback])
    if sweep_args.backend == "ray":
        sweep_on_ray(trainer, callback, sweep_args.ray_address, sweep_args.cpus_per_trial, sweep_args.gpus_per_trial)
    elif sweep_args.refine:
        callback = preview_and_refine(trainer, callback, sweep_args.refine)
    else:
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    require_points(callback.sweep)
    if trainer.is_world_process_zero():
        print(report.table(callback.sweep), "", report.summary(callback.sweep), sep="\n")
        if wanted := callback.sweep.requirement or sweep_args.search:
            print(callback.sweep.choose(wanted))
        print(f"Results, charts and the model of w_r = {args.weight_ratio:.4g} are in {args.output_dir}.")
    finish(trainer, data_args, test, sweep_args.push_predictions)


if __name__ == "__main__":
    run(
        sweep,
        (ModelArguments, DataArguments, SweepArguments, WeightedLossConfig),
        description=f"{__doc__.splitlines()[0]} Flags come in this order: model, data, sweep, transformers' training "
        "arguments (--num_train_epochs is not used, see --epochs_per_ratio), class weights.",
        usage="%(prog)s [--train_file FILE --text_column_names COLUMN --positive_label NAME] [--ratios R ...] [flags]",
        goes_on=True,
        output_dir="sweep_output",
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        save_strategy="best",
        save_total_limit=1,
        save_only_model=True,
    )
