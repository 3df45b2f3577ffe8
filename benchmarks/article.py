"""The article's experiment on data that everyone has: 13 ratios over four decades, three seeds, one epoch of MiniLM.

    python benchmarks/article.py --train_file sms_spam.csv

The SMS Spam Collection (87:13) and the built-in sentences (88:12) each have a sweep with charts in a folder of their own,
and a paragraph that compares it with the article. A run that was interrupted resumes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer
from transformers.utils import logging

from weighloss import RatioSweep, RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, reports
from weighloss.cli.arguments import DataArguments, ModelArguments
from weighloss.cli.data import load_data, tokenize
from weighloss.cli.demo_data import POSITIVE_PACKAGE, demo_data, demo_model
from weighloss.cli.model import classifier_init

SEEDS = [42, 43, 44]
TITLES = {"sms_spam": "SMS Spam Collection", "docstring_summaries": "docstring summaries"}


def data_sets(sms_spam: str | None) -> dict[str, str | None]:
    """The names of the data sets and their files; None for the built-in sentences."""
    return ({"sms_spam": sms_spam} if sms_spam else {}) | {"docstring_summaries": None}


def make_trainer(train_file: str | None, output_dir: Path, callback: RatioSweepCallback) -> WeightedLossTrainer:
    """The trainer of `weighloss sweep`; batches of 8 for the sentences, since with 16 the extreme ratios learn nothing."""
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    data_args = DataArguments(train_file=train_file, max_seq_length=48 if train_file else 24)
    data = load_data(data_args) if train_file else demo_data(num_train=4000, num_validation=1000)
    data = tokenize(data, tokenizer, data_args)
    return WeightedLossTrainer(
        model_init=classifier_init(ModelArguments(), data["train"].features["label"].names),
        args=WeightedLossConfig(
            str(output_dir),
            positive_label="spam" if train_file else POSITIVE_PACKAGE,
            per_device_train_batch_size=16 if train_file else 8,
            per_device_eval_batch_size=64,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        callbacks=[callback],
    )


def paragraph(sweep: RatioSweep) -> str:
    """What the article describes, in a sweep: the two extremes and the crossing."""
    natural, curve = sweep.natural_ratio, sweep.curve("precision", "recall")
    ends = [
        f"At w_r = {curve['ratio'][i]:.4g} precision is {curve['precision'][i]:.3f}, recall {curve['recall'][i]:.3f}."
        for i in (0, int(np.argmin(np.abs(np.log(curve["ratio"] / natural)))), -1)
    ]
    of_seeds = [
        replace(
            sweep, points=tuple(p for p in sweep.points if p.seed == seed), seeds=[seed], operating_point=None
        ).break_even()
        for seed in sweep.seeds
    ]
    crossings = ", ".join("nowhere" if ratio is None else f"{ratio:.3g}" for ratio in (sweep.break_even(), *of_seeds))
    return (
        f"{' '.join(ends)} The natural ratio is {natural:.3g}; the curves cross at (mean, then each seed) {crossings}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--train_file", help="sms_spam.csv, with columns sms and label. Default: the built-in data only."
    )
    parser.add_argument("--output_dir", type=Path, default=Path("article"))
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    for name, file in data_sets(options.train_file).items():
        callback = RatioSweepCallback(num_ratios=13, ratio_span=100, seeds=SEEDS, dataset_name=TITLES[name])
        make_trainer(file, options.output_dir / name, callback).train()
        print(f"\n{name}", reports.table(callback.sweep), "", paragraph(callback.sweep), sep="\n", flush=True)


if __name__ == "__main__":
    main()
