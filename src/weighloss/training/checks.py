"""What the trainer refuses: inputs for which a weighted loss has no meaning, or would be wrong silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..weighting.task import Task


def refuse(problems: Sequence[tuple[Any, str]]) -> None:
    """Raise the sentence of the first problem that is there."""
    for is_there, sentence in problems:
        if is_there:
            raise InvalidInputError(sentence)


def check_model(trainer: Any) -> None:
    """Refuse a model that is not a classifier."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    config = getattr(model, "config", None)
    num_labels, problem = getattr(config, "num_labels", None), getattr(config, "problem_type", None)
    refuse(
        [
            (
                num_labels is None,
                f"{type(model).__name__} has no config with num_labels: load the model with an AutoModelFor…Classification "
                "class.",
            ),
            (
                problem == "regression" or (num_labels == 1 and problem != "multi_label_classification"),
                f"the model has num_labels={num_labels} and problem_type={problem!r}, which means regression: load it with "
                "num_labels=2 or more, and without problem_type.",
            ),
        ]
    )


def check_trainer(trainer: Any) -> None:
    """Refuse arguments of the trainer with which a weighted loss would be wrong or replaced."""
    args, names = trainer.args, trainer.label_names
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    refuse(
        [
            (
                isinstance(names, str) or len(names) != 1,
                f"label_names must be a list of the one name of the class ids in the batches, got {names!r}: write "
                "label_names=['labels'].",
            ),
            (
                trainer.compute_loss_func is not None,
                "compute_loss_func would replace the weighted loss: leave it out, or use transformers.Trainer.",
            ),
            (
                trainer.compute_metrics is None
                and (args.batch_eval_metrics or trainer.preprocess_logits_for_metrics is not None),
                "batch_eval_metrics and preprocess_logits_for_metrics need metrics of your own: give compute_metrics too.",
            ),
            (
                getattr(args, "positive_label", None) is not None and (trainer.task is not Task.BINARY),
                f"positive_label has no meaning for {trainer.model.config.num_labels} labels whose metrics are averaged "
                f"({', '.join(map(repr, trainer.class_names[:10]))}): leave it out, or correct the labels.",
            ),
            (
                trainer.task is Task.MULTILABEL and args.label_smoothing_factor > 0,
                f"label_smoothing_factor must be 0 for several labels per example, got {args.label_smoothing_factor}.",
            ),
            (
                getattr(parallelism, "sp_enabled", False) or getattr(parallelism, "cp_enabled", False),
                "sequence and context parallelism divide the example that a label belongs to: leave parallelism_config "
                "out.",
            ),
        ]
    )
    datasets = trainer.eval_dataset
    named = {f"eval_dataset[{key!r}]": datasets[key] for key in datasets} if isinstance(datasets, Mapping) else {}
    for name, dataset in (named or {"eval_dataset": datasets}).items():
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
    num_labels, several = trainer.model.config.num_labels, trainer.task is Task.MULTILABEL
    if len(counts) > num_labels or (several and len(counts) < num_labels):
        present = np.flatnonzero(counts)
        found = f"{len(counts)} labels per example" if several else f"label ids from {present[0]} to {present[-1]}"
        advice = "" if several else f"number the classes from 0 with dataset.class_encode_column({column!r}), or "
        raise InvalidInputError(
            f"column {column!r} has {found}, but the model has num_labels={num_labels}: {advice}load the model with "
            f"num_labels={len(counts)}."
        )
