from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from ..errors import InvalidInputError
from ..weighting.task import Task
from .files import SWEEP_FILE, Split, is_readable, of_split, read_predictions, write_json
from .metrics import positives_and_scores
from .operating_point import OperatingPoint, Threshold, at_thresholds
from .points import Count, FailedLeg, Pair, Ratio, SweepPoint, Text, printable
from .requirement import Requirement

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
Thresholds = Literal["any", "argmax"]
_Requirement = Annotated[Text, AfterValidator(lambda text: Requirement.parse(text) and text)]


@dataclass(frozen=True)
class SweepData:
    """What a sweep measured, as plain data; `RatioSweep` adds what follows from it.

    Attributes
    ----------
    counts : list of int
        Number of training labels of each class; for several labels per example a pair, negatives and positives, for each
        label.
    label_names : list of str
        Names of the classes, by id.
    positive_label : int
        Id of the positive class.
    natural_ratio : float
    ratios : list of float, ascending
    seeds : list of int
    epochs_per_ratio : int
    model, dataset : str
        Names of what was fine-tuned, and on what.
    num_eval : int
        Number of evaluation examples.
    versions : dict of str to str
        Versions of weighloss, transformers and torch.
    points : tuple of SweepPoint
        Finished legs, by seed and ratio.
    failed : tuple of FailedLeg
        Legs without a result, such as those whose loss was NaN.
    kept_because : str
        Why the leg of `operating_point` was chosen, as in "chosen for recall>=0.95".
    requirement : str
        Requirement that chooses the leg: see `RatioSweep.choose`.
    threshold : {"any", "argmax"}
        Whether the threshold of the chosen leg may move for it.
    operating_point : OperatingPoint or None
        The chosen leg and threshold, of which the trainer holds the model; None until the sweep has finished.
    search : str or None
        How the ratios were searched for, where they are not given.
    fingerprint : dict of str to str
        Digests of training data, evaluation data and model; a sweep resumes only with the same ones.
    arguments : dict
        The training arguments that influence the result of a leg.
    folder : Path or None
        Where the sweep is on disk; not written.
    """

    counts: list[Count] | list[Pair]
    label_names: list[Text]
    positive_label: Count
    natural_ratio: Ratio
    ratios: list[Ratio]
    seeds: list[Count]
    epochs_per_ratio: Annotated[Count, Field(gt=0)]
    model: Text
    dataset: Text
    num_eval: Count
    versions: dict[Text, Text]
    points: tuple[SweepPoint, ...] = ()
    failed: tuple[FailedLeg, ...] = ()
    operating_point: OperatingPoint | None = None
    kept_because: Text = ""
    requirement: _Requirement = "f1"
    threshold: Thresholds = "argmax"
    search: Text | None = None
    fingerprint: dict[Text, Text] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `sweep.json` into a folder atomically: a reader finds the old file or the new one, never half of one."""
        content = {"format_version": FORMAT_VERSION} | asdict(self)
        del content["folder"]
        content["kept"] = None if self.operating_point is None else self.points.index(self.operating_point.leg)
        if self.operating_point is not None:
            del content["operating_point"]["leg"]
        write_json(Path(folder) / SWEEP_FILE, content)

    @property
    def task(self) -> Task:
        """What is classified, which decides what precision and recall are averages of."""
        if isinstance(self.counts[0], list):
            return Task.MULTILABEL
        return Task.BINARY if len(self.counts) == 2 else Task.MULTICLASS

    @property
    def legs(self) -> list[tuple[float, int]]:
        """Ratio and seed of every leg, in their order."""
        return [(ratio, seed) for seed in self.seeds for ratio in self.ratios]

    @property
    def done(self) -> set[tuple[float, int]]:
        """Ratio and seed of the legs that need not run any more."""
        legs: list[SweepPoint | FailedLeg] = [*self.points, *self.failed]
        return {(leg.ratio, leg.seed) for leg in legs}

    @property
    def positive_name(self) -> str:
        """Name of the positive class; "positive" where there is more than one."""
        return printable(self.label_names[self.positive_label]) if self.task is Task.BINARY else "positive"

    @property
    def kept_point(self) -> SweepPoint | None:
        """The point whose model the trainer holds."""
        return None if self.operating_point is None else self.operating_point.leg

    @property
    def num_items(self) -> int:
        """Number of evaluation labels of a leg: of examples, of tokens, or of labels with several labels per example."""
        point = self.points[0]
        if self.task is Task.MULTICLASS:  # sums over the classes, and every item is of one class
            return point.tp + point.fn
        return point.tp + point.fp + point.fn + point.tn

    @property
    def unit(self) -> str:
        """What is classified: "examples", "tokens", or "labels" where an example has several."""
        if self.task is Task.MULTILABEL:
            return "labels"
        return "tokens" if self.num_items > self.num_eval else "examples"

    @property
    def is_measurable(self) -> bool:
        """Whether the predictions of all legs are on disk; they are not after a push without them."""
        return bool(self.points) and all(map(self.has_predictions, self.points))

    def has_predictions(self, point: SweepPoint, split: Split = "evaluation") -> bool:
        """Whether the predictions of a point are on disk and whole; they are not after a push without them."""
        file = None if self.folder is None else self.folder / of_split(point.predictions, split)
        if file is None or not os.path.exists(file):  # unlike Path.exists, False where the name is too long
            return False
        if not is_readable(file):
            logger.warning("%s is damaged: results that need it are left out.", file)
            return False
        return True

    def predictions(self, point: SweepPoint, split: Split = "evaluation") -> tuple[np.ndarray, np.ndarray]:
        """Logits and labels of a leg, in the order of the evaluation set, or of the test set if the sweep had one.

        Returns
        -------
        logits : float32 array of shape (n_items, n_classes)
        labels : int64 array of shape (n_items,), or (n_items, n_classes) with several labels per example

        Raises
        ------
        InvalidInputError
            When the sweep was not loaded from disk, or the file is missing, damaged or of another shape.
        """
        if self.folder is None:
            raise InvalidInputError("this sweep was not loaded from disk: use RatioSweep.load(folder).")
        file = self.folder / of_split(point.predictions, split)
        logits, labels = read_predictions(file)
        num_labels = len(self.label_names)
        shape = (len(logits), num_labels) if self.task is Task.MULTILABEL else (len(logits),)
        highest = 1 if self.task is Task.MULTILABEL else num_labels - 1
        if not len(logits) or logits.shape[1:] != (num_labels,) or labels.shape != shape or labels.max() > highest:
            raise InvalidInputError(
                f"{file} has logits of shape {logits.shape} and labels of shape {labels.shape}, which do not fit the "
                f"{num_labels} classes of the sweep: restore it, or sweep again."
            )
        if not np.isfinite(logits).all():
            raise InvalidInputError(f"{file} has logits that are not finite: restore it, or sweep again.")
        return logits, labels

    def at_threshold(self, leg: SweepPoint, threshold: Threshold, split: Split = "evaluation") -> OperatingPoint:
        """What a leg gives at a threshold. Raises as `predictions`."""
        read = partial(self.predictions, split=split)
        return at_thresholds([(leg, threshold)], read, self.task, self.positive_label)[0]

    def positives_and_scores(self, point: SweepPoint) -> tuple[np.ndarray, np.ndarray]:
        """Whether each item is positive, and its log-odds by the leg: bool and float arrays of shape (n_items,).

        With several labels per example every label is an item.

        Raises
        ------
        InvalidInputError
            For more than two classes, which have no single score, and as `predictions`.
        """
        if self.task is Task.MULTICLASS:
            raise InvalidInputError(f"{len(self.label_names)} classes have no single score: use their predictions.")
        return positives_and_scores(*self.predictions(point), self.task, self.positive_label)
