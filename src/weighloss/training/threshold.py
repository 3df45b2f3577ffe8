from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import InvalidInputError
from ..results.operating_point import as_vector
from ..weighting.task import Task


def apply_threshold(model: Any, threshold: float | Sequence[float]) -> None:
    """Let a model decide at a threshold: its most probable class is then the decision, wherever the model is loaded.

    The threshold is subtracted from the bias of the last layer, so that the probability of the positive label is 0.5 at the
    threshold. `model.config.threshold` says what was subtracted. A threshold that was applied before is removed first.

    Parameters
    ----------
    model : PreTrainedModel
        A classifier whose last layer is linear with a bias, in float32.
    threshold : float, or sequence of float of shape (n_labels,)
        With two classes, the log-odds above which an example is positive (`OperatingPoint.threshold`; the log-odds of a
        probability p are log(p / (1 − p))). With several labels per example one for each label, and with more classes what
        is subtracted from each logit. 0 is the rule that was trained, for any number of classes.

    Raises
    ------
    InvalidInputError
        When the model has no such layer, or the threshold does not fit its classes.

    Examples
    --------
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
    >>> apply_threshold(model, 1.5)
    >>> model.config.threshold
    [0.0, 1.5]
    >>> remove_threshold(model)
    """
    vector = threshold_vector(model, threshold)
    remove_threshold(model)
    if vector.any():
        _subtract(model, vector)
        model.config.threshold = vector.tolist()


def remove_threshold(model: Any) -> None:
    """Undo `apply_threshold`: the model decides as it was trained. Nothing happens where no threshold was applied.

    Raises InvalidInputError as `apply_threshold`.
    """
    applied = getattr(model.config, "threshold", None)
    if applied is not None:
        _subtract(model, -np.asarray(applied))
        del model.config.threshold


def threshold_vector(model: Any, threshold: Any) -> np.ndarray:
    """What `apply_threshold` subtracts from each logit. Raises InvalidInputError where it does not fit the classes."""
    config, task = model.config, Task.of_model(model.config)
    try:
        given: Any = np.asarray(threshold, dtype=np.float64)
    except (TypeError, ValueError):  # no numbers, or lists of different lengths
        given = np.array(math.nan)
    fits = given.shape == (config.num_labels,) or (given.ndim == 0 and (task is Task.BINARY or given == 0))
    if not fits or not np.isfinite(given).all():
        one = "a finite number" if task is Task.BINARY else f"{config.num_labels} finite numbers, one for each label"
        raise InvalidInputError(f"threshold must be {one}, got {threshold!r}.")
    return as_vector(given, config.num_labels, task, getattr(config, "positive_label", 1))


def _subtract(model: Any, vector: np.ndarray) -> None:
    bias = last_bias(model)
    with torch.no_grad():
        bias -= torch.as_tensor(vector, dtype=bias.dtype, device=bias.device)


def last_bias(model: Any) -> torch.Tensor:
    """The bias of the last linear layer. Raises InvalidInputError where that does not give the logits."""
    last: Any = next((layer for layer in reversed([*model.modules()]) if isinstance(layer, torch.nn.Linear)), None)
    if last is None or last.out_features != model.config.num_labels or last.bias is None:
        raise InvalidInputError(
            f"the threshold cannot be part of a {type(model).__name__}, whose last layer is not linear with a bias for "
            "each class: compare the difference of the logits with it where you predict."
        )
    if last.bias.dtype not in (torch.float32, torch.float64):
        raise InvalidInputError(
            f"the threshold needs weights of more digits than {last.bias.dtype} has: load the model with "
            "dtype=torch.float32."
        )
    return last.bias
