"""Is weighting worth it, and where do the curves cross? Sweeps over seven data sets with three seeds, and their tables.

    python benchmarks/study.py sms        # one data set: fetch it, sweep, print the tables of all that have finished
    python benchmarks/study.py            # all of them: about six hours on two cores
    python benchmarks/study.py --tables   # only the tables and charts of docs/study.md

A run that was interrupted resumes. The model is MiniLM with the first two of its six layers. Each data set gets

- `sweep`: 13 ratios and w_r = 1, one epoch, chosen on the evaluation data and measured on the test data;
- `three_epochs`: two or four of the ratios again with three epochs, for four data sets;
- `recipe.json`: the weighted loss of transformers' documentation in micro-batches, for the SMS.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import AutoModel, AutoTokenizer

from accumulation import DocumentedTrainer
from study_data import DATA_SETS, prepare
from study_tables import write_tables
from weighloss import WeightedLossConfig, WeightedLossTrainer, classification_metrics
from weighloss.cli.arguments import DataArguments, ModelArguments
from weighloss.cli.data import load_data, tokenize
from weighloss.cli.demo_data import demo_model
from weighloss.cli.model import classifier_init

SEEDS = ["42", "43", "44"]
LONGER = ("sms", "persons", "docstrings", "categories")  # with three epochs too
LEARNING_RATE = 1e-4
MAX_LENGTH = 32


def small_model(folder: Path) -> str:
    """MiniLM with its first two layers, saved where it is not yet there."""
    if not (folder / "config.json").exists():
        AutoTokenizer.from_pretrained(demo_model()).save_pretrained(folder)
        AutoModel.from_pretrained(demo_model(), num_hidden_layers=2).save_pretrained(folder)
    return str(folder)


def sweep(name: str, output_dir: Path, folder: Path, *flags: str) -> None:
    """Run `weighloss sweep` on a data set, or resume it."""
    data, data_set = prepare(name, folder / "data" / name), DATA_SETS[name]
    command = [
        sys.executable, "-m", "weighloss", "sweep",
        "--model_name_or_path", small_model(folder / "model"),
        "--train_file", data["train"], "--validation_file", data["validation"], "--test_file", data["test"],
        "--max_seq_length", MAX_LENGTH, "--learning_rate", LEARNING_RATE,
        "--per_device_train_batch_size", data_set.batch_size, "--per_device_eval_batch_size", "256",
        "--seeds", *SEEDS, "--output_dir", output_dir, *flags,
    ]  # fmt: skip
    if not data_set.has_several_classes:
        command += ["--positive_label", data_set.positive]
    subprocess.run(list(map(str, command)), check=True)


def recipe(name: str, folder: Path) -> list[dict]:
    """Precision and recall on the test data of three trainers at the natural ratio, with each of the seeds."""
    files, data_set = prepare(name, folder / "data" / name), DATA_SETS[name]
    model_args = ModelArguments(model_name_or_path=small_model(folder / "model"))
    data_args = DataArguments(
        train_file=str(files["train"]), validation_file=str(files["test"]), max_seq_length=MAX_LENGTH
    )
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path)
    data = tokenize(load_data(data_args), tokenizer, data_args)
    names = data["train"].features["label"].names
    trainers = [(WeightedLossTrainer, 1), (WeightedLossTrainer, 16), (DocumentedTrainer, 1), (DocumentedTrainer, 16)]
    results = []
    for kind, accumulation in trainers:
        for seed in map(int, SEEDS):
            config = WeightedLossConfig(
                tempfile.mkdtemp(),
                positive_label=data_set.positive,
                learning_rate=LEARNING_RATE,
                num_train_epochs=1,
                per_device_train_batch_size=16 // accumulation,
                gradient_accumulation_steps=accumulation,
                per_device_eval_batch_size=256,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=seed,
            )
            trainer = kind(
                model_init=classifier_init(model_args, names),
                args=config,
                train_dataset=data["train"],
                eval_dataset=data["validation"],
                processing_class=tokenizer,
                compute_metrics=classification_metrics(),
            )
            trainer.train()
            measured = trainer.evaluate()
            of_run = {"trainer": kind.__name__, "accumulation": accumulation, "seed": seed}
            results.append(of_run | {m: measured[f"eval_{m}"] for m in ("precision", "recall")})
    return results


def run(name: str, folder: Path) -> None:
    """Everything that is trained for one data set; what is there is kept."""
    sweep(name, folder / name / "sweep", folder, "--num_ratios", "13", "--ratio_span", "100")
    if name in LONGER:
        ratios = ["unweighted", "natural"]
        if not DATA_SETS[name].has_several_classes:
            ratios += ["natural*0.1", "natural*10"]
        longer = ["--epochs_per_ratio", "3", "--ratios", *ratios]
        sweep(name, folder / name / "three_epochs", folder, *longer)
    file = folder / name / "recipe.json"
    if name == "sms" and not file.exists():
        file.write_text(json.dumps(recipe(name, folder), indent=1))


def main() -> None:
    """Run the study, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *DATA_SETS], help="Data sets. Default: all of them.")
    parser.add_argument("--output_dir", type=Path, default=Path("study"))
    parser.add_argument("--tables", action="store_true", help="Train nothing.")
    args = parser.parse_args()
    for name in [] if args.tables else args.names or DATA_SETS:
        run(name, args.output_dir)
    write_tables(args.output_dir, args.output_dir)


if __name__ == "__main__":
    main()
