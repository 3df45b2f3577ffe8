from __future__ import annotations

import operator
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..errors import InvalidInputError

IGNORE_INDEX = -100
LABEL_COLUMNS = ("label", "labels", "label_ids")  # what transformers' collators take for the labels
_BATCH = 1_000_000  # examples whose labels are in memory at once
_HIGHEST = 1_000_000  # of a class; beyond it stand ids of other things, and counts that fill the memory
_FEW_CLASSES = 8  # as many comparisons take less time than numpy's bincount


def count_labels(dataset: Any, label_column: str | None = None, num_classes: int = 0) -> np.ndarray:
    """Number of labels of each class, −100 left out.

    Parameters
    ----------
    dataset : datasets.Dataset, or any sized dataset whose items are mappings with a label
        Of a `datasets.Dataset` only the label column is read, batch by batch from Arrow, as it is stored: whatever
        `set_transform` makes of it. What is selected or shuffled is read in the order in which it is stored. Any other
        dataset is iterated over once.
    label_column : str, optional
        The label column; `label`, `labels` or `label_ids` when None.
    num_classes : int, default 0
        Least length of the result, for classes without labels.

    Returns
    -------
    ndarray of shape (n_classes,), int64.

    Raises
    ------
    InvalidInputError
        When the dataset has no length or no label column, or a label is not an integer class id.
    """
    column = _counted_column(dataset, label_column)
    if names := class_names(dataset, column):
        num_classes = max(num_classes, len(names))
    counts = np.zeros(num_classes, dtype=np.int64)
    for batch in _label_batches(dataset, column):
        labels = _class_ids(batch, column)
        least, highest = _range(labels)
        if least < 0:
            labels = labels.filter(pc.not_equal(labels, IGNORE_INDEX))
            least, highest = _range(labels)
        if least < 0:
            raise InvalidInputError(
                f"label {least} in column {column!r} is not a class id: write ids from 0, or -100 to ignore one."
            )
        if highest > _HIGHEST:
            raise InvalidInputError(
                f"label {highest} in column {column!r} is not a class id: number the classes from 0, for example with "
                f"dataset.class_encode_column({column!r})."
            )
        more = _count(labels, max(highest + 1, len(counts)))
        more[: len(counts)] += counts
        counts = more
    return counts


def count_multi_labels(dataset: Any, label_column: str | None = None) -> np.ndarray:
    """Number of examples without and with each label of multi-label data, −100 left out.

    Parameters
    ----------
    dataset, label_column
        As for `count_labels`; every example holds one 0 or 1 per label.

    Returns
    -------
    ndarray of shape (n_labels, 2), int64: negatives and positives.

    Raises
    ------
    InvalidInputError
        As `count_labels`, and when an example has not one 0 or 1 per label.
    """
    column = _counted_column(dataset, label_column)
    counts = np.zeros((0, 2), dtype=np.int64)
    for batch in _label_batches(dataset, column):
        lengths = set(pc.list_value_length(batch).unique().to_pylist()) if _is_list(batch) else {None}
        values = _flat(batch, column)
        found = set(values.unique().to_pylist())
        if len(lengths) != 1 or None in lengths or not found <= {0, 1, IGNORE_INDEX}:
            raise InvalidInputError(
                f"the model takes several labels per example, but column {column!r} holds {batch.type} values "
                f"({', '.join(map(str, sorted(found)[:5]))} …): give a 0 or 1 for each label, such as [0, 1, 1]."
            )
        hot = values.to_numpy().reshape(len(batch), -1)
        more = np.stack([(hot == 0).sum(axis=0), (hot == 1).sum(axis=0)], axis=1)
        if len(counts) not in (0, len(more)):
            raise InvalidInputError(f"the examples of column {column!r} have {len(counts)} labels and {len(more)}.")
        counts = more if not len(counts) else counts + more
    return counts


def find_label_column(dataset: Any, label_column: str | None = None) -> str:
    """The label column: where none is named, `label`, `labels` or `label_ids`.

    Raises
    ------
    InvalidInputError
        When the dataset has no such column.
    """
    columns = column_names(dataset)
    wanted = LABEL_COLUMNS if label_column is None else (label_column,)
    for column in wanted:
        if column in columns:
            return column
    raise InvalidInputError(
        f"the dataset has no label column {' or '.join(map(repr, wanted))}: its columns are "
        f"{', '.join(map(repr, columns)) or 'none'}; rename that of the labels to 'label', or give class_counts."
    )


def column_names(dataset: Any) -> list[str]:
    """The columns of a dataset, of any but a `datasets` one the keys of its first item; none where they are unknown."""
    columns = getattr(dataset, "column_names", None)
    if columns is None and hasattr(dataset, "__len__") and len(dataset):
        with _unchanged_randomness():
            columns = list(dataset[0])
    return columns or []


def class_names(dataset: Any, label_column: str) -> list[str] | None:
    """The class names of a `ClassLabel` column, None where the column is of another kind."""
    feature: Any = (getattr(dataset, "features", None) or {}).get(label_column)
    feature = getattr(feature, "feature", feature)  # the labels of tokens are a list of ClassLabel
    return list(feature.names) if hasattr(feature, "names") else None


def label_id(label: int | str, names: Sequence[str] | None, given_as: str = "positive_label") -> int:
    """The id of a label given by name or id, as part of what `given_as` names.

    Raises
    ------
    InvalidInputError
        When no class has that name.
    """
    if names and label in names:
        return list(names).index(str(label))
    try:
        return int(label) if isinstance(label, str) else operator.index(label)
    except (ValueError, TypeError):
        known = (
            f"the classes are {', '.join(map(repr, names))}" if names else "the classes have no names here, only ids"
        )
        raise InvalidInputError(
            f"{given_as} names {label!r}, which is not a class: {known}; write one of them or an id."
        ) from None


def _counted_column(dataset: Any, label_column: str | None) -> str:
    if not hasattr(dataset, "__len__"):
        raise InvalidInputError(
            f"the labels of a {type(dataset).__name__} cannot be counted without consuming it: give the number of "
            "labels of each class as class_counts, for example class_counts=[8800, 1200]."
        )
    return find_label_column(dataset, label_column)


def _label_batches(dataset: Any, column: str) -> Iterator[pa.ChunkedArray]:
    """The labels of the examples in some order, one array per batch."""
    if hasattr(dataset, "select_columns"):
        labels, selected = dataset.data.column(column), dataset._indices
        if selected is None:
            for start in range(0, len(labels), _BATCH):
                yield labels.slice(start, _BATCH)
        else:
            for start in range(0, len(selected), _BATCH):
                yield from _at(labels, np.sort(selected.column(0).slice(start, _BATCH).to_numpy()))
    else:
        for start in range(0, len(dataset), 10_000):
            with _unchanged_randomness():
                rows = range(start, min(start + 10_000, len(dataset)))
                batch = [np.asarray(dataset[i][column]).tolist() for i in rows]
            yield pa.chunked_array([pa.array(batch)])


def _at(labels: pa.ChunkedArray, rows: np.ndarray) -> Iterator[pa.ChunkedArray]:
    """The labels of rows in ascending order: a part of the column at a time, for take() copies all that it takes from."""
    for start in range(0, len(labels), _BATCH):
        first, last = np.searchsorted(rows, [start, start + _BATCH])
        if first < last:
            yield labels.slice(start, _BATCH).take(pa.array(rows[first:last] - start))


@contextmanager
def _unchanged_randomness() -> Iterator[None]:
    """Random numbers go on as if nothing was drawn here: an augmented item draws some, and training is not to change."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _is_list(labels: pa.ChunkedArray) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(labels.type) for is_kind in kinds)


def _flat(labels: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """The labels one by one: those of an example's tokens, or its several labels, one after the other."""
    empty = 0
    while _is_list(labels):
        empty += labels.null_count
        labels = pc.list_flatten(labels)
    empty += labels.null_count
    if empty:
        raise InvalidInputError(f"column {column!r} has {empty} empty labels: drop or fill those rows first.")
    return labels.cast(pa.int8()) if pa.types.is_boolean(labels.type) else labels


def _class_ids(labels: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    labels = _flat(labels, column)
    if not pa.types.is_integer(labels.type):
        raise InvalidInputError(
            f"column {column!r} holds {labels.type} values, not class ids: turn names into ids with "
            f"dataset.class_encode_column({column!r}), or, where an example has several labels, load the model with "
            "problem_type='multi_label_classification'."
        )
    return labels


def _range(labels: pa.ChunkedArray) -> tuple[int, int]:
    """The least and the highest; where there are none, as if there was no class."""
    found = pc.min_max(labels).as_py()
    return (found["min"], found["max"]) if len(labels) else (0, -1)


def _count(labels: pa.ChunkedArray, num_classes: int) -> np.ndarray:
    """How often each of so many ids is among these."""
    if not 0 < num_classes <= _FEW_CLASSES:
        return np.bincount(labels.to_numpy(), minlength=num_classes)
    if num_classes == 2:  # the common case, and a pass less than by comparing
        positives = pc.sum(labels).as_py() or 0
        return np.array([len(labels) - positives, positives])
    counts = np.zeros(num_classes, dtype=np.int64)
    for label in range(num_classes - 1):
        counts[label] = pc.sum(pc.equal(labels, label)).as_py() or 0
    counts[-1] = len(labels) - counts.sum()  # the last needs no comparison
    return counts
