import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from safetensors.torch import load_file
from test_where_it_works import MODES, WHOLE_STEP, Mode, formula, token_data, trained, weighted_trainer
from transformers import Trainer

from conftest import ROOT, collate, make_data, make_model, parameters, quiet_args
from weighloss import RatioSweep, RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer

TESTS = [str(ROOT / "tests" / room) for room in ("", "sweep", "training", "weighting")]


# SGD without dropout: only then are two processes, whose dropout masks differ, the same computation as one.
def swept(path, average: bool, batch: int) -> None:
    WeightedLossTrainer(
        model=make_model(dropout=0.0),
        args=WeightedLossConfig(
            str(path),
            use_cpu=True,
            **quiet_args(
                optim="sgd",
                learning_rate=0.1,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=2,
                average_tokens_across_devices=average,
            ),
        ),
        train_dataset=make_data(192, 0),
        eval_dataset=make_data(101, 1),
        data_collator=collate,
        callbacks=[RatioSweepCallback(ratios=[0.3, 20], seeds=[1, 2])],
    ).train()


# Token sequences of unequal lengths: the processes' shares of a step do not count alike.
TRAININGS = {
    "unweighted": {"weight_ratio": 1.0},
    "weighted": {"weight_ratio": 9.0},
    "uneven": {"weight_ratio": 9.0, "train_sampling_strategy": "sequential"},
    "local_counts": {
        "weight_ratio": 9.0,
        "train_sampling_strategy": "sequential",
        "average_tokens_across_devices": False,
    },
}
TRAIN = """
import gc, json, os, sys; sys.path[:0] = {tests!r}
from safetensors.torch import save_file
from conftest import parameters
from test_distributed import TRAININGS, RatioSweep, replace, swept, torch
from test_where_it_works import MODES, Mode, token_data, weighted_trainer
gc.freeze()
for name, config in TRAININGS.items():
    mode = MODES["task-tokens"]
    mode = Mode(mode.data.select(range(90 if name == "uneven" else 96)), mode.model, mode.collator)
    config = config | {{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "ddp_backend": "gloo"}}
    config |= {{"class_counts": [300, 200, 100]}}
    trainer = weighted_trainer(mode, {path!r}, **config)
    trainer.train()
    metrics = trainer.evaluate(token_data(33, 1))
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        save_file({{"parameters": parameters(trainer.model)}}, f"{path}/{{name}}.safetensors")
        open(f"{path}/{{name}}.json", "w").write(json.dumps(metrics | {{"losses": losses}}))

# Two sweeps, and once more after they have lost their last two legs.
for average in (True, False):
    folder = {path!r} + "/" + str(average)
    swept(folder, average, batch=8)
    whole = RatioSweep.load(folder)
    torch.distributed.barrier()
    if trainer.is_world_process_zero():
        whole.save(folder + "/whole")
        replace(whole, points=whole.points[:2], operating_point=None).save(folder)
    torch.distributed.barrier()
    swept(folder, average, batch=8)
torch.distributed.destroy_process_group()
os._exit(0)
"""


def torchrun(script: str, path) -> None:
    """Run a script in two processes. They end without being torn down: in that one of them now and then aborts."""
    file = path / "script.py"
    file.write_text(script)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run = subprocess.run([sys.executable, *launcher, str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Parameters, losses and evaluation metrics of every training, and the folder of the sweeps, in two processes."""
    path = tmp_path_factory.mktemp("two")
    torchrun(TRAIN.format(tests=TESTS, path=str(path)), path)
    return {"folder": path} | {
        name: (load_file(path / f"{name}.safetensors")["parameters"], json.loads((path / f"{name}.json").read_text()))
        for name in TRAININGS
    }


def one_process(path, **config) -> WeightedLossTrainer:
    trainer = weighted_trainer(MODES["task-tokens"], path, class_counts=[300, 200, 100], **WHOLE_STEP | config)
    trainer.train()
    return trainer


@pytest.mark.slow
def test_processes_two_are_the_base_trainer_in_one(tmp_path, two_processes):
    base, _ = trained(Trainer, MODES["task-tokens"], tmp_path)
    assert (two_processes["unweighted"][0] - parameters(base.model)).abs().max() < 1e-6


@pytest.mark.slow
def test_processes_two_are_the_weighted_trainer_in_one(tmp_path, two_processes):
    one = one_process(tmp_path, weight_ratio=9.0)
    found, metrics = two_processes["weighted"]
    assert (found - parameters(one.model)).abs().max() < 1e-6
    alone = one.evaluate(token_data(33, 1))
    for name in ("eval_loss", "eval_plain_loss", "eval_precision", "eval_tp"):
        assert metrics[name] == pytest.approx(alone[name], abs=1e-6)


@pytest.mark.slow
def test_processes_uneven_last_batch(tmp_path, two_processes):
    """The loader fills the last batch up with the first rows, as it does for the base class; the loss counts those too."""
    rows = MODES["task-tokens"].data
    filled = concatenate_datasets([rows.select(range(90)), rows.select(range(6))])
    mode = Mode(filled, MODES["task-tokens"].model, MODES["task-tokens"].collator)
    one = weighted_trainer(mode, tmp_path, class_counts=[300, 200, 100], **TRAININGS["uneven"])
    one.train()
    assert (two_processes["uneven"][0] - parameters(one.model)).abs().max() < 1e-6


@pytest.mark.slow
def test_processes_average_tokens_across_devices_off(tmp_path, two_processes):
    """Then every process divides by the labels of its own share, and a label in the smaller share weighs more."""
    mode = MODES["task-tokens"]
    trainer = weighted_trainer(mode, tmp_path, class_counts=[300, 200, 100], weight_ratio=9.0)
    loss, rows = formula(trainer.class_weights.weights, 0), list(mode.data)
    shares = []
    for process in (0, 1):  # batches of 4 are dealt out in turn
        batch = mode.collator([row for i, row in enumerate(rows[:16]) if i // 4 % 2 == process])
        labels = batch.pop("labels")
        with torch.no_grad():
            shares.append((loss(trainer.model.eval()(**batch), labels).item(), (labels != -100).sum().item()))
    local = np.mean([share for share, _ in shares])
    together = np.average([share for share, _ in shares], weights=[count for _, count in shares])
    assert abs(local - together) > 1e-4
    assert two_processes["local_counts"][1]["losses"][0] == pytest.approx(local, abs=1e-6)
    assert two_processes["uneven"][1]["losses"][0] == pytest.approx(together, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("average", [True, False])
def test_sweep_two_processes(tmp_path, two_processes, average):
    folder = two_processes["folder"] / str(average)
    swept(tmp_path, average, batch=16)
    whole, again = RatioSweep.load(folder / "whole"), RatioSweep.load(folder)
    compare(RatioSweep.load(tmp_path), replace(whole, folder=folder))

    # cut off after two legs, they go on
    assert again.points[0] == whole.points[0]
    assert again.points[3].seconds != whole.points[3].seconds  # trained again
    assert [replace(point, seconds=0) for point in again.points] == [
        replace(point, seconds=0) for point in whole.points
    ]
    kept, before = again.operating_point, whole.operating_point
    assert (kept.ratio, kept.seed, kept.threshold, kept.tp) == (before.ratio, before.seed, before.threshold, before.tp)


def compare(sweep_of_one: RatioSweep, sweep_of_two: RatioSweep) -> None:
    for one, two in zip(sweep_of_one.points, sweep_of_two.points, strict=True):
        assert (one.ratio, one.seed, one.tp, one.fp, one.fn, one.tn) == (
            two.ratio,
            two.seed,
            two.tp,
            two.fp,
            two.fn,
            two.tn,
        )
        assert two.eval_plain_loss == pytest.approx(one.eval_plain_loss, abs=1e-6)
        assert two.eval_loss == pytest.approx(one.eval_loss, abs=1e-6)
        logits, labels = sweep_of_two.predictions(two)
        assert np.abs(logits - sweep_of_one.predictions(one)[0]).max() < 1e-6
        assert labels.tolist() == sweep_of_one.predictions(one)[1].tolist()
