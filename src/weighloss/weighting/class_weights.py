from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .labels import class_names, count_labels, find_label_column, label_id
from .ratios import resolved_ratio
from .task import Task


@dataclass(frozen=True, eq=False)
class ClassWeights:
    r"""One weight per class, with the normalisation Σ n_c·w_c = Σ n_c: the mean weight over the training labels is 1.

    Only the ratios of the weights matter, and one number, `ratio`, determines them. With two classes it is
    w_r = w_positive / w_negative, and the natural ratio is n_negative / n_positive. With more classes w_c ∝ n_c^(−α), with
    the α for which w_rarest / w_commonest is `ratio`; the natural ratio is n_max / n_min, that is, α = 1. At the natural
    ratio the weights are those of scikit-learn's `class_weight="balanced"` (King and Zeng 2001, Logistic Regression in Rare
    Events Data, Political Analysis 9(2)).

    Attributes
    ----------
    counts : int64 ndarray of shape (n_classes,), or (n_labels, 2) for several labels per example
        Number of training labels of each class.
    weights : float64 ndarray of the shape of `counts`
        Weight of each class.
    ratio : float
        w_positive / w_negative, or w_rarest / w_commonest with more than two classes.
    natural_ratio : float
        The ratio at which every class contributes the same to the loss.
    task : Task
    positive_label : int
        Id of the class whose precision and recall are reported, with two classes.

    Examples
    --------
    >>> class_weights = ClassWeights.from_counts([88, 12])
    >>> round(class_weights.natural_ratio, 2)
    7.33
    >>> class_weights.weights.round(3).tolist()
    [0.568, 4.167]
    """

    counts: np.ndarray
    weights: np.ndarray
    ratio: float
    natural_ratio: float
    task: Task
    positive_label: int = 1

    @classmethod
    def from_counts(
        cls,
        counts: Sequence[int] | np.ndarray,
        ratio: float | str | None = None,
        positive_label: int = 1,
        weights: Sequence[float] | np.ndarray | None = None,
    ) -> ClassWeights:
        """Class weights from the number of training labels of each class.

        Parameters
        ----------
        counts : sequence of int of shape (n_classes,)
            Number of training labels of each class. With more than two classes some may be 0; such a class gets the weight
            of the rarest class that has labels.
        ratio : float or str, optional
            The weight ratio w_r, or its name: `natural`, `unweighted` (1), `sqrt` (square root of the natural ratio) or,
            with two classes, `effective:0.999` (effective number of samples with that β: Cui et al. 2019, Class-Balanced
            Loss Based on Effective Number of Samples, CVPR, arXiv 1901.05555). The natural ratio when None.
        positive_label : int, default 1
        weights : sequence of float of shape (n_classes,), optional
            Explicit weights, of any scale. The result's `ratio` is computed from them.

        Raises
        ------
        InvalidInputError
            When fewer than two classes have labels, a ratio or weight is not positive and finite, both are given, more than
            two classes of the same size get a ratio other than 1, or no class has the id `positive_label`.
        """
        counts = _checked_counts(counts, (), "[8800, 1200]")
        if np.count_nonzero(counts) < 2:
            raise InvalidInputError(
                f"at least two classes must have training labels, got the counts {counts.tolist()}: check the label column."
            )
        if positive_label not in range(len(counts)):
            raise InvalidInputError(
                f"positive_label must be a class id from 0 to {len(counts) - 1}, got {positive_label!r}."
            )
        binary = len(counts) == 2
        # A class without labels does not contribute to the training loss, whatever its weight is.
        sizes = np.where(counts > 0, counts, counts[counts > 0].min()).astype(np.float64)
        high, low = (positive_label, 1 - positive_label) if binary else (sizes.argmin(), sizes.argmax())
        natural_ratio = float(sizes[low] / sizes[high])
        if weights is not None:
            log_weights = _log_weights(weights, len(counts), ratio)
            ratio = float(np.exp(log_weights[high] - log_weights[low]))
        else:
            ratio = resolved_ratio(ratio, natural_ratio, np.array([counts[low], counts[high]]) if binary else None)
            if binary:
                log_weights = math.log(ratio) * (np.arange(2) == positive_label)
            else:
                log_weights = -_exponent(ratio, natural_ratio) * np.log(sizes)
        task = Task.BINARY if binary else Task.MULTICLASS
        return cls(counts, _normalised(log_weights, counts), ratio, natural_ratio, task, int(positive_label))

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        label_column: str | None = None,
        ratio: float | str | None = None,
        positive_label: int | str = 1,
        weights: Sequence[float] | np.ndarray | None = None,
    ) -> ClassWeights:
        """Class weights from the labels of a dataset: see `count_labels` and `from_counts`.

        `positive_label` may also be the name of a class where the column is a `ClassLabel`.
        """
        counts = count_labels(dataset, label_column)
        names = class_names(dataset, find_label_column(dataset, label_column))
        return cls.from_counts(counts, ratio, label_id(positive_label, names), weights)

    @classmethod
    def from_multi_label_counts(
        cls,
        counts: Sequence[Sequence[int]] | np.ndarray,
        ratio: float | str | None = None,
        pos_weights: Sequence[float] | np.ndarray | None = None,
    ) -> ClassWeights:
        """Class weights for several labels per example: each label has a weight of its negatives and one of its positives.

        w_positive / w_negative of label l is (n_negative / n_positive)^α, and α is such that the weights of the minority
        and the majority of the most imbalanced label have the ratio `ratio`. So no label's weights differ by more than
        `ratio`, and at the natural ratio every label is balanced. The mean weight over the examples is 1 for every label.

        Parameters
        ----------
        counts : sequence of int of shape (n_labels, 2)
            Number of training examples without and with each label. A label that all examples or none have keeps weights 1.
        ratio : float or str, optional
            w_minority / w_majority of the most imbalanced label, or its name as for `from_counts`.
        pos_weights : sequence of float of shape (n_labels,), optional
            Explicit w_positive / w_negative of each label, as in `torch.nn.BCEWithLogitsLoss(pos_weight=…)`.

        Raises
        ------
        InvalidInputError
            As `from_counts`, and when no label has both positives and negatives.

        Examples
        --------
        >>> ClassWeights.from_multi_label_counts([[90, 10], [50, 50]]).weights.round(3).tolist()
        [[0.556, 5.0], [1.0, 1.0]]
        """
        counts = _checked_counts(counts, (2,), "[[900, 100], [700, 300]] (examples without and with each label)")
        weighable = (counts > 0).all(axis=1)
        if not weighable.any():
            raise InvalidInputError(
                f"a label must have both positive and negative training examples, got {counts.tolist()}: check the column."
            )
        log_imbalances = np.zeros(len(counts))
        log_imbalances[weighable] = np.log(counts[weighable, 0] / counts[weighable, 1])
        most = np.where(weighable, np.abs(log_imbalances), -1).argmax()
        natural_ratio = float(counts[most].max() / counts[most].min())
        if pos_weights is not None:
            log_ratios = _log_weights(pos_weights, len(counts), ratio)
            ratio = float(np.exp(log_ratios[most] * (np.sign(log_imbalances[most]) or 1)))
        else:
            ratio = resolved_ratio(ratio, natural_ratio)
            log_ratios = log_imbalances * _exponent(ratio, natural_ratio)
        log_weights = np.stack([np.zeros(len(counts)), log_ratios], axis=1)
        sizes = np.where(counts.any(axis=1, keepdims=True), counts, 1)  # a label may have no examples at all
        return cls(counts, _normalised(log_weights, sizes), ratio, natural_ratio, Task.MULTILABEL)

    def for_config(self) -> dict[str, Any]:
        """What the configuration of a model says about its weighting."""
        return {
            "class_counts": self.counts.tolist(),
            "class_weights": self.weights.tolist(),
            "weight_ratio": self.ratio,
            "natural_ratio": self.natural_ratio,
            "positive_label": self.positive_label,
        }


def _normalised(log_weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights of mean 1 over the counts, along the last axis."""
    relative = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))  # at most 1, so that no ratio overflows
    return relative * (counts.sum(axis=-1, keepdims=True) / (counts * relative).sum(axis=-1, keepdims=True))


def _exponent(ratio: float, natural_ratio: float) -> float:
    """α with natural_ratio^α = ratio."""
    if natural_ratio == 1 != ratio:
        raise InvalidInputError(
            f"weight_ratio must be 1 where all classes have the same size, got {ratio}: write 1 or give class_weights."
        )
    return math.log(ratio) / math.log(natural_ratio) if natural_ratio != 1 else 0.0


def _checked_counts(counts: Any, row_shape: tuple[int, ...], example: str) -> np.ndarray:
    array = np.asarray(counts)
    if not array.ndim or array.shape[1:] != row_shape or array.dtype.kind not in "iu" or (array < 0).any():
        raise InvalidInputError(f"counts must be integers of at least 0, such as {example}, got {counts!r}.")
    return array.astype(np.int64)


def _log_weights(weights: Sequence[float] | np.ndarray, num_weights: int, ratio: float | str | None) -> np.ndarray:
    if ratio is not None:
        raise InvalidInputError(f"weight_ratio must be None where class_weights are given, got {ratio!r}.")
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (num_weights,) or not np.isfinite(array).all() or (array <= 0).any():
        raise InvalidInputError(
            f"class_weights must be {num_weights} positive finite numbers, one for each class, got {weights!r}."
        )
    return np.log(array)
