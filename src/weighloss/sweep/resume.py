from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import InvalidInputError
from ..results.metrics import decisions, precision_recall
from ..results.points import MEASURED, SweepPoint
from ..results.ratio_sweep import RatioSweep
from ..results.files import LOCK_FILE, SWEEP_FILE

logger = logging.getLogger(__name__)

_IF_THE_HEAD_IS_NEW = (
    ", and if that is only a head drawn anew, load it after transformers.set_seed() or give a model_init"
)
# What two runs of the same sweep agree on, and what it is called.
_COMPARED = {
    "counts": "the training labels' counts",
    "label_names": "the classes' names",
    "positive_label": "positive_label",
    "num_eval": "the number of evaluation examples",
    "seeds": "seeds",
    "epochs_per_ratio": "epochs_per_ratio",
    "search": "the search",
    "requirement": "the requirement to choose by",
    "preview": "layers that are trained",
}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder for a sweep and hold it: until then, or until this process dies, no other one sweeps into it.

    Raises
    ------
    InvalidInputError
        When another process holds it, or it cannot be made.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InvalidInputError(
            f"another process is sweeping into {folder}: wait until it ends, or give another output folder."
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{folder} cannot hold the sweep ({error}): give another output folder.") from None
    try:
        yield
    finally:
        lock.release()


def found_in(folder: Path, planned: RatioSweep) -> RatioSweep | None:
    """The planned sweep with the legs that an earlier run of it has left in a folder; None where there is no sweep.

    A leg whose predictions are damaged, or are not those of its point, is left out, and a warning names the file.

    Raises
    ------
    InvalidInputError
        When the folder holds another sweep, or what it holds cannot be read; it says what differs.
    """
    if not (folder / SWEEP_FILE).exists():
        return None
    found = RatioSweep.load(folder)
    differences = list(_differences(planned, found))
    if planned.requirement != found.requirement and len(differences) == 1 and planned.requirement is not None:
        raise InvalidInputError(
            f"{folder} holds this sweep with {differences[0]}. No leg needs to be trained again: ask "
            f"RatioSweep.load({str(folder)!r}).choose({planned.requirement!r}) and fine-tune at that ratio, or give "
            "another output folder."
        )
    if differences:
        raise InvalidInputError(
            f"{folder} already holds another sweep ({'; '.join(differences)}): give another output folder, or the same "
            "arguments to go on with that one."
        )
    if found.versions != planned.versions:
        logger.warning(
            "%s was begun with %s and goes on with %s: its legs may differ by that.",
            folder,
            *(", ".join(f"{name} {number}" for name, number in s.versions.items()) for s in (found, planned)),
        )
    whole = [point for point in found.points if _has_its_predictions(found, point, folder / SWEEP_FILE)]
    return replace(
        planned, points=tuple(whole), failed=found.failed, arguments=found.arguments | planned.arguments, folder=folder
    )


def _differences(planned: RatioSweep, found: RatioSweep) -> Iterator[str]:
    for name, called in _COMPARED.items():
        now, then = getattr(planned, name), getattr(found, name)
        if now != then:
            yield f"{called}: {_said(now)} here, {_said(then)} there"
    if not planned.search and planned.ratios != found.ratios:
        now, then = (_said([f"{ratio:.4g}" for ratio in sweep.ratios]) for sweep in (planned, found))
        yield f"ratios: {now} here, {then} there"
    if not found.fingerprint:
        yield "it was written by a version that did not note of what it was"
        return
    for name, digest in planned.fingerprint.items():
        if found.fingerprint.get(name) != digest:
            yield f"the {name} differs" + (_IF_THE_HEAD_IS_NEW if name == "model" else "")
    for name, value in planned.arguments.items():
        if value != found.arguments.get(name, value):  # one that only another version has is no difference
            yield f"{name}: {_said(value)} here, {_said(found.arguments[name])} there"


def _said(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(map(str, value)) if len(value) < 6 else f"{len(value)} from {value[0]} to {value[-1]}"


def _has_its_predictions(sweep: RatioSweep, point: SweepPoint, file: Path) -> bool:
    try:
        logits, labels = sweep.predictions(point)
        measured = precision_recall(**decisions(logits, labels, sweep.positive_label))
    except InvalidInputError as error:
        logger.warning("%s The leg with w_r = %.4g is trained again.", error, point.ratio)
        return False
    if any(measured[name] != getattr(point, name) for name in MEASURED):
        logger.warning(
            "%s says of w_r = %.4g what its predictions do not: that leg is trained again.",
            file,
            point.ratio,
        )
        return False
    return True
