from __future__ import annotations

import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..errors import InvalidInputError
from .task import Task

IGNORE_INDEX = -100
LABEL_COLUMNS = ("label", "labels", "label_ids")  # the columns that transformers' data collators take as labels
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
_BATCH = 1_000_000  # labels in memory at once
_HIGHEST_ID = 1_000_000  # counting up to a higher number, which is not a class id, would fill the memory


def count_labels(dataset: Any, label_column: str | None = None, num_classes: int = 0) -> np.ndarray:
    """Number of labels of each class, as an int64 ndarray of shape (n_classes,). Labels of −100 do not count.

    Parameters
    ----------
    dataset : datasets.Dataset, or any dataset with a length whose items are mappings with a label
        Of a `datasets.Dataset` only the label column is read, as it is stored (whatever `set_transform` does) and in
        constant memory. Any other dataset is read item by item.
    label_column : str, optional
        When None, `label`, `labels` or `label_ids`, whichever the dataset has.
    num_classes : int, default 0
        Minimum length of the result, for classes without labels.

    Raises
    ------
    InvalidInputError
        When the dataset has no length, no label column or several, or a label is not an integer class id.

    Examples
    --------
    >>> count_labels([{"label": 0}, {"label": 2}, {"label": -100}, {"label": 0}]).tolist()
    [2, 0, 1]
    """
    column = find_label_column(dataset, label_column)
    counts = np.zeros(max(num_classes, len(class_names(dataset, column))), dtype=np.int64)
    for batch in _label_batches(dataset, column):
        labels = _class_ids(batch, column).to_numpy()
        if (labels < 0).any():
            labels = labels[labels != IGNORE_INDEX]
        lowest, highest = (labels.min(), labels.max()) if len(labels) else (0, 0)
        if lowest < 0 or highest > _HIGHEST_ID:
            raise InvalidInputError(
                f"column {column!r} must hold class ids from 0, or -100 for labels that do not count, got "
                f"{lowest if lowest < 0 else highest}: number the classes from 0, for example with "
                f"dataset.class_encode_column({column!r})."
            )
        batch_counts = np.bincount(labels, minlength=len(counts))
        batch_counts[: len(counts)] += counts
        counts = batch_counts
    return counts


def count_multi_labels(dataset: Any, label_column: str | None = None) -> np.ndarray:
    """Number of examples without and with each label, as an int64 ndarray of shape (n_labels, 2).

    As `count_labels`, for examples that hold a 0 or 1 for each label, or −100 where it does not count. Raises
    InvalidInputError also when an example does not.
    """
    column = find_label_column(dataset, label_column)
    counts, lengths = np.zeros((0, 2), dtype=np.int64), set()
    for batch in _label_batches(dataset, column):
        values = _flat(batch, column)
        if isinstance(batch.type, _LISTS):
            lengths |= set(pc.list_value_length(batch).unique().to_pylist())
        if len(lengths) != 1 or not set(values.unique().to_pylist()) <= {0, 1, IGNORE_INDEX}:
            raise InvalidInputError(
                f"column {column!r} must hold a 0 or 1 for each label of each example, such as [0, 1, 1], because the "
                f"model has several labels per example, got {_shown(batch, values, allowed=(0, 1, IGNORE_INDEX))}."
            )
        hot = values.to_numpy().reshape(len(batch), -1)
        batch_counts = np.stack([(hot == 0).sum(axis=0), (hot == 1).sum(axis=0)], axis=1)
        counts = counts + batch_counts if len(counts) else batch_counts
    return counts


def count_classes(dataset: Any, task: Task, num_labels: int, label_name: str = "labels") -> np.ndarray:
    """Number of labels of each class of a model with `num_labels` classes, in the form of `ClassWeights.counts`.

    `label_name` is what the collator calls the labels. Raises InvalidInputError when the labels cannot be counted or are
    not classes of the model.
    """
    # A column of the name that the collator uses comes first, as the default collator takes it.
    is_named = label_name != "labels" and label_name in column_names(dataset)
    column = find_label_column(dataset, label_name if is_named else None)
    is_multi = task is Task.MULTILABEL
    counts = count_multi_labels(dataset, column) if is_multi else count_labels(dataset, column, num_labels)
    if len(counts) != num_labels:
        found, advice = f"{len(counts)} labels per example", f"load the model with num_labels={len(counts)}"
        if not is_multi:
            present = np.flatnonzero(counts)
            found = f"label ids from {present[0]} to {present[-1]}"
            if len(present) <= num_labels:
                advice = f"number the classes from 0, for example with dataset.class_encode_column({column!r})"
        raise InvalidInputError(f"column {column!r} has {found}, but the model has num_labels={num_labels}: {advice}.")
    return counts


def find_label_column(dataset: Any, label_column: str | None = None) -> str:
    """Name of the label column: `label_column`, or, if None, the one of `label`, `labels` and `label_ids` that is there.

    Raises InvalidInputError when the dataset has no such column, or several of them.
    """
    columns = column_names(dataset)
    allowed = LABEL_COLUMNS if label_column is None else (label_column,)
    found = [column for column in allowed if column in columns]
    if len(found) > 1:
        # default_data_collator prefers `labels`, then `label`; DataCollatorWithPadding prefers `label_ids`, then `label`.
        raise InvalidInputError(
            f"the dataset must have one label column, because data collators differ in which one they train on, got "
            f"{_quoted(found)}: remove all but one, for example with dataset.remove_columns({found[0]!r})."
        )
    if not found:
        if not columns:
            _check_countable(dataset)
        raise InvalidInputError(
            f"the dataset has no label column {' or '.join(map(repr, allowed))}, its items have "
            f"{_quoted(columns) or 'no known columns'}: rename the column, or give class_counts."
        )
    return found[0]


def column_names(dataset: Any) -> list[str]:
    """Columns of a dataset: its `column_names`, or else the keys of its first item; [] where they are unknown.

    Raises InvalidInputError for a `DatasetDict` or another mapping of datasets, and for a pandas `DataFrame`.
    """
    if isinstance(dataset, Mapping):
        raise InvalidInputError(
            f"the dataset is a {type(dataset).__name__} with the splits {_quoted(dataset)}: give one split, such as "
            f"data[{next(iter(dataset), 'train')!r}]."
        )
    if hasattr(dataset, "iloc"):  # of pandas
        raise InvalidInputError(
            f"the dataset is a {type(dataset).__name__}, not a list of rows: write datasets.Dataset.from_pandas(data)."
        )
    columns = getattr(dataset, "column_names", None)
    if columns is None and _has_indexed_items(dataset) and len(dataset):
        with _preserved_random_state():
            item = dataset[0]
        columns = list(item) if isinstance(item, Mapping) else None
    return columns or []


def class_names(dataset: Any, label_column: str) -> list[str]:
    """Class names of a `ClassLabel` column, [] for any other column."""
    feature: Any = (getattr(dataset, "features", None) or {}).get(label_column)
    feature = getattr(feature, "feature", feature)  # the labels of tokens are a list of ClassLabel
    return list(getattr(feature, "names", ()))


def label_id(label: int | str, names: Sequence[str], parameter: str = "positive_label") -> int:
    """Id of a class given by its name or its id. Whether a class has that id is not checked.

    Raises InvalidInputError, with `parameter` as the name of the value, when `label` is neither in `names` nor an integer.
    """
    if label in names:
        return list(names).index(str(label))
    try:
        return int(label) if isinstance(label, str) else operator.index(label)
    except (ValueError, TypeError):
        or_name = f" or one of the class names {_quoted(names)}" if names else ""
        raise InvalidInputError(f"{parameter} must be a class id{or_name}, got {label!r}.") from None


def by_id(name: str, values: Any, names: Sequence[str], num_labels: int) -> list[Any]:
    """Values in the order of the class ids; given by class name, by id, or in that order already.

    Raises InvalidInputError, with `name` as the name of the values, when there is not one for each of the classes.
    """
    if isinstance(values, Mapping):
        found = {label_id(label, names, name): value for label, value in values.items()}
    else:
        found = dict(enumerate(values)) if isinstance(values, (Sequence, np.ndarray)) else {}
    if found.keys() != set(range(num_labels)) or len(values) != num_labels:
        raise InvalidInputError(
            f"{name} must have one value for each of the {num_labels} classes ({', '.join(names)}), got {values!r}."
        )
    return [found[i] for i in range(num_labels)]


def _has_indexed_items(dataset: Any) -> bool:
    # torch's IterableDataset inherits a __getitem__ that only raises, and may have a length.
    iterable = isinstance(dataset, torch.utils.data.IterableDataset)
    return hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not iterable


def _check_countable(dataset: Any) -> None:
    if not _has_indexed_items(dataset):
        raise InvalidInputError(
            f"the labels of the dataset ({type(dataset).__name__}) cannot be counted without consuming it: give the number "
            "of labels of each class as class_counts, for example class_counts=[8800, 1200]."
        )


def _label_batches(dataset: Any, column: str) -> Iterator[pa.ChunkedArray]:
    """Labels of all examples, one array per batch, not always in the order of the examples."""
    _check_countable(dataset)
    if not hasattr(dataset, "select_columns"):  # not a datasets.Dataset
        with _preserved_random_state():
            found = [np.asarray(dataset[i][column]).tolist() for i in range(len(dataset))]
        yield pa.chunked_array([pa.array(found)])
        return
    labels = dataset.data.column(column)
    # The rows that select() or shuffle() kept. The attribute is private, but the public way, `with_format("arrow")` and
    # `iter()`, takes 17 s for 5 million shuffled labels instead of 0.2 s.
    view = dataset._indices
    for start in range(0, len(dataset), _BATCH):
        if view is None:
            yield labels.slice(start, _BATCH)
            continue
        view_rows = np.sort(view.column(0).slice(start, _BATCH).to_numpy())
        for first in range(0, len(labels), _BATCH):  # take() copies all of the array that it takes from
            part = view_rows[slice(*np.searchsorted(view_rows, [first, first + _BATCH]))]
            if len(part):
                yield labels.slice(first, _BATCH).take(pa.array(part - first))


@contextmanager
def _preserved_random_state() -> Iterator[None]:
    """Keep the random numbers of the training as they are when the items draw random numbers, as augmentation does."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _flat(labels: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """Labels of all examples one after the other, where an example has a list of labels."""
    num_empty = labels.null_count
    while isinstance(labels.type, _LISTS):
        labels = pc.list_flatten(labels)
        num_empty += labels.null_count
    if num_empty:
        raise InvalidInputError(f"column {column!r} has {num_empty} empty labels: remove or fill those rows.")
    return labels


def _class_ids(labels: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    flat = _flat(labels, column)
    if pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type) or pa.types.is_boolean(flat.type):
        with suppress(pa.ArrowInvalid):  # a fraction is not a class id
            return flat.cast(pa.int64())
    raise InvalidInputError(
        f"column {column!r} must hold integer class ids, got {_shown(labels, flat, allowed=range(_HIGHEST_ID))}: turn "
        f"names into ids with dataset.class_encode_column({column!r}), or, for several labels per example, load the model "
        "with problem_type='multi_label_classification'."
    )


def _shown(labels: pa.ChunkedArray, flat: pa.ChunkedArray, allowed: Sequence[int]) -> str:
    values = flat.unique().to_pylist()
    wrong = [value for value in values if value not in allowed]
    return f"{labels.type} with the values {_quoted((wrong or values)[:5])}"


def _quoted(names: Any) -> str:
    return ", ".join(map(repr, names))
