from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import EvalPrediction

from ..errors import InvalidInputError
from ..weighting.labels import IGNORE_INDEX


def precision_recall(
    predictions: np.ndarray,
    references: np.ndarray,
    positive_label: int = 1,
    average: str = "binary",
    zero_division: Any = 0,
) -> dict[str, float | int]:
    """Precision, recall, F1, accuracy and confusion counts, as scikit-learn computes them.

    Parameters
    ----------
    predictions, references : int array of shape (n_items,)
        Predicted and true class ids.
    positive_label : int, default 1
        The class that is looked at with `average="binary"`; every other class is negative.
    average : {"binary", "macro", "micro"}, default "binary"
    zero_division : {0, "warn"}, default 0
        Where nothing is predicted positive (precision) or nothing is positive (recall) the value is 0; "warn" says so in
        scikit-learn's UndefinedMetricWarning.

    Returns
    -------
    dict
        Float `precision`, `recall`, `f1`, `accuracy` and int `tp`, `fp`, `fn`, `tn`: those of the positive label, or,
        averaged, the sums of each class against the rest.

    Raises
    ------
    InvalidInputError
        For another `average`.
    """
    from sklearn.metrics import (  # here, since it takes longer to import than all of weighloss
        accuracy_score,
        multilabel_confusion_matrix,
        precision_recall_fscore_support,
    )

    averages = ("binary", "macro", "micro")
    if average not in averages:
        raise InvalidInputError(f"average={average!r} is unknown: write one of {', '.join(map(repr, averages))}.")
    labels = [positive_label] if average == "binary" else np.union1d(predictions, references)
    precision, recall, f1, _ = precision_recall_fscore_support(
        references,
        predictions,
        labels=labels,
        average="macro" if average == "binary" else average,  # the mean over one label is that label's
        zero_division=zero_division,
    )
    confusion = multilabel_confusion_matrix(references, predictions, labels=labels).sum(axis=0)
    (tn, fp), (fn, tp) = confusion.tolist()
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "accuracy": float(accuracy_score(references, predictions)),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
    }


def classification_metrics(positive_label: int = 1) -> Callable[[Any], dict[str, float | int]]:
    """The `compute_metrics` of a classifier: `precision_recall` of the most probable class.

    Two logits per item are judged by the positive label, more by the macro average over the classes, several labels per
    example by the micro average over the labels; labels −100 are left out.

    Parameters
    ----------
    positive_label : int, default 1

    Returns
    -------
    callable that takes a `transformers.EvalPrediction` and returns the dictionary of `precision_recall`.
    """

    def compute_metrics(prediction: Any) -> dict[str, float | int]:
        return precision_recall(**decisions(*logits_and_labels(prediction), positive_label))

    return compute_metrics


def decisions(logits: np.ndarray, labels: np.ndarray, positive_label: int = 1) -> dict[str, Any]:
    """What a classifier decided, as arguments of `precision_recall` and `PrecisionRecall.compute`.

    Parameters
    ----------
    logits : float array (n_items, n_classes)
    labels : int array (n_items,), or (n_items, n_classes) for several labels per example
        In the second case every label of every example is a decision between 0 and 1, and precision and recall over all
        of them are the micro averages.

    Returns
    -------
    dict with int arrays `predictions` and `references`, and with `positive_label` and `average`.
    """
    if labels.shape == logits.shape:
        if logits.dtype.kind != "f" or not np.isin(labels, (0, 1, IGNORE_INDEX)).all():
            raise InvalidInputError(
                "precision and recall are computed from logits and from labels of 0 and 1, but "
                f"{'class ids' if logits.dtype.kind != 'f' else 'labels between them'} were found: give compute_metrics."
            )
        counted = labels != IGNORE_INDEX
        predictions, references = (logits[counted] > 0).astype(np.int64), labels[counted].astype(np.int64)
        return {"predictions": predictions, "references": references, "positive_label": 1, "average": "binary"}
    average = "binary" if logits.shape[-1] == 2 else "macro"
    return {
        "predictions": logits.argmax(-1),
        "references": labels,
        "positive_label": positive_label,
        "average": average,
    }


def logits_and_labels(prediction: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a `transformers.EvalPrediction`, as `decisions` takes them.

    Items whose label is −100 are left out; of several labels per example none is, since examples keep their shape.
    """
    logits, labels = prediction.predictions, prediction.label_ids
    if isinstance(labels, list):  # eval_do_concat_batches=False
        batches = [logits_and_labels(EvalPrediction(*batch)) for batch in zip(logits, labels, strict=True)]
        return np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])
    if isinstance(logits, tuple):  # hidden states and attentions come behind the logits
        logits = logits[0]
    if labels.shape == logits.shape:
        return logits, labels
    if labels.shape == (*logits.shape[:-1], 1):
        labels = labels[..., 0]
    counted = labels != IGNORE_INDEX
    return logits[counted], labels[counted]
