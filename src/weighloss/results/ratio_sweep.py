from __future__ import annotations

import logging
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download

from ..errors import InvalidInputError, reason
from ..weighting.class_weights import ClassWeights
from ..weighting.labels import IGNORE_INDEX
from ..weighting.task import Task
from .bootstrap import Intervals, bootstrap, interval
from .choice import Choice, Thresholds, choose, leg_scores
from .files import PREDICTIONS_FOLDER, SWEEP_FILE, Split, is_readable, of_split, read_predictions, write_json
from .operating_point import OperatingPoint
from .points import FailedLeg, SweepPoint, printable
from .record import FORMAT_VERSION, read_record
from .requirement import Requirement

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RatioSweep:
    """The results of a sweep: what was swept over, and one point for each finished leg.

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
        Why that one, as in "chosen for recall>=0.95".
    requirement : str
        Requirement that chooses the leg: see `choose`.
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

    counts: list[int] | list[list[int]]
    label_names: list[str]
    positive_label: int
    natural_ratio: float
    ratios: list[float]
    seeds: list[int]
    epochs_per_ratio: int
    model: str
    dataset: str
    num_eval: int
    versions: dict[str, str]
    points: tuple[SweepPoint, ...] = ()
    failed: tuple[FailedLeg, ...] = ()
    operating_point: OperatingPoint | None = None
    kept_because: str = ""
    requirement: str = "f1"
    threshold: Thresholds = "argmax"
    search: str | None = None
    fingerprint: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RatioSweep:
        """Load the sweep of a folder, or of a `sweep.json`. A damaged leg is left out, and a warning names it.

        Nothing in the file is trusted: types, ranges, names and paths are checked.

        Raises
        ------
        InvalidInputError
            When there is no sweep, or the file is not one that this version can read.
        """
        path = Path(path)
        file = path / SWEEP_FILE if path.is_dir() else path
        try:
            fields = read_record(file)
        except FileNotFoundError:
            raise InvalidInputError(
                f"there is no sweep at {path}: give the output folder of a sweep, which contains {SWEEP_FILE}."
            ) from None
        fields["requirement"] = fields.get("requirement") or "f1"
        return cls(**fields, folder=file.parent)

    @classmethod
    def from_hub(cls, repo_id: str, revision: str | None = None, token: str | None = None) -> RatioSweep:
        """Load the sweep that was pushed with a model, with its predictions if they were pushed too.

        Raises
        ------
        InvalidInputError
            When the repository cannot be read or contains no sweep.
        """
        try:
            patterns = [SWEEP_FILE, f"{PREDICTIONS_FOLDER}/*"]
            folder = snapshot_download(
                repo_id, revision=revision, token=token.strip() if token else None, allow_patterns=patterns
            )
        except Exception as error:  # whatever the client raises
            raise InvalidInputError(
                f"{repo_id} cannot be read ({reason(error)}): check its name, the login and the network."
            ) from None
        if not (Path(folder) / SWEEP_FILE).exists():
            raise InvalidInputError(
                f"{repo_id} contains no {SWEEP_FILE}: give the repository of a model from a sweep."
            )
        return cls.load(folder)

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

    def with_leg(self, leg: SweepPoint | FailedLeg) -> RatioSweep:
        """The sweep with one more leg, or a new result of one that it has, in the order of `legs`."""
        name = "failed" if isinstance(leg, FailedLeg) else "points"
        order = self.legs
        others = [other for other in getattr(self, name) if (other.ratio, other.seed) != (leg.ratio, leg.seed)]
        legs = sorted([*others, leg], key=lambda leg: order.index((leg.ratio, leg.seed)))
        changed: dict[str, Any] = {name: tuple(legs)}
        chosen = self.operating_point
        if chosen is not None and (chosen.ratio, chosen.seed) == (leg.ratio, leg.seed):
            changed["operating_point"] = replace(chosen, leg=leg) if isinstance(leg, SweepPoint) else None
        return replace(self, **changed)

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

    def ratio_of(self, scheme: str) -> float:
        """The ratio of a named scheme, such as `sqrt`, for the training labels: see `ClassWeights.from_counts`."""
        if self.task is Task.MULTILABEL:
            return ClassWeights.from_multi_label_counts(np.array(self.counts), scheme).ratio
        return ClassWeights.from_counts(np.array(self.counts), scheme, self.positive_label).ratio

    def by_ratio(self, metric: str | None = None) -> dict[float, list[SweepPoint]]:
        """The points of each ratio, ratios ascending.

        Parameters
        ----------
        metric : str, optional
            Leave out the points for which this metric is undefined, unless it is undefined for all points of a ratio. The
            precision of a leg that predicts nothing positive is 0 only by convention; scikit-learn leaves it out of
            averages with `zero_division=nan`.
        """
        groups: dict[float, list[SweepPoint]] = {}
        for ratio in self.ratios:
            if points := [point for point in self.points if point.ratio == ratio]:
                defined = [point for point in points if metric != "precision" or point.predicts_positives]
                groups[ratio] = defined or points
        return groups

    def curve(self, *names: str) -> dict[str, np.ndarray]:
        """The points as arrays over the ratios; means over the seeds for which a metric is defined (see `by_ratio`).

        Parameters
        ----------
        *names : str
            Attributes of the points.

        Returns
        -------
        dict of float64 arrays of shape (n_ratios,)
            `ratio` (ascending) and one array for each name; only ratios with a finished leg.
        """
        columns = {"ratio": np.array(list(self.by_ratio()))}
        for name in names:
            of_ratios = self.by_ratio(name).values()
            columns[name] = np.array([fmean(getattr(point, name) for point in points) for points in of_ratios])
        return columns

    def at(self, ratio: float, name: str) -> float:
        """An attribute of the points at any ratio, interpolated in log w_r between ratios at which positives are found."""
        curve = self.curve(name, "tp")
        found = curve["tp"] > 0
        return float(np.interp(math.log(ratio), np.log(curve["ratio"][found]), curve[name][found]))

    def predicts_no_positive(self, ratio: float) -> bool:
        """Whether no leg at a ratio predicts anything positive, so that its precision of 0 is only a convention."""
        return not any(point.predicts_positives for point in self.by_ratio()[ratio])

    def choose(self, requirement: str | None = None, threshold: Thresholds | None = None) -> Choice:
        """Choose the leg, and the threshold on its log-odds, that meet a requirement best.

        All pairs of a leg and a threshold are compared on the saved predictions, and nothing is trained. The pair with the
        best mean score over bootstrap resamples of the evaluation set is chosen: see `best_threshold`. With a confidence,
        `recall>=0.95 @90%`, the leg is chosen on a third of the evaluation set and the threshold is certified on the
        others: see `certified_threshold`.

        A leg is one ratio with one seed. With several seeds the best single leg is chosen, since its model is kept.

        Parameters
        ----------
        requirement : str, optional
            `f1`, `f0.5`, `mcc`, `recall>=0.95`, `precision>=0.9`, `flagged<=200 per 10000`, several of these bounds joined
            by `and`, `cost fp=1 fn=20` or `break-even` (see `Requirement.parse`); the requirement of the sweep when None.
        threshold : {"any", "argmax"}, optional
            "argmax" compares the trained ratios alone. So does `break-even`, which is a question about the ratio. When
            None, "any" for a requirement that is given, and that of the sweep for its own.

        Raises
        ------
        InvalidInputError
            When that is not a requirement or none for this task, no leg has finished, or thresholds are compared without
            predictions on disk.

        Examples
        --------
        >>> print(sweep.choose("recall>=0.95", threshold="argmax"))  # doctest: +SKIP
        recall>=0.95 chooses w_r = 0.6457: precision 0.947, recall 0.953.
        """
        if threshold not in ("any", "argmax", None):
            raise InvalidInputError(f"threshold must be 'any' or 'argmax', got {threshold!r}.")
        threshold = threshold or (self.threshold if requirement is None else "any")
        requirement = self.requirement if requirement is None else requirement
        wanted = Requirement.parse(requirement)
        wanted.check(self.task)
        if wanted.confidence is not None and self.points and self.unit == "tokens":
            raise InvalidInputError(
                f"{wanted.text} needs independent examples, which tokens are not: leave the @ out."
            )
        if wanted.confidence is not None and threshold == "argmax":
            raise InvalidInputError(
                f"{wanted.text} needs a threshold that is certified: leave out threshold='argmax'."
            )
        if not self.points:
            raise InvalidInputError("the sweep has no finished leg to choose from: let it run.")
        if threshold == "any" and not self.is_measurable:
            if self.operating_point is not None and requirement == self.requirement and self.threshold == "any":
                is_met = not self.kept_because.startswith("nearest") and "without a guarantee" not in self.kept_because
                return Choice(wanted, self.operating_point, met=is_met)
            raise InvalidInputError(
                f"{wanted.text} compares thresholds, which needs the predictions, and they are not here: write "
                "threshold='argmax' to compare the trained ratios alone."
            )
        return choose(wanted, self.points, self.predictions, threshold, self.task, self.positive_label, self.counts)

    def scores(self) -> list[float]:
        """How well each point meets the requirement of the sweep, as `choose` compares them."""
        wanted = Requirement.parse(self.requirement)
        asked = wanted, self.points, self.predictions, self.threshold, self.task, self.positive_label, self.counts
        return [score for score, _ in leg_scores(*asked)]

    @property
    def is_measurable(self) -> bool:
        """Whether the predictions of all legs are on disk; they are not after a push without them."""
        return bool(self.points) and all(map(self.has_predictions, self.points))

    def break_even(self) -> float | None:
        """The ratio at which precision equals recall, interpolated in log w_r; None when the curves do not cross.

        Precision equals recall exactly where as many items are predicted positive as are positive. Where no positive is
        found, P = R = 0 does not count as a crossing. Of several crossings, the one nearest to the natural ratio.
        """
        curve = self.curve("precision", "recall", "tp")
        found = curve["tp"] > 0
        ratios, gap = curve["ratio"][found], (curve["precision"] - curve["recall"])[found]
        return _crossing(ratios, gap, self.natural_ratio)

    def break_even_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Bootstrap interval of the break-even of a sweep with one seed.

        None for several seeds, without predictions, or where the curves cross in a smaller share of the resamples than
        `level`.
        """
        intervals = self.intervals(level) if len(self.seeds) == 1 and self.points else None
        if intervals is None:
            return None
        order = np.argsort([point.ratio for point in self.points])
        ratios = np.array([self.points[i].ratio for i in order])
        crossings = []
        resamples = zip(intervals.resampled_precision[:, order], intervals.resampled_recall[:, order], strict=True)
        for precision, recall in resamples:
            found = recall > 0
            crossing = _crossing(ratios[found], (precision - recall)[found], self.natural_ratio)
            if crossing is not None:
                crossings.append(crossing)
        if len(crossings) < level * len(intervals.resampled_recall):
            return None
        low, high = interval(np.array(crossings), level).tolist()
        return low, high

    def intervals(self, level: float = 0.95) -> Intervals | None:
        """Bootstrap intervals of the points, in their order; None where predictions are not on disk.

        Raises
        ------
        InvalidInputError
            When a file with predictions is damaged, or the legs have predictions of different data.
        """
        if not all(map(self.has_predictions, self.points)):
            return None
        predictions = [self.predictions(point) for point in self.points]
        if len(sizes := {len(labels) for _, labels in predictions}) > 1:
            raise InvalidInputError(
                f"{self.folder} has predictions of {min(sizes)} to {max(sizes)} items, but all legs must have the "
                "same items: restore them, or sweep again."
            )
        return bootstrap(predictions, self.task, self.positive_label, level)

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
        logits, labels = self.predictions(point)
        if self.task is Task.MULTILABEL:
            counted = labels != IGNORE_INDEX
            return labels[counted] == 1, logits[counted]
        positive = self.positive_label
        return labels == positive, logits[:, positive] - logits[:, 1 - positive]


def _crossing(ratios: np.ndarray, gap: np.ndarray, natural_ratio: float) -> float | None:
    """The ratio where precision − recall passes 0, interpolated in log w_r: the one nearest to the natural ratio."""
    crossings = ratios[gap == 0].tolist()
    for i in np.flatnonzero(gap[:-1] * gap[1:] < 0):
        low, high = ratios[i : i + 2]
        crossings.append(float(low * (high / low) ** (gap[i] / (gap[i] - gap[i + 1]))))
    return min(crossings, key=lambda ratio: abs(math.log(ratio / natural_ratio)), default=None)
