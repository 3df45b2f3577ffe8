from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..results.ratio_sweep import RatioSweep
from ..results.requirement import Requirement
from ..results.sweep_data import Thresholds
from ..training.trainer import WeightedLossTrainer
from ..weighting.ratios import checked_ratio, ratio_grid, resolved_ratio, unique_ratios
from .search import RatioSearch


@dataclass(frozen=True)
class SweepSettings:
    """What to sweep over, checked as far as that needs no data: the parameters of `RatioSweepCallback`.

    Raises
    ------
    InvalidInputError
        When a value is not valid, whatever the data are.
    """

    ratios: tuple[float | str, ...] | RatioSearch | None = None
    seeds: tuple[int, ...] | None = None
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
        requirement = Requirement.parse("f1" if self.choose is None else self.choose)
        if requirement.confidence is not None and self.threshold == "argmax":
            raise InvalidInputError(
                f"{requirement.text} needs a threshold that is certified: leave out threshold='argmax'."
            )
        if self.choose is None:
            object.__setattr__(self, "threshold", "argmax")  # a threshold moves only where someone says what for
        object.__setattr__(self, "choose", requirement.text)
        if not isinstance(self.epochs_per_ratio, int) or self.epochs_per_ratio < 1:
            raise InvalidInputError(
                f"epochs_per_ratio must be an integer of at least 1, got {self.epochs_per_ratio!r}."
            )
        if self.seeds is not None:
            seeds = _as_list("seeds", self.seeds)
            if not all(isinstance(seed, (int, np.integer)) and 0 <= seed < 2**32 for seed in seeds):
                raise InvalidInputError(f"seeds must be integers from 0 to 4294967295, got {seeds!r}.")
            object.__setattr__(self, "seeds", tuple(dict.fromkeys(map(int, seeds))))
        ratio_grid(1.0, self.num_ratios, self.ratio_span)
        if isinstance(self.ratios, RatioSearch):
            if self.seeds is not None and len(self.seeds) > 1:
                raise InvalidInputError(
                    f"a search needs a single seed, since each seed would find other ratios, got seeds={self.seeds}: give "
                    "one, or a list of ratios."
                )
        elif self.ratios is not None:
            ratios = _as_list("ratios", self.ratios)
            for ratio in ratios:
                resolved_ratio(ratio, 2.0, np.array([2, 1]))  # refuses what no data could make a ratio
            object.__setattr__(self, "ratios", tuple(ratios))

    @property
    def search(self) -> RatioSearch | None:
        """The search that chooses the ratios, if they are not given."""
        return self.ratios if isinstance(self.ratios, RatioSearch) else None

    @property
    def requirement(self) -> str:
        """The requirement that chooses the leg, in its normal form."""
        assert self.choose is not None  # set above
        return self.choose

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

    def empty_sweep(self, trainer: WeightedLossTrainer) -> RatioSweep:
        """The sweep before its first leg.

        Raises
        ------
        InvalidInputError
            When a ratio has no meaning for the training labels.
        """
        natural = trainer.weights_at(None)
        if self.search is not None:
            ratios = [natural.natural_ratio]
        elif self.ratios is None:
            ratios = ratio_grid(natural.natural_ratio, self.num_ratios, self.ratio_span)
        else:
            given: Any = self.ratios
            ratios = unique_ratios([trainer.weights_at(r).ratio if isinstance(r, str) else r for r in given])
        for ratio in ratios:
            trainer.weights_at(ratio)
        requirement = Requirement.parse(self.requirement)
        requirement.for_classes(trainer.task, len(trainer.class_names), trainer.positive_label)
        info = getattr(trainer.train_dataset, "info", None)
        dataset_name = getattr(info, "dataset_name", None)
        if dataset_name == getattr(info, "builder_name", None):
            dataset_name = None  # "csv" names the reader of a file, not the data
        return RatioSweep(
            counts=natural.counts.tolist(),
            label_names=list(trainer.class_names),
            positive_label=trainer.positive_label,
            natural_ratio=natural.natural_ratio,
            ratios=[checked_ratio(ratio) for ratio in ratios],
            seeds=[trainer.args.seed] if self.seeds is None else list(self.seeds),
            epochs_per_ratio=self.epochs_per_ratio,
            model=trainer.model.config.name_or_path,
            dataset=self.dataset_name or dataset_name or "",
            num_eval=len(self.evaluation_set(trainer)),
            requirement=self.requirement,
            threshold=self.threshold,
            search=None if self.search is None else str(self.search),
            versions={name: version(name) for name in ("weighloss", "transformers", "torch")},
        )


def _as_list(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} must be a list, got {values!r}: write {name}=[{values!r}].")
    listed = list(values)
    if not listed:
        raise InvalidInputError(f"{name} must have at least one value, got {values!r}.")
    return listed
