from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..weighting.task import Task

_FORMS = (
    "f1, f0.5, mcc, recall>=0.95, precision>=0.9 @90%, recall>=0.95 and precision>=0.5, flagged<=200 per 10000, "
    "cost fp=1 fn=20, cost [[0, 1], [20, 0]], break-even"
)
_THREE_CLASSES = "cost [[0, 1, 1], [20, 0, 5], [1, 1, 0]]"
_NUMBER = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)"
_BOUND = re.compile(rf"(recall|precision|flagged) ?([<>])=? ?{_NUMBER} ?(?:(%)|per {_NUMBER})?")
_SIGN = {"recall": ">", "precision": ">", "flagged": "<"}


@dataclass(frozen=True)
class Requirement:
    """What a user requires of the decisions, and how well decisions meet it.

    Attributes
    ----------
    text : str
        The requirement in its normal form: `f1`, `recall>=0.95`, `cost fp=1 fn=20`.
    objective : {"f", "mcc", "precision", "recall", "cost", "break-even"}
        What is to be as high as possible (a cost, and the gap of the break-even, as low as possible) where the bounds hold.
    numbers : tuple of float
        β of an F-measure; or the costs of a true positive, a false positive, a false negative and a true negative.
    bounds : tuple of (str, float)
        Least `recall`, least `precision` and highest share `flagged`, as far as they are required.
    confidence : float or None
        Probability with which the bound is to hold on new data: see `guarantee`.
    costs : tuple of tuple of float
        Cost matrix, as it is written: the cost of an item by its true class (row) and its predicted class (column).
    """

    text: str
    objective: str
    numbers: tuple[float, ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()
    confidence: float | None = None
    costs: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read a requirement as users write it.

        `f1`, `f0.5`: the highest F-measure of that β. `mcc`: the highest Matthews correlation. `recall>=0.95`: the highest
        precision with such a recall. `precision>=0.9`: the highest recall with such a precision. `flagged<=200 per 10000`
        or `flagged<=2%`: the highest recall where no larger share is predicted positive. Several of these bounds joined by
        `and`: the highest F1, or the one of precision and recall that has no bound. `recall>=0.95 @90%`: with 90%
        probability the recall on new data is at least 0.95. `cost fp=1 fn=20`: the lowest cost per item.
        `cost [[0, 1, 1], [20, 0, 5], [1, 1, 0]]`: the same from a cost matrix, with a row for each true class and a column
        for each predicted class, in the order of the label ids, as scikit-learn's `confusion_matrix` has it. `break-even`:
        precision and recall nearest to each other.

        Raises
        ------
        InvalidInputError
            For anything else, with the nearest form that is valid.

        Examples
        --------
        >>> Requirement.parse("Recall >= 95%").text
        'recall>=0.95'
        >>> Requirement.parse("flagged <= 200 per 10000").bounds
        (('flagged', 0.02),)
        >>> Requirement.parse("cost [[0,1],[20,0]]").costs
        ((0.0, 1.0), (20.0, 0.0))
        """
        written = " ".join(str(text).lower().split())
        if (found := re.fullmatch(rf"f-?{_NUMBER}", written)) and float(found[1]) > 0:
            return cls(f"f{float(found[1]):.12g}", "f", (float(found[1]),))
        if written == "mcc":
            return cls("mcc", "mcc")
        if written in ("break-even", "breakeven", "break even"):
            return cls("break-even", "break-even")
        if found := re.fullmatch(rf"cost fp ?= ?{_NUMBER},? fn ?= ?{_NUMBER}", written):
            fp, fn = float(found[1]), float(found[2])
            if max(fp, fn) > 0:
                return cls(f"cost fp={fp:.12g} fn={fn:.12g}", "cost", (0.0, fp, fn, 0.0))
        if found := re.fullmatch(r"cost ?(\[[][\d., e+-]*\])", written):
            matrix = _cost_matrix(text, found[1])
            rows = (", ".join(f"{cost:.12g}" for cost in row) for row in matrix)
            return cls(f"cost [[{'], ['.join(rows)}]]", "cost", costs=matrix)
        bounded, _, level = (part.strip() for part in written.partition("@"))
        parts = [_BOUND.fullmatch(part.strip()) for part in bounded.split(" and ")]
        if not all(found and found[2] == _SIGN[found[1]] for found in parts):
            quoted = " (in quotes, since a shell reads > as a redirection)" if written in _SIGN else ""
            nearest = f"{_nearest(written)!r}{quoted}"
            raise InvalidInputError(f"{text!r} is not a requirement: write {nearest}, or one of {_FORMS}.")
        bounds = dict(_bound(text, found) for found in parts if found)
        if len(bounds) < len(parts):
            raise InvalidInputError(f"the requirement {text!r} has two bounds of the same kind: write one of each.")
        objective = (
            "f" if {"recall", "precision"} <= bounds.keys() else "precision" if "recall" in bounds else "recall"
        )
        normal = " and ".join(f"{name}{_SIGN[name]}={value:.12g}" for name, value in bounds.items())
        numbers = (1.0,) if objective == "f" else ()
        confidence = None
        if "@" in written:
            confidence = _confidence(text, level, bounds)
            normal += f" @{level}"
        return cls(normal, objective, numbers, tuple(bounds.items()), confidence)

    def score(self, measured: Any) -> Any:
        """How well decisions meet the requirement: the higher the better.

        With bounds the score is 1 + the objective where they hold, and elsewhere −1 times what is missing in all. To call
        everything positive never reaches a least recall or precision: that needs no model.

        Parameters
        ----------
        measured : SweepPoint, OperatingPoint or Confusion

        Returns
        -------
        float, or float array with one score for each classification in a Confusion.
        """
        value = self.objective_of(measured)
        if not self.bounds:
            return value
        missing = sum(np.maximum(0, gap) for gap in self.missing(measured).values())
        if any(name != "flagged" for name, _ in self.bounds):
            missing = missing + calls_everything_positive(measured)
        return np.where(missing > 0, -missing, 1 + value)[()]

    def missing(self, measured: Any) -> dict[str, Any]:
        """By how much each bound is missed, by its name; not above 0 where it holds."""
        return {
            name: np.asarray(flagged(measured)) - bound
            if name == "flagged"
            else bound - np.asarray(getattr(measured, name))
            for name, bound in self.bounds
        }

    def objective_of(self, measured: Any) -> Any:
        """The value of the objective alone: the higher the better."""
        if self.objective in ("precision", "recall"):
            return np.asarray(getattr(measured, self.objective))[()]
        if self.objective == "cost":
            return -self.cost(measured)
        if self.objective == "mcc":
            tp, fp, fn, tn = _counts(measured)
            product = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
            return np.divide(tp * tn - fp * fn, product, out=np.zeros(np.shape(product)), where=product > 0)[()]
        if self.objective == "f" and self.numbers[0] == 1:
            return measured.f1
        precision, recall = np.asarray(measured.precision), np.asarray(measured.recall)
        if self.objective == "break-even":
            gap = np.abs(precision - recall)
            return np.where(_counts(measured)[0] > 0, -gap, -2.0)[()]  # P = R = 0 does not count
        square = self.numbers[0] ** 2
        both = square * precision + recall
        return np.divide((1 + square) * precision * recall, both, out=np.zeros(both.shape), where=both > 0)[()]

    def cost(self, measured: Any) -> Any:
        """Expected cost per item, for costs of two classes or of several labels per example."""
        counts = _counts(measured)
        return sum(cost * n for cost, n in zip(self.numbers, counts, strict=True)) / sum(counts)

    def costs_of(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Cost of each item for the class with the highest logit: float array of shape (n_items,).

        For a cost matrix of more than two classes, whose expected cost does not follow from the counts of each class.
        """
        return np.array(self.costs)[labels, logits.argmax(-1)]

    def for_classes(self, task: Task, num_classes: int, positive_label: int = 1) -> Requirement:
        """The requirement for these classes: a cost matrix of two classes becomes costs of their four counts.

        Raises
        ------
        InvalidInputError
            When it has no meaning for the task, or its cost matrix is for another number of classes, or is not reasonable
            for two classes in the sense of Elkan (2001): a right decision costs no more than the wrong one.

        Examples
        --------
        >>> Requirement.parse("cost [[0, 1], [20, 0]]").for_classes(Task.BINARY, 2, positive_label=1).numbers
        (0.0, 1.0, 20.0, 0.0)
        """
        why, several = "", task is Task.MULTICLASS
        if self.confidence is not None and task is not Task.BINARY:
            why = "is for two classes: leave the @ out"
        elif self.costs and task is Task.MULTILABEL:
            why = "is for a single label per example: write cost fp=1 fn=20"
        elif self.costs and len(self.costs) != num_classes:
            size = len(self.costs)
            why = f"has a {size} x {size} matrix: write one row and one column for each of the {num_classes} classes"
        elif self.costs and not several and any(self.costs[i][i] > self.costs[i][1 - i] for i in (0, 1)):
            why = "has a right decision that costs more than the wrong one: write the costs of right ones on the diagonal"
        elif several and not self.costs and (self.objective in ("mcc", "cost") or "flagged" in dict(self.bounds)):
            why = "is for two classes, or several labels per example: write f1, a least macro recall such as recall>=0.8, "
            why += f"or a matrix such as {_THREE_CLASSES}"
        if why:
            raise InvalidInputError(f"the requirement {self.text} {why}.")
        if several or not self.costs:
            return self
        order = [positive_label, 1 - positive_label]
        (tp, fn), (fp, tn) = np.array(self.costs)[np.ix_(order, order)].tolist()
        return replace(self, costs=(), numbers=(tp, fp, fn, tn))


def calls_everything_positive(measured: Any) -> Any:
    """Whether every item is predicted positive, some of them wrongly: bool, or array as for `Requirement.score`."""
    _, fp, fn, tn = _counts(measured)
    return (tn == 0) & (fn == 0) & (fp > 0)


def flagged(measured: Any) -> Any:
    """Share of the items that are predicted positive."""
    tp, fp, fn, tn = _counts(measured)
    return (tp + fp) / (tp + fp + fn + tn)


def _counts(measured: Any) -> list[Any]:
    counts = [getattr(measured, name) for name in ("tp", "fp", "fn", "tn")]
    return [float(n) if np.ndim(n) == 0 else np.sum(n, axis=-1, dtype=np.float64) for n in counts]


def _bound(text: str, found: re.Match[str]) -> tuple[str, float]:
    value = float(found[3]) / (100 if found[4] else float(found[5] or 1) or 1)
    if not 0 < value <= 1:
        raise InvalidInputError(
            f"the requirement {text!r} must have a number above 0 and up to 1, such as {found[1]}{found[2]}=0.95."
        )
    return found[1], value


def _cost_matrix(text: str, written: str) -> tuple[tuple[float, ...], ...]:
    try:
        costs = np.array(json.loads(written), dtype=np.float64)
    except (ValueError, OverflowError, RecursionError):
        costs = np.empty(0)
    is_square = costs.ndim == 2 and costs.shape[0] == costs.shape[1] >= 2
    if not is_square or not ((costs >= 0) & np.isfinite(costs)).all() or not costs.any():
        raise InvalidInputError(
            f"the requirement {text!r} must have a square matrix of finite costs of at least 0, one of them above 0: a row "
            f"for each true class with a column for each predicted class, such as {_THREE_CLASSES}."
        )
    return tuple(map(tuple, costs.tolist()))


def _confidence(text: str, level: str, bounds: dict[str, float]) -> float:
    if len(bounds) > 1 or "flagged" in bounds:
        raise InvalidInputError(f"the requirement {text!r} must have a single least recall or precision before the @.")
    if 1 in bounds.values():
        raise InvalidInputError(f"the requirement {text!r} must be below 1: no number of examples makes that sure.")
    found = re.fullmatch(rf"{_NUMBER}%", level)
    if not found or not 0 < float(found[1]) < 100:
        raise InvalidInputError(f"the requirement {text!r} must have a confidence between 0% and 100%, such as @90%.")
    return float(found[1]) / 100


def _nearest(written: str) -> str:
    number = re.search(_NUMBER, written)
    forms = ["f1", "mcc", "recall>=0.95", "precision>=0.9", "flagged<=0.02", "cost fp=1 fn=20", "break-even"]
    (form,) = difflib.get_close_matches(written, forms, n=1, cutoff=0)
    if number and 0 < float(number[0]) <= 1 and "=0" in form:
        return form.split("=0")[0] + "=" + number[0]
    return form
