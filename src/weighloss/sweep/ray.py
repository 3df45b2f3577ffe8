from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from tqdm.auto import tqdm

from .checkpoints import checkpoint_at
from .checks import check_sweep_on_ray
from ..errors import InvalidInputError, SweepStoppedError, reason
from .leg_on_ray import Collector, LegOnRay
from .settings import SweepPlan
from ..results.ratio_sweep import RatioSweep
from .callback import RatioSweepCallback
from ..training.trainer import WeightedLossTrainer


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
    check_sweep_on_ray(callback, trainer)
    plan, args = SweepPlan(callback, trainer), trainer.args
    keeps_last = not args.load_best_model_at_end
    with ExitStack() as stack:
        begun = stack.enter_context(plan.begun(plan.model_digest()))
        stack.enter_context(_connected(ray, address))
        _check_resources(ray, cpus_per_trial, gpus_per_trial)
        legs = plan.legs_of(begun.sweep)
        done = {(leg.ratio, leg.seed) for leg in begun.sweep.done}
        missing = [i for i, leg in enumerate(legs) if leg not in done]
        best = None
        if keeps_last and not missing and begun.checkpoint is not None:
            best = 0.0, begun.sweep.done[-1].global_step
        elif not keeps_last and begun.best is not None:
            best = begun.best[1], begun.best[0].global_step
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(  # to whose disk it writes
            ray.get_runtime_context().get_node_id(), soft=False
        )
        actor: Any = ray.remote(Collector)
        folders = plan.folder.absolute(), Path(args.output_dir).absolute()
        collector = actor.options(num_cpus=0, scheduling_strategy=here).remote(begun.sweep, *folders, best)
        leg = LegOnRay(collector, legs, plan.kept_by, keeps_last, begun.sweep, cpus_per_trial)
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
        callback.sweep.save(plan.folder)
        plan.draw_charts(callback.sweep)
    return callback.sweep


def _run_trials(
    trainer: WeightedLossTrainer,
    callback: RatioSweepCallback,
    leg: LegOnRay,
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
    callbacks = trainer.callback_handler.callbacks
    trainer.callback_handler.callbacks = [*(other for other in callbacks if other is not callback), leg]
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
        trainer.callback_handler.callbacks = callbacks  # Ray's search takes TensorBoard's away
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
