"""What a sweep refuses: what cannot be swept over, or would make legs that cannot be compared."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..training.checks import refuse
from ..training.threshold import last_bias
from ..weighting.task import Task
from .settings import SweepSettings

logger = logging.getLogger(__name__)


def check_sweep(settings: SweepSettings, trainer: Any, resume_from_checkpoint: Any = None, trial: Any = None) -> None:
    """Refuse, before anything is trained, what cannot be swept over.

    Raises
    ------
    InvalidInputError
    """
    args, train = trainer.args, trainer.train_dataset
    evaluation = settings.evaluation_set(trainer)
    folder = settings.folder(args)
    sharded = (
        trainer.is_deepspeed_enabled
        or trainer.is_fsdp_enabled
        or getattr(trainer, "is_distributed_loading_by_transformers", False)
    )
    refuse(
        [
            (
                trial is not None,
                "hyperparameter_search would run the whole sweep in each trial: leave RatioSweepCallback out, and search "
                "over weight_ratio.",
            ),
            (train is None, "a sweep needs training data: give train_dataset."),
            (evaluation is None, "a sweep needs evaluation data: give eval_dataset."),
            (
                not hasattr(evaluation, "__len__"),
                f"a sweep needs evaluation data of known length, got {type(evaluation).__name__}: give a dataset with a "
                "length.",
            ),
            (
                "@" in settings.requirement and (settings.search is not None or args.load_best_model_at_end),
                f"{settings.requirement} is guaranteed only on data that chose nothing before, but a search or "
                "load_best_model_at_end chooses on the evaluation data: leave that, or the @, out.",
            ),
            (
                settings.test_dataset is not None and not hasattr(settings.test_dataset, "__len__"),
                f"test_dataset must have a length, got {type(settings.test_dataset).__name__}: give another dataset.",
            ),
            (
                getattr(args, "class_weights", None) is not None,
                "explicit class_weights leave no ratio to sweep over: leave them out.",
            ),
            (
                trainer.preprocess_logits_for_metrics is not None,
                "preprocess_logits_for_metrics changes the logits that the sweep records: leave it out.",
            ),
            (
                getattr(args, "enable_jit_checkpoint", False),
                "enable_jit_checkpoint saves in the middle of a step, from which no leg resumes exactly: leave it out, and "
                "set save_strategy='steps' for checkpoints within a leg.",
            ),
            (
                sharded and trainer.model_init is None,
                "with DeepSpeed, FSDP or a sharded model the initial weights cannot be restored between the legs: give the "
                "trainer model_init instead of model.",
            ),
            (len(list(trainer.runners())) > 1, "the trainer has two sweeps: leave one RatioSweepCallback."),
            (
                args.push_to_hub and folder.absolute() != Path(args.output_dir).absolute(),
                f"push_to_hub pushes {args.output_dir}, but output_dir of the sweep is {folder}: leave the latter out.",
            ),
            (
                isinstance(resume_from_checkpoint, (str, Path))
                and not Path(resume_from_checkpoint).absolute().is_relative_to(folder.absolute()),
                f"resume_from_checkpoint={str(resume_from_checkpoint)!r} is not a checkpoint of the sweep in {folder}, "
                "which resumes by itself: leave it out.",
            ),
        ]
    )
    if getattr(args, "class_counts", None) is None:  # else the labels may be made by the collator
        _check_evaluation_labels(trainer, evaluation)
    if args.num_train_epochs not in (type(args).num_train_epochs, settings.epochs_per_ratio):
        logger.warning(
            "num_train_epochs=%g is not used by a sweep, whose legs have epochs_per_ratio=%d.",
            args.num_train_epochs,
            settings.epochs_per_ratio,
        )
    if settings.threshold == "any":
        try:
            last_bias(trainer.model)
        except InvalidInputError as error:  # said now, and not after all legs
            logger.warning("%s It will only be recorded.", error)
    if getattr(args, "weight_ratio", None) is not None:
        logger.warning("weight_ratio=%s is not used by a sweep, which has ratios of its own.", args.weight_ratio)


def _check_evaluation_labels(trainer: Any, evaluation: Any) -> None:
    counts = trainer.count_classes(evaluation)
    of_kinds = counts.sum(axis=0) if trainer.task is Task.MULTILABEL else counts  # there, negatives and positives
    if np.count_nonzero(of_kinds) < 2:
        found = zip(trainer.class_names, counts.tolist(), strict=True)
        raise InvalidInputError(
            f"the evaluation data has {', '.join(f'{count} {name}' for name, count in found)}, but precision and recall "
            "need both classes, or two of several: give other evaluation data."
        )
