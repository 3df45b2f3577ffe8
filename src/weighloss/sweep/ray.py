"""The legs of a sweep side by side on a Ray cluster: the same legs, run by `run_leg` in Ray's workers."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import InvalidInputError, SweepStoppedError, reason
from ..results.ratio_sweep import RatioSweep
from ..training.runner import TrainingRunner
from ..training.trainer import WeightedLossTrainer
from .callback import RatioSweepCallback, sweeping
from .leg import FinishedLeg, InitialState, Leg, run_leg
from .output import SweepOutput
from .progress import Progress
from .trackers import grouped_runs

_PARTS = (
    "model_init", "args", "data_collator", "train_dataset", "eval_dataset", "processing_class", "compute_metrics",
    "optimizer_cls_and_kwargs",
)  # fmt: skip


def sweep_on_ray(
    trainer: WeightedLossTrainer,
    callback: RatioSweepCallback,
    address: str | None = None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0,
) -> RatioSweep:
    """Run the legs of a sweep side by side on a Ray cluster.

    Leaves what `trainer.train()` with the callback leaves: `sweep.json`, rewritten after every leg, predictions, charts,
    and the model of the chosen leg, which the trainer holds. The results of a leg are the same, bit for bit on CPUs that
    compute with as many threads. Run again after an interruption, it trains the legs that are missing.

    Parameters
    ----------
    trainer : WeightedLossTrainer
        With `model_init`. Each leg makes a trainer from its parts; data, model and weighloss must be on every machine of
        the cluster.
    callback : RatioSweepCallback
        What to sweep over; it need not be among the callbacks of the trainer.
    address : str, optional
        Address of a running cluster, as for `ray.init`; a cluster on this machine when None.
    cpus_per_trial : int, default 1
        Number of CPUs, and of threads, of each leg.
    gpus_per_trial : float, default 0

    Raises
    ------
    InvalidInputError
        As `trainer.train()`, and when Ray is not installed, the cluster cannot be reached or is too small, the callback has
        a `RatioSearch`, or the trainer has no `model_init`.
    SweepStoppedError
        When some legs did not finish; the others are kept.
    """
    try:
        import ray
    except ImportError:
        raise InvalidInputError("Ray is not installed: run pip install 'weighloss[ray]'.") from None
    if callback.settings.search is not None:
        raise InvalidInputError(
            "a search chooses its ratios one after the other: give a list of ratios for legs on Ray."
        )
    if trainer.model_init is None:
        raise InvalidInputError("every leg on Ray makes a model of its own: give the trainer model_init, not model.")
    with sweeping(callback, trainer) as output:
        if callback not in trainer.callback_handler.callbacks:
            trainer.add_callback(callback)
        with _connected(ray, address):
            _check_resources(ray, cpus_per_trial, gpus_per_trial)
            error = _run_legs(ray, trainer, output, {"num_cpus": cpus_per_trial, "num_gpus": gpus_per_trial})
        callback.sweep = output.sweep
        if error is not None:
            done, legs = len(output.sweep.done), output.num_legs
            raise SweepStoppedError(
                f"{legs - done} of {legs} legs did not finish on Ray ({reason(error)}): the others are kept in "
                f"{output.folder}; run the same again to resume."
            ) from error
    sweep: Any = callback.sweep
    return sweep


def _run_legs(ray: Any, trainer: Any, output: SweepOutput, resources: dict[str, Any]) -> Exception | None:
    """Run the legs that are not done. Returns the error of the first one that failed."""
    parts = {name: getattr(trainer, name) for name in _PARTS}
    if trainer.compute_metrics is trainer.default_metrics:
        parts["compute_metrics"] = None  # each worker makes its own
    callbacks = [other for other in trainer.callback_handler.callbacks if not isinstance(other, TrainingRunner)]
    shared = ray.put((type(trainer), parts, callbacks, output.settings))
    task = ray.remote(**resources, max_retries=0)(_leg_on_ray)
    running = {task.remote(shared, leg, int(resources["num_cpus"])): leg for leg in output.remaining()}
    first_error: Exception | None = None
    with Progress(trainer, output) as progress:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            leg = running.pop(done)
            try:
                finished, model = ray.get(done)
            except Exception as error:  # of the leg, or of a worker that was killed
                first_error = first_error or getattr(error, "cause", None) or error
                continue
            progress.start(leg)
            if output.add_predictions(finished):
                for name, content in ray.get(model).items():
                    file = leg.model_folder / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
            output.add_point(finished)
            progress.end(finished.result)
    return first_error


def _leg_on_ray(shared: Any, leg: Leg, threads: int) -> tuple[FinishedLeg, Any]:
    """Run a leg in a worker. Returns its result and, in the object store, the files of its model."""
    import ray

    kind, parts, callbacks, settings = shared
    torch.set_num_threads(threads)
    args = replace(parts["args"], push_to_hub=False, disable_tqdm=True)  # made anew for the devices of this worker
    trainer = kind(**{**parts, "args": args}, callbacks=callbacks)
    with grouped_runs(callbacks, leg.sweep_folder.name):
        finished = run_leg(trainer, leg, settings, InitialState(trainer))
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_without_pushing(folder)
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        model = {str(file.relative_to(folder)): file.read_bytes() for file in files}
    return finished, ray.put(model)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host:  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, **({} if address else {"include_dashboard": False}))
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"the Ray cluster {address or 'of this machine'} cannot be reached ({reason(error)}): give the address that "
            "`ray start --head` printed, or none for a cluster on this machine."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_resources(ray: Any, cpus: float, gpus: float) -> None:
    there = ray.cluster_resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if there.get(name, 0) < wanted:
            raise InvalidInputError(
                f"each leg is to have {wanted:g} {name}s, but the cluster has {there.get(name, 0):g}: give each leg fewer."
            )
