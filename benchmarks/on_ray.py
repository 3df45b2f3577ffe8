"""How much faster are eight legs on a Ray cluster of two workers than one after the other, and are they the same?

python benchmarks/on_ray.py        # MiniLM, 800 built-in sentences, 4 ratios x 2 seeds
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, sweep_on_ray
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import tokenize
from weighloss.cli.demo_data import demo_data, demo_model


def make_trainer(folder, data, tokenizer) -> tuple[WeightedLossTrainer, RatioSweepCallback]:
    callback = RatioSweepCallback(ratios=[0.5, 1, 7, 30], seeds=[1, 2])
    trainer = WeightedLossTrainer(
        model_init=lambda: AutoModelForSequenceClassification.from_pretrained(demo_model(), num_labels=2),
        args=WeightedLossConfig(
            str(folder), learning_rate=1e-4, disable_tqdm=True, save_strategy="no", report_to="none"
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        callbacks=[callback],
    )
    return trainer, callback


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    data = tokenize(demo_data(num_train=800, num_validation=400), tokenizer, DataArguments(max_seq_length=48))
    seconds, sweeps = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, threads in (("one thread", 1), ("two threads", 2), ("Ray, two workers of one thread", 1)):
            torch.set_num_threads(threads)
            trainer, callback = make_trainer(Path(folder) / name.split(",")[0], data, tokenizer)
            started = time.perf_counter()
            if "Ray" in name:
                sweep_on_ray(trainer, callback)
            else:
                trainer.train()
            seconds[name] = time.perf_counter() - started
            sweeps[name] = [replace(point, seconds=0) for point in callback.sweep.points]
    for name, time_taken in seconds.items():
        print(f"{name}: {time_taken:.0f} s, {seconds['one thread'] / time_taken:.2f} x one thread")
    one, _, ray = sweeps.values()
    print(f"points on Ray equal to those of one thread: {one == ray}")


if __name__ == "__main__":
    main()
