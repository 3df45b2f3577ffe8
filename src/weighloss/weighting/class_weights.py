from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .labels import class_names, count_labels, find_label_column, label_id
from .ratios import resolved_ratio

_BOTH_GIVEN = "weight_ratio={} and explicit class weights were both given: write one of them."


@dataclass(frozen=True, eq=False)
class ClassWeights:
    r"""One weight per class, in the gauge Σ n_c·w_c = Σ n_c: the mean weight over the training labels is 1.

    Only the ratios of the weights matter, and one number, `ratio`, spans the family. For two classes it is
    w_r = w_positive / w_negative, and the natural ratio is n_negative / n_positive. For K classes w_c ∝ n_c^(−α), with α
    such that the rarest and the commonest class stand at `ratio`; the natural ratio n_max / n_min is α = 1. At the
    natural ratio the weights are those of scikit-learn's `class_weight="balanced"`. Several labels per example are as many
    pairs of classes: see `from_multi_label_counts`.

    Attributes
    ----------
    counts : ndarray of shape (n_classes,), or (n_labels, 2) for several labels per example, int64
        Number of training labels of each class.
    weights : ndarray of the shape of `counts`, float64
        Weight of each class.
    ratio : float
        w_positive / w_negative, or w_rarest / w_commonest with more than two classes.
    natural_ratio : float
        The ratio at which every class contributes the same to the loss.
    positive_label : int
        Id of the class whose precision and recall are looked at; it gives `ratio` its direction for two classes.

    References
    ----------
    King, G. and Zeng, L. (2001), Logistic Regression in Rare Events Data, Political Analysis 9(2);
    Cui, Y. et al. (2019), Class-Balanced Loss Based on Effective Number of Samples, CVPR, arXiv 1901.05555.

    Examples
    --------
    >>> class_weights = ClassWeights.from_counts([88, 12])
    >>> round(class_weights.natural_ratio, 2)
    7.33
    >>> class_weights.weights.round(3).tolist()
    [0.568, 4.167]
    >>> ClassWeights.from_counts([88, 12], ratio=1).weights.tolist()
    [1.0, 1.0]
    """

    counts: np.ndarray
    weights: np.ndarray
    ratio: float
    natural_ratio: float
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
            Number of training labels, by class id. With more than two classes some may be 0: such a class contributes
            nothing to the training loss and gets the weight of the rarest class that is there.
        ratio : float or str, optional
            The weight ratio w_r, or a scheme that is one: `natural`, `unweighted`, `sqrt` (of the natural ratio), or, for
            two classes, `effective:0.999`, by effective numbers of examples with that β. The natural ratio when None.
        positive_label : int, default 1
            Id of the positive class.
        weights : sequence of float of shape (n_classes,), optional
            Explicit weights, up to a common factor; they override the family, and `ratio` is read off them.

        Raises
        ------
        InvalidInputError
            For fewer than two classes with labels, a ratio or weight that is not a positive finite number, a ratio
            other than 1 for more than two classes of the same size, or a positive label that is not a class.
        """
        counts = _checked_counts(counts)
        positive_label = label_id(positive_label, None)
        if not 0 <= positive_label < len(counts):
            raise InvalidInputError(
                f"positive_label={positive_label} is not a class: the training labels have {len(counts)} classes, "
                f"so write an id from 0 to {len(counts) - 1}."
            )
        # A class that is not there counts like the rarest that is: any weight does for the training loss.
        sizes = np.where(counts > 0, counts, counts[counts > 0].min()).astype(np.float64)
        binary = len(counts) == 2
        high, low = (positive_label, 1 - positive_label) if binary else (sizes.argmin(), sizes.argmax())
        natural_ratio = float(sizes[low] / sizes[high])

        if weights is not None:
            if ratio is not None:
                raise InvalidInputError(_BOTH_GIVEN.format(ratio))
            log_weights = np.log(_checked_weights(weights, len(counts)))
        else:
            ratio = resolved_ratio(ratio, natural_ratio, np.array([counts[low], counts[high]]) if binary else None)
            if binary:
                log_weights = np.zeros(2)
                log_weights[positive_label] = math.log(ratio)
            elif natural_ratio == 1:
                if ratio != 1:
                    raise InvalidInputError(
                        f"weight_ratio={ratio} has no meaning here: all {len(counts)} classes have {counts.max()} labels, "
                        "so none is the rarest; write weight_ratio=1 or explicit class_weights."
                    )
                log_weights = np.zeros(len(counts))
            else:
                alpha = math.log(ratio) / math.log(natural_ratio)
                log_weights = -alpha * np.log(sizes)

        relative = np.exp(log_weights - log_weights.max())  # at most 1, so that no ratio overflows
        return cls(
            counts=counts,
            weights=relative * (counts.sum() / (counts @ relative)),
            ratio=ratio if ratio is not None else float(np.exp(log_weights[high] - log_weights[low])),
            natural_ratio=natural_ratio,
            positive_label=positive_label,
        )

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        label_column: str | None = None,
        ratio: float | str | None = None,
        positive_label: int | str = 1,
        weights: Sequence[float] | np.ndarray | None = None,
    ) -> ClassWeights:
        """Class weights from the labels of a `datasets.Dataset`.

        Reads only the label column, batch by batch from Arrow, in constant memory; the rows that `select`, `shuffle`,
        `filter` or `train_test_split` left out do not count.

        Parameters
        ----------
        dataset : datasets.Dataset, or any sized dataset whose items are mappings with a label
        label_column : str, optional
            The label column; found as the Trainer finds it (`label`, `labels` or `label_ids`) when None.
        positive_label : int or str, default 1
            Id of the positive class, or its name where the column is a `ClassLabel`.
        ratio : float or str, optional
            As for `from_counts`.
        weights : sequence of float of shape (n_classes,), optional
            As for `from_counts`.

        Raises
        ------
        InvalidInputError
            As `from_counts`, and when there is no label column, a label is not an integer class id, or no class has
            the name `positive_label`.
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
        """Class weights of several labels per example, each of which is a choice of its own between two classes.

        Label l weighs its positives r_l^α times its negatives, r_l being its negatives over its positives, with α such
        that minority and majority of the most imbalanced label stand at `ratio`: 1 is unweighted, at the natural ratio
        every label is balanced, and no label's weights lie further apart than `ratio`. The mean weight over the examples is
        1 for every label.

        Parameters
        ----------
        counts : sequence of int of shape (n_labels, 2)
            Number of training examples without and with each label. A label that none or all have is not weighted.
        ratio : float or str, optional
            The weight of the minority over the majority of the most imbalanced label (of its positives over its negatives,
            where it is rare); the natural ratio when None.
        pos_weights : sequence of float of shape (n_labels,), optional
            Explicit weights of the positives over the negatives, those of `torch.nn.BCEWithLogitsLoss(pos_weight=…)`;
            they override the family, and `ratio` is read off them.

        Returns
        -------
        ClassWeights whose `counts` and `weights` have the shape (n_labels, 2): negatives, positives.

        Raises
        ------
        InvalidInputError
            As `from_counts`; when no label has both positives and negatives, or every label is as frequent as not and the
            ratio is not 1.

        Examples
        --------
        >>> class_weights = ClassWeights.from_multi_label_counts([[90, 10], [50, 50]])
        >>> class_weights.natural_ratio
        9.0
        >>> class_weights.weights.round(3).tolist()
        [[0.556, 5.0], [1.0, 1.0]]
        """
        counts = _array(counts)
        if counts.ndim != 2 or counts.shape[1] != 2 or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise InvalidInputError(
                "counts must be the whole numbers of examples without and with each label, such as "
                f"[[900, 100], [700, 300]], not {counts.tolist()!r}."
            )
        weighable = np.flatnonzero((counts > 0).all(axis=1))
        if not weighable.size:
            raise InvalidInputError(
                "the training data has no label that some examples have and some have not: check the label column."
            )
        log_imbalances = np.zeros(len(counts))
        log_imbalances[weighable] = np.log(counts[weighable, 0] / counts[weighable, 1])
        most = weighable[np.abs(log_imbalances[weighable]).argmax()]
        minority, majority = sorted(counts[most].tolist())
        natural_ratio = majority / minority
        if pos_weights is not None:
            if ratio is not None:
                raise InvalidInputError(_BOTH_GIVEN.format(ratio))
            log_ratios = np.log(_checked_weights(pos_weights, len(counts)))
        else:
            ratio = resolved_ratio(ratio, natural_ratio)
            if natural_ratio == 1 and ratio != 1:
                raise InvalidInputError(
                    f"weight_ratio={ratio} has no meaning here: every label is as frequent as not; write weight_ratio=1 or "
                    "explicit class_weights."
                )
            log_ratios = log_imbalances * (math.log(ratio) / math.log(natural_ratio) if natural_ratio != 1 else 0)

        # Each at most 1, so that no ratio overflows; a label without examples keeps these.
        relative = np.exp(np.minimum(np.stack([-log_ratios, log_ratios], axis=1), 0))
        sizes = np.where(counts.any(axis=1, keepdims=True), counts, 1)
        scale = sizes.sum(axis=1, keepdims=True) / (sizes * relative).sum(axis=1, keepdims=True)
        return cls(
            counts=counts.astype(np.int64),
            weights=relative * scale,
            ratio=ratio
            if ratio is not None
            else float(np.exp(log_ratios[most] * (np.sign(log_imbalances[most]) or 1))),
            natural_ratio=natural_ratio,
        )


def _array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return np.asarray(values, dtype=object)


def _checked_counts(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    counts = _array(counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InvalidInputError(
            f"counts must be one whole number of labels per class, such as [8800, 1200], not {counts.tolist()!r}."
        )
    if (present := np.flatnonzero(counts)).size < 2:
        found = f"all {counts.sum()} labels are of class {present[0]}" if present.size else "there is no label"
        raise InvalidInputError(
            f"the training data needs labels of at least two classes, but {found}: check the label column and the split."
        )
    return counts.astype(np.int64)


def _checked_weights(weights: Sequence[float] | np.ndarray, num_classes: int) -> np.ndarray:
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.asarray(weights)
    if (
        array.dtype != np.float64
        or array.shape != (num_classes,)
        or not np.isfinite(array).all()
        or (array <= 0).any()
    ):
        raise InvalidInputError(
            f"class weights must be {num_classes} positive finite numbers, one per class, not {array.tolist()!r}."
        )
    return array
