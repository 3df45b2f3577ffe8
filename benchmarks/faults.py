"""Does a sweep survive kill -9 anywhere? Real processes are killed at chosen moments and at random, and started again.

Every sweep is killed again and again until it gets to its end; then its points, predictions and kept model are compared
with those of a sweep that nobody disturbed. Prints how often each moment was hit, and what was lost: nothing, or it fails.

    python benchmarks/faults.py                     # 60 kills, MiniLM cut to two layers, the built-in sentences
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import torch
import transformers.modeling_utils
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainerCallback, TrainerState
from transformers.utils import logging

import weighloss.reports.plot
import weighloss.results.files
import weighloss.sweep.callback
from weighloss import RatioSweep, RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import tokenize
from weighloss.cli.demo_data import demo_data, demo_model
from weighloss.sweep.leg import InitialState
from weighloss.sweep.output import SweepOutput

# Where a process can die: the function that it is in, and whether before it does its work, with half of the file that it
# writes on disk (the number of the argument that names it), or after it.
MOMENTS = {
    "in a training step": (Trainer, "training_step", "before"),
    "in an evaluation": (Trainer, "prediction_step", "before"),
    "predictions half written": (weighloss.results.files.pq, "write_table", 1),
    "JSON half written": (Path, "write_text", 0),
    "a file written, not yet in its place": (weighloss.results.files.os, "replace", "before"),
    "a file just put in its place": (weighloss.results.files.os, "replace", "after"),
    "model half saved": (transformers.modeling_utils, "safe_save_file", 1),
    "optimizer or arguments half saved": (torch, "save", 1),
    "checkpoint's state half saved": (TrainerState, "save_to_json", 1),
    "model saved, point not": (SweepOutput, "add_point", "before"),
    "older model half deleted": (shutil, "rmtree", "inside"),
    "between two legs": (InitialState, "restore", "before"),
    "while the chosen model is loaded": (weighloss.sweep.callback, "load_weights", "before"),
    "chosen model saved, choice not": (SweepOutput, "finish", "before"),
    "while the charts are drawn": (weighloss.reports.plot, "plot_sweep", "before"),
}
AT_RANDOM = "at a random time"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str, call: int) -> None:
    """Kill this process in so many calls of a moment's function."""
    owner, name, how = MOMENTS[moment]
    function = getattr(owner, name)
    left = [call]

    def dying(*args, **kwargs):
        left[0] -= 1
        if left[0]:
            return function(*args, **kwargs)
        if how == "before":
            die()
        if how == "inside":
            if not os.path.isdir(args[0]):
                return function(*args, **kwargs)
            os.remove(os.path.join(args[0], sorted(os.listdir(args[0]))[0]))
            die()
        result = function(*args, **kwargs)
        if how != "after":
            os.truncate(args[how], os.path.getsize(args[how]) // 2)
        die()
        return result

    setattr(owner, name, dying)


class LegsTrained(TrainerCallback):
    """Notes every optimizer step in a file that outlives the process."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step_end(self, args, state, control, **kwargs):
        with self.file.open("a") as notes:
            notes.write(f"{args.weight_ratio} {args.seed} {state.global_step}\n")


def victim(make_trainer, folder: Path, moment: str | None, call: int) -> None:
    """One process: sweep into the folder, or resume there; dies at the moment."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is shared by all victims, and one may die holding it
    sys.stdout = sys.stderr = open(folder.with_suffix(".log"), "a")  # noqa: SIM115 — until the process ends
    trainer = make_trainer(folder)
    trainer.add_callback(LegsTrained(folder.with_suffix(".steps")))
    if moment == AT_RANDOM:
        threading.Timer(call / 1000, die).start()
    elif moment is not None:
        die_at(moment, call)
    trainer.train()


def run(make_trainer, folder: Path, moment: str | None = None, call: int = 0) -> bool:
    """Whether a victim was killed; it must end well otherwise."""
    process = multiprocessing.get_context("fork").Process(target=victim, args=(make_trainer, folder, moment, call))
    process.start()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{moment}: exit code {process.exitcode}\n{folder.with_suffix('.log').read_text()[-3000:]}")
    return process.exitcode != 0


def outcome(folder: Path) -> dict:
    """All that a sweep leaves and that must not depend on what happened to it."""
    sweep = json.loads((folder / "sweep.json").read_text())
    for point in sweep["points"]:
        del point["seconds"]
    files = [*folder.glob("predictions/*.parquet"), folder / "model.safetensors"]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return sweep | {"files": digests}


def points_of(folder: Path) -> dict:
    """The points on disk, by leg, with the seconds, which tell a leg from the same one trained again."""
    if not (folder / "sweep.json").exists():
        return {}
    return {(point.ratio, point.seed): point for point in RatioSweep.load(folder).points}


def campaign(make_trainer, kills: int, seed: int = 0, only: list[str] | None = None) -> Counter:
    """Kill sweeps so often, and raise AssertionError when something is lost, repeated or different.

    Parameters
    ----------
    make_trainer : callable
        Takes the output folder of a sweep and returns its trainer.
    kills : int
    seed : int
    only : list of str, optional
        The moments; all, in turn, when None.

    Returns
    -------
    Counter of the moments that were hit.
    """
    draw, hit, tried = random.Random(seed), Counter(), Counter()
    with tempfile.TemporaryDirectory() as root:
        reference = Path(root) / "undisturbed"
        started = time.perf_counter()
        run(make_trainer, reference)
        duration, expected, sweeps = time.perf_counter() - started, outcome(reference), 0
        moments = list(only or [*MOMENTS, AT_RANDOM])
        while hit.total() < kills:
            folder = Path(root) / f"sweep{sweeps}"
            notes, sweeps, alive = folder.with_suffix(".steps"), sweeps + 1, True
            while alive:
                moment = None
                if hit.total() < kills:
                    moment = min(draw.sample(moments, len(moments)), key=lambda name: tried[name])
                    tried[moment] += 1  # a moment that never comes, as without checkpoints, does not stop the others
                before, lines = points_of(folder), len(notes.read_text().splitlines()) if notes.exists() else 0
                call = draw.randint(1, round(1000 * duration)) if moment == AT_RANDOM else draw.choice([1, 1, 2, 3, 7])
                alive = run(make_trainer, folder, moment, call)
                hit[moment] += alive
                after = points_of(folder)
                assert all(after.get(leg) == point for leg, point in before.items()), f"{moment}: a point was lost"
                stepped = notes.read_text().splitlines()[lines:] if notes.exists() else []
                again = {tuple(map(float, line.split()[:2])) for line in stepped} & before.keys()
                assert not again, f"{moment}: {again} trained again"
            assert outcome(folder) == expected, f"{folder} differs"
            shutil.rmtree(folder)
    return hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    options = parser.parse_args()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    data = tokenize(demo_data(num_train=160, num_validation=100), tokenizer, DataArguments(max_seq_length=32))

    def make_trainer(folder: Path, strategy: dict) -> WeightedLossTrainer:
        return WeightedLossTrainer(
            model_init=lambda: AutoModelForSequenceClassification.from_pretrained(
                demo_model(), num_labels=2, num_hidden_layers=2
            ),
            args=WeightedLossConfig(
                str(folder),
                learning_rate=2e-4,
                per_device_train_batch_size=16,
                disable_tqdm=True,
                report_to="none",
                **strategy,
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
            callbacks=[RatioSweepCallback(ratios=[0.5, 4, 7, 30], seeds=[1])],
        )

    steps = {"save_strategy": "steps", "save_steps": 3}
    print("| killed | times, without checkpoints within legs | times, a checkpoint every 3 steps |\n|---|---|---|")
    hits = []
    for i, strategy in enumerate(({"save_strategy": "no"}, steps)):
        hits.append(campaign(lambda folder, s=strategy: make_trainer(folder, s), options.kills // 2, seed=i))
    for moment in [*MOMENTS, AT_RANDOM]:
        print(f"| {moment} | {hits[0][moment]} | {hits[1][moment]} |")
    print(f"{sum(hit.total() for hit in hits)} kills: no point lost, no finished leg trained again, every sweep.json,")
    print("every prediction and every model as if nothing had happened.")


if __name__ == "__main__":
    main()
