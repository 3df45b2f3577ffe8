from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from tqdm.auto import tqdm
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .checkpoints import checkpoint_at, mark
from .checks import check_sweep
from .errors import InvalidInputError, SweepStoppedError, reason
from .leg import FinishedLeg, KeptBy, LegEvaluation
from .plan import BegunSweep, SweepPlan
from .point import FailedLeg, SweepPoint
from .record import RatioSweep
from .search import RatioSearch
from .store import write_predictions
from .sweep import RatioSweepCallback
from .trainer import TrainingDriver, WeightedLossTrainer

_WORST = -1e9  # Ray Tune compares objectives, and NaN with nothing


def sweep_on_ray(
    trainer: WeightedLossTrainer,
    callback: RatioSweepCallback,
    address: str | None = None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0,
) -> RatioSweep:
    """Run the legs of a sweep side by side, each as a trial of Ray Tune, through `Trainer.hyperparameter_search`.

    What is left is what `trainer.train()` with the callback leaves: `sweep.json`, written anew after every leg,
    predictions, charts, and the model of the leg that is kept, in the trainer. A leg's figures are the same, bit for bit
    on CPUs that compute with as many threads. Called again after an interruption it trains the legs that are missing.

    Parameters
    ----------
    trainer : WeightedLossTrainer
        With `model_init`; data, model and weighloss must be on every machine of the cluster.
    callback : RatioSweepCallback
        What to sweep over; it need not be among the trainer's callbacks.
    address : str, optional
        Of a running cluster, as for `ray.init`; a cluster on this machine when None.
    cpus_per_trial : int, default 1
        What each leg gets; it computes with as many threads as it has CPUs.
    gpus_per_trial : float, default 0
        What each leg gets.

    Returns
    -------
    RatioSweep

    Raises
    ------
    InvalidInputError
        As `trainer.train()`, and when Ray is not installed, the cluster cannot be reached or is too small, the ratios are
        searched for one after the other, or the trainer has no `model_init`.
    SweepStoppedError
        When some legs did not come to their end; the others are kept.
    """
    try:
        import ray
    except ImportError:
        raise InvalidInputError(
            "legs on Ray need Ray Tune, which is not installed: run pip install 'weighloss[ray]'."
        ) from None
    if isinstance(callback.ratios, RatioSearch):
        raise InvalidInputError(
            "a search takes its ratios one after the other: give a list of ratios for legs on Ray."
        )
    if callback.preview:
        raise InvalidInputError("a preview trains in one process, from activations on its disk: leave Ray out.")
    if trainer.model_init is None:
        raise InvalidInputError("legs on Ray start from a model of their own: give the trainer model_init, not model.")
    check_sweep(callback, trainer)
    plan, args = SweepPlan(callback, trainer), trainer.args
    keeps_last = not args.load_best_model_at_end
    with ExitStack() as stack:
        begun = stack.enter_context(plan.begun(plan.model_digest()))
        stack.enter_context(_connected(ray, address))
        _check_resources(ray, cpus_per_trial, gpus_per_trial)
        collector = _beside_this_process(
            ray, _Collector, begun, plan.folder.absolute(), Path(args.output_dir).absolute(), keeps_last
        )
        legs = plan.legs_of(begun.sweep)
        done = {(leg.ratio, leg.seed) for leg in begun.sweep.done}
        missing = [i for i, leg in enumerate(legs) if leg not in done]
        leg = _Leg(collector, legs, plan.kept_by, keeps_last, begun.sweep.epochs_per_ratio, cpus_per_trial)
        stopped_by = _run_trials(trainer, callback, leg, missing, {"cpu": cpus_per_trial, "gpu": gpus_per_trial})
        sweep, kept = ray.get(collector.result.remote())
        callback.sweep = sweep
        trainer.model = trainer.model_wrapped = trainer.call_model_init().to(args.device)  # Ray's search takes it away
        if callback not in trainer.callback_handler.callbacks:
            trainer.add_callback(callback)
        if len(sweep.done) < len(legs):
            raise SweepStoppedError(
                f"{len(legs) - len(sweep.done)} legs came to nothing on Ray ({reason(stopped_by)}): {len(sweep.done)} of "
                f"{len(legs)} are done and kept in {plan.folder}; run the same again to go on."
            ) from stopped_by
        if kept is not None:
            callback.sweep = plan.with_kept(sweep, kept, is_best=not keeps_last)
            trainer.state.best_model_checkpoint = str(checkpoint_at(args.output_dir, kept))
            trainer._load_best_model()
            args.weight_ratio = callback.sweep.kept_point.ratio
        trainer.record_class_weights()
        if plan.kept_by.requirement is not None:
            trainer.model.config.update({"requirement": plan.kept_by.requirement.text})
        callback.sweep.save(plan.folder)
        if sweep.points:
            from .plot import plot_sweep  # here, since matplotlib takes longer to import than all of weighloss

            plot_sweep(callback.sweep, plan.folder)
    return callback.sweep


def _run_trials(
    trainer: WeightedLossTrainer,
    callback: RatioSweepCallback,
    leg: _Leg,
    numbers: list[int],
    resources: dict[str, float],
) -> Exception:
    """Train these legs; what kept the first that did not come to its end from it is returned."""
    from ray import tune

    ended: Exception = RuntimeError("they were stopped")
    if not numbers:
        return ended
    args, num_gpus = trainer.args, trainer.args.n_gpu
    storage = Path(args.output_dir).absolute() / "_ray"

    class Progress(tune.Callback):
        failed: Any = None

        def setup(self, *_: Any, **__: Any) -> None:
            self.bar = tqdm(total=len(numbers), desc="legs", disable=args.disable_tqdm)

        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            self.bar.update()

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self.failed = self.failed or trial

        def on_experiment_end(self, *_: Any, **__: Any) -> None:
            self.bar.close()

    progress = Progress()
    with suppress(ValueError):
        trainer.remove_callback(callback)
    trainer.add_callback(leg)
    # Else it holds data loaders of a training before, which do not pickle.
    trainer.accelerator.gradient_state.dataloader_references = [None]
    try:
        trainer.hyperparameter_search(
            hp_space=cast(Any, lambda _: {"leg": tune.grid_search(numbers)}),
            compute_objective=lambda metrics: metrics["eval_objective"],
            n_trials=1,
            direction="maximize",
            backend="ray",
            resources_per_trial=resources,
            storage_path=str(storage),
            verbose=0,
            reuse_actors=True,  # else torch is loaded anew for every leg
            callbacks=[progress],
        )
    except Exception as error:  # a leg's, or of what Ray Tune makes of trials that a signal ended
        ended = error
        if progress.failed is not None and os.path.exists(progress.failed.error_file or ""):
            ended = RuntimeError(Path(progress.failed.error_file).read_text().strip().splitlines()[-1])
    finally:
        trainer.remove_callback(leg)
        args._n_gpu = num_gpus
        trainer.hp_search_backend = None
        shutil.rmtree(storage, ignore_errors=True)
    return ended


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
            "`ray start --head` said, or none for a cluster on this machine."
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
                f"each leg is to have {wanted:g} {name}s, but the cluster has {there.get(name, 0):g}: give it fewer."
            )


def _beside_this_process(ray: Any, kind: type, *args: Any) -> Any:
    """An actor on the machine of this process, whose disk it writes to."""
    node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=node).remote(*args)


class _Collector:
    """Writes what the legs come to, in the folder of the process that drives the sweep, wherever the legs run."""

    def __init__(self, begun: BegunSweep, folder: Path, output_dir: Path, keeps_last: bool) -> None:
        self._sweep, self._folder, self._output_dir = begun.sweep, folder, output_dir
        self._best = None if begun.best is None or keeps_last else (begun.best[1], -begun.best[0].global_step)
        if keeps_last and begun.checkpoint is not None:  # of the last leg
            self._best = 0.0, -begun.sweep.done[-1].global_step

    def wants_model(self, value: float, global_step: int) -> bool:
        """Whether the model of a leg would be the one that is kept so far; of equals it is that of the first leg."""
        return value == value and (self._best is None or (value, -global_step) > self._best)

    def add(self, finished: FinishedLeg, value: float, model: dict[str, bytes] | None) -> None:
        """Write a leg: its predictions, its model where that is the one to keep, its point, in this order."""
        leg = finished.leg
        if not isinstance(leg, FailedLeg):
            of = {"weight_ratio": leg.ratio, "seed": leg.seed}
            write_predictions(self._folder / leg.predictions, finished.logits, finished.labels, of)
        older = None
        if model is not None and self.wants_model(value, leg.global_step):
            older = None if self._best is None else checkpoint_at(self._output_dir, -self._best[1])
            checkpoint = checkpoint_at(self._output_dir, leg.global_step)
            for name, content in model.items():  # the Trainer's state comes last, as in its own checkpoints
                (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
                (checkpoint / name).write_bytes(content)
            mark(checkpoint, self._sweep)
            self._best = value, -leg.global_step
        self._sweep = self._sweep.with_leg(leg)
        self._sweep.save(self._folder)
        if older is not None:
            shutil.rmtree(older, ignore_errors=True)

    def result(self) -> tuple[RatioSweep, int | None]:
        """The sweep, and the step whose checkpoint is kept."""
        return self._sweep, None if self._best is None else -self._best[1]


class _Leg(TrainingDriver):
    """Makes a trial's training one leg, and sends what it comes to to the collector."""

    def __init__(
        self,
        collector: Any,
        legs: list[tuple[float, int]],
        kept_by: KeptBy,
        keeps_last: bool,
        epochs: int,
        threads: int,
    ) -> None:
        self._collector, self._legs, self._kept_by, self._keeps_last = collector, legs, kept_by, keeps_last
        self._epochs, self._threads = epochs, threads

    @contextmanager
    def driving(self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any, trial: Any = None) -> Iterator[Any]:
        """Set the trainer up for the trial's leg, before a model is made from the seed."""
        args = trainer.args
        self._trainer, self._number = trainer, trial.pop("leg")
        args.weight_ratio, args.seed = self._legs[self._number]
        args.num_train_epochs, args.metric_for_best_model = self._epochs, None
        args.save_strategy, args.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
        torch.set_num_threads(self._threads)
        self._evaluation, self._started = LegEvaluation(trainer), time.perf_counter()
        yield resume_from_checkpoint

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for the leg's evaluation."""
        if state.global_step == state.max_steps:
            self._evaluation.expect()
            control.should_evaluate = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Send the leg away."""
        import ray

        if not self._evaluation.is_of_leg:
            return
        finished = self._evaluation.finished(
            metrics,
            eval_dataloader,
            self._number,
            global_step=self._number * state.max_steps + state.global_step,
            seconds=time.perf_counter() - self._started,
        )
        value = self._kept_by.value(finished)
        if self._keeps_last and isinstance(finished.leg, SweepPoint):
            value = float(self._number)
        wanted = ray.get(self._collector.wants_model.remote(value, finished.leg.global_step))
        ray.get(self._collector.add.remote(finished, value, self._model(state) if wanted else None))
        metrics["eval_objective"] = value if value == value else _WORST

    def _model(self, state: Any) -> dict[str, bytes]:
        """The files of a checkpoint of the model, by name."""
        with tempfile.TemporaryDirectory() as folder:
            self._trainer.save_model(folder, _internal_call=True)
            state.save_to_json(str(Path(folder) / TRAINER_STATE_NAME))
            files = sorted(Path(folder).rglob("*"), key=lambda file: file.name == TRAINER_STATE_NAME)
            return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}
