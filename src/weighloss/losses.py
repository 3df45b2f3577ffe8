from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from .errors import InvalidInputError
from .labels import IGNORE_INDEX


def weighted_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    r"""Weighted cross-entropy summed over the items and divided by the number of items of the whole optimizer step.

    L = (1 / num_items) · Σ_i w_{y_i} · ℓ_i. It is linear in the items, so the losses of the micro-batches of a step add up
    to the loss of the step in one batch. `torch.nn.CrossEntropyLoss(weight=w)` divides by Σ_i w_{y_i} of each micro-batch
    instead, and with one item per micro-batch its weights cancel.

    Parameters
    ----------
    logits : float tensor (batch, classes) or (batch, ..., classes)
        Of any floating dtype; the loss is computed in float32 (or float64).
    labels : int64 tensor (batch,) or (batch, ...)
        Class ids, −100 for items that do not count.
    class_weights : float tensor (classes,)
        Mean 1 over the training labels: see `ClassWeights`.
    num_items : int or scalar tensor, optional
        Number of labels that count in the whole optimizer step, over all its micro-batches and processes; those of
        `labels` when None.
    label_smoothing : float, default 0.0
        ℓ_i is the cross-entropy against (1 − ε)·one-hot + ε·uniform; the weight stays that of the item's own label.

    Returns
    -------
    float32 scalar (float64 for float64 logits); 0 where no label counts.

    Raises
    ------
    InvalidInputError
        When logits and class weights are not of the same number of classes.

    References
    ----------
    King, G. and Zeng, L. (2001), Logistic Regression in Rare Events Data, Political Analysis 9(2);
    the effect of the other normalisation: pytorch/pytorch issue 72047.
    """
    num_classes = logits.shape[-1]
    _check_classes(logits, class_weights)
    if logits.dtype != torch.float64:
        logits = logits.float()
    labels = labels.reshape(-1).to(logits.device)
    class_weights = class_weights.to(logits)
    losses = F.cross_entropy(
        logits.reshape(-1, num_classes),
        labels,
        reduction="none",
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
    )
    counted = labels != IGNORE_INDEX
    total = (class_weights[labels.where(counted, 0)] * losses).sum()
    if num_items is None:
        num_items = counted.sum().clamp(min=1)
    return total / torch.as_tensor(num_items, device=total.device)


def calibrated_logits(logits: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    r"""Logits of a model trained with class weights, for the population as it is: logits − log w.

    A loss that weighs class c by w_c is that of a population in which class c is w_c times as frequent; its probabilities
    are p_c·w_c / Σ_k p_k·w_k. Subtracting log w undoes that exactly for a model that fits its loss, and to first order
    for one that does not.

    Parameters
    ----------
    logits : float tensor (..., classes)
    class_weights : float tensor (classes,)
        Those of the training: `trainer.class_weights.weights`, or `class_weights` of the saved model's config. Any common
        factor cancels in the softmax.

    Returns
    -------
    Tensor of the shape and dtype of `logits`.

    Raises
    ------
    InvalidInputError
        When logits and class weights are not of the same number of classes.

    References
    ----------
    Elkan, C. (2001), The Foundations of Cost-Sensitive Learning, IJCAI, theorem 2.
    """
    class_weights = torch.as_tensor(class_weights)
    _check_classes(logits, class_weights)
    return logits - class_weights.to(logits).log()


def _check_classes(logits: torch.Tensor, class_weights: torch.Tensor) -> None:
    if class_weights.shape != (logits.shape[-1],):
        raise InvalidInputError(
            f"the model returns {logits.shape[-1]} logits per item, but there are {len(class_weights)} class weights: "
            f"load the model with num_labels={len(class_weights)}."
        )
