from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from transformers import EarlyStoppingCallback

from ..results.requirement import Requirement
from ..errors import InvalidInputError
from .search import RatioSearch

if TYPE_CHECKING:
    from .callback import RatioSweepCallback
    from ..training.trainer import WeightedLossTrainer

logger = logging.getLogger(__name__)

_COMPARABLE_METRICS = ("f1", "precision", "recall", "accuracy", "plain_loss")


def check_trainer(trainer: WeightedLossTrainer) -> None:
    """Refuse what a weighted loss has no meaning for, before anything is trained."""
    args, config = trainer.args, cast(Any, getattr(trainer.model, "config", None))
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    if not hasattr(config, "num_labels"):
        raise InvalidInputError(
            f"{type(trainer.model).__name__} has no config with num_labels: load the model with an AutoModelFor… class."
        )
    problem = getattr(config, "problem_type", None)
    problems = [
        (
            trainer.compute_loss_func is not None,
            "compute_loss_func would replace the weighted loss: leave it out, or use transformers.Trainer.",
        ),
        (
            args.batch_eval_metrics and trainer.compute_metrics is None,
            "batch_eval_metrics needs metrics that are computed batch by batch: give compute_metrics, or leave it out.",
        ),
        (
            trainer.preprocess_logits_for_metrics is not None and trainer.compute_metrics is None,
            "preprocess_logits_for_metrics changes what the default metrics are computed from: give compute_metrics, or "
            "leave it out.",
        ),
        (
            len(trainer.label_names) != 1,
            f"the labels are looked for in {', '.join(trainer.label_names)}: name the one with the class ids, as in "
            "label_names=['labels'].",
        ),
        (
            problem not in (None, "single_label_classification", "multi_label_classification"),
            f"the model has problem_type={problem!r}, which is no classification: load it without.",
        ),
        (
            config.num_labels < 2 and not trainer.is_multi_label,
            f"the model has num_labels={config.num_labels}, which is regression: load it with num_labels=2 or more.",
        ),
        (
            getattr(args, "positive_label", None) is not None and (config.num_labels > 2 or trainer.is_multi_label),
            f"positive_label has no meaning with {config.num_labels} labels that are averaged "
            f"({', '.join(map(repr, trainer.class_names[:10]))}): leave it out, or mend the labels.",
        ),
        (
            trainer.is_multi_label and args.label_smoothing_factor > 0,
            "label_smoothing_factor smooths over classes of which one is right, not over several labels per example: leave "
            "it out.",
        ),
        (
            getattr(parallelism, "sp_enabled", False) or getattr(parallelism, "cp_enabled", False),
            "sequence and context parallelism cut the examples that a label belongs to: leave parallelism_config out.",
        ),
    ]
    _refuse(problems)


def check_sweep(
    callback: RatioSweepCallback, trainer: WeightedLossTrainer, resume_from_checkpoint: Any = None, trial: Any = None
) -> None:
    """Refuse what cannot be swept over, or whose legs would not compare, before anything is trained."""
    args, train, evaluation = trainer.args, trainer.train_dataset, trainer.eval_dataset
    if callback.choose is not None:
        Requirement.parse(callback.choose)
    chooses = callback.choose is not None or isinstance(callback.ratios, RatioSearch)
    folder = Path(args.output_dir if callback.output_dir is None else callback.output_dir)
    problems = [
        (
            trial is not None,
            "hyperparameter_search would run the whole sweep in each trial: leave RatioSweepCallback out, and search over "
            "weight_ratio.",
        ),
        (evaluation is None, "a sweep needs an evaluation set: give eval_dataset."),
        (
            isinstance(evaluation, dict),
            "a sweep evaluates on one data set, but eval_dataset holds several: give the one to choose the ratio on.",
        ),
        (
            not (hasattr(train, "__len__") and hasattr(evaluation, "__len__")),
            "a sweep needs training and evaluation data of known length, not "
            f"{type(train).__name__} and {type(evaluation).__name__}: give data sets with a length.",
        ),
        (
            not isinstance(callback.epochs_per_ratio, int) or callback.epochs_per_ratio < 1,
            f"epochs_per_ratio={callback.epochs_per_ratio!r} makes no leg: write a whole number from 1.",
        ),
        (
            isinstance(callback.ratios, RatioSearch) and callback.seeds is not None and np.size(callback.seeds) > 1,
            "a search is for one seed, since each would find ratios of its own: give one, or a list of ratios.",
        ),
        (args.max_steps > 0, f"max_steps={args.max_steps} would cut the sweep: set epochs_per_ratio instead."),
        (
            getattr(args, "class_weights", None) is not None,
            "explicit class_weights leave no ratio to sweep over: leave them out.",
        ),
        (
            args.prediction_loss_only or args.batch_eval_metrics,
            "prediction_loss_only and batch_eval_metrics keep the predictions from the sweep: leave them out.",
        ),
        (
            trainer.preprocess_logits_for_metrics is not None,
            "preprocess_logits_for_metrics keeps the logits from the sweep: leave it out.",
        ),
        (
            not args.eval_do_concat_batches and args.train_sampling_strategy == "group_by_length",
            "group_by_length evaluates in another order, which batches apart do not tell: leave one of "
            "eval_do_concat_batches=False and group_by_length out.",
        ),
        (
            callback.choose is not None and not args.load_best_model_at_end,
            f"choose={callback.choose!r} chooses the model that the trainer keeps: set load_best_model_at_end=True and "
            "save_strategy='best'.",
        ),
        (
            not chooses and args.load_best_model_at_end and args.metric_for_best_model in ("loss", "eval_loss"),
            "the weighted eval_loss does not compare across ratios: set metric_for_best_model to 'f1' or 'plain_loss'.",
        ),
        (
            not chooses
            and args.load_best_model_at_end
            and trainer.compute_metrics is trainer.default_metrics
            and args.metric_for_best_model.removeprefix("eval_") not in _COMPARABLE_METRICS,
            f"metric_for_best_model={args.metric_for_best_model!r} is not measured: write "
            f"{', '.join(_COMPARABLE_METRICS)}.",
        ),
        (
            getattr(args, "enable_jit_checkpoint", False),
            "enable_jit_checkpoint saves in the middle of a step, from where no leg goes on exactly: leave it out, and set "
            "save_strategy='steps' for checkpoints within a leg.",
        ),
        (
            any(isinstance(other, EarlyStoppingCallback) for other in trainer.callback_handler.callbacks),
            "EarlyStoppingCallback would end the sweep at the first ratio that is no better than another: drop it.",
        ),
        (
            hasattr(train, "set_epoch"),
            f"{type(train).__name__}.set_epoch would be called with the epochs of the whole sweep, so that its legs would "
            "differ from stand-alone runs: give training data without it.",
        ),
        (
            trainer.is_deepspeed_enabled
            or trainer.is_fsdp_enabled
            or getattr(trainer, "is_distributed_loading_by_transformers", False),
            "DeepSpeed, FSDP and sharded models cannot be rewound between legs: train once per ratio with "
            "trainer.hyperparameter_search over weight_ratio.",
        ),
        (
            len(list(trainer.drivers())) > 1,
            "two callbacks drive this trainer: leave one RatioSweepCallback.",
        ),
        (
            args.push_to_hub and not callback.preview and folder.absolute() != Path(args.output_dir).absolute(),
            f"push_to_hub pushes {args.output_dir}, but the sweep's output_dir is {folder}: leave that out.",
        ),
        (
            isinstance(resume_from_checkpoint, (str, Path))
            and not Path(resume_from_checkpoint).absolute().is_relative_to(folder.absolute())
            and not Path(resume_from_checkpoint).absolute().is_relative_to(Path(args.output_dir).absolute()),
            f"resume_from_checkpoint={str(resume_from_checkpoint)!r} is not of the sweep in {folder}, which goes on from "
            "there by itself: leave it out.",
        ),
    ]
    _refuse(problems)
    if callback.preview:
        check_preview(trainer)
    if getattr(args, "class_counts", None) is None:  # else the labels may be the collator's
        counts = trainer.count_classes(evaluation)
        if trainer.is_multi_label:
            wanted, positives = "labels with some positive", counts[:, 1]
        elif len(counts) == 2:
            wanted, positives = "2 classes with the positive one among them", counts[[trainer.positive_label]]
        else:
            wanted, positives = f"{len(counts)} classes", counts
        if not positives.any():
            found = zip(trainer.class_names, counts.tolist(), strict=True)
            raise InvalidInputError(
                f"the evaluation data has {', '.join(f'{count} {name}' for name, count in found)}, but precision and "
                f"recall need the model's {wanted}: give other evaluation data."
            )
    if args.num_train_epochs not in (type(args).num_train_epochs, callback.epochs_per_ratio):
        logger.warning(
            "num_train_epochs=%g is not used by a sweep, which trains for epochs_per_ratio=%d at every ratio.",
            args.num_train_epochs,
            callback.epochs_per_ratio,
        )
    if getattr(args, "weight_ratio", None) is not None:
        logger.warning("weight_ratio=%s is not used by a sweep, whose ratios are its own.", args.weight_ratio)


def check_preview(trainer: WeightedLossTrainer) -> None:
    """Refuse what a preview cannot do as the whole model does."""
    problems = [
        (
            trainer.neftune_noise_alpha is not None,
            "neftune_noise_alpha changes what a preview computes only once: leave it out.",
        ),
        (
            trainer.given_optimizer,
            "a preview makes an optimizer for what it trains, with a learning rate of its own: leave optimizers= out.",
        ),
        (
            trainer.args.n_gpu > 1,
            f"a preview computes on one GPU per process, not on {trainer.args.n_gpu}: start it with torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0.",
        ),
    ]
    _refuse(problems)


def check_sweep_on_ray(callback: RatioSweepCallback, trainer: WeightedLossTrainer) -> None:
    """Refuse what cannot be swept over by legs side by side."""
    problems = [
        (
            isinstance(callback.ratios, RatioSearch),
            "a search takes its ratios one after the other: give a list of ratios for legs on Ray.",
        ),
        (callback.preview, "a preview trains in one process, from activations on its disk: leave Ray out."),
        (
            trainer.model_init is None,
            "legs on Ray start from a model of their own: give the trainer model_init, not model.",
        ),
    ]
    _refuse(problems)
    check_sweep(callback, trainer)


def _refuse(problems: Sequence[tuple[Any, str]]) -> None:
    for wrong, sentence in problems:
        if wrong:
            raise InvalidInputError(sentence)
