from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from transformers import Trainer

from .driver import TrainingDriver
from ..errors import InvalidInputError
from ..weighting.labels import class_names, column_names, count_labels, count_multi_labels, find_label_column, label_id
from ..weighting.class_weights import ClassWeights


class WeightingTrainer(Trainer):
    """A `Trainer` that knows its classes: what they are called, how many labels each has, and how they are weighted."""

    args: Any  # WeightedLossConfig, or plain TrainingArguments without its fields
    model: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_names = self.label_names or ["labels"]  # a model need not take labels: it is not given them
        self._counted: tuple[Any, np.ndarray] | None = None
        self._named: tuple[Any, Sequence[str]] | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether an example has several labels, each of which is a choice of its own."""
        return getattr(self.model.config, "problem_type", None) == "multi_label_classification"

    @property
    def positive_label(self) -> int:
        """Id of the positive class."""
        label = getattr(self.args, "positive_label", None)
        if label is None and self.train_dataset is None:
            label = getattr(self.model.config, "positive_label", None)  # that which a loaded model was trained with
        return 1 if label is None else label_id(label, self.class_names)

    @property
    def class_weights(self) -> ClassWeights:
        """The weights at the ratio that `args` holds now.

        Raises
        ------
        InvalidInputError
            When there are no training labels, no `class_counts` and no counts in `model.config`.
        """
        ratio = getattr(self.args, "weight_ratio", None)
        weights = getattr(self.args, "class_weights", None)
        if weights is not None:
            weights = self._by_class_id("class_weights", weights)
        elif ratio is None and self.train_dataset is None:
            weights = getattr(self.model.config, "class_weights", None)  # those that a loaded model was trained with
            if weights is not None and self.is_multi_label:
                weights = [positive / negative for negative, positive in weights]
        return self.weights_at(ratio, weights)

    def weights_at(self, ratio: float | str | None, weights: Sequence[float] | None = None) -> ClassWeights:
        """The weights at a ratio (natural when None), or explicit ones, whatever `args` holds."""
        if self.is_multi_label:
            return ClassWeights.from_multi_label_counts(self._class_counts(), ratio, weights)
        return ClassWeights.from_counts(self._class_counts(), ratio, self.positive_label, weights)

    @property
    def _label_name(self) -> str:
        """What the batches call the labels."""
        return self.label_names[0]

    def drivers(self) -> Iterator[TrainingDriver]:
        """The callbacks that drive this trainer."""
        return (callback for callback in self.callback_handler.callbacks if isinstance(callback, TrainingDriver))

    def _class_counts(self) -> Any:
        given = getattr(self.args, "class_counts", None)
        if given is not None:
            return self._by_class_id("class_counts", given)
        if self.train_dataset is not None:
            if self._counted is None or self._counted[0] is not self.train_dataset:
                self._counted = self.train_dataset, self.count_classes(self.train_dataset)
            return self._counted[1]
        counts = getattr(self.model.config, "class_counts", None)  # those that a loaded model was trained on
        if counts is None:
            raise InvalidInputError(
                "there are no training labels to take class weights from: give train_dataset, or class_counts."
            )
        return counts

    def count_classes(self, dataset: Any) -> np.ndarray:
        """Number of labels of each of the model's classes in a dataset, in the form of `ClassWeights.counts`.

        Raises
        ------
        InvalidInputError
            When they cannot be counted, or are not of the model's classes.
        """
        num_labels, column = self.model.config.num_labels, self._label_column(dataset)
        if self.is_multi_label:
            counts = count_multi_labels(dataset, column)
            fits, found = len(counts) == num_labels, f"{len(counts)} labels per example"
        else:
            counts = count_labels(dataset, column, num_classes=num_labels)
            fits, found = len(counts) <= num_labels, f"{len(counts)} classes (label ids 0 to {len(counts) - 1})"
        if not fits:
            raise InvalidInputError(
                f"the data has {found}, but the model has {num_labels}: load the model with num_labels={len(counts)}."
            )
        return counts

    def _label_column(self, dataset: Any) -> str | None:
        default = self._label_name == "labels"
        return None if default or self._label_name not in column_names(dataset) else self._label_name

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes: those of the training data's `ClassLabel`, else of `model.config.id2label`."""
        if self._named is None or self._named[0] is not self.train_dataset:
            self._named = self.train_dataset, self._names_in_data()  # each step asks, and datasets copies its features
        config, names = self.model.config, self._named[1]
        return [*names, *(str(config.id2label[i]) for i in range(len(names), config.num_labels))]

    def _names_in_data(self) -> Sequence[str]:
        if hasattr(self.train_dataset, "features") and not self.is_multi_label:
            with suppress(InvalidInputError):  # the labels may be the collator's, and counted in class_counts
                column = find_label_column(self.train_dataset, self._label_column(self.train_dataset))
                return class_names(self.train_dataset, column) or ()
        return ()

    def _by_class_id(self, name: str, values: Any) -> list[Any]:
        names = self.class_names
        if isinstance(values, Mapping):
            pairs = [(label_id(label, names, name), value) for label, value in values.items()]
        else:
            pairs = list(enumerate(values)) if isinstance(values, (Sequence, np.ndarray)) else []
        if sorted(i for i, _ in pairs) != list(range(self.model.config.num_labels)):
            raise InvalidInputError(
                f"{name} must have one value for each of the {self.model.config.num_labels} classes "
                f"({', '.join(names)}), not {values!r}."
            )
        return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]

    def record_class_weights(self) -> None:
        """Write how the classes are weighted to `model.config`, and what they are called where it does not know."""
        config = self.model.config
        vars(config).pop("requirement", None)  # that of an earlier training
        config.update(self._weighting())
        known = getattr(config, "id2label", None) or {}
        if known and all(name == f"LABEL_{i}" for i, name in known.items()):
            config.id2label = dict(enumerate(self.class_names))
            config.label2id = {name: i for i, name in config.id2label.items()}

    def _weighting(self) -> dict[str, Any]:
        class_weights = self.class_weights
        weighting = {
            "class_counts": class_weights.counts.tolist(),
            "class_weights": class_weights.weights.tolist(),
            "weight_ratio": class_weights.ratio,
            "natural_ratio": class_weights.natural_ratio,
            "positive_label": class_weights.positive_label,
        }
        for driver in self.drivers():
            if driver.sweep is not None and driver.sweep.requirement is not None:
                weighting["requirement"] = driver.sweep.requirement
        return weighting
