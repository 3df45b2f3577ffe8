from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed

from ..errors import InvalidInputError
from ..results.ratio_sweep import RatioSweep
from ..results.requirement import Requirement
from ..results.sweep_data import Thresholds
from ..training.threshold import last_bias
from ..training.trainer import WeightedLossTrainer
from ..weighting.ratios import ratio_grid, resolved_ratio, unique_ratios
from ..weighting.task import Task
from . import fingerprint
from .search import RatioSearch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepSettings:
    """The parameters of `RatioSweepCallback`. Raises InvalidInputError where one is not valid, whatever the data are."""

    ratios: Sequence[float | str] | RatioSearch | None = None
    seeds: Sequence[int] | None = None
    epochs_per_ratio: int = 1
    num_ratios: int = 7
    ratio_span: float = 10.0
    choose: str | None = None
    threshold: Thresholds = "any"
    test_dataset: Any = None
    output_dir: str | Path | None = None
    dataset_name: str | None = None
    evaluate_on: str | None = None

    def __post_init__(self) -> None:
        if self.threshold not in ("any", "argmax"):
            raise InvalidInputError(f"threshold must be 'any' or 'argmax', got {self.threshold!r}.")
        if self.requirement.confidence is not None and self.threshold == "argmax":
            raise InvalidInputError(
                f"{self.requirement.text} needs a threshold that is certified: leave out threshold='argmax'."
            )
        if self.choose is None:
            object.__setattr__(self, "threshold", "argmax")  # a threshold moves only where someone says what for
        if not isinstance(self.epochs_per_ratio, int) or self.epochs_per_ratio < 1:
            raise InvalidInputError(
                f"epochs_per_ratio must be an integer of at least 1, got {self.epochs_per_ratio!r}."
            )
        if self.seeds is not None:
            seeds = _as_list("seeds", self.seeds)
            if not all(isinstance(seed, (int, np.integer)) and 0 <= seed < 2**32 for seed in seeds):
                raise InvalidInputError(f"seeds must be integers from 0 to 4294967295, got {seeds!r}.")
            object.__setattr__(self, "seeds", list(dict.fromkeys(map(int, seeds))))
        ratio_grid(1.0, self.num_ratios, self.ratio_span)
        if self.search is not None:
            if self.seeds is not None and len(self.seeds) > 1:
                raise InvalidInputError(
                    f"a search needs a single seed, got seeds={self.seeds}: give one, or a list of ratios."
                )
        elif self.ratios is not None:
            ratios = _as_list("ratios", self.ratios)
            for ratio in ratios:
                resolved_ratio(ratio, 2.0, np.array([2, 1]))  # refuses what no data could make a ratio
            object.__setattr__(self, "ratios", ratios)

    @property
    def search(self) -> RatioSearch | None:
        """The search that chooses the ratios, if they are not given."""
        return self.ratios if isinstance(self.ratios, RatioSearch) else None

    @property
    def requirement(self) -> Requirement:
        """The requirement that chooses the leg."""
        return Requirement.parse("f1" if self.choose is None else self.choose)

    def folder(self, args: Any) -> Path:
        """The output folder of the sweep."""
        return Path(args.output_dir if self.output_dir is None else self.output_dir)

    def evaluation_set(self, trainer: WeightedLossTrainer) -> Any:
        """The evaluation set that decides: of several the one that is named, or else the first."""
        datasets: Any = trainer.eval_dataset
        if not isinstance(datasets, dict):
            return datasets
        name = next(iter(datasets)) if self.evaluate_on is None else self.evaluate_on
        if name not in datasets:
            raise InvalidInputError(
                f"evaluate_on={name!r} is not among the evaluation sets {', '.join(map(repr, datasets))}: name one of them."
            )
        return datasets[name]

    def planned_sweep(
        self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any = None, trial: Any = None
    ) -> RatioSweep:
        """The sweep before its first leg, with what identifies its data, model and arguments.

        Raises InvalidInputError for what cannot be swept over, or would make legs that cannot be compared.
        """
        _check(self, trainer, resume_from_checkpoint, trial)
        natural = trainer.weights_at(None)
        if self.search is not None:
            ratios: Any = [natural.natural_ratio]
        elif self.ratios is None:
            ratios = ratio_grid(natural.natural_ratio, self.num_ratios, self.ratio_span)
        else:
            ratios = self.ratios
        self.requirement.for_classes(trainer.task, len(trainer.class_names), trainer.positive_label)
        info = getattr(trainer.train_dataset, "info", None)
        known = getattr(info, "dataset_name", None)
        if known == getattr(info, "builder_name", None):
            known = None  # "csv" names the reader of a file, not the data
        seeds = [trainer.args.seed] if self.seeds is None else list(self.seeds)
        model = trainer.model
        if trainer.model_init is not None:  # the model of the trainer may be trained already
            set_seed(seeds[0])
            model = trainer.call_model_init()
        data = {"training data": trainer.train_dataset, "evaluation data": self.evaluation_set(trainer)}
        data |= {} if self.test_dataset is None else {"test data": self.test_dataset}
        digests = {name: fingerprint.of_dataset(dataset) for name, dataset in data.items()}
        return RatioSweep(
            counts=natural.counts.tolist(),
            label_names=list(trainer.class_names),
            positive_label=trainer.positive_label,
            natural_ratio=natural.natural_ratio,
            ratios=unique_ratios([trainer.weights_at(ratio).ratio for ratio in ratios]),
            seeds=seeds,
            epochs_per_ratio=self.epochs_per_ratio,
            model=trainer.model.config.name_or_path,
            dataset=self.dataset_name or known or "",
            num_eval=len(data["evaluation data"]),
            requirement=self.requirement.text,
            threshold=self.threshold,
            search=None if self.search is None else str(self.search),
            versions={name: version(name) for name in ("weighloss", "transformers", "torch")},
            fingerprint=digests | {"model": fingerprint.of_model(model)},
            arguments=fingerprint.of_arguments(trainer.args),
            folder=self.folder(trainer.args),
        )


def _as_list(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} must be a list, got {values!r}: write {name}=[{values!r}].")
    listed = list(values)
    if not listed:
        raise InvalidInputError(f"{name} must have at least one value, got {values!r}.")
    return listed


def _check(settings: SweepSettings, trainer: Any, resume_from_checkpoint: Any, trial: Any) -> None:
    args, requirement = trainer.args, settings.requirement
    evaluation, folder = settings.evaluation_set(trainer), settings.folder(args)
    if trial is not None:
        raise InvalidInputError(
            "hyperparameter_search would sweep in each trial: leave RatioSweepCallback out, and search over weight_ratio."
        )
    if trainer.train_dataset is None:
        raise InvalidInputError("a sweep needs training data: give train_dataset.")
    test = () if settings.test_dataset is None else settings.test_dataset
    for name, dataset in (("an eval_dataset", evaluation), ("a test_dataset", test)):
        if not hasattr(dataset, "__len__"):
            raise InvalidInputError(
                f"a sweep needs {name} of known length, got {type(dataset).__name__}: give a dataset with a length."
            )
    if requirement.confidence is not None and (settings.search is not None or args.load_best_model_at_end):
        raise InvalidInputError(
            f"{requirement.text} is guaranteed only on data that chose nothing before, but a search or "
            "load_best_model_at_end chooses on the evaluation data: leave that, or the @, out."
        )
    if getattr(args, "class_weights", None) is not None:
        raise InvalidInputError("explicit class_weights leave no ratio to sweep over: leave them out.")
    if trainer.preprocess_logits_for_metrics is not None:
        raise InvalidInputError(
            "preprocess_logits_for_metrics changes the logits that the sweep records: leave it out."
        )
    if getattr(args, "enable_jit_checkpoint", False):
        raise InvalidInputError(
            "enable_jit_checkpoint saves in the middle of a step, from which no leg resumes exactly: leave it out."
        )
    is_sharded = getattr(trainer, "is_distributed_loading_by_transformers", False)
    if trainer.model_init is None and (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled or is_sharded):
        raise InvalidInputError(
            "with DeepSpeed, FSDP or a sharded model the initial weights cannot be restored between the legs: give the "
            "trainer model_init instead of model."
        )
    if args.push_to_hub and folder.absolute() != Path(args.output_dir).absolute():
        raise InvalidInputError(
            f"push_to_hub pushes {args.output_dir}, but output_dir of the sweep is {folder}: leave the latter out."
        )
    resume = Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, (str, Path)) else folder
    if not resume.absolute().is_relative_to(folder.absolute()):
        raise InvalidInputError(
            f"resume_from_checkpoint={str(resume)!r} is not a checkpoint of the sweep in {folder}, which resumes by "
            "itself: leave it out."
        )
    if getattr(args, "class_counts", None) is None:  # else the labels may be made by the collator
        counts = trainer.count_classes(evaluation)
        of_kinds = counts.sum(axis=0) if trainer.task is Task.MULTILABEL else counts  # there, negatives and positives
        if np.count_nonzero(of_kinds) < 2:
            found = zip(trainer.class_names, counts.tolist(), strict=True)
            raise InvalidInputError(
                f"the evaluation data has {', '.join(f'{count} {name}' for name, count in found)}, but precision and "
                "recall need both classes, or two of several: give other evaluation data."
            )
    if args.num_train_epochs not in (type(args).num_train_epochs, settings.epochs_per_ratio):
        logger.warning(
            "num_train_epochs=%g is not used by a sweep, whose legs have epochs_per_ratio=%d.",
            args.num_train_epochs,
            settings.epochs_per_ratio,
        )
    if getattr(args, "weight_ratio", None) is not None:
        logger.warning("weight_ratio=%s is not used by a sweep, which has ratios of its own.", args.weight_ratio)
    if settings.threshold == "any":
        try:
            last_bias(trainer.model)
        except InvalidInputError as error:  # said now, and not after all legs
            logger.warning("%s It will only be recorded.", error)
