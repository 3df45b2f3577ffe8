"""What the trainer refuses: inputs for which a weighted loss has no meaning, or would be wrong silently."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..weighting.task import Task

_NOT_CLASSIFIERS = ("LM", "Segmentation", "ObjectDetection", "QuestionAnswering", "Generation", "DepthEstimation")


def refuse(problems: Sequence[tuple[Any, str]]) -> None:
    """Raise the sentence of the first problem that is there."""
    for is_there, sentence in problems:
        if is_there:
            raise InvalidInputError(sentence)


def check_model(trainer: Any) -> None:
    """Refuse a model that is not a classifier."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    config = getattr(model, "config", None)
    name, problem = type(model).__name__, getattr(config, "problem_type", None)
    refuse(
        [
            (
                not hasattr(config, "num_labels"),
                f"{name} has no config with num_labels: load the model with an AutoModelFor…Classification class.",
            ),
            (
                any(kind in name for kind in _NOT_CLASSIFIERS),
                f"{name} is not supported: a weighted loss needs one row of logits for each label, with the classes as "
                "the last dimension; load a model for sequence, token, image or audio classification.",
            ),
            (
                problem not in (None, "single_label_classification", "multi_label_classification"),
                f"the model has problem_type={problem!r}, which is not a classification: load it without problem_type.",
            ),
            (
                getattr(config, "num_labels", 0) < 2 and problem != "multi_label_classification",
                f"the model has num_labels={getattr(config, 'num_labels', 0)}, which means regression: load it with "
                "num_labels=2 or more.",
            ),
        ]
    )


def check_trainer(trainer: Any) -> None:
    """Refuse arguments of the trainer with which a weighted loss would be wrong or replaced."""
    args, config = trainer.args, trainer.model.config
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    several = config.num_labels > 2 or trainer.task is Task.MULTILABEL
    refuse(
        [
            (
                isinstance(args.label_names, str),
                f"label_names must be a list, got {args.label_names!r}: write [{args.label_names!r}].",
            ),
            (
                len(trainer.label_names) != 1,
                f"label_names must name the one column with the class ids, got {trainer.label_names!r}: write "
                "label_names=['labels'].",
            ),
            (
                trainer.label_names[0] in ("label", "label_ids"),
                f"label_names={trainer.label_names!r} names a column of the data, but the collators of transformers call "
                "it 'labels' in the batches: leave label_names out.",
            ),
            (
                trainer.compute_loss_func is not None,
                "compute_loss_func would replace the weighted loss: leave it out, or use transformers.Trainer.",
            ),
            (
                args.batch_eval_metrics and trainer.compute_metrics is None,
                "batch_eval_metrics=True needs metrics that are computed batch by batch: give compute_metrics.",
            ),
            (
                trainer.preprocess_logits_for_metrics is not None and trainer.compute_metrics is None,
                "preprocess_logits_for_metrics changes the logits of the default metrics: give compute_metrics too, or "
                "leave it out.",
            ),
            (
                getattr(args, "positive_label", None) is not None and several,
                f"positive_label has no meaning for {config.num_labels} labels whose metrics are averaged "
                f"({', '.join(map(repr, trainer.class_names[:10]))}): leave it out, or correct the labels.",
            ),
            (
                trainer.task is Task.MULTILABEL and args.label_smoothing_factor > 0,
                "label_smoothing_factor must be 0 for several labels per example, since it smooths over classes of which "
                f"one is right, got {args.label_smoothing_factor}.",
            ),
            (
                getattr(parallelism, "sp_enabled", False) or getattr(parallelism, "cp_enabled", False),
                "sequence and context parallelism divide the example that a label belongs to: leave parallelism_config "
                "out.",
            ),
            (
                args.remove_unused_columns and _has_no_named_input(trainer.model),
                f"the forward of {type(trainer.model).__name__} names no inputs, so the Trainer would remove them all from "
                "the data: set remove_unused_columns=False (for a compiled model torch_compile=True does as well).",
            ),
        ]
    )
    for name, dataset in _named_datasets(trainer.eval_dataset):
        check_class_order(trainer, dataset, name)


def check_class_order(trainer: Any, dataset: Any, name: str) -> None:
    """Refuse data in which a class has another id than in the training data or in the model."""
    known = {label: i for i, label in enumerate(trainer.classes.names_in(trainer.train_dataset))}
    where = "the training data"
    if dataset is trainer.train_dataset or not known:
        known, where = {label: int(i) for i, label in trainer.model.config.id2label.items()}, "the model"
    for i, label in enumerate(trainer.classes.names_in(dataset)):
        if known.get(label, i) != i:
            raise InvalidInputError(
                f"the class {label!r} has id {i} in {name}, but id {known[label]} in {where}: bring them into one order, "
                "for example with dataset.align_labels_with_mapping."
            )


def check_counts(trainer: Any, counts: np.ndarray, column: str) -> None:
    """Refuse labels that are not classes of the model."""
    num_labels = trainer.model.config.num_labels
    if trainer.task is Task.MULTILABEL:
        if len(counts) != num_labels:
            raise InvalidInputError(
                f"column {column!r} has {len(counts)} labels per example, but the model has num_labels={num_labels}: load "
                f"the model with num_labels={len(counts)}."
            )
    elif len(counts) > num_labels:
        present = np.flatnonzero(counts)
        advice = f"load the model with num_labels={len(counts)}"
        if len(present) <= num_labels:
            advice = f"number the classes from 0, for example with dataset.class_encode_column({column!r})"
        raise InvalidInputError(
            f"column {column!r} has label ids from {present[0]} to {present[-1]}, but the model has "
            f"num_labels={num_labels}: {advice}."
        )


def _named_datasets(datasets: Any) -> list[tuple[str, Any]]:
    if isinstance(datasets, Mapping):
        return [(f"eval_dataset[{name!r}]", dataset) for name, dataset in datasets.items()]
    return [] if datasets is None else [("eval_dataset", datasets)]


def _has_no_named_input(model: Any) -> bool:
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter's wrapper
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(parameter.kind in variadic for parameter in inspect.signature(model.forward).parameters.values())
