from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..results.bootstrap import bootstrap
from ..results.requirement import Requirement
from ..results.metrics import logits_and_labels
from ..results.points import MEASURED, FailedLeg, SweepPoint
from .rewind import sampler_of
from ..results.files import PREDICTIONS_FOLDER, write_predictions
from ..training.trainer import LongestFirst, WeightedLossTrainer

REQUIREMENT_METRIC = "requirement"
_NUMBER = (int, float, np.number)


@dataclass(frozen=True)
class FinishedLeg:
    """What a leg came to, and what it predicted for every evaluation item: float and int arrays, as on disk."""

    leg: SweepPoint | FailedLeg
    logits: np.ndarray
    labels: np.ndarray

    def write_predictions(self, folder: Path) -> None:
        """Write them where the point says, in the folder of the sweep; of a failed leg there is nothing to write."""
        if isinstance(self.leg, SweepPoint):
            of = {"weight_ratio": self.leg.ratio, "seed": self.leg.seed}
            write_predictions(folder / self.leg.predictions, self.logits, self.labels, of)


class LegEvaluation:
    """Takes a leg's figures and predictions out of a trainer's own evaluation.

    It stands in for the trainer's `compute_metrics` until `close()`.

    Attributes
    ----------
    is_of_leg : bool
        Whether the evaluation that runs or comes next is that of a leg.
    """

    def __init__(self, trainer: WeightedLossTrainer) -> None:
        self._trainer = trainer
        self._users: Any = trainer.compute_metrics
        self.is_of_leg = False
        trainer.compute_metrics = self._compute_metrics

    def close(self) -> None:
        """Give the trainer back its own `compute_metrics`."""
        self._trainer.compute_metrics = self._users
        self.is_of_leg = False  # a leg's evaluation may have been interrupted

    def expect(self) -> None:
        """The next evaluation is that of a leg."""
        self.is_of_leg = True

    def finished(
        self, metrics: dict[str, float], eval_dataloader: Any, number: int, global_step: int, seconds: float
    ) -> FinishedLeg:
        """The leg, by its number, whose evaluation has just come to these metrics."""
        self.is_of_leg = False
        prediction = _in_dataset_order(self._prediction, eval_dataloader)
        del self._prediction
        logits, labels = logits_and_labels(prediction)
        args = self._trainer.args
        of = {"ratio": args.weight_ratio, "seed": args.seed, "global_step": global_step}
        if self._measured is None:
            reason = (
                f"the loss is {metrics['eval_loss']}: {np.mean(~np.isfinite(logits)):.0%} of the model's outputs are no "
                "finite numbers; a lower learning rate or a ratio nearer to 1 may help"
            )
            return FinishedLeg(FailedLeg(**of, reason=reason), logits, labels)
        point = SweepPoint(
            **of,
            **cast(Any, {name: self._measured[name] for name in MEASURED}),
            eval_loss=metrics["eval_loss"],
            eval_plain_loss=metrics["eval_plain_loss"],
            seconds=seconds,
            predictions=f"{PREDICTIONS_FOLDER}/leg-{number:02d}_ratio-{of['ratio']:.4g}_seed-{of['seed']}.parquet",
            other_metrics=self._other_metrics,
            **cast(Any, bootstrap([(logits, labels)], self._trainer.positive_label).of_point()),
        )
        return FinishedLeg(point, logits, labels)

    def _compute_metrics(self, prediction: Any) -> dict[str, Any]:
        if not self.is_of_leg:
            return self._users(prediction)
        self._prediction = prediction
        of = {"weight_ratio": self._trainer.args.weight_ratio, "seed": self._trainer.args.seed}
        self._measured: Any = None
        if not np.isfinite(logits_and_labels(prediction)[0]).all():
            return of  # there is nothing to measure
        measured = self._measured = self._trainer.default_metrics(prediction)
        others = {} if self._users is self._trainer.default_metrics else self._users(prediction)
        numbers = {name: float(value) for name, value in others.items() if isinstance(value, _NUMBER)}
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self._other_metrics = {"accuracy": measured["accuracy"]} | numbers
        return of | measured | others


@dataclass(frozen=True)
class KeptBy:
    """By what the leg is chosen whose model is kept: a requirement, or else a metric of the evaluation."""

    requirement: Requirement | None
    metric: str
    greater_is_better: bool
    positive_label: int

    def value(self, finished: FinishedLeg) -> float:
        """What is compared: the higher the better; NaN for a leg that failed or has no such metric."""
        point = finished.leg
        if isinstance(point, FailedLeg):
            return math.nan
        if self.requirement is not None:
            lower = None
            if self.requirement.confidence is not None:
                predictions = [(finished.logits, finished.labels)]
                intervals = bootstrap(predictions, self.positive_label, self.requirement.confidence)
                lower = float(getattr(intervals, self.requirement.kind)[0, 0])
            return self.requirement.score(point, lower)
        # The user's own come last: the Trainer goes by them, whatever they call precision.
        known = {name: getattr(point, name) for name in MEASURED} | point.metrics | point.other_metrics
        value = known.get(self.metric, math.nan)
        return value if self.greater_is_better else -value

    @property
    def because(self) -> str:
        """Why its leg is the one, as the record says it."""
        if self.requirement is not None:
            return f"chosen for {self.requirement.text}"
        return f"the best {self.metric.replace('_', ' ').replace('f1', 'F1')} of the sweep"


def _in_dataset_order(prediction: Any, eval_dataloader: Any) -> Any:
    """The predictions in the evaluation set's order, from that in which group_by_length evaluates."""
    sampler = sampler_of(eval_dataloader)
    if not isinstance(sampler, LongestFirst):
        return prediction
    logits = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    rows = np.argsort(sampler.rows[: len(logits)])  # dataloader_drop_last leaves some out
    return type(prediction)(predictions=logits[rows], label_ids=prediction.label_ids[rows])
