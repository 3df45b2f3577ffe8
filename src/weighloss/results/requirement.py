from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError

if TYPE_CHECKING:
    from .points import SweepPoint

_FORMS = "f1, f0.5, recall>=0.95, precision>=0.9 @90%, cost fp=1 fn=20, break-even"
_NUMBER = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)"


@dataclass(frozen=True)
class Requirement:
    """What a user needs of precision and recall, and how near a sweep's point comes to it.

    Attributes
    ----------
    text : str
        As it was written, in one form: `f1`, `recall>=0.95`, `cost fp=1 fn=20`.
    kind : str
        "f", "recall", "precision", "cost" or "break-even".
    numbers : tuple of float
        β; the least recall or precision; the costs of a false positive and a false negative.
    confidence : float or None
        The level of the bootstrap interval whose lower end, instead of the value itself, has to reach the least recall or
        precision.
    """

    text: str
    kind: str
    numbers: tuple[float, ...] = ()
    confidence: float | None = None

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """A requirement as users write it.

        `f1`, `f0.5`: the highest F-measure of that β. `recall>=0.95`: of the points with such a recall the highest
        precision; `precision>=0.9` the other way round; `recall>=0.95 @90%` asks it of the lower end of the 90% interval.
        `cost fp=1 fn=20`: the lowest cost per item. `break-even`: precision and recall nearest to each other.

        Raises
        ------
        InvalidInputError
            For anything else, with the nearest form that is one.
        """
        written = " ".join(str(text).lower().split())
        if found := re.fullmatch(rf"f-?{_NUMBER}", written):
            beta = float(found[1])
            if beta > 0:
                return cls(f"f{beta:.12g}", "f", (beta,))
        if found := re.fullmatch(rf"(recall|precision) ?>=? ?{_NUMBER}(%?)(?: ?@ ?{_NUMBER} ?(%?))?", written):
            least = float(found[2]) / (100 if found[3] else 1)
            if not 0 < least <= 1:
                raise InvalidInputError(
                    f"{text!r} asks for what no model has: write {found[1]}>= and a number up to 1, such as 0.95."
                )
            if found[4] is None:
                return cls(f"{found[1]}>={least:.12g}", found[1], (least,))
            if not found[5] or not 0 < float(found[4]) < 100:
                raise InvalidInputError(f"{text!r} names no level: write one between 0 and 100, such as @90%.")
            return cls(f"{found[1]}>={least:.12g} @{found[4]}%", found[1], (least,), float(found[4]) / 100)
        if found := re.fullmatch(rf"cost fp ?= ?{_NUMBER},? fn ?= ?{_NUMBER}", written):
            costs = float(found[1]), float(found[2])
            if max(costs) > 0:
                return cls(f"cost fp={costs[0]:.12g} fn={costs[1]:.12g}", "cost", costs)
        if written in ("break-even", "breakeven", "break even"):
            return cls("break-even", "break-even")
        if re.search(r" (and|or) |[&|;+]", written):
            raise InvalidInputError(
                f"{text!r} asks for several things: write one, such as 'recall>=0.95', which chooses the highest precision "
                "with that recall."
            )
        raise InvalidInputError(f"{text!r} is no requirement: write {_nearest(written)!r}, or one of {_FORMS}.")

    def score(self, point: Any, lower: float | None = None) -> float:
        """How well a point does: the higher the better, one number for every kind.

        Points that have the least recall or precision asked for get 1 + the other one, the others how much they lack, below
        0. One that calls everything positive lacks all of it: no model is needed for that. `lower` is what counts in place
        of the point's own value where a `confidence` is asked for.
        """
        precision, recall = point.precision, point.recall
        if self.kind == "f":
            square = self.numbers[0] ** 2
            if square == 1:
                return point.f1
            return (1 + square) * precision * recall / (square * precision + recall) if precision and recall else 0.0
        if self.kind == "cost":
            return -self.cost(point)
        if self.kind == "break-even":
            return -abs(precision - recall) if point.tp else -2.0  # P = R = 0 is none
        own, other = (recall, precision) if self.kind == "recall" else (precision, recall)
        own = own if lower is None else lower
        if calls_everything_positive(point):
            own = 0.0
        return 1 + other if own >= self.numbers[0] else own - self.numbers[0]

    def cost(self, point: Any) -> float:
        """Expected cost per item of a requirement of costs."""
        return (self.numbers[0] * point.fp + self.numbers[1] * point.fn) / (point.tp + point.fp + point.fn + point.tn)

    @property
    def is_least(self) -> bool:
        """Whether it asks for a least recall or precision, not for the best there is."""
        return self.kind in ("recall", "precision")


def calls_everything_positive(point: Any) -> bool:
    """Whether a point predicts the positive label, or every label, of all items, wrongly of some."""
    return point.tn == point.fn == 0 < point.fp


@dataclass(frozen=True)
class Choice:
    """The point of a sweep that a requirement chooses.

    Attributes
    ----------
    requirement : Requirement
    point : SweepPoint
        The first of those that do best.
    met : bool
        Whether it has the least recall or precision asked for; else it comes nearest. True for the other kinds.
    lower : float or None
        The lower end of the interval that counts for that, where a `confidence` is asked for.
    not_counted : tuple of float
        Ratios whose legs call everything positive, which meets no least recall or precision.
    """

    requirement: Requirement
    point: SweepPoint
    met: bool
    lower: float | None = None
    not_counted: tuple[float, ...] = ()

    def __str__(self) -> str:
        """The choice in one sentence."""
        at = f"w_r = {self.point.ratio:.4g}: precision {self.point.precision:.3f}, recall {self.point.recall:.3f}"
        if self.lower is not None:
            at += f", {self.requirement.kind} at least {self.lower:.3f} by its interval"
        if self.requirement.kind == "cost":
            at += f", cost {self.requirement.cost(self.point):.4g} per item"
        if calls_everything_positive(self.point):
            at += "; it calls everything positive"
        if self.met:
            return f"{self.requirement.text} chooses {at}."
        but = ""
        if self.not_counted:
            ratios = ", ".join(f"{ratio:.4g}" for ratio in self.not_counted)
            but = f" but by calling everything positive (w_r = {ratios}), which does not count"
        return f"No leg meets {self.requirement.text}{but}; nearest comes {at}."


def _nearest(written: str) -> str:
    number = re.search(_NUMBER, written)
    forms = ["f1", "recall>=0.95", "precision>=0.9", "cost fp=1 fn=20", "break-even"]
    (form,) = difflib.get_close_matches(written, forms, n=1, cutoff=0)
    if number and 0 < float(number[0]) <= 1 and ">=" in form:
        return form.split(">=")[0] + ">=" + number[0]
    return form
