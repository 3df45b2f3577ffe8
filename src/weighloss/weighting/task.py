from __future__ import annotations

import enum
from typing import Any, Literal


class Task(enum.Enum):
    """Kind of classification: two classes, more than two classes, or several labels per example."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"

    @property
    def average(self) -> Literal["binary", "macro", "micro"]:
        """Value of scikit-learn's `average` with which precision and recall are computed."""
        return "binary" if self is Task.BINARY else "macro" if self is Task.MULTICLASS else "micro"

    @classmethod
    def of_model(cls, config: Any) -> Task:
        """Task of a model: `problem_type` and `num_labels` of its transformers configuration decide."""
        if getattr(config, "problem_type", None) == "multi_label_classification":
            return cls.MULTILABEL
        return cls.BINARY if config.num_labels == 2 else cls.MULTICLASS
