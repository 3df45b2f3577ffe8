from __future__ import annotations

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
    weighted, _, counted = item_losses(logits, labels, class_weights, label_smoothing)
    return mean_loss(weighted, counted, num_items)


def weighted_binary_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    r"""Weighted binary cross-entropy of several labels per example, over the number of labels of the whole optimizer step.

    L = (1 / num_items) · Σ_il w_{l,y_il} · ℓ_il, every label l of every example i being an item. Up to the scale of the
    weights it is `torch.nn.BCEWithLogitsLoss(pos_weight=p)` with p_l = w_{l,1} / w_{l,0}; like `weighted_cross_entropy` it
    is linear in the items.

    Parameters
    ----------
    logits : float tensor (batch, labels)
        Of any floating dtype; the loss is computed in float32 (or float64).
    labels : tensor (batch, labels)
        From 0 to 1, of any dtype; −100 for items that do not count.
    class_weights : float tensor (labels, 2)
        Of negatives and positives: see `ClassWeights.from_multi_label_counts`.
    num_items : int or scalar tensor, optional
        Number of labels that count in the whole optimizer step; those of `labels` when None.

    Returns
    -------
    float32 scalar (float64 for float64 logits); 0 where no label counts.

    Raises
    ------
    InvalidInputError
        When logits, labels and class weights are not of the same number of labels.
    """
    weighted, _, counted = multi_label_item_losses(logits, labels, class_weights)
    return mean_loss(weighted, counted, num_items)


def item_losses(
    logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `weighted_cross_entropy` adds up: for each label its weighted loss, its plain loss, and whether it counts.

    Returns
    -------
    weighted, plain : float32 (float64) tensors (items,), 0 for labels that do not count
    counted : bool tensor (items,)
    """
    _check_classes(logits, class_weights)
    if labels.shape not in (logits.shape[:-1], (*logits.shape[:-1], 1)):
        several = labels.shape == logits.shape
        raise InvalidInputError(
            f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}: "
            + (
                "for several labels per example load the model with problem_type='multi_label_classification'."
                if several
                else "there must be one label for each row of logits, whose last dimension is the classes."
            )
        )
    logits, labels = _in_float32(logits).flatten(end_dim=-2), labels.to(logits.device).flatten()
    plain = F.cross_entropy(
        logits, labels, reduction="none", ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing
    )
    counted = labels != IGNORE_INDEX
    return class_weights.to(logits)[labels.where(counted, 0)] * plain, plain, counted


def multi_label_item_losses(
    logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `weighted_binary_cross_entropy` adds up, as `item_losses`: tensors (batch, labels)."""
    _check_classes(logits, class_weights)
    if labels.shape != logits.shape:
        raise InvalidInputError(
            f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}: there must be a 0 "
            "or 1 for each label of each example."
        )
    logits, labels = _in_float32(logits), labels.to(logits.device)
    counted = labels != IGNORE_INDEX
    targets = labels.where(counted, 0).to(logits)
    negatives, positives = class_weights.to(logits).unbind(dim=-1)
    on, off = F.softplus(-logits), F.softplus(logits)  # of a positive and of a negative
    plain = (targets * on + (1 - targets) * off).where(counted, 0)
    return (targets * positives * on + (1 - targets) * negatives * off).where(counted, 0), plain, counted


def calibrated_logits(logits: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    r"""Logits of a model trained with class weights, for the population as it is: logits − log w.

    A loss that weighs class c by w_c is that of a population in which class c is w_c times as frequent; its probabilities
    are p_c·w_c / Σ_k p_k·w_k. Subtracting log w undoes that exactly for a model that fits its loss, and to first order
    for one that does not. For several labels per example it is log(w_1 / w_0) of each label.

    Parameters
    ----------
    logits : float tensor (..., classes)
    class_weights : float tensor (classes,), or (labels, 2) for several labels per example
        Those of the training: `trainer.class_weights.weights`, or `class_weights` of the saved model's config. Any common
        factor cancels.

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
    log_weights = class_weights.log()
    if log_weights.ndim == 2:
        log_weights = log_weights[:, 1] - log_weights[:, 0]
    return logits - log_weights.to(logits)


def _in_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def mean_loss(losses: torch.Tensor, counted: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
    """The losses of the items over the number of items of the whole optimizer step, those that count when it is None."""
    items = counted.sum() if num_items is None else torch.as_tensor(num_items, device=losses.device)
    return losses.sum() / items.clamp(min=1)  # where no label counts there is nothing to divide


def _check_classes(logits: torch.Tensor, class_weights: torch.Tensor) -> None:
    if len(class_weights) != logits.shape[-1]:
        raise InvalidInputError(
            f"the model returns {logits.shape[-1]} logits per item, but there are {len(class_weights)} class weights: "
            f"load the model with num_labels={len(class_weights)}."
        )
