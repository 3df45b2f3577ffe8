"""One run for each leg in TensorBoard, Weights & Biases, MLflow, Trackio and others, written by the Trainer's callbacks."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import patch_environment
from transformers import TrainerCallback
from transformers.integrations import (
    MLflowCallback,
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
    get_reporting_integration_callbacks,
)

_TRACKERS = (MLflowCallback, TensorBoardCallback, TrackioCallback, WandbCallback)  # which take no arguments


class _MLflowCallback(MLflowCallback):
    def __del__(self) -> None:
        """Do not end the run that is open, as the base class does: it may be the user's own."""


def with_new_trackers(
    callbacks: Sequence[TrainerCallback], report_to: Any, folder: Path, name: str
) -> list[TrainerCallback]:
    """The callbacks, with new trackers in the place of those that would go on with the run of the leg before.

    The event files of TensorBoard are in a folder with the name of the leg, beside those of the other legs.
    """
    kinds = (*_TRACKERS, *get_reporting_integration_callbacks(report_to))
    found: list[TrainerCallback] = []
    for given in callbacks:
        kind: Any = type(given)
        if kind not in kinds and not isinstance(given, _TRACKERS):
            found.append(given)
        elif not any(isinstance(other, kind) for other in found):  # given beside report_to: a leg has one run
            anew: Any = _MLflowCallback if kind is MLflowCallback else kind
            tracker: Any = anew() if kind in kinds else copy.copy(given)  # of a class of the user's own
            if isinstance(given, TensorBoardCallback):
                parent = given.logging_dir or getattr(given.tb_writer, "log_dir", None) or folder / "runs"
                tracker.tb_writer, tracker.logging_dir = None, str(Path(parent, name))
            found.append(tracker)
    return found


def end_runs(trainer: Any, callbacks: Sequence[TrainerCallback], stopped: bool) -> None:
    """End the runs of a leg that their callbacks leave open, at its end or where it was stopped by an error."""
    for callback in callbacks:
        if isinstance(callback, WandbCallback):
            sys.modules["wandb"].finish(exit_code=int(stopped))
        elif isinstance(callback, MLflowCallback) and stopped:
            callback.on_train_end(trainer.args, trainer.state, trainer.control)


@contextmanager
def grouped_runs(callbacks: Sequence[TrainerCallback], sweep_name: str) -> Iterator[None]:
    """Let Weights & Biases and MLflow group the runs of a sweep.

    With MLflow the legs have a tag, and a run that the user has open is their parent. Weights & Biases has one open run at
    most: that of the user is ended, and the legs are in the same project. Groups and tags of the environment stay.
    """
    variables = {
        "MLFLOW_NESTED_RUN": "TRUE",
        "MLFLOW_TAGS": os.environ.get("MLFLOW_TAGS", json.dumps({"sweep": sweep_name})),
        "WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", sweep_name),
    }
    if any(isinstance(callback, WandbCallback) for callback in callbacks):
        wandb = sys.modules["wandb"]
        if (run := wandb.run) is not None:
            of_run = {"PROJECT": run.project, "ENTITY": run.entity, "MODE": run.settings.mode}
            variables |= {f"WANDB_{name}": value for name, value in of_run.items() if value}
            wandb.finish()
        wandb.teardown()  # wandb reads the group once in a process
    with patch_environment(**variables):
        yield
