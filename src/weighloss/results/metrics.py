from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..weighting.labels import IGNORE_INDEX
from ..weighting.task import Task


@dataclass(frozen=True)
class Confusion:
    """Confusion counts, of one classification or of many at once, and the metrics that follow from them.

    Attributes
    ----------
    tp, fp, fn, tn : int or float arrays of shape (..., n_classes)
        The last dimension holds the classes that `precision`, `recall` and `f1` are averaged over: one for the positive
        label, all of them for macro averages. For micro averages the counts are summed before, so that it holds one.
    """

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    @property
    def precision(self) -> Any:
        """Share tp / (tp + fp), 0 where nothing is predicted positive: float or array of shape (...)."""
        return _mean_share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Any:
        """Share tp / (tp + fn), 0 where nothing is positive."""
        return _mean_share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> Any:
        """Harmonic mean of precision and recall of each class, averaged over the classes."""
        return _mean_share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def metrics(self) -> dict[str, float | int]:
        """Precision, recall and F1 as floats, and the counts summed over the classes as integers."""
        averages = {name: float(getattr(self, name)) for name in ("precision", "recall", "f1")}
        return averages | {name: int(getattr(self, name).sum()) for name in ("tp", "fp", "fn", "tn")}


def confusion(predictions: np.ndarray, references: np.ndarray, classes: Sequence[int] | np.ndarray) -> Confusion:
    """Confusion counts of each of these classes against the rest.

    Parameters
    ----------
    predictions, references : int arrays of shape (n_items,)
        Predicted and true class ids.
    classes : sequence of int

    Returns
    -------
    Confusion of int64 arrays of shape (n_classes,).
    """
    hits = predictions[predictions == references]
    tp, predicted, actual = (
        np.array([np.count_nonzero(values == label) for label in classes])
        for values in (hits, predictions, references)
    )
    return Confusion(tp, predicted - tp, actual - tp, len(references) - predicted - actual + tp)


def precision_recall(
    predictions: Sequence[int] | np.ndarray,
    references: Sequence[int] | np.ndarray,
    positive_label: int = 1,
    average: str = "binary",
) -> dict[str, float | int]:
    """Precision, recall, F1, accuracy and confusion counts; equal to those of scikit-learn with `zero_division=0`.

    Parameters
    ----------
    predictions, references : int array of shape (n_items,)
        Predicted and true class ids.
    positive_label : int, default 1
        The class that `average="binary"` looks at; every other class is negative.
    average : {"binary", "macro", "micro"}, default "binary"
        As in scikit-learn; macro and micro averages are over the classes that occur.

    Returns
    -------
    dict
        Float `precision`, `recall`, `f1`, `accuracy` and int `tp`, `fp`, `fn`, `tn`: of the positive label, or the sums of
        each class against the rest.

    Raises
    ------
    InvalidInputError
        For another `average`.

    Examples
    --------
    >>> found = precision_recall([1, 1, 0, 0], [1, 0, 1, 0])
    >>> found["precision"], found["recall"], found["tp"]
    (0.5, 0.5, 1)
    """
    if average not in ("binary", "macro", "micro"):
        raise InvalidInputError(f"average must be 'binary', 'macro' or 'micro', got {average!r}.")
    predictions, references = np.asarray(predictions), np.asarray(references)
    classes = [positive_label] if average == "binary" else np.union1d(predictions, references)
    counts = confusion(predictions, references, classes)
    if average == "micro":
        counts = Confusion(*(part.sum(keepdims=True) for part in (counts.tp, counts.fp, counts.fn, counts.tn)))
    accuracy = float(np.mean(predictions == references)) if len(references) else 0.0
    return {**counts.metrics(), "accuracy": accuracy}


def classification_metrics(
    task: Task = Task.BINARY, positive_label: int = 1
) -> Callable[[Any], dict[str, float | int]]:
    """Make the `compute_metrics` of a classifier: `precision_recall` of the most probable class.

    Parameters
    ----------
    task : Task
        Two classes are judged by the positive label, more by macro averages over the classes, several labels per
        example by micro averages over the labels. Labels −100 are left out.
    positive_label : int, default 1

    Returns
    -------
    callable that takes a `transformers.EvalPrediction` and returns the dictionary of `precision_recall`.
    """

    def compute_metrics(prediction: Any) -> dict[str, float | int]:
        logits, labels = logits_and_labels(prediction, task)
        predictions, references = decisions(logits, labels, task)
        return averaged(predictions, references, task, positive_label)

    return compute_metrics


def averaged(
    predictions: np.ndarray, references: np.ndarray, task: Task, positive_label: int = 1
) -> dict[str, float | int]:
    """`precision_recall` with the average of a task, of what `decisions` returns."""
    if task is Task.MULTILABEL:  # every label is a decision of its own; positives of all labels are counted together
        return precision_recall(predictions, references)
    return precision_recall(predictions, references, positive_label, task.average)


def decisions(logits: np.ndarray, labels: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true class ids.

    Parameters
    ----------
    logits : float array of shape (n_items, n_classes)
    labels : int array of shape (n_items,), or (n_items, n_classes) for several labels per example
    task : Task

    Returns
    -------
    predictions, references : int64 arrays of shape (n_decisions,)
        For several labels per example one decision, 0 or 1, for every label that counts.

    Raises
    ------
    InvalidInputError
        When these are not logits and labels; several labels per example must be labels of 0 and 1.
    """
    if task is not Task.MULTILABEL:
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise InvalidInputError(
                "the default metrics need one row of logits for each label, got predictions of shape "
                f"{logits.shape} and labels of shape {labels.shape}: give compute_metrics."
            )
        return logits.argmax(-1), labels
    if logits.dtype.kind != "f" or not np.isin(labels, (0, 1, IGNORE_INDEX)).all():
        raise InvalidInputError(
            "the default metrics need float logits and labels of 0 and 1 for several labels per example, got "
            f"{logits.dtype} logits and labels from {labels.min()} to {labels.max()}: give compute_metrics."
        )
    counted = labels != IGNORE_INDEX
    return (logits[counted] > 0).astype(np.int64), labels[counted].astype(np.int64)


def positives_and_scores(
    logits: np.ndarray, labels: np.ndarray, task: Task, positive_label: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each item is positive, and its log-odds: bool and float64 arrays of shape (n_items,).

    With several labels per example every label that counts is an item. More than two classes have no single score.
    """
    if task is Task.MULTILABEL:
        counted = labels != IGNORE_INDEX
        return labels[counted] == 1, logits[counted].astype(np.float64)
    return labels == positive_label, logits[:, positive_label].astype(np.float64) - logits[:, 1 - positive_label]


def logits_and_labels(prediction: Any, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a `transformers.EvalPrediction` or `PredictionOutput`, in the shapes that `decisions` takes.

    Items whose label is −100 are left out; of several labels per example none is, since examples keep their shape.
    """
    logits, labels = prediction.predictions, prediction.label_ids
    if isinstance(labels, list):  # one array for each batch, with eval_do_concat_batches=False
        batches = [logits_and_labels(_Batch(*batch), task) for batch in zip(_first(logits), labels, strict=True)]
        return np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])
    logits = _first(logits)
    if task is Task.MULTILABEL:
        return logits, labels
    if labels.shape == (*logits.shape[:-1], 1):
        labels = labels[..., 0]
    counted = labels != IGNORE_INDEX
    return logits[counted], labels[counted]


def expected_calibration_error(probabilities: np.ndarray, positives: np.ndarray) -> float:
    """Mean gap between probability and frequency of the positive label, over 15 bins of equal width.

    Parameters
    ----------
    probabilities : float array of shape (n_items,)
    positives : bool or int array of shape (n_items,)

    References
    ----------
    Naeini, M. P. et al. (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI.
    """
    bins = np.minimum((probabilities * 15).astype(int), 14)
    gaps = np.bincount(bins, probabilities - positives)
    return float(np.abs(gaps).sum() / len(probabilities))


@dataclass(frozen=True)
class _Batch:
    predictions: Any
    label_ids: Any


def _first(logits: Any) -> Any:
    return logits[0] if isinstance(logits, tuple) else logits  # hidden states and attentions follow the logits


def _mean_share(part: np.ndarray, whole: np.ndarray) -> Any:
    """Mean over the last dimension of part / whole, 0 where whole is 0."""
    shares = np.divide(part, whole, out=np.zeros(np.shape(part), dtype=np.float64), where=np.asarray(whole) > 0)
    return shares.mean(axis=-1)
