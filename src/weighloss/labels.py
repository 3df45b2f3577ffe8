from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .errors import InvalidInputError

IGNORE_INDEX = -100
LABEL_COLUMNS = ("label", "labels", "label_ids")  # what transformers' collators take for the labels


def count_labels(dataset: Any, label_column: str | None = None, num_classes: int = 0) -> np.ndarray:
    """Number of labels of each class, −100 left out.

    Parameters
    ----------
    dataset : datasets.Dataset, or any sized dataset whose items are mappings with a label
        Of a `datasets.Dataset` only the label column is read, batch by batch from Arrow. Any other dataset is iterated
        over once.
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
    if not hasattr(dataset, "__len__"):
        raise InvalidInputError(
            f"the labels of a {type(dataset).__name__} cannot be counted without consuming it: give the number of "
            "labels of each class as class_counts, for example class_counts=[8800, 1200]."
        )
    column = _label_column(dataset, label_column)
    if names := label_names(dataset, column):
        num_classes = max(num_classes, len(names))
    counts = np.zeros(num_classes, dtype=np.int64)
    for labels in _label_batches(dataset, column):
        labels = labels[labels != IGNORE_INDEX]
        if labels.size and labels.min() < 0:
            raise InvalidInputError(
                f"label {labels.min()} in column {column!r} is not a class id: write ids from 0, or -100 to ignore one."
            )
        batch = np.bincount(labels, minlength=len(counts))
        batch[: len(counts)] += counts
        counts = batch
    return counts


def label_names(dataset: Any, label_column: str | None = None) -> list[str] | None:
    """The class names of a `ClassLabel` column, None where the dataset has no such column."""
    features = getattr(dataset, "features", None) or {}
    wanted = LABEL_COLUMNS if label_column is None else (label_column,)
    feature: Any = next((features[column] for column in wanted if column in features), None)
    feature = getattr(feature, "feature", feature)  # the labels of tokens are a list of ClassLabel
    return list(feature.names) if hasattr(feature, "names") else None


def label_id(label: int | str, names: Sequence[str] | None) -> int:
    """The id of a label given by name or id.

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
            f"positive_label={label!r} is not a class: {known}; write one of them or an id."
        ) from None


def _label_column(dataset: Any, label_column: str | None) -> str:
    columns = getattr(dataset, "column_names", None) or (list(dataset[0]) if len(dataset) else [])
    wanted = LABEL_COLUMNS if label_column is None else (label_column,)
    for column in wanted:
        if column in columns:
            return column
    raise InvalidInputError(
        f"the dataset has no label column {' or '.join(map(repr, wanted))}: its columns are "
        f"{', '.join(map(repr, columns)) or 'none'}; rename that of the labels to 'label'."
    )


def _label_batches(dataset: Any, column: str) -> Any:
    """The labels as int64 arrays, one per batch."""
    if hasattr(dataset, "select_columns"):
        labels = dataset.select_columns(column).with_format("arrow")
        for table in labels.iter(batch_size=1_000_000):
            yield _integers(table.column(0).combine_chunks(), column)
    else:
        for start in range(0, len(dataset), 10_000):
            items = [np.ravel(dataset[i][column]) for i in range(start, min(start + 10_000, len(dataset)))]
            yield _integers(pa.array(np.concatenate(items)), column)


def _integers(labels: pa.Array, column: str) -> np.ndarray:
    while pa.types.is_list(labels.type) or pa.types.is_large_list(labels.type):
        labels = labels.flatten()
    if labels.null_count:
        raise InvalidInputError(
            f"column {column!r} has {labels.null_count} empty labels: drop or fill those rows first."
        )
    if pa.types.is_boolean(labels.type):
        labels = labels.cast(pa.int8())
    if not pa.types.is_integer(labels.type):
        raise InvalidInputError(
            f"column {column!r} holds {labels.type} values, not class ids: turn names into ids with "
            f"dataset.class_encode_column({column!r})."
        )
    return labels.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
