"""What does it cost as the data grow? Time and memory of each step, from ten thousand rows to a million.

    python benchmarks/scale.py
    python benchmarks/scale.py --rows 10000 --parts count intervals

Texts of random words with 12% positives in a Parquet file, and a BERT of one layer that is 32 wide. Half of the rows are
evaluation data. Each step runs in a process of its own; memory is what it holds beyond the files that it maps, at its
highest, less what the process held before.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_from_disk
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers.utils import logging

from weighloss import RatioSweep, RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, count_labels
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import load_data, tokenize
from weighloss.cli.demo_data import demo_model
from weighloss.results.bootstrap import bootstrap
from weighloss.results.comparison import compare
from weighloss.sweep.fingerprint import of_dataset


def make_file(rows: int, file: Path) -> None:
    """A Parquet file of texts and labels, written in parts."""
    generator = np.random.default_rng(0)
    words = np.array(AutoTokenizer.from_pretrained(demo_model()).convert_ids_to_tokens(range(2000, 4000)))
    writer = None
    for start in range(0, rows, 50_000):
        size = min(50_000, rows - start)
        labels = generator.random(size) < 0.12
        drawn = generator.integers(0, 1500, (size, 8)) + 500 * (labels[:, None] & (generator.random((size, 8)) < 0.3))
        table = pa.table(
            {"text": [" ".join(row) for row in words[drawn]], "label": np.where(labels, "rare", "common")}
        )
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table)
    writer.close()


def prepare(folder: Path) -> None:
    """Read, split and tokenise the file."""
    args = DataArguments(train_file=str(folder / "data.parquet"), validation_split_percentage=50, max_seq_length=12)
    data = tokenize(load_data(args), AutoTokenizer.from_pretrained(demo_model()), args)
    data.save_to_disk(folder / "tokenised")


def sweep(folder: Path) -> None:
    """Two legs over all of the data."""
    data = load_from_disk(folder / "tokenised")
    trainer = WeightedLossTrainer(
        model_init=lambda: BertForSequenceClassification(
            BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
        ),
        args=WeightedLossConfig(
            str(folder / "sweep"), positive_label="rare", per_device_train_batch_size=512,
            per_device_eval_batch_size=2048, learning_rate=3e-3, save_strategy="no", logging_strategy="no",
            report_to="none", disable_tqdm=True,
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=AutoTokenizer.from_pretrained(demo_model()),
        callbacks=[RatioSweepCallback(ratios=["unweighted", "natural"], choose="recall>=0.9")],
    )  # fmt: skip
    trainer.train()


def count(folder: Path) -> None:
    """Count the labels."""
    count_labels(load_from_disk(folder / "tokenised")["train"])


def fingerprint(folder: Path) -> None:
    """The digest by which a sweep knows its data again."""
    of_dataset(load_from_disk(folder / "tokenised")["train"])


def intervals(folder: Path) -> None:
    """Bootstrap intervals of fourteen legs."""
    finished = RatioSweep.load(folder / "sweep")
    predictions = [finished.predictions(point) for point in finished.points]
    generator = np.random.default_rng(0)
    legs = [predictions[i % 2] for i in range(14)]
    bootstrap([(logits + generator.normal(0, 0.3, logits.shape), labels) for logits, labels in legs])


def choose(folder: Path) -> None:
    """Choose ratio and threshold for a requirement, and compare the four rules."""
    compare(RatioSweep.load(folder / "sweep"), "recall>=0.9")


PARTS = {
    "prepare": prepare, "count": count, "fingerprint": fingerprint, "sweep": sweep, "intervals": intervals,
    "choose": choose,
}  # fmt: skip


def held() -> float:
    """Memory of this process without mapped files, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(part: str, folder: Path) -> None:
    """Run one part, and print its time and its memory."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    before, done = held(), threading.Event()
    highest = [before]

    def watch() -> None:
        while not done.wait(0.01):
            highest.append(held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    PARTS[part](folder)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    print(f"\nmeasured: {seconds:.2f} s, {max(highest) - before:.0f} MiB")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="Keep the data there, so that parts can be measured again.")
    args = parser.parse_args()
    if args.part:
        return measure(args.part, args.folder)
    print(f"| rows | {' | '.join(args.parts)} |\n|{'--:|' * (len(args.parts) + 1)}", flush=True)
    parent = args.folder or Path(tempfile.mkdtemp())
    for rows in args.rows:
        folder = parent / str(rows)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "data.parquet").exists():
            make_file(rows, folder / "data.parquet")
        cells = []
        for part in args.parts:
            command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            cells.append(printed.rpartition("measured: ")[2].strip())
        print(f"| {rows:,} | {' | '.join(cells)} |", flush=True)
    return None


if __name__ == "__main__":
    main()
