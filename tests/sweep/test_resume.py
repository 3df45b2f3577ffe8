import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_where_it_works import MODES
from transformers import TrainerCallback

from conftest import ROOT, collate, make_data, make_model, parameters, quiet_args
from weighloss import (
    InvalidInputError,
    RatioSearch,
    RatioSweep,
    RatioSweepCallback,
    SweepStoppedError,
    WeightedLossConfig,
    WeightedLossTrainer,
    plot_sweep,
    precision_recall,
    reports,
)
from weighloss.sweep.fingerprint import of_dataset
from weighloss.sweep.resume import locked

sys.path.insert(0, str(ROOT / "benchmarks"))
import faults

pytestmark = pytest.mark.usefixtures("without_charts")

EVERY_THIRD_STEP = {"save_strategy": "steps", "save_steps": 3}
BEST_OF_LEG = EVERY_THIRD_STEP | {
    "eval_strategy": "steps",
    "eval_steps": 3,
    "load_best_model_at_end": True,
    "metric_for_best_model": "plain_loss",
    "greater_is_better": False,
}
STEPS = 12  # of a leg of one epoch: 192 examples in batches of 16
RATIOS = [0.5, 4, 30]


class Stop(TrainerCallback):
    """Ends the training of the process at a step of a leg, as a kill would, and notes leg and step of every step."""

    def __init__(self, leg: int | None = None, step: int | None = None) -> None:
        self.at = leg, step
        self.steps = []
        self._legs = []

    def on_train_begin(self, args, state, control, **kwargs):
        self._legs.append(int(Path(args.output_dir).name[4:6]))

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append((self._legs[-1], state.global_step))
        if self.steps[-1] == self.at:
            raise KeyboardInterrupt


def steps_of(leg, epochs=1):
    return [(leg, step) for step in range(1, epochs * STEPS + 1)]


def make_sweep(folder, train_data, eval_data, stop=None, config=None, sweep=None, **kwargs):
    model = {} if {"model", "model_init"} & kwargs.keys() else {"model": make_model()}
    training = {"per_device_train_batch_size": 16, "learning_rate": 1e-2} | (config or {})
    return WeightedLossTrainer(
        args=WeightedLossConfig(str(folder), **quiet_args(**training)),
        train_dataset=train_data,
        eval_dataset=eval_data,
        callbacks=[
            RatioSweepCallback(**{"ratios": RATIOS, "seeds": [1]} | (sweep or {})),
            *([stop] if stop else []),
        ],
        **({"data_collator": collate} | model | kwargs),
    )


def stopped(folder, train_data, eval_data, leg, step, **kwargs):
    """A sweep that was ended at a step of a leg, in a trainer that is then thrown away."""
    with pytest.raises(KeyboardInterrupt):
        make_sweep(folder, train_data, eval_data, Stop(leg, step), **kwargs).train()


def finished(folder, train_data, eval_data, stop=None, **kwargs):
    """What a sweep that runs to its end leaves, the model that the trainer holds included."""
    trainer = make_sweep(folder, train_data, eval_data, stop, **kwargs)
    trainer.train()
    content = json.loads((folder / "sweep.json").read_text())
    for point in content["points"]:
        del point["seconds"]
    predictions = {file.name: file.read_bytes() for file in folder.glob("predictions/*.parquet")}
    return content, predictions, parameters(trainer.model).tolist(), trainer.args.weight_ratio


@pytest.fixture(scope="module")
def whole(tmp_path_factory, train_data, eval_data):
    """What sweeps leave that nobody disturbed. With `copy_to`, a copy of the folder too."""
    found = {}

    def of(copy_to=None, **given):
        key = repr([given.get(name) or {} for name in ("config", "sweep")])
        if key not in found:
            folder = tmp_path_factory.mktemp("whole")
            found[key] = folder, finished(folder, train_data, eval_data, **given)
        folder, outcome = found[key]
        if copy_to is not None:
            shutil.copytree(folder, copy_to, dirs_exist_ok=True)
        return outcome

    return of


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [{}, EVERY_THIRD_STEP | {"train_sampling_strategy": "group_by_length"}],
    ids=["no_checkpoints", "checkpoints_within_legs"],
)
def test_a_sweep_that_is_killed_anywhere_ends_as_if_nothing_had_happened(train_data, eval_data, config, capfd):
    hit = faults.campaign(
        lambda folder: make_sweep(
            folder,
            train_data,
            eval_data,
            config=config | {"per_device_train_batch_size": 32},
            sweep={"ratios": [0.5, 30], "seeds": [1, 2]},
        ),
        kills=len(faults.MOMENTS),
    )
    assert sum(times > 0 for times in hit.values()) >= len(faults.MOMENTS) - 4


def test_a_sweep_that_is_killed_leaves_every_finished_leg(tmp_path, train_data, eval_data):
    def make(folder):
        return make_sweep(folder, train_data, eval_data, sweep={"ratios": range(1, 500)})

    assert faults.run(make, tmp_path / "sweep", "in a training step", 3 * STEPS + 5)
    sweep = RatioSweep.load(tmp_path / "sweep")
    assert len(sweep.points) == 3
    for point in sweep.points:
        logits, labels = sweep.predictions(point)
        assert precision_recall(logits.argmax(-1), labels)["tp"] == point.tp
    assert sweep.break_even() is None or sweep.break_even() > 0


@pytest.mark.parametrize(
    ("config", "sweep", "at", "resumes_after"),
    [
        (EVERY_THIRD_STEP, {}, (1, 8), 6),
        (BEST_OF_LEG, {}, (1, 8), 6),
        (EVERY_THIRD_STEP | {"train_sampling_strategy": "group_by_length"}, {}, (1, 8), 6),
        (EVERY_THIRD_STEP | {"accelerator_config": {"use_seedable_sampler": False}}, {}, (0, 8), 6),
        (EVERY_THIRD_STEP | {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}, {}, (0, 8), 6),
        (EVERY_THIRD_STEP, {"epochs_per_ratio": 2}, (1, STEPS + 5), STEPS + 3),
        # of an order that follows from random numbers drawn before it, only the first epoch of a leg is known
        (EVERY_THIRD_STEP | {"train_sampling_strategy": "group_by_length"}, {"epochs_per_ratio": 2}, (1, STEPS + 5), 9),
        (EVERY_THIRD_STEP | {"save_only_model": True}, {}, (1, 8), 0),
        (EVERY_THIRD_STEP | {"ignore_data_skip": True}, {}, (1, 8), 0),
        ({}, {}, (2, 8), 0),
    ],
    ids=[
        "checkpoint", "best_of_leg", "group_by_length", "random_sampler", "accumulation", "second_epoch",
        "second_epoch_group_by_length", "models_only", "ignore_data_skip", "no_checkpoints",
    ],
)  # fmt: skip
def test_a_sweep_resumes_at_the_last_checkpoint_within_a_leg_or_after_its_last_leg(
    tmp_path, train_data, eval_data, whole, config, sweep, at, resumes_after
):
    given = {"config": config, "sweep": sweep}
    stopped(tmp_path / "cut", train_data, eval_data, *at, **given)
    assert len(RatioSweep.load(tmp_path / "cut").points) == at[0]
    stop = Stop()
    assert finished(tmp_path / "cut", train_data, eval_data, stop, **given) == whole(**given)
    assert stop.steps[0] == (at[0], resumes_after + 1)
    assert not (tmp_path / "cut" / "legs").exists()


@pytest.mark.parametrize("resume", [True, "legs/leg-00_ratio-0.5_seed-1/checkpoint-3"], ids=["true", "path"])
def test_resume_from_checkpoint_may_be_given_and_changes_nothing(tmp_path, train_data, eval_data, whole, resume):
    trainer = make_sweep(tmp_path / "new", train_data, eval_data, Stop(0, 5), config=EVERY_THIRD_STEP)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=True)  # nothing there yet
    stop = Stop(2, 6)
    trainer = make_sweep(tmp_path / "new", train_data, eval_data, stop, config=EVERY_THIRD_STEP)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=resume if resume is True else str(tmp_path / "new" / resume))
    assert stop.steps[0] == (0, 4)
    assert finished(tmp_path / "new", train_data, eval_data, config=EVERY_THIRD_STEP) == whole(config=EVERY_THIRD_STEP)
    trainer = make_sweep(tmp_path / "other", train_data, eval_data)
    with pytest.raises(InvalidInputError, match="is not a checkpoint of the sweep in"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-12"))


def test_the_same_trainer_resumes_after_an_interruption(tmp_path, train_data, eval_data, whole):
    trainer = make_sweep(tmp_path / "cut", train_data, eval_data, Stop(1, 8))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.pop_callback(Stop)
    trainer.train()
    assert parameters(trainer.model).tolist() == whole()[2]
    assert len(RatioSweep.load(tmp_path / "cut").points) == 3


def test_with_model_init_a_sweep_resumes_with_every_seeds_own_head(tmp_path, train_data, eval_data):
    given = {"model_init": lambda: make_model(seed=torch.initial_seed()), "sweep": {"ratios": [4], "seeds": [1, 2, 3]}}
    expected = finished(tmp_path / "whole", train_data, eval_data, **given)
    stopped(tmp_path / "cut", train_data, eval_data, 1, 2, **given)
    assert finished(tmp_path / "cut", train_data, eval_data, **given) == expected


def test_adapters_resume(tmp_path, train_data, eval_data):
    peft = pytest.importorskip("peft")

    def model_init():
        return peft.get_peft_model(make_model(seed=3), peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))

    given = {"model_init": model_init, "config": EVERY_THIRD_STEP}
    expected = finished(tmp_path / "whole", train_data, eval_data, **given)
    stopped(tmp_path / "cut", train_data, eval_data, 1, 8, **given)
    stop = Stop()
    assert finished(tmp_path / "cut", train_data, eval_data, stop, **given) == expected
    assert stop.steps[0] == (1, 7)


def test_a_search_resumes_with_the_ratios_that_it_would_have_taken(tmp_path, train_data, eval_data):
    given = {"sweep": {"ratios": RatioSearch(max_legs=4), "choose": "recall>=0.7"}}
    expected = finished(tmp_path / "whole", train_data, eval_data, **given)
    assert len(expected[0]["points"]) == 4
    stopped(tmp_path / "cut", train_data, eval_data, 2, 2, **given)
    assert finished(tmp_path / "cut", train_data, eval_data, **given) == expected
    stop = Stop()
    assert finished(tmp_path / "cut", train_data, eval_data, stop, **given) == expected
    assert not stop.steps
    with pytest.raises(InvalidInputError, match=r"search: .*max_legs=5.* here, .*max_legs=4.* there"):
        make_sweep(tmp_path / "cut", train_data, eval_data, sweep={"ratios": RatioSearch(max_legs=5)}).train()


def test_a_finished_sweep_is_not_trained_again(tmp_path, train_data, eval_data, whole):
    outcome = whole(copy_to=tmp_path)
    stop = Stop()
    assert finished(tmp_path, train_data, eval_data, stop) == outcome
    assert not stop.steps


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another training"])
def test_a_chosen_model_that_is_not_on_disk_is_trained_again_and_nothing_else(
    tmp_path, train_data, eval_data, whole, caplog, damage
):
    outcome = whole(copy_to=tmp_path)
    if damage == "missing":
        (tmp_path / "model.safetensors").unlink()
    elif damage == "truncated":
        os.truncate(tmp_path / "model.safetensors", 1000)
    else:
        make_model(weight_ratio=77).save_pretrained(tmp_path)
    stop = Stop()
    assert finished(tmp_path, train_data, eval_data, stop) == outcome
    assert stop.steps == steps_of(RATIOS.index(outcome[3]))
    assert "is not on disk" in caplog.text


def test_a_sweep_does_not_resume_with_another_batch_size_than_the_finder_found(tmp_path, train_data, eval_data):
    class OutOfMemory(TrainerCallback):
        def __init__(self, least):
            self.least = least

        def on_step_end(self, args, state, control, **kwargs):
            if state.train_batch_size >= self.least and state.global_step == 2:
                raise RuntimeError("CUDA out of memory.")

    given = {"config": {"auto_find_batch_size": True}, "sweep": {"ratios": [0.5, 30]}}
    trainer = make_sweep(tmp_path, train_data, eval_data, OutOfMemory(16), **given)
    trainer.add_callback(Stop(1, 3))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    found = RatioSweep.load(tmp_path).arguments["found_batch_size"]
    with pytest.raises(
        InvalidInputError, match=f"has legs with batches of {found}, but now the batch-size finder needs"
    ):
        make_sweep(tmp_path, train_data, eval_data, OutOfMemory(found), **given).train()
    make_sweep(tmp_path, train_data, eval_data, OutOfMemory(16), **given).train()
    assert len(RatioSweep.load(tmp_path).points) == 2


OTHER = make_data(192, seed=9)


@pytest.fixture(scope="module")
def begun(tmp_path_factory, train_data, eval_data):
    """The folder of a sweep that was ended in its second leg."""
    folder = tmp_path_factory.mktemp("begun")
    stopped(folder, train_data, eval_data, 1, 2)
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_data": OTHER}, "counts of the training labels: .* here, .* there"),
        ({"train_data": make_data(192, 0).map(lambda row, i: {"input_ids": [7, *row["input_ids"]]} if i == 100 else row,
                                              with_indices=True)}, r"\(the training data differs\)"),
        ({"eval_data": make_data(100, 3)}, "the evaluation data differs"),
        ({"eval_data": make_data(90, 1)}, "number of evaluation examples: 90 here, 100 there"),
        ({"model": make_model(seed=5)}, r"\(the model differs, and if .* load the model after transformers.set_seed\(\)"),
        ({"model": make_model(dropout=0.2)}, r"\(the model differs"),
        ({"sweep": {"seeds": [2]}}, "seeds: 2 here, 1 there"),
        ({"sweep": {"ratios": [0.5, 4, 31]}}, "ratios: 0.5, 4, 31 here, 0.5, 4, 30 there"),
        ({"sweep": {"epochs_per_ratio": 2}}, "epochs_per_ratio: 2 here, 1 there"),
        ({"config": {"learning_rate": 2e-2}}, "learning_rate: 0.02 here, 0.01 there"),
        ({"config": {"per_device_train_batch_size": 8}}, "per_device_train_batch_size: 8 here, 16 there"),
        ({"config": {"label_smoothing_factor": 0.1}}, "label_smoothing_factor: 0.1 here, 0.0 there"),
        ({"config": {"max_steps": 3}}, "max_steps: 3 here, -1 there"),
        ({"config": {"positive_label": "ham"}}, "positive_label: 0 here, 1 there"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_another_sweep_in_the_folder_is_refused_with_what_differs(
    tmp_path, train_data, eval_data, begun, change, sentence
):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "sweep.json").read_bytes()
    change = {"train_data": train_data, "eval_data": eval_data} | change
    trainer = make_sweep(tmp_path, change.pop("train_data"), change.pop("eval_data"), **change)
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert "give another output folder" in str(caught.value)
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_what_changes_no_result_may_change_when_a_sweep_resumes(tmp_path, train_data, eval_data, whole, caplog):
    stopped(tmp_path / "cut", train_data, eval_data, 1, 2)
    content = json.loads((tmp_path / "cut" / "sweep.json").read_text())
    content["versions"]["torch"] = "1.0"
    (tmp_path / "cut" / "sweep.json").write_text(json.dumps(content))
    moved = (tmp_path / "cut").rename(tmp_path / "moved")
    config = {"logging_steps": 1, "dataloader_num_workers": 1, "save_steps": 5, "run_name": "again"}
    rows = Dataset.from_list(train_data.to_list(), features=train_data.features)  # the same rows, another object
    assert finished(moved, rows, eval_data, config=config) == whole()
    assert "torch 1.0 and resumes with" in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "missing", "edited"])
def test_a_damaged_leg_is_named_and_trained_again_and_the_rest_is_kept(
    tmp_path, train_data, eval_data, whole, caplog, damage
):
    outcome = whole(copy_to=tmp_path)
    first, *others = RatioSweep.load(tmp_path).points
    file = tmp_path / first.predictions
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "missing":
        file.unlink()
    else:
        text = (tmp_path / "sweep.json").read_text()
        (tmp_path / "sweep.json").write_text(text.replace(f'"tp": {first.tp},', f'"tp": {first.tp + 1},', 1))
    if damage != "edited":
        charted = RatioSweep.load(tmp_path)
        assert len(charted.curve("f1")["ratio"]) == 3
        plot_sweep(charted, tmp_path)
    stop = Stop()
    assert finished(tmp_path, train_data, eval_data, stop) == outcome
    assert stop.steps == steps_of(0)
    assert (str(file) if damage != "edited" else f"{first.predictions} does not give the metrics") in caplog.text
    assert [point.seconds for point in RatioSweep.load(tmp_path).points[1:]] == [point.seconds for point in others]


def test_a_damaged_sweep_file_is_refused_and_nothing_is_touched(tmp_path, train_data, eval_data):
    stopped(tmp_path, train_data, eval_data, 2, 2)
    os.truncate(tmp_path / "sweep.json", 200)
    files = touched(tmp_path)
    with pytest.raises(InvalidInputError, match="cannot be read as JSON"):
        make_sweep(tmp_path, train_data, eval_data).train()
    assert touched(tmp_path) == files


def touched(folder):
    """When every file was last written; the lock, which is empty, some versions of filelock open for writing."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".sweep.lock"]
    return {file: file.stat().st_mtime_ns for file in files}


def hold(folder, connection):
    with locked(folder):
        connection.send("held")
        time.sleep(600)


def test_two_processes_do_not_sweep_into_one_folder_and_death_frees_it(tmp_path, train_data, eval_data):
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, its))
    process.start()
    try:
        assert ours.poll(60)
        stop = Stop()
        with pytest.raises(InvalidInputError, match=f"another process is sweeping into {tmp_path}"):
            make_sweep(tmp_path, train_data, eval_data, stop).train()
        assert not stop.steps
    finally:
        process.kill()
        process.join()
    make_sweep(tmp_path, train_data, eval_data, stop, sweep={"ratios": [1]}).train()
    assert len(stop.steps) == STEPS


@contextmanager
def small_disk(path: Path, size: str):
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True
    ).returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize(
    ("config", "legs", "room", "what"),
    [(EVERY_THIRD_STEP, 1, 40_000, "a checkpoint in"), ({}, 2, 0, "leg-02")],
    ids=["checkpoint", "predictions"],
)
def test_a_full_disk_loses_nothing_and_says_what_could_not_be_written(
    tmp_path, train_data, eval_data, whole, config, legs, room, what
):
    class Fill(TrainerCallback):
        """Leaves no room for a file, or only for a small one, once so many legs are done."""

        def on_step_end(self, args, state, control, **kwargs):
            if args.weight_ratio == RATIOS[legs] and state.global_step == 1:
                with open(tmp_path / "disk" / "filler", "wb", buffering=0) as filler, suppress(OSError):
                    while True:
                        filler.write(b"0" * 1024)
                os.truncate(filler.name, os.path.getsize(filler.name) - room)

    with small_disk(tmp_path / "disk", "8m") as disk:
        trainer = make_sweep(disk / "cut", train_data, eval_data, Fill(), config=config)
        with pytest.raises(SweepStoppedError, match=f"{what}.* could not be written.*{legs} of 3 legs") as caught:
            trainer.train()
        assert "\n" not in str(caught.value)
        assert "free some space" in str(caught.value)
        assert len(RatioSweep.load(disk / "cut").points) == legs
        (disk / "filler").unlink()
        stop = Stop()
        assert finished(disk / "cut", train_data, eval_data, stop, config=config) == whole(config=config)
        assert stop.steps[0] == (legs, 1)


class Explode(TrainerCallback):
    """Makes the loss of one ratio's legs NaN, by a weight, as a learning rate that is too high does."""

    def __init__(self, ratio) -> None:
        self.ratio = ratio

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if args.weight_ratio == self.ratio and state.global_step == 5:
            model.classifier.weight.data[0, 0] = float("nan")


@pytest.mark.parametrize("config", [{}, {"save_strategy": "epoch", "eval_strategy": "epoch"}], ids=["", "epoch"])
def test_a_leg_whose_loss_is_nan_is_recorded_as_failed_and_the_next_resumes(
    tmp_path, train_data, eval_data, config, caplog
):
    expected = finished(tmp_path / "without", train_data, eval_data, config=config, sweep={"ratios": [0.5, 30]})
    trainer = make_sweep(tmp_path / "sweep", train_data, eval_data, Explode(4), config=config)
    trainer.train()
    sweep = RatioSweep.load(tmp_path / "sweep")
    assert [point.ratio for point in sweep.points] == [0.5, 30]
    (failed,) = sweep.failed
    assert (failed.ratio, failed.seed, failed.global_step) == (4, 1, STEPS)
    assert "the loss is nan" in failed.reason
    assert failed.reason in caplog.text
    for point, of_the_other in zip(sweep.points, RatioSweep.load(tmp_path / "without").points, strict=True):
        assert np.array_equal(
            sweep.predictions(point)[0], RatioSweep.load(tmp_path / "without").predictions(of_the_other)[0]
        )
    assert parameters(trainer.model).tolist() == expected[2]
    assert "failed" in reports.text.table(sweep).splitlines()[2]
    assert "Failed. At w_r = 4 with seed 1: the loss is nan" in reports.text.summary(sweep)
    axes = plot_sweep(sweep)["precision_recall"].axes[0]
    assert "missing: training failed at 4" in [text.get_text() for text in axes.get_legend().get_texts()]
    precision = next(line for line in axes.lines if line.get_label() == "precision")
    assert np.isnan(precision.get_ydata()[1])

    stop = Stop()
    again = make_sweep(tmp_path / "sweep", train_data, eval_data, stop, config=config)
    again.train()
    assert not stop.steps
    assert RatioSweep.load(tmp_path / "sweep") == sweep


def test_a_search_ends_where_its_leg_fails(tmp_path, train_data, eval_data):
    trainer = make_sweep(
        tmp_path, train_data, eval_data, sweep={"ratios": RatioSearch(max_legs=5), "choose": "recall>=0.99"}
    )
    first = trainer.weights_at(None).ratio
    trainer.add_callback(Explode(first))
    trainer.train()
    sweep = RatioSweep.load(tmp_path)
    assert not sweep.points
    assert [leg.ratio for leg in sweep.failed] == [first]


def test_disk_holds_at_most_two_models_and_the_best_and_memory_does_not_grow(tmp_path):
    code = f"""
import gc, resource, sys; sys.path[:0] = {[str(ROOT / "tests" / room) for room in ("", "sweep", "training", "weighting")]}
import test_resume as t; from conftest import make_data; from pathlib import Path
class Watch(t.TrainerCallback):
    most, peaks, legs = 0, [], 0
    def look(self, args, state, control, **kwargs):
        self.most = max(self.most, len(list(Path(args.output_dir).parent.glob("leg-*/*/model.safetensors"))))
    on_save = on_step_end = look
    def on_predict(self, args, state, control, **kwargs):
        self.look(args, state, control); self.peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
watch = Watch()
sweep = {{"ratios": [1.2**i for i in range(-10, 30)]}}
config = t.EVERY_THIRD_STEP | {{"save_total_limit": 1, "per_device_train_batch_size": 32}}
gc.freeze()
t.make_sweep({str(tmp_path)!r}, make_data(192, 0), make_data(100, 1), watch, config=config, sweep=sweep).train()
print(watch.most, len(watch.peaks), watch.peaks[-1] / watch.peaks[1])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    models, legs, growth = map(float, run.stdout.splitlines()[-1].split())
    assert legs == 40
    assert models <= 4  # the best so far, the finished one, and of the running leg a checkpoint and its successor
    assert growth < 1.05


@dataclass
class Own(WeightedLossConfig):
    api_key: str = "secret"


def test_a_record_holds_no_arguments_but_the_trainers(tmp_path, train_data, eval_data):
    WeightedLossTrainer(
        model=make_model(),
        args=Own(str(tmp_path), **quiet_args()),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=[RatioSweepCallback(ratios=[1])],
    ).train()
    text = (tmp_path / "sweep.json").read_text()
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert RatioSweep.load(tmp_path).arguments["learning_rate"] == 5e-5


def test_a_datasets_digest_is_that_of_its_rows(train_data, tmp_path):
    digest = of_dataset(train_data)
    for size in (7, 100):  # however it is cut into pieces
        file = str(tmp_path / f"{size}.arrow")
        train_data.map(lambda row: row, cache_file_name=file, writer_batch_size=size)
        assert of_dataset(Dataset.from_file(file)) == digest
    paths = [
        Dataset.from_dict({"image": [{"bytes": None, "path": f"/{folder}/cat.png"}, {"bytes": b"x", "path": None}]})
        for folder in ("a", "b/c")
    ]
    assert of_dataset(paths[0]) == of_dataset(paths[1])
    again = Dataset.from_list(train_data.to_list(), features=train_data.features)
    assert of_dataset(again) == digest
    assert of_dataset(train_data.select(range(len(train_data)))) == digest
    assert of_dataset(train_data.with_transform(lambda rows: rows)) == digest
    assert of_dataset(train_data.shuffle(seed=1)) != digest
    assert of_dataset(train_data.select(range(191))) != digest


@pytest.mark.parametrize("task", ["task-two_classes", "task-images"])
def test_the_chosen_model_is_loaded_back_whatever_the_file_calls_its_weights(tmp_path, task):
    """Transformers saves a ViT under other names than the model has in memory."""
    mode = MODES[task]

    def make(folder, stop=None):
        return make_sweep(
            folder, mode.data, mode.data, stop, model=mode.model(), data_collator=mode.collator,
            config={"save_strategy": "steps", "save_steps": 2},
        )  # fmt: skip

    whole = make(tmp_path / "whole")
    whole.train()
    sweep = RatioSweep.load(tmp_path / "whole")
    kept = sweep.predictions(sweep.kept_point)[0]
    assert np.abs(whole.predict(mode.data).predictions - kept).max() < 1e-5
    assert np.ptp([sweep.predictions(point)[0] for point in sweep.points], axis=0).max() > 1e-2
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", Stop(1, 5)).train()
    stop = Stop()
    again = make(tmp_path / "cut", stop)
    again.train()
    assert stop.steps[0] == (1, 5 if task == "task-two_classes" else 1)
    assert torch.equal(parameters(again.model), parameters(whole.model))
