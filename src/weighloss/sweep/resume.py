"""What an earlier run left in the output folder, and whether it was the same sweep."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_model
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, SAFE_WEIGHTS_NAME

from ..errors import InvalidInputError
from ..results.files import CLASS_WEIGHTS_FILE, LOCK_FILE, SWEEP_FILE, read_json
from ..results.metrics import averaged, decisions
from ..results.points import MEASURED, SweepPoint
from ..results.ratio_sweep import RatioSweep
from ..training.threshold import remove_threshold
from .checkpoints import has_whole_weights
from .leg import Leg

logger = logging.getLogger(__name__)

_IF_THE_HEAD_IS_NEW = (
    ", and if only its head does, because that is drawn at random, load the model after transformers.set_seed() or give a "
    "model_init"
)
# What two runs of the same sweep have in common, and what it is called.
_COMPARED = {
    "counts": "counts of the training labels",
    "label_names": "names of the classes",
    "positive_label": "positive_label",
    "num_eval": "number of evaluation examples",
    "seeds": "seeds",
    "epochs_per_ratio": "epochs_per_ratio",
    "search": "search",
    "ratios": "ratios",
}


def locked(folder: Path) -> AbstractContextManager[Any]:
    """Create the output folder and lock it exclusively, until the context ends.

    Raises InvalidInputError when another process has locked it, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / LOCK_FILE).acquire(timeout=0)
    except Timeout:
        raise InvalidInputError(
            f"another process is sweeping into {folder}: wait until it ends, or give another output folder."
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{folder} cannot be written ({error}): give another output folder.") from None


def resumed_sweep(planned: RatioSweep) -> RatioSweep:
    """The planned sweep with the legs that an earlier run of it has left in its folder.

    A leg whose predictions are damaged or do not give its metrics is left out, and a warning names the file. Raises
    InvalidInputError when the folder contains another sweep, another model, or a record that cannot be read.
    """
    folder: Any = planned.folder
    if not (folder / SWEEP_FILE).exists():
        for name in (CONFIG_NAME, ADAPTER_CONFIG_NAME, SAFE_WEIGHTS_NAME, "README.md"):
            if (folder / name).exists():
                raise InvalidInputError(
                    f"{folder} contains {name}, which no sweep wrote and this would overwrite: give another output folder."
                )
        return planned
    found = RatioSweep.load(folder)
    differences = list(_differences(planned, found))
    if differences:
        raise InvalidInputError(
            f"{folder} already contains another sweep ({'; '.join(differences)}): give another output folder, or the same "
            "arguments to resume that one."
        )
    if found.versions != planned.versions:
        logger.warning(
            "%s was started with %s and resumes with %s: its legs may differ for that reason.",
            folder,
            *(", ".join(f"{name} {number}" for name, number in s.versions.items()) for s in (found, planned)),
        )
    whole = tuple(point for point in found.points if _has_its_predictions(found, point))
    kept = found.operating_point if found.kept_point in whole else None  # its model is in the folder
    ratios = planned.ratios if planned.search is None else found.ratios
    arguments = found.arguments | planned.arguments
    return replace(
        planned, ratios=ratios, points=whole, failed=found.failed, operating_point=kept,
        kept_because=found.kept_because, arguments=arguments,
    )  # fmt: skip


def model_folder(sweep: RatioSweep, leg: Leg) -> Path | None:
    """Where the model of a leg is on disk: in the folder of the leg, or else, of a finished sweep, in its output folder."""
    if has_whole_weights(leg.model_folder) and saved_weighting(leg.model_folder):
        return leg.model_folder
    kept, folder = sweep.kept_point, leg.sweep_folder
    if kept is None or (kept.ratio, kept.seed) != (leg.ratio, leg.seed) or not has_whole_weights(folder):
        return None
    return folder if saved_weighting(folder).get("weight_ratio") == leg.ratio else None


def load_weights(trainer: Any, folder: Path) -> Any:
    """Load the weights of a saved model, without its threshold, into the model of a trainer. Returns that model."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    vars(model.config).pop("threshold", None)  # of the model that the sweep started from
    if (folder / ADAPTER_CONFIG_NAME).exists():
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"), model.active_adapter)
    elif isinstance(model, PreTrainedModel):
        # Not by the names in the file: those of a ViT are not those that the model has in memory.
        dtype = torch.promote_types(model.dtype, torch.float32)
        model.load_state_dict(type(model).from_pretrained(folder, dtype=dtype).state_dict())
    else:
        load_model(model, folder / SAFE_WEIGHTS_NAME)
    if (threshold := saved_weighting(folder).get("threshold")) is not None:
        model.config.threshold = threshold
        remove_threshold(model)
    return model


def saved_weighting(folder: Path) -> dict[str, Any]:
    """What a saved model says about its weighting and its threshold, beside other things; empty where it says nothing."""
    for name in (CLASS_WEIGHTS_FILE, CONFIG_NAME):
        if (folder / name).exists():
            return read_json(folder / name)
    return {}


def _differences(planned: RatioSweep, found: RatioSweep) -> Iterator[str]:
    for name, called in _COMPARED.items():
        now, then = getattr(planned, name), getattr(found, name)
        if now != then and (name != "ratios" or planned.search is None):  # a search finds its ratios
            yield f"{called}: {_shown(now)} here, {_shown(then)} there"
    if not found.fingerprint:
        yield "it does not say of what data and model it is"
        return
    for name, digest in planned.fingerprint.items():
        if found.fingerprint.get(name) != digest:
            yield f"the {name} differs" + (_IF_THE_HEAD_IS_NEW if name == "model" else "")
    for name, value in planned.arguments.items():
        if value != found.arguments.get(name, value):  # an argument that only another version has does not count
            yield f"{name}: {_shown(value)} here, {_shown(found.arguments[name])} there"


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    texts = [f"{part:.4g}" if isinstance(part, float) else str(part) for part in value]
    return ", ".join(texts) if len(texts) < 6 else f"{len(texts)} from {texts[0]} to {texts[-1]}"


def _has_its_predictions(sweep: RatioSweep, point: SweepPoint) -> bool:
    try:
        logits, labels = sweep.predictions(point)
        measured = averaged(*decisions(logits, labels, sweep.task), sweep.task, sweep.positive_label)
        if not all(np.isclose(measured[name], getattr(point, name), rtol=1e-9, atol=0) for name in MEASURED):
            raise InvalidInputError(
                f"{point.predictions} does not give the metrics that {SWEEP_FILE} has for its leg."
            )
    except InvalidInputError as error:
        logger.warning("%s The leg with w_r = %.4g is trained again.", error, point.ratio)
        return False
    return True
