from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging as hf_logging

from ..errors import InvalidInputError, SweepStoppedError
from ..results.files import has_no_room
from ..results.ratio_sweep import RatioSweep
from ..results.sweep_data import Thresholds
from ..training.config import changed
from ..training.runner import TrainingRunner
from ..training.threshold import apply_threshold, last_bias, threshold_vector
from ..training.trainer import WeightedLossTrainer
from .leg import InitialState, run_leg
from .output import SweepOutput
from .progress import Progress
from .resume import load_weights, locked, model_folder, resumed_sweep, saved_weighting
from .search import RatioSearch
from .settings import SweepSettings
from .trackers import grouped_runs

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class RatioSweepCallback(TrainingRunner):
    """Turn `WeightedLossTrainer.train()` into a sweep over weight ratios.

    A leg is one fine-tune at one ratio and seed: one call of the base `Trainer.train()` from what a fresh run starts from,
    so that it equals the stand-alone fine-tune bit for bit, with everything that the Trainer can do. After each leg its
    predictions and its point are on disk, with its model if it is the best so far. A sweep that is run again resumes: with
    the legs that are missing, and within a leg with the checkpoint of the Trainer.

    At the end the trainer holds the model of the leg that `choose` chooses, with its threshold (see `apply_threshold`), and
    it is saved in the output folder, beside the charts. `num_train_epochs` of the arguments is not used; with `max_steps`
    every leg has as many steps.

    Parameters
    ----------
    ratios : sequence of float or str, or RatioSearch, optional
        Ratios to sweep over, as numbers or names (see `ClassWeights.from_counts`); `ratio_grid(natural_ratio, num_ratios,
        ratio_span)` when None. A `RatioSearch` chooses them one after the other for the requirement, with one seed.
    seeds : sequence of int, optional
        One fine-tune per ratio with each; `[args.seed]` when None. A seed decides the order of the data and dropout and,
        for a trainer with `model_init`, the initial weights of the head.
    epochs_per_ratio : int, default 1
    num_ratios, ratio_span : int, default 7, and float, default 10
        As for `ratio_grid`.
    choose : str, optional
        Requirement that chooses the leg, and its threshold, whose model the trainer holds at the end: see
        `RatioSweep.choose`. When None, the leg with the highest F1 as it was trained.
    threshold : {"any", "argmax"}, default "any"
        "argmax" lets `choose` choose among the trained ratios alone, so that the model decides as it was trained.
    test_dataset : Dataset, optional
        Held-out data on which each leg is measured too, for `reports.compare_with_threshold`. Nothing is chosen on it.
    output_dir : path, optional
        Output folder of the sweep; `args.output_dir` when None.
    dataset_name : str, optional
        Name of the data in the record; the name that `datasets` has for it when None.
    evaluate_on : str, optional
        Where `eval_dataset` is a dictionary, the name of the evaluation set that decides; the first when None.

    Attributes
    ----------
    settings : SweepSettings
        These parameters.
    sweep : RatioSweep or None
        The results so far.

    Raises
    ------
    InvalidInputError
        When a parameter is not valid; from `train()`, before anything is trained, when the sweep cannot be run.
    """

    def __init__(
        self,
        ratios: Sequence[float | str] | RatioSearch | None = None,
        seeds: Sequence[int] | None = None,
        epochs_per_ratio: int = 1,
        num_ratios: int = 7,
        ratio_span: float = 10.0,
        choose: str | None = None,
        threshold: Thresholds = "any",
        test_dataset: Any = None,
        output_dir: str | Path | None = None,
        dataset_name: str | None = None,
        evaluate_on: str | None = None,
    ) -> None:
        self.settings = SweepSettings(
            ratios, seeds, epochs_per_ratio, num_ratios, ratio_span, choose, threshold, test_dataset, output_dir,
            dataset_name, evaluate_on,
        )  # fmt: skip
        self.sweep: RatioSweep | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse a trainer that does not hand its training over."""
        raise InvalidInputError("RatioSweepCallback needs a WeightedLossTrainer: use it in place of this Trainer.")

    def run(self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any = None, trial: Any = None) -> TrainOutput:
        """Run the sweep, or what remains of it: called by `WeightedLossTrainer.train`."""
        started = time.perf_counter()
        with sweeping(self, trainer, resume_from_checkpoint, trial) as output:
            initial = InitialState(trainer)
            runs = grouped_runs(trainer.callback_handler.callbacks, output.folder.name)
            with changed(trainer.args, push_to_hub=False), runs:
                try:
                    steps, losses = self._run_legs(trainer, output, initial)
                except BaseException as error:
                    initial.restore()  # another train() starts where this one did
                    _say_what_is_kept(error, output)
                    raise
            del initial  # with its copy of the weights
        metrics = {"train_runtime": time.perf_counter() - started}
        return TrainOutput(steps, float(np.mean(losses)) if losses else math.nan, metrics)

    def _run_legs(
        self, trainer: WeightedLossTrainer, output: SweepOutput, initial: InitialState
    ) -> tuple[int, list[float]]:
        """Run the legs that are not done. Returns their number of steps in all, and the training loss of each."""
        steps, losses = 0, []
        with Progress(trainer, output) as progress:
            while legs := on_main_process(trainer, output.remaining):
                leg = legs[0]
                progress.start(leg)
                finished = run_leg(trainer, leg, self.settings, initial)
                if on_main_process(trainer, output.add_predictions, finished):
                    trainer.save_without_pushing(str(leg.model_folder))
                self.sweep = on_main_process(trainer, output.add_point, finished)
                progress.end(finished.result)
                steps += trainer.state.global_step
                losses += [entry["train_loss"] for entry in trainer.state.log_history if "train_loss" in entry]
        return steps, losses


@contextmanager
def sweeping(
    callback: RatioSweepCallback, trainer: WeightedLossTrainer, resume_from_checkpoint: Any = None, trial: Any = None
) -> Iterator[SweepOutput]:
    """Lock the output folder of a sweep while its legs run; at their end let the trainer hold the chosen model."""
    if any(runner is not callback for runner in trainer.runners()):
        raise InvalidInputError("the trainer has two sweeps: leave one RatioSweepCallback.")
    planned = callback.settings.planned_sweep(trainer, resume_from_checkpoint, trial)
    with ExitStack() as stack, _no_bars_for_files():
        output = on_main_process(trainer, _open_output, stack, callback.settings, planned)
        callback.sweep = output.sweep
        yield output
        callback.sweep = on_main_process(trainer, output.choose)
        _hold_chosen_model(trainer, output, callback.sweep)
        callback.sweep = on_main_process(trainer, output.finish)


def _open_output(stack: ExitStack, settings: SweepSettings, planned: RatioSweep) -> SweepOutput:
    """Lock the output folder until the stack is closed, and read what an earlier run of this sweep left in it."""
    assert planned.folder is not None
    stack.enter_context(locked(planned.folder))
    output = SweepOutput(settings, resumed_sweep(planned))
    output.sweep.save(output.folder)  # so that the checkpoints of the first leg are known to be of this sweep
    if done := len(output.sweep.done):
        logger.warning("Resuming the sweep in %s: %d of %d legs are done.", planned.folder, done, output.num_legs)
    return output


def _hold_chosen_model(trainer: Any, output: SweepOutput, sweep: RatioSweep) -> None:
    """Let the trainer hold the model of the chosen leg, and save it with the charts in the output folder."""
    rule = sweep.operating_point
    if rule is None:
        return
    leg = output.leg_of(rule.leg)
    folder: Any = model_folder(sweep, leg)
    trainer.optimizer, trainer.lr_scheduler = trainer.given_optimizers  # those of the last leg only take memory
    trainer.accelerator.free_memory()
    model, saved = load_weights(trainer, folder), saved_weighting(folder).get("threshold")
    trainer.accelerator.wait_for_everyone()  # before a process writes what another one reads
    trainer.args.weight_ratio = rule.ratio
    trainer.record_class_weights()
    threshold = threshold_vector(model, rule.threshold)
    if threshold.any():
        try:
            last_bias(model)
        except InvalidInputError as error:
            logger.warning("%s", error)
            threshold[:] = 0
    if folder == output.folder and np.any(threshold != (saved or 0)):
        folder = leg.model_folder
        trainer.save_without_pushing(str(folder))  # a kill may leave half of the model in the output folder
    apply_threshold(model, threshold.tolist())
    if folder != output.folder:
        trainer.save_without_pushing(str(output.folder))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        try:
            from ..reports.html import write_report
            from ..reports.plot import plot_sweep  # matplotlib takes longer to import than all of weighloss

            plot_sweep(sweep, output.folder)
            write_report(sweep, output.folder)
        except Exception as error:  # of matplotlib, its fonts or a browser's library: the results are not lost
            logger.warning("The charts could not be drawn: %s", error)


def on_main_process(trainer: Any, work: Callable[..., _T], *arguments: Any) -> _T:
    """Do some work in the first process only. Returns its result, or raises its refusal, in every process."""
    outcome: list[Any] = [None, None]
    if trainer.is_world_process_zero():
        try:
            outcome[0] = work(*arguments)
        except Exception as error:
            broadcast_object_list([None, str(error)])
            raise
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise InvalidInputError(outcome[1])
    return outcome[0]


@contextmanager
def _no_bars_for_files() -> Iterator[None]:
    """Let transformers show no progress bars for reading and writing model files, which would break up the sweep's own."""
    enabled = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            hf_logging.enable_progress_bar()


def _say_what_is_kept(error: BaseException, output: SweepOutput) -> None:
    """Say how to resume a sweep that an error has stopped. Raises SweepStoppedError where the disk is full."""
    done = f"{len(output.sweep.done)} of {output.num_legs} legs are done and kept in {output.folder}"
    if has_no_room(error):
        file = getattr(error, "filename", None) or f"a checkpoint in {output.folder}"
        raise SweepStoppedError(
            f"{file} could not be written because the disk is full: {done}; free some space and run the same again."
        ) from error
    if isinstance(error, KeyboardInterrupt):
        logger.warning("The sweep was stopped: %s; run the same again to resume.", done)
