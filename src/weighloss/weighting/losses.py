from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812

from ..errors import InvalidInputError
from .labels import IGNORE_INDEX


def weighted_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "none"] = "mean",
) -> torch.Tensor:
    r"""Weighted cross-entropy, summed over the items and divided by the number of items of the optimizer step.

    L = (1 / num_items) · Σ_i w_{y_i} · ℓ_i (King and Zeng 2001, see `ClassWeights`). The losses of the micro-batches of a
    step add up to the loss of the step in one batch. `torch.nn.CrossEntropyLoss(weight=w)` divides by Σ_i w_{y_i} of each
    micro-batch instead (pytorch/pytorch issue 72047): with one item per micro-batch its weights cancel.

    Parameters
    ----------
    logits : float tensor of shape (batch, n_classes) or (batch, ..., n_classes)
        float64 is kept, any other dtype is converted to float32.
    labels : tensor of any dtype and of shape (batch,) or (batch, ...), a last dimension of size 1 allowed
        Class ids from 0 to n_classes − 1, and −100 for items that do not count.
    class_weights : float tensor of shape (n_classes,)
        Weights of mean 1 over the training labels: see `ClassWeights`. Ones give the unweighted loss.
    num_items : int or scalar tensor, optional
        Number of labels that count in the whole optimizer step, over all micro-batches and processes; in `labels` when
        None. Not used with `reduction="none"`.
    label_smoothing : float, default 0.0
        ℓ_i is the cross-entropy against (1 − ε)·one-hot + ε·uniform. The weight stays that of the item's own label.
    reduction : {"mean", "none"}, default "mean"
        "none" returns the weighted loss of each item.

    Returns
    -------
    float32 scalar (float64 for float64 logits) on the device of the logits, 0 where no label counts; with
    `reduction="none"` a tensor of the shape of `labels`, 0 for labels that do not count.

    Raises
    ------
    InvalidInputError
        When shapes do not fit, a label is a fraction, `reduction` is unknown, or, on the CPU, a label is not a class id.

    Examples
    --------
    >>> logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    >>> weighted_cross_entropy(logits, labels, torch.tensor([0.5, 3.0]), reduction="none")
    tensor([0.0635, 0.9398])
    """
    _check_num_classes(logits, class_weights)
    advice = (
        "give one class id for each row of logits, or load the model with problem_type='multi_label_classification'"
    )
    _check_shape(labels.shape in (logits.shape[:-1], (*logits.shape[:-1], 1)), labels, logits, advice)
    if labels.is_floating_point() and (fractions := labels[labels != labels.trunc()]).numel():
        raise InvalidInputError(
            f"labels must be class ids, got {fractions[0].item():g}: correct the labels, or load the model with "
            "problem_type='multi_label_classification'."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = labels.to(logits.device, torch.long)
    num_classes = logits.shape[-1]
    flat = logits.reshape(-1, num_classes), labels.flatten()
    try:
        losses = F.cross_entropy(*flat, ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing, reduction="none")
    except IndexError as error:  # torch checks the ids anyway, so that a check of our own would only cost time
        raise InvalidInputError(
            f"labels must be class ids from 0 to {num_classes - 1}, or -100 for items that do not count ({error}): correct "
            "the labels, or load the model with more classes (num_labels)."
        ) from None
    counted = labels != IGNORE_INDEX
    item_weights = class_weights.to(logits)[labels.where(counted, 0)]
    return _reduced(item_weights * losses.view_as(labels), counted, num_items, reduction)


def weighted_binary_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> torch.Tensor:
    r"""Weighted binary cross-entropy of several labels per example, with the division of `weighted_cross_entropy`.

    L = (1 / num_items) · Σ_il w_{l,y_il} · ℓ_il: every label l of every example i is an item. Up to the scale of the
    weights it is `torch.nn.BCEWithLogitsLoss(pos_weight=p)` with p_l = w_{l,1} / w_{l,0}.

    Parameters
    ----------
    logits : float tensor of shape (batch, n_labels)
    labels : tensor of shape (batch, n_labels) and any dtype
        Values from 0 to 1, and −100 for items that do not count.
    class_weights : float tensor of shape (n_labels, 2)
        Weights of the negatives and the positives of each label: see `ClassWeights.from_multi_label_counts`.
    num_items, reduction
        As in `weighted_cross_entropy`, and so are the result and the errors.

    Examples
    --------
    >>> class_weights = torch.tensor([[0.5, 3.0], [1.0, 1.0]])
    >>> weighted_binary_cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([[1, 0]]), class_weights)
    tensor(0.5370)
    """
    _check_num_classes(logits, class_weights)
    _check_shape(labels.shape == logits.shape, labels, logits, "give a 0 or 1 for each label of each example")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = labels.to(logits)
    counted = labels != IGNORE_INDEX
    positive = labels.where(counted, 0)
    negative_weights, positive_weights = class_weights.to(logits).unbind(dim=-1)
    losses = -positive_weights * positive * F.logsigmoid(logits)
    losses = losses - negative_weights * (1 - positive) * F.logsigmoid(-logits)
    return _reduced(losses.where(counted, 0), counted, num_items, reduction)


def calibrated_logits(logits: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    r"""Logits without the effect of the class weights of the training: logits − log w.

    With weights w_c a model learns the probabilities p_c·w_c / Σ_k p_k·w_k, as if class c was w_c times as frequent.
    Subtracting log w gives p_c back (Elkan 2001, The Foundations of Cost-Sensitive Learning, IJCAI, theorem 2): exactly for
    a model that minimises its loss, approximately for any other. The result has the shape and dtype of `logits`. Raises
    InvalidInputError when the numbers of logits and class weights differ.

    Parameters
    ----------
    logits : float tensor of shape (..., n_classes)
    class_weights : float tensor of shape (n_classes,), or (n_labels, 2) for several labels per example
        Weights of the training, of any scale: `trainer.class_weights.weights`, or `class_weights` of the saved config. With
        several labels per example log(w_1 / w_0) of each label is subtracted.

    Examples
    --------
    >>> calibrated_logits(torch.tensor([[0.0, 1.0]]), torch.tensor([0.5, 4.0])).softmax(-1)
    tensor([[0.7464, 0.2536]])
    """
    class_weights = torch.as_tensor(class_weights)
    _check_num_classes(logits, class_weights)
    log_weights = class_weights.log()
    if log_weights.ndim == 2:
        log_weights = log_weights[:, 1] - log_weights[:, 0]
    return logits - log_weights.to(logits)


def _reduced(
    losses: torch.Tensor, counted: torch.Tensor, num_items: torch.Tensor | int | None, reduction: str
) -> torch.Tensor:
    if reduction == "none":
        return losses
    if reduction != "mean":
        raise InvalidInputError(f"reduction must be 'mean' or 'none', got {reduction!r}.")
    items = counted.sum() if num_items is None else torch.as_tensor(num_items, device=losses.device)
    return losses.sum() / items.where(items != 0, 1)  # without items the sum is 0 already


def _check_num_classes(logits: torch.Tensor, class_weights: torch.Tensor) -> None:
    if len(class_weights) != logits.shape[-1]:
        raise InvalidInputError(
            f"the model returns {logits.shape[-1]} logits per item, but there are {len(class_weights)} class weights: "
            f"load the model with num_labels={len(class_weights)}."
        )


def _check_shape(fits: bool, labels: torch.Tensor, logits: torch.Tensor, advice: str) -> None:
    if not fits:
        raise InvalidInputError(
            f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}: {advice}."
        )
