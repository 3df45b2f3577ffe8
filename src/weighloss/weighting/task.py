from __future__ import annotations

import enum
from typing import Any, Literal


class Task(enum.Enum):
    """Kind of classification: two classes, more than two classes, or several labels per example.

    Examples
    --------
    >>> Task("multilabel").average
    'micro'
    """

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"

    @property
    def average(self) -> Literal["binary", "macro", "micro"]:
        """Value of scikit-learn's `average` with which precision and recall are computed."""
        if self is Task.BINARY:
            return "binary"
        return "macro" if self is Task.MULTICLASS else "micro"

    @classmethod
    def of_model(cls, config: Any) -> Task:
        """Task of a model, from its transformers configuration.

        Parameters
        ----------
        config : transformers.PretrainedConfig
            `problem_type="multi_label_classification"` means several labels per example. Otherwise `num_labels` decides.
        """
        if getattr(config, "problem_type", None) == "multi_label_classification":
            return cls.MULTILABEL
        return cls.BINARY if config.num_labels == 2 else cls.MULTICLASS
