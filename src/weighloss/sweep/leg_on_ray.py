from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .checkpoints import checkpoint_at, mark
from .driver import TrainingDriver
from .leg import FinishedLeg, KeptBy, LegEvaluation
from ..results.points import SweepPoint
from ..results.ratio_sweep import RatioSweep
from ..training.trainer import WeightedLossTrainer

_WORST = -1e9  # Ray Tune compares objectives, and NaN with nothing


class Collector:
    """Writes what the legs come to, in the folder of the process that drives the sweep, wherever the legs run."""

    def __init__(self, sweep: RatioSweep, folder: Path, output_dir: Path, best: tuple[float, int] | None) -> None:
        self._sweep, self._folder, self._output_dir = sweep, folder, output_dir
        self._best = best  # value and step of the leg whose model is kept so far

    def wants_model(self, value: float, global_step: int) -> bool:
        """Whether the model of a leg would be the one that is kept so far; of equals it is that of the first leg."""
        if math.isnan(value):
            return False
        return self._best is None or (value, -global_step) > (self._best[0], -self._best[1])

    def add(self, finished: FinishedLeg, value: float, model: dict[str, bytes] | None) -> None:
        """Write a leg: its predictions, its model where that is the one to keep, its point, in this order."""
        leg = finished.leg
        finished.write_predictions(self._folder)
        older = None
        if model is not None and self.wants_model(value, leg.global_step):
            older = None if self._best is None else checkpoint_at(self._output_dir, self._best[1])
            checkpoint = checkpoint_at(self._output_dir, leg.global_step)
            for name, content in model.items():  # the Trainer's state comes last, as in its own checkpoints
                (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
                (checkpoint / name).write_bytes(content)
            mark(checkpoint, self._sweep)
            self._best = value, leg.global_step
        self._sweep = self._sweep.with_leg(leg)
        self._sweep.save(self._folder)
        if older is not None:
            shutil.rmtree(older, ignore_errors=True)

    def result(self) -> tuple[RatioSweep, int | None]:
        """The sweep, and the step whose checkpoint is kept."""
        return self._sweep, None if self._best is None else self._best[1]


class LegOnRay(TrainingDriver):
    """Makes a trial's training one leg, and sends what it comes to to the collector."""

    def __init__(
        self,
        collector: Any,
        legs: list[tuple[float, int]],
        kept_by: KeptBy,
        keeps_last: bool,
        sweep: RatioSweep,
        threads: int,
    ) -> None:
        self._collector, self._legs, self._kept_by, self._keeps_last = collector, legs, kept_by, keeps_last
        self.sweep, self._threads = sweep, threads

    @contextmanager
    def driving(self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any, trial: Any = None) -> Iterator[Any]:
        """Set the trainer up for the trial's leg, before a model is made from the seed."""
        args = trainer.args
        self._trainer, self._number = trainer, trial.pop("leg")
        args.weight_ratio, args.seed = self._legs[self._number]
        args.num_train_epochs, args.metric_for_best_model = cast(RatioSweep, self.sweep).epochs_per_ratio, None
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
        metrics["eval_objective"] = _WORST if math.isnan(value) else value

    def _model(self, state: Any) -> dict[str, bytes]:
        """The files of a checkpoint of the model, by name."""
        with tempfile.TemporaryDirectory() as folder:
            self._trainer.save_model(folder, _internal_call=True)
            state.save_to_json(str(Path(folder) / TRAINER_STATE_NAME))
            files = sorted(Path(folder).rglob("*"), key=lambda file: file.name == TRAINER_STATE_NAME)
            return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}
