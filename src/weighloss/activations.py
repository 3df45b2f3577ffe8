from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets.formatting import query_table
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from .errors import InvalidInputError
from .labels import IGNORE_INDEX, LABEL_COLUMNS, class_names
from .trunk import Trunk

logger = logging.getLogger(__name__)

LENGTH = "length"  # the column by which group_by_length groups
_WINDOW = 8  # batches whose rows are sorted by length before the trunk computes them
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def cache_activations(
    dataset: Any,
    collate: Callable[[list[Any]], Mapping[str, Any]],
    collator: ActivationCollator,
    file: Path,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    description: str = "lower layers",
    progress: bool = True,
) -> Dataset:
    """Run a dataset once through the trunk, and keep what comes out, memory-mapped, for as many epochs as you like.

    A row has the activations of its own positions, without padding, as one flat list, and everything else that `collate`
    makes of it. What the dataset or `collate` draws anew each time, such as augmentations, is drawn once.

    Parameters
    ----------
    dataset : map-style dataset
    collate : callable
        The trainer's collator, which makes the batches that the whole model is given.
    collator : ActivationCollator
        Of the trunk, whose model is not cut; it makes batches of the result.
    file : Path
        The Arrow file that is written.
    batch_size : int
    device
        That of the model.
    description : str
        For the progress bar.
    progress : bool
        Whether there is a bar.

    Returns
    -------
    datasets.Dataset

    Raises
    ------
    InvalidInputError
        When the disk lacks the room.
    """
    sample = [dataset[i] for i in np.unique(np.linspace(0, len(dataset) - 1, 16, dtype=int)).tolist()]
    per_row = np.mean([row[collator.input_name].nbytes for row in collator.rows(collate(sample), device)])
    size, free = int(1.1 * per_row * len(dataset)), shutil.disk_usage(file.parent).free
    logger.warning("The activations of %s rows take about %.2g GB of disk.", f"{len(dataset):,}", size / 1e9)
    if size > free:
        raise InvalidInputError(
            f"the activations of {len(dataset):,} rows take about {size / 1e9:.2g} GB, but {file.parent} has room for "
            f"{free / 1e9:.2g} GB: make room, keep them as float16, or preview on fewer rows."
        )
    writer, features, written = None, Features(), []
    with pa.OSFile(str(file), "wb") as sink, tqdm(total=len(dataset), desc=description, disable=not progress) as bar:
        for chunk, places in _by_length(dataset, batch_size, collator.main_input):
            rows = collator.rows(collate(chunk), device)
            columns: dict[str, list[Any]] = {
                name: [row[name] if row[name].ndim < 2 else row[name].tolist() for row in rows] for name in rows[0]
            }
            columns[LENGTH] = [np.int64(row_length(row, collator.main_input)) for row in chunk]
            written += places
            bar.update(len(chunk))
            if writer is None:
                kinds = {name: _feature(values[0]) for name, values in columns.items()}
                features = Features(kinds | _class_labels(dataset, kinds, collator))
                writer = pa.ipc.new_stream(sink, features.arrow_schema)
            writer.write_table(pa.table(columns, schema=features.arrow_schema))
        cast(Any, writer).close()
    rows = Dataset.from_file(str(file)).select(np.argsort(written))
    return _Rows(rows.data, rows.info, indices_table=rows._indices).with_format("numpy")


class _Rows(Dataset):
    """A dataset whose batches are arrays over Arrow's memory: `datasets` takes more than twice as long to format them."""

    def __getitems__(self, keys: list[int]) -> list[dict[str, np.ndarray]]:
        table = query_table(self.data, keys, indices=self._indices)
        columns = {name: _arrays(table[name].combine_chunks()) for name in table.column_names}
        return [{name: values[i] for name, values in columns.items()} for i in range(len(keys))]


def _arrays(column: Any) -> Sequence[np.ndarray]:
    if not pa.types.is_list(column.type):
        return column.to_numpy()
    if pa.types.is_list(column.type.value_type):
        return [np.array(value) for value in column.to_pylist()]
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[start:end] for start, end in itertools.pairwise(offsets)]


class ActivationCollator:
    """Makes rows of a batch that the trunk has computed, and batches of such rows for the model that is cut.

    Parameters
    ----------
    trunk : Trunk
    dtype : {"float32", "float16", "bfloat16"}
        What the activations are kept in; they are computed with in float32.
    label_names : sequence of str
        What the batches call the labels, which no trunk is given.
    is_multi_label : bool, default False
        Whether these are several labels per example, not one for each position.

    Raises
    ------
    InvalidInputError
        For another dtype.
    """

    def __init__(
        self,
        trunk: Trunk,
        dtype: str = "float32",
        label_names: Sequence[str] = LABEL_COLUMNS,
        is_multi_label: bool = False,
    ) -> None:
        if dtype not in _DTYPES:
            raise InvalidInputError(f"dtype={dtype!r} is none for activations: write one of {', '.join(_DTYPES)}.")
        self._trunk, self._dtype = trunk, dtype
        self._width, self.label_names, self.is_multi_label = trunk.width, label_names, is_multi_label
        self.input_name, self.main_input = trunk.input_name, trunk.main_input

    def __getstate__(self) -> dict[str, Any]:
        """Without the trunk, which workers of a data loader have no use for."""
        return vars(self) | {"_trunk": None}

    def rows(self, batch: Mapping[str, Any], device: str | torch.device) -> list[dict[str, np.ndarray]]:
        """The rows of a batch: the activations of its own positions as a flat array, and what else the batch has."""
        tensors = {name: value.to(device) for name, value in batch.items() if torch.is_tensor(value)}
        inputs = {name: value for name, value in tensors.items() if name not in self.label_names}
        activations = self._trunk.activations(inputs).to(_DTYPES[self._dtype]).cpu()
        if self._dtype == "bfloat16":
            activations = activations.view(torch.int16)  # the same bits, of a type that Arrow has
        positions = activations.shape[1]
        lengths = [positions] * len(activations)
        mask = tensors.get("attention_mask")
        if mask is not None and mask.shape == activations.shape[:2] and (mask[:, :-1] >= mask[:, 1:]).all():
            lengths = mask.sum(dim=1).tolist()
        rows = []
        for i, length in enumerate(lengths):
            row = {self.input_name: activations[i, :length].reshape(-1).numpy()}
            for name, value in tensors.items():
                if name != self.main_input:
                    of_positions = value.ndim > 1 and value.shape[1] == positions
                    of_positions &= not (self.is_multi_label and name in self.label_names)
                    row[name] = (value[i, :length] if of_positions else value[i]).cpu().numpy()
            rows.append(row)
        return rows

    def __call__(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """A padded batch of rows."""
        batch = {}
        for name in rows[0]:
            values = [torch.as_tensor(np.array(row[name])) for row in rows]
            if name == self.input_name:
                if self._dtype == "bfloat16":  # of a single row datasets makes whole numbers of 64 bits
                    values = [value.to(torch.int16).view(torch.bfloat16) for value in values]
                values = [value.float().reshape(-1, self._width) for value in values]
            if name != LENGTH:
                padding = IGNORE_INDEX if name in self.label_names else 0
                batch[name] = (
                    pad_sequence(values, batch_first=True, padding_value=padding)
                    if values[0].ndim
                    else torch.stack(values)
                )
        return batch


def _by_length(dataset: Any, batch_size: int, main_input: str) -> Iterator[tuple[list[Any], list[int]]]:
    """Batches of rows of about the same length, which need little padding, and the rows' places in the dataset."""
    for start in range(0, len(dataset), _WINDOW * batch_size):
        window = [dataset[i] for i in range(start, min(start + _WINDOW * batch_size, len(dataset)))]
        order = sorted(range(len(window)), key=lambda i: row_length(window[i], main_input))
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            yield [window[i] for i in places], [start + i for i in places]


def row_length(row: Any, main_input: str) -> int:
    """By what group_by_length groups a row: 0 where only the collator makes its input."""
    return len(row[main_input]) if isinstance(row, Mapping) and main_input in row else 0


def _feature(value: Any) -> Any:
    kind = Value(str(np.asarray(value).dtype))
    for _ in range(np.ndim(value)):
        kind = List(kind)
    return kind


def _class_labels(dataset: Any, kinds: Mapping[str, Any], collator: ActivationCollator) -> dict[str, Any]:
    """The labels' feature with the class names of the dataset, by what the collator calls the column."""
    name = next((name for name in collator.label_names if name in kinds), None)
    if name is None or collator.is_multi_label:
        return {}
    names = next((names for column in (name, *LABEL_COLUMNS) if (names := class_names(dataset, column))), None)
    if names is None:
        return {}
    return {name: List(ClassLabel(names=names)) if isinstance(kinds[name], List) else ClassLabel(names=names)}
