"""What trackers have of a sweep. Those that are not installed here are skipped: pip install wandb mlflow-skinny trackio."""

import json
import os
import sqlite3

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_sweep import make_sweep
from transformers import TrainerCallback
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

from weighloss import RatioSweepCallback

pytestmark = pytest.mark.usefixtures("without_charts")

LEGS = ["leg-00_ratio-1_seed-42", "leg-01_ratio-9_seed-42"]
GIVEN = {"logging_steps": 4, "per_device_train_batch_size": 8}


@pytest.fixture
def sweep_with(tmp_path, train_data, eval_data):
    """Runs a sweep of two legs in a folder `spam_sweep` with these trackers and callbacks, and returns its results."""

    def run(report_to, *callbacks, name="spam_sweep"):
        callback = RatioSweepCallback(ratios=[1, 9])
        config = GIVEN | {"report_to": report_to}
        trainer = make_sweep(tmp_path / name, train_data, eval_data, callback, config, callbacks)
        environment = dict(os.environ)
        trainer.train()
        left = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # wandb's own
        assert left == {key: value for key, value in environment.items() if key != "WANDB_SERVICE"}
        return callback.sweep

    return run


class StopsTheSecondLeg(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if args.weight_ratio == 9 and state.global_step == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("given", ["report_to", "callback", "both", "own folder"])
def test_every_leg_is_a_run_of_its_own_in_the_tracker(tmp_path, sweep_with, given):
    callback = TensorBoardCallback()
    if given == "own folder":
        callback.logging_dir = str(tmp_path / "own")
    report_to = "tensorboard" if given in ("report_to", "both") else "none"
    sweep = sweep_with(report_to, *([] if given == "report_to" else [callback]))
    folder = tmp_path / "own" if given == "own folder" else tmp_path / "spam_sweep" / "runs"
    assert sorted(path.name for path in folder.iterdir()) == LEGS
    for run, point in zip(LEGS, sweep.points, strict=True):
        events = EventAccumulator(str(folder / run)).Reload()
        assert len(events.Scalars("train/loss")) == 3
        assert [event.value for event in events.Scalars("eval/weight_ratio")] == [point.ratio]
        assert events.Scalars("eval/plain_loss")[0].value == pytest.approx(point.eval_plain_loss)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow with a store of its own; `runs()` has status, tags, and metrics of each run by name, in their order."""
    module = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    module.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    module.set_experiment("weighloss")

    def runs():
        found = module.search_runs(search_all_experiments=True, output_format="list", order_by=["start_time"])
        client = module.MlflowClient()
        return [
            (
                run,
                {
                    name: [m.value for m in client.get_metric_history(run.info.run_id, name)]
                    for name in run.data.metrics
                },
            )
            for run in found
        ]

    module.runs = runs
    yield module
    while module.active_run() is not None:
        module.end_run()
    module.set_tracking_uri(None)


def test_mlflow_has_a_finished_run_for_each_leg_with_its_values_alone(mlflow, sweep_with):
    sweep = sweep_with("mlflow")
    runs = mlflow.runs()
    assert [run.info.run_name for run, _ in runs] == [f"spam_sweep/{leg}" for leg in LEGS]
    for (run, metrics), point in zip(runs, sweep.points, strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.tags["sweep"] == "spam_sweep"
        assert float(run.data.params["weight_ratio"]) == point.ratio
        assert metrics["eval_weight_ratio"] == [point.ratio]
        assert metrics["eval_plain_loss"] == pytest.approx([point.eval_plain_loss])
        assert len(metrics["loss"]) == 3


def test_an_open_run_of_mlflow_is_the_parent_of_the_legs_and_stays_open(mlflow, sweep_with):
    mlflow.start_run(run_name="parent")
    parent = mlflow.active_run().info.run_id
    sweep_with("none", MLflowCallback())
    assert mlflow.active_run().info.run_id == parent
    (first, metrics), *legs = mlflow.runs()
    assert (first.info.run_id, first.info.status, metrics) == (parent, "RUNNING", {})
    assert [run.info.run_name for run, _ in legs] == [f"spam_sweep/{leg}" for leg in LEGS]
    assert {run.data.tags["mlflow.parentRunId"] for run, _ in legs} == {parent}
    assert {run.info.status for run, _ in legs} == {"FINISHED"}


def test_a_leg_that_was_stopped_and_runs_again_has_a_new_run_in_mlflow(mlflow, sweep_with):
    with pytest.raises(KeyboardInterrupt):
        sweep_with("mlflow", StopsTheSecondLeg())
    assert mlflow.active_run() is None
    sweep_with("mlflow")
    runs = mlflow.runs()
    assert [run.info.run_name for run, _ in runs] == [f"spam_sweep/{leg}" for leg in (LEGS[0], LEGS[1], LEGS[1])]
    assert [metrics.get("eval_weight_ratio") for _, metrics in runs] == [[1], None, [9]]


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    module = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_RUN_GROUP", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    yield module
    module.finish()
    module.teardown()


class SeesRuns(TrainerCallback):
    """What Weights & Biases has open while each leg logs."""

    def __init__(self, wandb):
        self.wandb, self.runs = wandb, {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        run = self.wandb.run
        seen = self.runs.setdefault(
            run.id, {"name": run.name, "group": run.group, "project": run.project, "ratios": []}
        )
        seen["ratios"].append(args.weight_ratio)


@pytest.mark.parametrize("given", ["report_to", "callback"])
def test_weights_and_biases_has_a_run_for_each_leg_in_a_group_for_each_sweep(wandb, sweep_with, given):
    for name in ("first", "second"):
        seen = SeesRuns(wandb)
        trackers = {"report_to": ("wandb",), "callback": ("none", WandbCallback())}[given]
        sweep_with(*trackers, seen, name=name)
        assert wandb.run is None
        runs = list(seen.runs.values())
        assert [run["name"] for run in runs] == [f"{name}/{leg}" for leg in LEGS]
        assert {run["group"] for run in runs} == {name}
        assert [set(run["ratios"]) for run in runs] == [{1}, {9}]


def test_an_open_run_of_weights_and_biases_is_ended_and_the_legs_are_in_its_project(wandb, sweep_with):
    own, seen = wandb.init(project="mine"), SeesRuns(wandb)
    sweep_with("wandb", seen)
    assert own.id not in seen.runs
    assert {(run["project"], run["group"]) for run in seen.runs.values()} == {("mine", "spam_sweep")}
    assert len(seen.runs) == 2


def test_trackio_has_a_run_for_each_leg_with_its_values_alone(tmp_path, monkeypatch, sweep_with):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    trackio = pytest.importorskip("trackio")
    sweep = sweep_with("trackio")
    assert trackio.context_vars.current_run.get() is None
    (file,) = tmp_path.rglob("huggingface.db")
    with sqlite3.connect(file) as store:
        logged = store.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    found = {}
    for run, values in logged:
        if "eval/weight_ratio" in (values := json.loads(values)):
            found.setdefault(run, []).append(values)
    assert list(found) == [f"spam_sweep/{leg}" for leg in LEGS]
    assert {run for run, _ in logged} == found.keys()
    for (values,), point in zip(found.values(), sweep.points, strict=True):
        assert values["eval/weight_ratio"] == point.ratio
        assert values["eval/plain_loss"] == pytest.approx(point.eval_plain_loss)
