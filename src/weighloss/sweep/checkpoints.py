from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

from ..errors import InvalidInputError
from .fingerprint import of_sweep as digest
from ..results.ratio_sweep import RatioSweep
from ..results.files import read_json, write_json

CLASS_WEIGHTS_FILE = "class_weights.json"
_SWEEP_FILE = "sweep_fingerprint.json"


def checkpoint_at(output_dir: str | Path, global_step: int) -> Path:
    """The checkpoint of an optimizer step, which need not be there."""
    return Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{global_step}"


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the Trainer writes its state last, but may be killed deleting it too."""
    files = list(checkpoint.rglob("*.safetensors"))
    try:
        TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        for file in files:
            with safe_open(file, framework="numpy"):  # compares its header with its size
                pass
        for index in checkpoint.glob("*.safetensors.index.json"):
            files += [checkpoint / name for name in set(read_json(index)["weight_map"].values())]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return False
    torch_files = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
    written = all(file.exists() for file in files) and all(map(zipfile.is_zipfile, torch_files))
    return bool(files) and written and not (checkpoint / "checkpoint-is-incomplete.txt").exists()


def load_renamed(model: Any, checkpoint: str) -> bool:
    """Load the weights of a checkpoint whose file has other names for them than the model, as that of a ViT has.

    The Trainer goes by the model's own names and would leave the others as they are, whereas `from_pretrained` reads what
    `save_pretrained` wrote.

    Parameters
    ----------
    model : nn.Module
        The whole model, or one that is cut off from its trunk.
    checkpoint : str

    Returns
    -------
    bool
        Whether it was such a checkpoint; else nothing is done.
    """
    file = Path(checkpoint) / SAFE_WEIGHTS_NAME
    if not isinstance(model, PreTrainedModel) or not file.exists():
        return False
    with safe_open(file, framework="pt") as weights:
        names = set(weights.keys())
    if names <= model.state_dict().keys():
        return False
    model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=model.dtype).state_dict(), strict=False)
    return True


def mark(checkpoint: Path, sweep: RatioSweep) -> None:
    """Say in a checkpoint of which sweep it is."""
    write_json(checkpoint / _SWEEP_FILE, {"sweep": digest(sweep)})


def is_usable(checkpoint: Path, sweep: RatioSweep) -> bool:
    """Whether a checkpoint is whole, and of this very sweep."""
    try:
        return read_json(checkpoint / _SWEEP_FILE) == {"sweep": digest(sweep)} and is_whole(checkpoint)
    except (OSError, InvalidInputError):
        return False


def checkpoints_in(output_dir: str | Path) -> list[Path]:
    """The Trainer's checkpoints in a folder, by their steps."""
    found = {}
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdigit():
            found[int(step)] = path
    return [found[step] for step in sorted(found)]


def newest_within(output_dir: str | Path, sweep: RatioSweep, num_legs: int, ratio: float, epochs: int) -> Path | None:
    """The newest checkpoint from which the leg after those that are done can go on, in the first of so many epochs.

    None where there is none: without the optimizer's state a leg starts anew.
    """
    found = []
    for checkpoint in checkpoints_in(output_dir):
        if not is_usable(checkpoint, sweep) or not all(
            (checkpoint / name).exists() for name in (OPTIMIZER_NAME, SCHEDULER_NAME)
        ):
            continue
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        steps_per_leg = state.max_steps // num_legs
        step = state.global_step - len(sweep.done) * steps_per_leg
        if 0 < step < steps_per_leg and step * epochs <= steps_per_leg and _ratio_of(checkpoint) == ratio:
            found.append((step, checkpoint))
    return max(found)[1] if found else None


def write_state(folder: Path, trainer: Any, global_step: int, max_steps: int, train_batch_size: int) -> None:
    """Write the state that a Trainer has after so many of its steps, from which `Trainer.train` goes on; no weights."""
    # Its next checkpoint looks for every callback that has a state among these.
    handlers = [*trainer.callback_handler.callbacks, trainer.control]
    stateful: Any = [handler for handler in handlers if isinstance(handler, ExportableState)]
    state = TrainerState(
        global_step=global_step,
        max_steps=max_steps,
        train_batch_size=train_batch_size,
        stateful_callbacks=stateful,
    )
    state.compute_steps(trainer.args, max_steps)
    state.save_to_json(str(folder / TRAINER_STATE_NAME))


def _ratio_of(checkpoint: Path) -> float | None:
    """The weight ratio that a checkpoint says it was trained with."""
    for name in (CONFIG_NAME, CLASS_WEIGHTS_FILE):
        try:
            ratio = read_json(checkpoint / name).get("weight_ratio")
        except (FileNotFoundError, InvalidInputError):
            continue
        if ratio is not None:
            return ratio
    return None
