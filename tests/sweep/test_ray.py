import json
import os
import sys
import time

import pytest
import torch
from test_resume import finished, make_sweep, stopped

from conftest import ROOT, make_model, parameters
from weighloss import InvalidInputError, RatioSearch, RatioSweep, SweepStoppedError, sweep_on_ray


def own_head():
    return make_model(seed=torch.initial_seed())


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes with a CPU each, every node processes of its own, which find the tests."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH",
            os.pathsep.join(
                [*(str(ROOT / "tests" / room) for room in ("", "sweep", "training", "weighting")), *sys.path]
            ),
        )
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else the second node is not let in
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        yield nodes.address
        nodes.shutdown()


def swept_on_ray(folder, train_data, eval_data, address=None, **given):
    """What a sweep on Ray leaves, as `finished` tells it."""
    trainer = make_sweep(folder, train_data, eval_data, **given)
    sweep_on_ray(trainer, next(trainer.runners()), address)
    content = json.loads((folder / "sweep.json").read_text())
    for point in content["points"]:
        del point["seconds"]
    predictions = {file.name: file.read_bytes() for file in folder.glob("predictions/*.parquet")}
    return content, predictions, parameters(trainer.model).tolist(), trainer.args.weight_ratio


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_eight_legs_on_two_nodes_are_bit_for_bit_those_of_the_local_sweep(tmp_path, train_data, eval_data, cluster):
    given = {"model_init": own_head, "sweep": {"ratios": [0.5, 4, 9, 30], "seeds": [1, 2]}}
    local = finished(tmp_path / "local", train_data, eval_data, **given)
    assert swept_on_ray(tmp_path / "ray", train_data, eval_data, cluster, **given) == local
    assert len(local[0]["points"]) == 8
    for chart in ("precision_recall.png", "precision_recall_plane.svg"):
        assert (tmp_path / "ray" / chart).exists()
    assert not (tmp_path / "ray" / "legs").exists()
    assert json.loads((tmp_path / "ray" / "config.json").read_text())["weight_ratio"] == local[3]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "without_charts")
def test_a_leg_that_dies_on_ray_is_told_and_the_others_are_kept(tmp_path, train_data, eval_data, cluster, monkeypatch):
    """In a sweep whose first leg was trained without Ray, and that was stopped within the second."""

    def no_second_seed():
        if torch.initial_seed() == 2 and os.environ.get("BROKEN", "1") == "1":
            raise MemoryError("this model is too large")
        return own_head()

    given = {"sweep": {"ratios": [0.5, 30], "seeds": [1, 2]}, "config": {"save_strategy": "steps", "save_steps": 2}}
    local = finished(tmp_path / "local", train_data, eval_data, model_init=own_head, **given)
    given["model_init"] = no_second_seed
    folder = tmp_path / "ray"
    stopped(folder, train_data, eval_data, 1, 3, **given)
    assert list(folder.glob("legs/leg-01*/checkpoint-2"))
    before = RatioSweep.load(folder).points
    trainer = make_sweep(folder, train_data, eval_data, **given)
    with pytest.raises(SweepStoppedError, match=r"2 of 4 legs did not finish on Ray \(.*too large.*\)") as caught:
        sweep_on_ray(trainer, next(trainer.runners()), cluster)
    assert "\n" not in str(caught.value)
    points = RatioSweep.load(folder).points
    assert [(point.ratio, point.seed) for point in points] == [(0.5, 1), (30, 1)]
    assert points[:1] == before  # not trained again
    monkeypatch.setenv("BROKEN", "0")
    assert finished(folder, train_data, eval_data, **given) == local


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_init": None}, "give the trainer model_init"),
        (
            {"sweep": {"evaluate_on": "tets"}, "eval": True},
            "evaluate_on='tets' is not among the evaluation sets 'test'",
        ),
        ({"sweep": {"ratios": RatioSearch()}}, "a search chooses its ratios one after the other"),
        ({"hidden": True}, r"is not installed: run pip install 'weighloss\[ray\]'"),
    ],
    ids=["model", "evaluation_set", "search", "not_installed"],
)
def test_what_cannot_run_on_ray_is_refused(tmp_path, train_data, eval_data, monkeypatch, change, sentence):
    if change.pop("eval", False):
        eval_data = {"test": eval_data}
    if change.pop("hidden", False):
        monkeypatch.setitem(sys.modules, "ray", None)
    change = {"model_init": own_head} | change
    if change["model_init"] is None:
        del change["model_init"]
    trainer = make_sweep(tmp_path, train_data, eval_data, **change)
    callback = next(trainer.runners())
    trainer.remove_callback(callback)
    started = time.monotonic()
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        sweep_on_ray(trainer, callback)
    assert not list(trainer.runners())
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_or_is_too_small_is_told(tmp_path, train_data, eval_data, cluster):
    trainer = make_sweep(tmp_path, train_data, eval_data, model_init=own_head)
    callback = next(trainer.runners())
    with pytest.raises(InvalidInputError, match="each leg is to have 1000 CPUs, but the cluster has"):
        sweep_on_ray(trainer, callback, cluster, cpus_per_trial=1000)
    with pytest.raises(InvalidInputError, match=r"127.0.0.1:1 cannot be reached"):
        sweep_on_ray(trainer, callback, address="127.0.0.1:1")
