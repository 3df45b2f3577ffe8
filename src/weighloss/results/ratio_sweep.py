from __future__ import annotations

import logging
import math
import os
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download

from .bootstrap import Intervals, bootstrap, interval
from .requirement import Choice, Requirement, calls_everything_positive
from ..errors import InvalidInputError, reason
from ..weighting.labels import IGNORE_INDEX
from .points import FailedLeg, SweepPoint, read_legs
from .files import PREDICTIONS_FOLDER, PREVIEW_FOLDER, SWEEP_FILE, is_readable, read_json, read_predictions, write_json
from ..weighting.class_weights import ClassWeights

logger = logging.getLogger(__name__)

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class RatioSweep:
    """A sweep's results: what was swept over, and one point per finished leg.

    Attributes
    ----------
    counts : list of int
        Training labels of each class; for several labels per example a pair, negatives and positives, for each label.
    label_names : list of str
        Names of the classes, by id.
    positive_label : int
        Id of the positive class.
    natural_ratio : float
    ratios : list of float, ascending
    seeds : list of int
    epochs_per_ratio : int
    points : tuple of SweepPoint
        In the order of the legs.
    failed : tuple of FailedLeg
        Legs that came to nothing, such as those whose loss was NaN.
    model, dataset : str
        Names of what was fine-tuned, and on what.
    num_eval : int
        Number of evaluation examples.
    versions : dict
        Of weighloss, transformers and torch.
    kept : int or None
        Index of the point whose model the trainer kept; None while the sweep runs.
    kept_because : str
        Why that one, as in "the best F1 of the sweep".
    requirement : str or None
        The requirement that it was chosen for.
    search : str or None
        What the ratios were searched for, where they are no grid.
    preview : int or None
        How many of the last layers were trained, where only those were: see `RatioSweepCallback`.
    fingerprint : dict of str to str
        Digests of training data, evaluation data and model: a sweep goes on only with the same.
    arguments : dict
        The training arguments that decide what a leg comes to.
    folder : Path or None
        Where the sweep lies on disk; not written.
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
    kept: int | None = None
    kept_because: str = ""
    requirement: str | None = None
    search: str | None = None
    preview: int | None = None
    fingerprint: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RatioSweep:
        """The sweep that lies in a folder, or in a `sweep.json`. A damaged point is left out, and a warning names it.

        Raises
        ------
        InvalidInputError
            When there is none, or the file is not one that this version can read.
        """
        path = Path(path)
        file = path / SWEEP_FILE if path.is_dir() else path
        try:
            content = read_json(file)
        except FileNotFoundError:
            raise InvalidInputError(
                f"there is no sweep at {path}: give the output folder of one, which holds {SWEEP_FILE}."
            ) from None
        version = content.pop("format_version", None) if isinstance(content, dict) else None
        if version != _FORMAT_VERSION:
            raise InvalidInputError(
                f"{file} has format version {version!r}, not {_FORMAT_VERSION}: install the weighloss that wrote it."
            )
        known = {f.name for f in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING} | {"points"}
        if missing := needed - content.keys():
            raise InvalidInputError(f"{file} lacks {', '.join(sorted(missing))}: restore it, or sweep again.")
        points = dict(read_legs(file, content, "points", SweepPoint))
        failed = dict(read_legs(file, content, "failed", FailedLeg))
        kept = content.pop("kept", None)
        return cls(
            **{k: v for k, v in content.items() if k in known - {"points", "failed"}},
            points=tuple(points.values()),
            failed=tuple(failed.values()),
            kept=list(points).index(kept) if kept in points else None,
            folder=file.parent,
        )

    @classmethod
    def from_hub(cls, repo_id: str, revision: str | None = None, token: str | None = None) -> RatioSweep:
        """The sweep that was pushed with a model, with its predictions where they were pushed too.

        Raises
        ------
        InvalidInputError
            When the repository cannot be read or holds no sweep.
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
            raise InvalidInputError(f"{repo_id} holds no {SWEEP_FILE}: give the repository of a model from a sweep.")
        return cls.load(folder)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `sweep.json` into a folder, atomically: a reader finds the old file or the new one, never half of one."""
        content = {"format_version": _FORMAT_VERSION} | asdict(self)
        del content["folder"]
        write_json(Path(folder) / SWEEP_FILE, content)

    def has_predictions(self, point: SweepPoint) -> bool:
        """Whether the predictions of a point are on disk, as they are not after a push without them, and whole."""
        file = None if self.folder is None else self.folder / point.predictions
        if file is None or not file.exists():
            return False
        if not is_readable(file):
            logger.warning("%s is damaged: what needs it is left out.", file)
            return False
        return True

    def positives_and_scores(self, point: SweepPoint) -> tuple[np.ndarray, np.ndarray]:
        """Whether an item is positive, and the log odds that the leg gives it: bool and float arrays (n_items,).

        Of several labels per example every one is an item.

        Raises
        ------
        InvalidInputError
            For more than two classes, which have no one score, and as `predictions`.
        """
        if self.average == "macro":
            raise InvalidInputError(f"{len(self.label_names)} classes have no one score: look at their predictions.")
        logits, labels = self.predictions(point)
        if self.average == "micro":
            counted = labels != IGNORE_INDEX
            return labels[counted] == 1, logits[counted]
        positive = self.positive_label
        return labels == positive, logits[:, positive] - logits[:, 1 - positive]

    def with_leg(self, leg: SweepPoint | FailedLeg) -> RatioSweep:
        """The sweep with one more leg, at its place in their order."""
        name = "failed" if isinstance(leg, FailedLeg) else "points"
        legs = sorted([*getattr(self, name), leg], key=lambda leg: leg.global_step)
        changed: dict[str, Any] = {name: tuple(legs)}
        return replace(self, **changed)

    @property
    def done(self) -> list[SweepPoint | FailedLeg]:
        """The legs that need not run any more, in their order."""
        return sorted([*self.points, *self.failed], key=lambda leg: leg.global_step)

    @property
    def what_was_trained(self) -> str:
        """In words; of a preview, that it is one."""
        if self.preview is None:
            return "the whole model"
        return f"only the last {'layer' if self.preview == 1 else f'{self.preview} layers'} and the head fine-tuned"

    def previewed(self) -> RatioSweep | None:
        """The preview that this sweep refines, where there is one on disk."""
        folder = None if self.folder is None else self.folder / PREVIEW_FOLDER
        return RatioSweep.load(folder) if folder is not None and (folder / SWEEP_FILE).exists() else None

    @property
    def positive_name(self) -> str:
        """Name of the positive class; "positive" where there are more than one."""
        return self.label_names[self.positive_label] if self.average == "binary" else "positive"

    def ratio_of(self, scheme: str) -> float:
        """The ratio of a named scheme, such as `sqrt`, on the sweep's training data: see `ClassWeights.from_counts`."""
        if self.average == "micro":
            return ClassWeights.from_multi_label_counts(np.array(self.counts), scheme).ratio
        return ClassWeights.from_counts(np.array(self.counts), scheme, self.positive_label).ratio

    @property
    def kept_point(self) -> SweepPoint | None:
        """The point whose model the trainer kept."""
        return None if self.kept is None else self.points[self.kept]

    @property
    def average(self) -> str:
        """What precision and recall are: "binary", those of the positive label; "macro", averages over more classes than
        two; "micro", averages over the several labels of an example.
        """
        if np.ndim(self.counts) == 2:
            return "micro"
        return "binary" if len(self.label_names) == 2 else "macro"

    @property
    def num_items(self) -> int:
        """Number of evaluation labels of a finished leg: of examples, tokens, or labels where an example has several."""
        point = self.points[0]
        if self.average == "macro":  # sums over the classes, of which every item has one
            return point.tp + point.fn
        return point.tp + point.fp + point.fn + point.tn

    @property
    def unit(self) -> str:
        """What is classified: "examples", "tokens", or "labels" where an example has several."""
        if self.average == "micro":
            return "labels"
        return "tokens" if self.num_items > self.num_eval else "examples"

    def curve(self, *names: str) -> dict[str, np.ndarray]:
        """The points as arrays over the ratios, means over the seeds that have a figure: see `by_ratio`.

        Parameters
        ----------
        *names : str
            Attributes of the points.

        Returns
        -------
        dict of float64 arrays of shape (n_ratios,)
            `ratio` (ascending) and one for each name; only ratios with a finished leg.
        """
        columns = {"ratio": np.array(list(self.by_ratio()))}
        for name in names:
            of_ratios = self.by_ratio(name).values()
            columns[name] = np.array([fmean(getattr(point, name) for point in points) for points in of_ratios])
        return columns

    def by_ratio(self, figure: str | None = None) -> dict[float, list[SweepPoint]]:
        """The points of each ratio, ratios ascending.

        Parameters
        ----------
        figure : str, optional
            Only the points that have this figure, where any of the ratio has. The precision of a leg that predicts nothing
            positive is 0 by convention only: it is left out, as scikit-learn leaves it out of averages with
            `zero_division=nan`.
        """
        groups: dict[float, list[SweepPoint]] = {}
        for ratio in self.ratios:
            if points := [point for point in self.points if point.ratio == ratio]:
                having = [point for point in points if figure != "precision" or point.predicts_positives]
                groups[ratio] = having or points
        return groups

    def predicts_no_positive(self, ratio: float) -> bool:
        """Whether the legs at a ratio predicted nothing positive, so that their precision is 0 by convention only."""
        return not any(point.predicts_positives for point in self.by_ratio()[ratio])

    def best(self, metric: str = "f1") -> float:
        """The ratio at which a metric is highest, by its mean over the seeds; the lowest among equals.

        Raises
        ------
        InvalidInputError
            When no leg has finished.
        """
        curve = self.curve(metric)
        if not curve["ratio"].size:
            raise InvalidInputError("the sweep has no finished leg to choose from: let it run.")
        return float(curve["ratio"][curve[metric].argmax()])

    def choose(self, requirement: str) -> Choice:
        """The leg that a requirement chooses, or the one that comes nearest. Legs that call everything positive have no
        recall or precision that counts for it.

        A leg is one ratio with one seed: with several seeds this favours lucky ones, where `best` compares means.

        Parameters
        ----------
        requirement : str
            `f1`, `f0.5`, `recall>=0.95`, `precision>=0.9`, `cost fp=1 fn=20` or `break-even`: see `Requirement.parse`.

        Raises
        ------
        InvalidInputError
            When that is no requirement, no leg has finished, or a `recall>=0.95 @90%` finds no predictions on disk.

        Examples
        --------
        >>> print(sweep.choose("recall>=0.95"))  # doctest: +SKIP
        recall>=0.95 chooses w_r = 0.6457: precision 0.947, recall 0.953.
        """
        wanted = Requirement.parse(requirement)
        if not self.points:
            raise InvalidInputError("the sweep has no finished leg to choose from: let it run.")
        lower: list[float | None] = [None] * len(self.points)
        if wanted.confidence is not None:
            intervals = self.intervals(wanted.confidence)
            if intervals is None:
                raise InvalidInputError(f"{wanted.text} needs the predictions, which are not here: leave the @ out.")
            lower = getattr(intervals, wanted.kind)[:, 0].tolist()
        scores = [wanted.score(point, least) for point, least in zip(self.points, lower, strict=True)]
        best = scores.index(max(scores))
        everything = {point.ratio for point in self.points if wanted.is_least and calls_everything_positive(point)}
        return Choice(
            wanted,
            self.points[best],
            met=not wanted.is_least or scores[best] >= 1,
            lower=lower[best],
            not_counted=tuple(sorted(everything)),
        )

    def ratios_around(self, requirement: str | float, count: int) -> list[float]:
        """The ratio that a requirement chooses and those nearest to it: where to refine a preview.

        Parameters
        ----------
        requirement : str or float
            See `choose`; or the ratio itself.
        count : int
            How many ratios, at most all of them.

        Returns
        -------
        list of float, ascending.

        Raises
        ------
        InvalidInputError
            As `choose`.
        """
        chosen = self.choose(requirement).point.ratio if isinstance(requirement, str) else requirement
        nearest = sorted(self.by_ratio(), key=lambda ratio: abs(math.log(ratio / chosen)))
        return sorted(nearest[:count])

    def intervals(self, level: float = 0.95) -> Intervals | None:
        """Bootstrap intervals of the points, in their order; None where the predictions are not on disk.

        Raises
        ------
        InvalidInputError
            When a file with predictions is damaged.
        """
        if not all(map(self.has_predictions, self.points)):
            return None
        return bootstrap([self.predictions(point) for point in self.points], self.positive_label, level)

    def break_even(self) -> float | None:
        """The ratio at which precision equals recall, interpolated in log w_r; None when the curves do not cross.

        Precision equals recall exactly where as many are predicted positive as there are. Where no positive is found
        P = R = 0, by convention or in fact, and that never counts as a crossing. Of several crossings it is the one
        nearest to the natural ratio.
        """
        curve = self.curve("precision", "recall", "tp")
        found = curve["tp"] > 0
        ratios, gap = curve["ratio"][found], (curve["precision"] - curve["recall"])[found]
        return _crossing(ratios, gap, self.natural_ratio)

    def break_even_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Bootstrap interval of the break-even of a sweep with one seed.

        None without such a sweep or predictions, or where the curves cross in fewer than `level` of the resamples.
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

    def at(self, ratio: float, name: str) -> float:
        """An attribute of the points at any ratio, interpolated in log w_r between ratios at which positives are found."""
        curve = self.curve(name, "tp")
        found = curve["tp"] > 0
        return float(np.interp(math.log(ratio), np.log(curve["ratio"][found]), curve[name][found]))

    def predictions(self, point: SweepPoint) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n_items, n_classes), float32, and labels (n_items,), int64, of a leg, in the evaluation set's order.

        Where an example has several labels, both are (n_examples, n_labels).

        Raises
        ------
        InvalidInputError
            When the sweep was not loaded from disk, or the file is missing or damaged.
        """
        if self.folder is None:
            raise InvalidInputError("this sweep was not loaded from disk: use RatioSweep.load(folder).")
        return read_predictions(self.folder / point.predictions)


def _crossing(ratios: np.ndarray, gap: np.ndarray, natural_ratio: float) -> float | None:
    """Where precision − recall passes 0, interpolated in log w_r: the ratio nearest to the natural one."""
    crossings = ratios[gap == 0].tolist()
    for i in np.flatnonzero(gap[:-1] * gap[1:] < 0):
        low, high = ratios[i : i + 2]
        crossings.append(float(low * (high / low) ** (gap[i] / (gap[i] - gap[i + 1]))))
    return min(crossings, key=lambda ratio: abs(math.log(ratio / natural_ratio)), default=None)
