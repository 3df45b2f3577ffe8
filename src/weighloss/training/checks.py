"""What the trainer refuses: inputs for which a weighted loss has no meaning, or would be wrong silently."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInputError
from ..weighting.labels import LABEL_COLUMNS, class_names
from ..weighting.task import Task

_NOT_CLASSIFIERS = ("LM", "Segmentation", "ObjectDetection", "QuestionAnswering", "Generation", "DepthEstimation")


def check_model(model: Any) -> None:
    """Refuse a model that is not a classifier."""
    name = type(model).__name__
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "num_labels"):
        raise InvalidInputError(
            f"{name} has no config with num_labels: load the model with an AutoModelFor…Classification class."
        )
    if any(kind in name for kind in _NOT_CLASSIFIERS):
        raise InvalidInputError(
            f"{name} is not supported: a weighted loss needs one row of logits for each label, with the classes as the "
            "last dimension; load a model for sequence, token, image or audio classification."
        )
    problem = getattr(config, "problem_type", None)
    if problem not in (None, "single_label_classification", "multi_label_classification"):
        raise InvalidInputError(
            f"the model has problem_type={problem!r}, which is not a classification: load it without problem_type."
        )
    if config.num_labels < 2 and problem != "multi_label_classification":
        raise InvalidInputError(
            f"the model has num_labels={config.num_labels}, which means regression: load it with num_labels=2 or more."
        )


def check_trainer(trainer: Any) -> None:
    """Refuse arguments of the trainer with which a weighted loss would be wrong or replaced."""
    args, names = trainer.args, trainer.label_names
    if isinstance(names, str) or len(names) != 1 or names[0] in ("label", "label_ids"):
        raise InvalidInputError(
            "label_names must be a list with the one name that the batches have for the class ids; the collators of "
            f"transformers call them 'labels', whatever the column is called; got {names!r}: leave label_names out."
        )
    if trainer.compute_loss_func is not None:
        raise InvalidInputError(
            "compute_loss_func would replace the weighted loss: leave it out, or use transformers.Trainer."
        )
    if trainer.compute_metrics is None and (args.batch_eval_metrics or trainer.preprocess_logits_for_metrics):
        raise InvalidInputError(
            "the default metrics need all logits as the model returns them: with batch_eval_metrics or "
            "preprocess_logits_for_metrics give compute_metrics too."
        )
    several = trainer.model.config.num_labels > 2 or trainer.task is Task.MULTILABEL
    if several and getattr(args, "positive_label", None) is not None:
        raise InvalidInputError(
            f"positive_label has no meaning for {trainer.model.config.num_labels} labels whose metrics are averaged "
            f"({', '.join(map(repr, trainer.class_names[:10]))}): leave it out, or correct the labels."
        )
    if trainer.task is Task.MULTILABEL and args.label_smoothing_factor > 0:
        raise InvalidInputError(
            f"label_smoothing_factor must be 0 for several labels per example, got {args.label_smoothing_factor}."
        )
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    if getattr(parallelism, "sp_enabled", False) or getattr(parallelism, "cp_enabled", False):
        raise InvalidInputError(
            "sequence and context parallelism divide the example that a label belongs to: leave parallelism_config out."
        )
    if args.remove_unused_columns and _has_no_named_input(trainer.model):
        raise InvalidInputError(
            f"the forward of {type(trainer.model).__name__} names no inputs, so the Trainer would remove them all from the "
            "data: set remove_unused_columns=False (for a compiled model torch_compile=True does as well)."
        )
    several_sets = isinstance(trainer.eval_dataset, Mapping)
    for key, dataset in (trainer.eval_dataset if several_sets else {"": trainer.eval_dataset}).items():
        check_class_order(trainer, dataset, f"eval_dataset[{key!r}]" if several_sets else "eval_dataset")


def check_class_order(trainer: Any, dataset: Any, name: str) -> None:
    """Refuse data in which a class has another id than in the training data or in the model."""
    known = {label: i for i, label in enumerate(names_in(trainer, trainer.train_dataset))}
    where = "the training data"
    if dataset is trainer.train_dataset or not known:
        known, where = {label: int(i) for i, label in trainer.model.config.id2label.items()}, "the model"
    for i, label in enumerate(names_in(trainer, dataset)):
        if known.get(label, i) != i:
            raise InvalidInputError(
                f"the class {label!r} has id {i} in {name}, but id {known[label]} in {where}: bring them into one order, "
                "for example with dataset.align_labels_with_mapping."
            )


def names_in(trainer: Any, dataset: Any) -> list[str]:
    """Class names of a dataset's `ClassLabel` column; empty where it has none."""
    if trainer.task is Task.MULTILABEL:
        return []
    found = (class_names(dataset, column) for column in (*LABEL_COLUMNS, trainer.label_name))
    return next(filter(None, found), [])


def _has_no_named_input(model: Any) -> bool:
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter's wrapper
    parameters = inspect.signature(model.forward).parameters.values()
    return all(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters)
