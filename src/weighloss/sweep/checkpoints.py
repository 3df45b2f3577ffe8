"""The Trainer's own checkpoints within a leg."""

from __future__ import annotations

import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..results.files import read_json
from ..training.config import UNGROUPED, has_values


def last_checkpoint(folder: Path, trainer: Any) -> Path | None:
    """The latest checkpoint in the folder of a leg from which it can resume exactly, None where there is none."""
    return next((path for path in reversed(_checkpoints(folder)) if _resumes_exactly(path, trainer)), None)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints in the folder of a leg, and the folder if nothing else is in it."""
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def has_whole_weights(folder: Path) -> bool:
    """Whether the weights in a folder were written to their end."""
    files = list(folder.glob("*.safetensors"))
    try:
        for file in files:
            with safe_open(file, framework="numpy"):  # compares its header with its size
                pass
        for index in folder.glob("*.safetensors.index.json"):
            files += [folder / name for name in set(read_json(index)["weight_map"].values())]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return False
    return bool(files) and all(file.exists() for file in files)


def _resumes_exactly(checkpoint: Path, trainer: Any) -> bool:
    args = trainer.args
    try:  # the Trainer writes its state last, but may be killed deleting a checkpoint too
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    except (OSError, ValueError, TypeError, KeyError):
        return False
    torch_files = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
    if not has_whole_weights(checkpoint) or not all(map(zipfile.is_zipfile, torch_files)):
        return False
    if args.ignore_data_skip or not all((checkpoint / name).exists() for name in (OPTIMIZER_NAME, SCHEDULER_NAME)):
        return False
    first_epoch, ended = (state.epoch or 0) < 1, state.global_step >= state.max_steps
    sampler_is_seeded = has_values(args, UNGROUPED) and args.accelerator_config.use_seedable_sampler
    seeded = sampler_is_seeded or getattr(args, "train_sampling_strategy", None) == "sequential"
    if not (first_epoch or ended or seeded):
        return False  # the order of a later epoch depends on what was drawn before
    if (checkpoint / "model.safetensors").exists():
        with safe_open(checkpoint / "model.safetensors", framework="numpy") as weights:
            # The Trainer loads weights by the names that the model has in memory; a ViT is saved under others.
            return set(weights.keys()) <= trainer.model.state_dict().keys()
    return True


def _checkpoints(folder: Path) -> list[Path]:
    paths = folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    steps = {path: path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-") for path in paths}
    return sorted((path for path, step in steps.items() if step.isdigit()), key=lambda path: int(steps[path]))
