from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InvalidInputError

SWEEP_FILE = "sweep.json"
PREDICTIONS_FOLDER = "predictions"
LEGS_FOLDER = "legs"
CLASS_WEIGHTS_FILE = "class_weights.json"  # beside an adapter, which has no config of its own
LOCK_FILE = ".sweep.lock"
Split = Literal["evaluation", "test"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAYS_NO_ROOM = ("No space left on device", "File too large", "Disk quota exceeded", "PytorchStreamWriter failed")


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically: a reader finds the old file or the new one, never half of one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2) + "\n"
    _replace(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InvalidInputError
        When it is damaged.
    FileNotFoundError
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{file} cannot be read as JSON ({error}): restore it, or sweep again.") from None


def write_predictions(file: Path, logits: np.ndarray, labels: np.ndarray, metadata: Mapping[str, Any]) -> None:
    """Write logits (n_items, n_classes) and labels (n_items,) or (n_items, n_classes) of a leg as Parquet, atomically.

    Readable with `datasets.load_dataset("parquet", data_files=...)`: columns `label` (int64, or a list of them) and
    `logits` (float32 list).
    """
    table = pa.table({"label": _column(labels.astype(np.int64)), "logits": _column(logits.astype(np.float32))})
    table = table.replace_schema_metadata({key: str(value) for key, value in metadata.items()})
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, lambda temporary: pq.write_table(table, temporary))


def read_predictions(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read logits and labels as `write_predictions` wrote them: float32 and int64 arrays.

    Raises
    ------
    InvalidInputError
        When the file is missing or damaged.
    """
    try:
        table = pq.read_table(file)
        logits, labels = (table[name].combine_chunks() for name in ("logits", "label"))
        return _array(logits, np.float32), _array(labels, np.int64)
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise InvalidInputError(
            f"{file} cannot be read ({error}): restore it, push it with push_predictions=True, or sweep again."
        ) from None


def of_split(file: str, split: Split) -> str:
    """The file of predictions of the same leg on the evaluation set or on the test set."""
    return file if split == "evaluation" else file.removesuffix(".parquet") + "_test.parquet"


def is_readable(file: Path) -> bool:
    """Whether a file of predictions exists and is whole, judged by its footer, which is written last."""
    try:
        pq.read_metadata(file)
    except (OSError, pa.ArrowException):
        return False
    return True


def has_no_room(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk is full."""
    while error is not None:
        if getattr(error, "errno", None) in _NO_ROOM or any(text in str(error) for text in _SAYS_NO_ROOM):
            return True
        error = error.__cause__ or error.__context__
    return False


def _array(column: pa.Array, dtype: Any) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy().reshape(len(column), -1).astype(dtype, casting="same_kind", copy=False)
    return column.to_numpy().astype(dtype, casting="same_kind", copy=False)


def _column(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.ravel())
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[-1])


def _replace(file: Path, write: Callable[[Path], Any]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # half of a file only takes space
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(file)
        raise
    os.replace(temporary, file)
