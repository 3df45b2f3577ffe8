"""How fast is weighloss? One table of ratios of times; both sides run in turns on this machine, and medians are shown.

python benchmarks/speed.py                                  # everything
python benchmarks/speed.py sweep --train_file sms_spam.csv  # some of it, the sweep on messages
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from threading import Semaphore

import numpy as np
import pyarrow as pa
import torch
from datasets import ClassLabel, Dataset, disable_progress_bars, load_dataset
from sklearn.metrics import precision_recall_fscore_support
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)
from transformers.utils import logging

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, count_labels
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import tokenize
from weighloss.cli.demo_data import demo_data, demo_model
from weighloss.results.bootstrap import bootstrap

REPEATS = 5
Row = tuple[str, str, float, str]  # what against what, on what, the ratio, its target
HERE = Path(__file__).parent


def in_turns(*ways: Callable[[], float]) -> np.ndarray:
    """The seconds of each way, (ways, repeats): in turns, so that other load on the machine affects all of them."""
    seconds = np.empty((len(ways), REPEATS))
    for repeat in range(REPEATS):
        for i in sorted(range(len(ways)), reverse=bool(repeat % 2)):  # so that none is always first
            seconds[i, repeat] = ways[i]()
    return seconds


def timed(work: Callable[[], object]) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return measure


def new_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(demo_model(), num_labels=2)


def arguments(**own) -> dict:
    given = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 64, "seed": 0}
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    return given | quiet | {"output_dir": tempfile.mkdtemp(), "dataloader_pin_memory": False} | own


def step(_: argparse.Namespace) -> Iterator[Row]:
    """A training step, from the end of the previous one to its own end; two trainers take steps in turns, in threads."""

    class Turns(TrainerCallback):
        def __init__(self, mine: Semaphore, next_one: Semaphore) -> None:
            self.mine, self.next_one, self.seconds = mine, next_one, []

        def on_train_begin(self, args, state, control, **kwargs):
            self.mine.acquire()
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            self.seconds.append(time.perf_counter() - self.started)
            self.next_one.release()
            self.on_train_begin(args, state, control)

        def on_train_end(self, args, state, control, **kwargs):
            self.next_one.release()

    generator, steps = np.random.default_rng(0), 12 * REPEATS  # many, since two steps differ by more than a percent
    rows = {
        "input_ids": generator.integers(1000, 20000, (16 * steps, 64)).tolist(),
        "labels": [int(i % 8 == 0) for i in range(16 * steps)],
    }
    first, second = Semaphore(1), Semaphore(0)
    turns = [Turns(first, second), Turns(second, first)]
    trainers = [
        trainer_class(
            model=new_model(),
            args=config_class(**arguments()),
            train_dataset=Dataset.from_dict(rows),
            callbacks=[turn],
        )
        for (trainer_class, config_class), turn in zip(
            [(WeightedLossTrainer, WeightedLossConfig), (Trainer, TrainingArguments)], turns, strict=True
        )
    ]
    with ThreadPoolExecutor() as pool:
        for running in [pool.submit(trainer.train) for trainer in trainers]:
            running.result()
    ours, base = (np.array(turn.seconds) for turn in turns)
    what = f"MiniLM, 16 x 64 tokens, {1000 * median(base):.0f} ms, {steps} pairs"
    yield "training step / Trainer's", what, median(ours / base), "<= 1.01"


def sweep(options: argparse.Namespace) -> Iterator[Row]:
    """The whole command of a sweep against a script that is run once per ratio."""
    ratios = ["0.07", "0.3", "1", "3", "7", "70", "700"]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "train.csv", Path(folder) / "validation.csv"]
        if options.train_file:
            data = load_dataset("csv", data_files=options.train_file, split="train").rename_column("sms", "text")
            data = data.map(lambda row: {"label": int(row["label"] == "spam")}).shuffle(seed=0)
            parts = [data.select(range(1000)), data.select(range(1000, 1250))]
        else:
            parts = list(demo_data(num_train=1000, num_validation=250).values())
        for part, file in zip(parts, files, strict=True):
            part.to_csv(file)

        def command(script: Path, *flags: str) -> Callable[[], float]:
            given = [sys.executable, str(script), "--train_file", str(files[0]), "--validation_file", str(files[1])]
            return timed(lambda: subprocess.run([*given, *flags], check=True, capture_output=True))

        swept = command(
            HERE.parent / "scripts" / "sweep.py",
            "--output_dir",
            f"{folder}/out",
            "--ratios",
            *ratios,
            *("--per_device_train_batch_size", "16", "--per_device_eval_batch_size", "64", "--max_seq_length", "128"),
        )

        def new_sweep() -> float:
            shutil.rmtree(f"{folder}/out", ignore_errors=True)
            return swept()

        plain, tricks = (
            command(HERE / "plain_script.py", "--weight_ratio", "7", *flag) for flag in ([], ["--tricks"])
        )
        ours, one_plain, one_with_tricks = in_turns(new_sweep, plain, tricks)
    what = f"MiniLM, 1,000 texts, {median(ours):.0f} s"
    yield "sweep of 7 ratios / 7 runs of a plain script", what, median(ours / (7 * one_plain)), "<= 0.45"
    with_tricks = "the same, the script padding and grouping as the Trainer does"
    yield with_tricks, what, median(ours / (7 * one_with_tricks)), "<= 0.75"


def legs(_: argparse.Namespace) -> Iterator[Row]:
    """A sweep of K legs against K epochs of a plain PyTorch loop on the same batches, both with evaluation."""
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    data = tokenize(demo_data(num_train=320, num_validation=160), tokenizer, DataArguments(max_seq_length=64))

    def trainer(callback: RatioSweepCallback) -> WeightedLossTrainer:
        return WeightedLossTrainer(
            model=new_model(),
            args=WeightedLossConfig(**arguments(train_sampling_strategy="group_by_length")),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[callback],
        )

    def loop(num_epochs: int) -> None:
        model, batches = new_model(), list(trainer(RatioSweepCallback()).get_train_dataloader())
        evaluation = list(trainer(RatioSweepCallback()).get_eval_dataloader())
        for epoch in range(num_epochs):
            optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
            schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
            weights = torch.tensor([1.0, float(epoch + 1)])
            model.train()
            for batch in batches:
                inputs = {name: value for name, value in batch.items() if name != "labels"}
                torch.nn.functional.cross_entropy(model(**inputs).logits, batch["labels"], weights).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            model.eval()
            with torch.no_grad():
                for batch in evaluation:
                    model(**{name: value for name, value in batch.items() if name != "labels"})

    growth = []

    def sweep_of(number: int) -> None:
        callback = RatioSweepCallback(ratios=np.geomspace(0.5, 50, number).tolist())
        trainer(callback).train()
        if number == numbers[-1]:
            early, late = np.split(np.array([point.seconds for point in callback.sweep.points]), 2)
            growth.append(late.sum() / early.sum())

    numbers = (2, 4, 8)
    for number in numbers:
        ours, bare = in_turns(timed(partial(sweep_of, number)), timed(partial(loop, number)))
        what = f"MiniLM, {median(ours):.0f} s"
        yield f"sweep of {number} legs / {number} epochs of a bare loop", what, median(ours / bare), "<= 1.08"
    yield "the last four legs of eight / the first four", what, median(growth), "1 +- 0.03"


def counting(_: argparse.Namespace) -> Iterator[Row]:
    """Ten million labels, as they are in Arrow and through a view that selects and reorders rows.

    `Counter` is timed over the whole column as a list, and on a hundredth of it as `dataset["label"]` comes, row by row.
    """
    labels = np.random.default_rng(0).choice(2, 10_000_000, p=[0.88, 0.12])
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_dict({"label": labels}).cast_column("label", ClassLabel(2)).save_to_disk(f"{folder}/data")
        whole = Dataset.load_from_disk(f"{folder}/data")
        view = whole.shuffle(seed=0).select(range(5_000_000))
        for name, data in (("10 million labels", whole), ("5 million of them, shuffled and selected", view)):
            default = pa.default_memory_pool()
            pool = pa.proxy_memory_pool(default)
            pa.set_memory_pool(pool)
            count_labels(data)
            peak = pool.max_memory() / 1e6
            pa.set_memory_pool(default)  # Arrow would otherwise use this pool after it is gone
            part = data.select(range(len(data) // 100))
            ours, over_list, over_part = in_turns(
                timed(lambda data=data: count_labels(data)),
                timed(lambda data=data: Counter(data["label"][:])),
                timed(lambda part=part: Counter(part["label"])),
            )
            what = f"{name}, {1000 * median(ours):.0f} ms, Arrow's memory at most {peak:.0f} MB"
            yield "collections.Counter over the column / count_labels", what, 100 * median(over_part / ours), ">= 20"
            yield "collections.Counter over a list of it / count_labels", what, median(over_list / ours), ""


def intervals(_: argparse.Namespace) -> Iterator[Row]:
    """The bootstrap of a sweep against a loop over scikit-learn's metrics, which is timed on a twentieth."""
    generator, size, num_legs = np.random.default_rng(0), 5000, 13
    labels = (generator.random(size) < 0.12).astype(int)
    score = generator.normal(size=size) + 2.5 * labels - 1.2
    predictions = [
        (np.stack([np.zeros(size), score + shift + 0.3 * generator.normal(size=size)], axis=1), labels)
        for shift in np.linspace(-2, 2, num_legs)
    ]

    def loop() -> None:
        for logits, truth in predictions:
            predicted = logits.argmax(-1)
            for _ in range(50):
                drawn = generator.integers(size, size=size)
                precision_recall_fscore_support(truth[drawn], predicted[drawn], average="binary", zero_division=0)

    ours, scikit_learn = in_turns(timed(lambda: bootstrap(predictions)), timed(loop))
    what = f"13 legs x 5,000 x 1,000 resamples, {median(ours) / num_legs:.2f} s a leg"
    yield "scikit-learn in a loop / our bootstrap", what, 20 * median(scikit_learn / ours), ">= 50"


def imports(_: argparse.Namespace) -> Iterator[Row]:
    def importing(statement: str) -> Callable[[], float]:
        code = f"import time; started = time.perf_counter()\n{statement}\nprint(time.perf_counter() - started)"
        return lambda: float(subprocess.check_output([sys.executable, "-c", code], stderr=subprocess.DEVNULL))

    ours, base = in_turns(
        importing("from weighloss import RatioSweepCallback, WeightedLossTrainer"),
        importing("from transformers import Trainer"),
    )
    yield "import / that of transformers' Trainer", f"{median(base):.1f} s", median(ours / base), "<= 1.05"


MEASURES = {measure.__name__: measure for measure in (step, sweep, legs, counting, intervals, imports)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", choices=[*MEASURES, []], help="Which. Default: all.")
    parser.add_argument("--train_file", help="sms_spam.csv, for the sweep. Default: the built-in sentences.")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; medians of at least {REPEATS} ratios\n")
    print("| | on what | ratio | target |\n|---|---|---|---|")
    for name in options.measures or MEASURES:
        for what, on_what, ratio, bound in MEASURES[name](options):
            print(f"| {what} | {on_what} | {ratio:.3g} | {bound} |", flush=True)


if __name__ == "__main__":
    main()
