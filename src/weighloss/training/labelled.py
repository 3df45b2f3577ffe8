"""The classes that a trainer weights: their names, their counts and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import InvalidInputError
from ..weighting.class_weights import ClassWeights
from ..weighting.labels import (
    LABEL_COLUMNS,
    class_names,
    column_names,
    count_labels,
    count_multi_labels,
    find_label_column,
    label_id,
)
from ..weighting.task import Task
from .checks import check_counts


class LabelledClasses:
    """Names, counts and weights of a trainer's classes, from its arguments, its training data or its loaded model.

    All are read when they are used, since a sweep or a search changes the arguments, and `model_init` the model.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._counted: tuple[Any, np.ndarray] | None = None  # training data, and its counts
        self._weighted: tuple[Any, ClassWeights, torch.Tensor] | None = None  # what was given, and its weights

    @property
    def names(self) -> list[str]:
        """See `WeightedLossTrainer.class_names`."""
        config, names = self._trainer.model.config, self.names_in(self._trainer.train_dataset)
        return [*names, *(str(config.id2label[i]) for i in range(len(names), config.num_labels))]

    def names_in(self, dataset: Any) -> list[str]:
        """Class names of a dataset's `ClassLabel` column; empty where it has none."""
        if self._trainer.task is Task.MULTILABEL:
            return []
        found = (class_names(dataset, column) for column in (*LABEL_COLUMNS, self._trainer.label_name))
        return next(filter(None, found), [])

    @property
    def positive_label(self) -> int:
        """See `WeightedLossTrainer.positive_label`."""
        label = self._given("positive_label")
        if label is None and self._trainer.train_dataset is None:
            label = getattr(self._trainer.model.config, "positive_label", None)  # of a loaded model
        return 1 if label is None else label_id(label, self.names)

    def count(self, dataset: Any) -> np.ndarray:
        """See `WeightedLossTrainer.count_classes`."""
        trainer, named = self._trainer, self._trainer.label_name
        # A column of the name that the collator uses comes first, as the default collator takes it.
        column = find_label_column(dataset, named if named != "labels" and named in column_names(dataset) else None)
        if trainer.task is Task.MULTILABEL:
            counts = count_multi_labels(dataset, column)
        else:
            counts = count_labels(dataset, column, num_classes=trainer.model.config.num_labels)
        check_counts(trainer, counts, column)
        return counts

    def weights_at(self, ratio: float | str | None, weights: Sequence[float] | None = None) -> ClassWeights:
        """See `WeightedLossTrainer.weights_at`."""
        if self._trainer.task is Task.MULTILABEL:
            return ClassWeights.from_multi_label_counts(self._counts(), ratio, weights)
        return ClassWeights.from_counts(self._counts(), ratio, self.positive_label, weights)

    def current(self) -> tuple[ClassWeights, torch.Tensor]:
        """The weights at the ratio that the arguments have now, and the same as a float32 tensor."""
        trainer = self._trainer
        given = [self._given(name) for name in ("weight_ratio", "class_weights", "class_counts", "positive_label")]
        source = trainer.train_dataset, trainer.model.config
        key = repr(given), *map(id, source)
        if self._weighted is None or self._weighted[0][0] != key:  # every step asks
            ratio, weights = given[:2]
            if weights is not None:
                weights = self._by_id("class_weights", weights)
            elif ratio is None and trainer.train_dataset is None:
                weights = getattr(trainer.model.config, "class_weights", None)  # of a loaded model
                if weights is not None and trainer.task is Task.MULTILABEL:
                    weights = [positive / negative for negative, positive in weights]
            made = self.weights_at(ratio, weights)
            self._weighted = (key, source), made, torch.as_tensor(made.weights, dtype=torch.float32)
        return self._weighted[1:]

    def record(self) -> dict[str, Any]:
        """What a saved model says about its weighting."""
        made = self.current()[0]
        return {
            "class_counts": made.counts.tolist(),
            "class_weights": made.weights.tolist(),
            "weight_ratio": made.ratio,
            "natural_ratio": made.natural_ratio,
            "positive_label": made.positive_label,
        }

    def _given(self, name: str) -> Any:
        return getattr(self._trainer.args, name, None)  # which plain TrainingArguments do not have

    def _counts(self) -> Any:
        train_dataset = self._trainer.train_dataset
        if (given := self._given("class_counts")) is not None:
            return self._by_id("class_counts", given)
        if train_dataset is not None:
            if self._counted is None or self._counted[0] is not train_dataset:
                self._counted = train_dataset, self.count(train_dataset)
            return self._counted[1]
        counts = getattr(self._trainer.model.config, "class_counts", None)  # of a loaded model
        if counts is None:
            raise InvalidInputError(
                "there are no training labels to compute class weights from: give train_dataset or class_counts."
            )
        return counts

    def _by_id(self, name: str, values: Any) -> list[Any]:
        """Values that are given by label name or id, or in the order of the ids, in the order of the ids."""
        names, num_labels = self.names, self._trainer.model.config.num_labels
        if isinstance(values, Mapping):
            by_id = {label_id(label, names, name): value for label, value in values.items()}
        else:
            by_id = dict(enumerate(values)) if isinstance(values, (Sequence, np.ndarray)) else {}
        if len(values if by_id else ()) != num_labels or by_id.keys() != set(range(num_labels)):
            raise InvalidInputError(
                f"{name} must have one value for each of the {num_labels} classes ({', '.join(names)}), got {values!r}."
            )
        return [by_id[i] for i in range(num_labels)]
