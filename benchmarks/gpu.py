"""Is it exact and fast on a GPU too? Exactness on CUDA, precision modes, memory and time, in one table.

    python benchmarks/gpu.py                # one card, about five minutes
    python benchmarks/gpu.py memory speed   # some of it
    python benchmarks/gpu.py --tiny         # the same code with a tiny model, on the CPU where there is no card

The model is a BERT of the size of MiniLM-L6 with random weights, the data are random token sequences: nothing is
downloaded.
"""

import argparse
import gc
import os
import tempfile
import time
from statistics import median

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products

import numpy as np
import torch
import transformers
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer

CUDA = torch.cuda.is_available()
RATIOS = (0.5, 1, 2, 4, 7, 15, 30, 60)


def make_data(size: int, length: int, seed: int) -> Dataset:
    generator = np.random.default_rng(seed)
    labels = (generator.random(size) < 0.12).astype(int)
    rows = [generator.integers(5, 1000, length - generator.integers(0, length // 2)).tolist() for _ in range(size)]
    for row, label in zip(rows, labels, strict=True):
        if label and generator.random() < 0.8:
            row[-1] = 3
    return Dataset.from_dict({"input_ids": rows, "label": labels.tolist()})


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    length = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (length - len(row["input_ids"])) for row in rows])
    mask = (ids > 0).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["label"] for row in rows])}


class Bench:
    """Trainers of one model size and data set."""

    def __init__(self, tiny: bool) -> None:
        self.size, self.length = (96, 12) if tiny else (4096, 64)
        self.sizes = (32, 2, 2, 64) if tiny else (384, 6, 12, 1536)
        self.train_data, self.eval_data = (
            make_data(self.size, self.length, 0),
            make_data(self.size // 4, self.length, 1),
        )
        self.folder = tempfile.mkdtemp()

    def model(self, dropout: float = 0.1) -> BertForSequenceClassification:
        set_seed(0)
        hidden, layers, heads, intermediate = self.sizes
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=1000,
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=intermediate,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )

    def trainer(self, kind: type = WeightedLossTrainer, callbacks=(), dropout: float = 0.1, **config) -> Trainer:
        defaults = {
            "num_train_epochs": 1, "per_device_train_batch_size": 32, "per_device_eval_batch_size": 128, "seed": 7,
            "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_strategy": "no",
            "full_determinism": True, "learning_rate": 1e-4,
        }  # fmt: skip
        config_class = WeightedLossConfig if kind is WeightedLossTrainer else TrainingArguments
        trainer = kind(
            model=self.model(dropout),
            args=config_class(os.path.join(self.folder, str(time.time_ns())), **defaults | config),
            train_dataset=self.train_data,
            eval_dataset=self.eval_data,
            data_collator=collate,
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().float().cpu().ravel() for parameter in trainer.model.parameters()])


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


def exactness(bench: Bench) -> None:
    """Ratio 1 against the Trainer, and a step cut into micro-batches; without dropout, whose masks would differ."""
    ours, base = bench.trainer(dropout=0.0, weight_ratio=1.0), bench.trainer(Trainer, dropout=0.0)
    ours.train(), base.train()
    row(
        "w_r = 1 against the Trainer, largest difference of a weight", largest_difference(weights(ours), weights(base))
    )
    whole = bench.trainer(dropout=0.0, optim="sgd", learning_rate=0.1, weight_ratio=9.0)
    cut = bench.trainer(
        dropout=0.0, optim="sgd", learning_rate=0.1, weight_ratio=9.0, per_device_train_batch_size=4,
        gradient_accumulation_steps=8,
    )  # fmt: skip
    whole.train(), cut.train()
    row(
        "micro-batches of 4 x 8 against 32, largest difference of a weight",
        largest_difference(weights(whole), weights(cut)),
    )


class FinalWeights(TrainerCallback):
    def __init__(self) -> None:
        self.legs: list[torch.Tensor] = []

    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        self.legs.append(torch.cat([p.detach().float().cpu().ravel() for p in model.parameters()]))


def legs(bench: Bench, name: str, config: dict) -> None:
    """Every leg against the stand-alone run, with dropout."""
    ends, callback = FinalWeights(), RatioSweepCallback(ratios=[0.5, 7, 60])
    bench.trainer(callbacks=[ends, callback], **config).train()
    worst, equal = 0.0, 0
    for final, point in zip(ends.legs, callback.sweep.points, strict=True):
        alone = bench.trainer(weight_ratio=point.ratio, **config)
        alone.train()
        difference = largest_difference(final, weights(alone))
        worst, equal = max(worst, difference), equal + (difference == 0)
    row(f"legs against stand-alone runs, {name}: equal bit for bit", f"{equal} of 3 (largest difference {worst:.2g})")


def memory(bench: Bench) -> None:
    """Peak memory on the card of a sweep of four legs over that of one fine-tune."""
    if not CUDA:
        return
    peaks = []
    for callbacks in ([], [RatioSweepCallback(ratios=[1, 2, 7, 60])]):
        gc.collect(), torch.cuda.empty_cache(), torch.cuda.reset_peak_memory_stats()
        bench.trainer(callbacks=callbacks).train()
        peaks.append(torch.cuda.max_memory_allocated())
    row("peak GPU memory, sweep of 4 legs / one fine-tune", f"{peaks[1] / peaks[0]:.3f} ({peaks[0] / 2**20:.0f} MiB)")


def timed(function) -> float:
    if CUDA:
        torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def speed(bench: Bench, rounds: int = 3) -> None:
    """One epoch of training against the Trainer's, and a sweep against as many fine-tunes; in turns."""
    modes = {"fp32": {}, "bf16": {"bf16": True}, "bf16, pinned memory": {"bf16": True, "dataloader_pin_memory": True}}
    for name, config in modes.items():
        if not CUDA and config:
            continue
        config = {"full_determinism": False, "dataloader_pin_memory": False} | config
        bench.trainer(**config).train()  # warm up
        ratios = []
        for _ in range(rounds):
            ours = timed(bench.trainer(weight_ratio=7.0, **config).train)
            ratios.append(ours / timed(bench.trainer(Trainer, **config).train))
        row(
            f"an epoch / the Trainer's, {name}: median of {rounds}",
            f"{median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})",
        )
    config = {"full_determinism": False}
    sweep = timed(bench.trainer(callbacks=[RatioSweepCallback(ratios=RATIOS)], **config).train)

    def fine_tunes() -> None:
        for ratio in RATIOS:
            trainer = bench.trainer(weight_ratio=ratio, **config)
            trainer.train()
            trainer.evaluate()

    row(
        "a sweep of 8 legs / 8 fine-tunes, each with its evaluation",
        f"{sweep / timed(fine_tunes):.3f} ({sweep:.1f} s)",
    )


def row(name: str, value: object) -> None:
    print(f"| {name} | {value if isinstance(value, str) else f'{value:.3g}'} |", flush=True)


def all_legs(bench: Bench) -> None:
    """Every leg against the stand-alone run, in each mode of the Trainer."""
    modes = {"fp32": {}}
    if CUDA:
        modes |= {
            "tf32": {"tf32": True}, "bf16": {"bf16": True}, "fp16": {"fp16": True},
            "fp16 with accumulation": {"fp16": True, "gradient_accumulation_steps": 2},
            "group_by_length": {"train_sampling_strategy": "group_by_length"},
            "torch.compile": {"torch_compile": True},
        }  # fmt: skip
    for name, config in modes.items():
        legs(bench, name, config)
        torch.backends.cuda.matmul.allow_tf32 = False


PARTS = {"exactness": exactness, "legs": all_legs, "memory": memory, "speed": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="What to measure. Default: everything.")
    parser.add_argument("--tiny", action="store_true", help="A tiny model, to try the script.")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    device = torch.cuda.get_device_name() if CUDA else "CPU"
    print(f"{device}, torch {torch.__version__}, transformers {transformers.__version__}\n\n| | |\n|---|---|")
    bench = Bench(options.tiny)
    for part in options.parts or PARTS:
        PARTS[part](bench)


if __name__ == "__main__":
    main()
