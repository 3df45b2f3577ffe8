from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .points import SweepPoint

_FORMS = "f1, f0.5, recall>=0.95, precision>=0.9 @90%, cost fp=1 fn=20, break-even"
_NUMBER = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)"


@dataclass(frozen=True)
class Requirement:
    """What a user requires of precision and recall, and how well a leg meets it.

    Attributes
    ----------
    text : str
        The requirement in its normal form: `f1`, `recall>=0.95`, `cost fp=1 fn=20`.
    kind : {"f", "recall", "precision", "cost", "break-even"}
    numbers : tuple of float
        β; the least recall or precision; or the costs of a false positive and a false negative.
    confidence : float or None
        Level of the bootstrap interval whose lower end, instead of the value itself, has to reach the least recall or
        precision.
    """

    text: str
    kind: str
    numbers: tuple[float, ...] = ()
    confidence: float | None = None

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read a requirement as users write it.

        `f1`, `f0.5`: the highest F-measure of that β. `recall>=0.95`: the highest precision among the legs with such a
        recall; `precision>=0.9`: the highest recall with such a precision; `recall>=0.95 @90%` requires it of the lower
        end of the 90% interval. `cost fp=1 fn=20`: the lowest cost per item. `break-even`: precision and recall nearest to
        each other.

        Raises
        ------
        InvalidInputError
            For anything else, with the nearest form that is valid.

        Examples
        --------
        >>> Requirement.parse("Recall >= 95%").text
        'recall>=0.95'
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
                    f"the requirement {text!r} must have a number above 0 and up to 1, such as {found[1]}>=0.95."
                )
            if found[4] is None:
                return cls(f"{found[1]}>={least:.12g}", found[1], (least,))
            if not found[5] or not 0 < float(found[4]) < 100:
                raise InvalidInputError(
                    f"the requirement {text!r} must have a confidence between 0% and 100%, such as @90%."
                )
            return cls(f"{found[1]}>={least:.12g} @{found[4]}%", found[1], (least,), float(found[4]) / 100)
        if found := re.fullmatch(rf"cost fp ?= ?{_NUMBER},? fn ?= ?{_NUMBER}", written):
            costs = float(found[1]), float(found[2])
            if max(costs) > 0:
                return cls(f"cost fp={costs[0]:.12g} fn={costs[1]:.12g}", "cost", costs)
        if written in ("break-even", "breakeven", "break even"):
            return cls("break-even", "break-even")
        if re.search(r" (and|or) |[&|;+]", written):
            raise InvalidInputError(
                f"the requirement {text!r} has several parts: write one, such as 'recall>=0.95', which chooses the highest "
                "precision with that recall."
            )
        raise InvalidInputError(f"{text!r} is not a requirement: write {_nearest(written)!r}, or one of {_FORMS}.")

    def score(self, measured: Any, lower: float | None = None) -> Any:
        """How well a leg, or every threshold of a leg, meets the requirement: the higher the better.

        For a least recall or precision the score is 1 + the other one where it is reached, and below 0 by what is
        missing elsewhere. A leg that calls everything positive never reaches it: that needs no model.

        Parameters
        ----------
        measured : SweepPoint or Confusion
        lower : float, optional
            Lower end of the interval, which counts instead of the value where the requirement has a `confidence`.

        Returns
        -------
        float, or float array with one score for each classification in a Confusion.
        """
        precision, recall = np.asarray(measured.precision), np.asarray(measured.recall)
        if self.kind == "f":
            square = self.numbers[0] ** 2
            if square == 1:
                return measured.f1
            both = square * precision + recall
            return np.divide((1 + square) * precision * recall, both, out=np.zeros(both.shape), where=both > 0)[()]
        if self.kind == "cost":
            return -self.cost(measured)
        if self.kind == "break-even":
            return np.where(_count(measured.tp) > 0, -np.abs(precision - recall), -2.0)[()]  # P = R = 0 does not count
        own, other = (recall, precision) if self.kind == "recall" else (precision, recall)
        own = np.where(calls_everything_positive(measured), 0.0, own if lower is None else lower)
        return np.where(own >= self.numbers[0], 1 + other, own - self.numbers[0])[()]

    def cost(self, measured: Any) -> Any:
        """Expected cost per item, for a requirement of costs."""
        tp, fp, fn, tn = (_count(getattr(measured, name)) for name in ("tp", "fp", "fn", "tn"))
        return (self.numbers[0] * fp + self.numbers[1] * fn) / (tp + fp + fn + tn)

    @property
    def is_least(self) -> bool:
        """Whether a least recall or precision is required, instead of the best value of something."""
        return self.kind in ("recall", "precision")


def calls_everything_positive(measured: Any) -> Any:
    """Whether every item is predicted positive, some of them wrongly: bool, or array as for `Requirement.score`."""
    return (_count(measured.tn) == 0) & (_count(measured.fn) == 0) & (_count(measured.fp) > 0)


@dataclass(frozen=True)
class Choice:
    """The leg of a sweep that a requirement chooses.

    Attributes
    ----------
    requirement : Requirement
    point : SweepPoint
        The first of the best legs.
    met : bool
        Whether it reaches the least recall or precision; if not, it is the nearest leg. True for the other kinds.
    lower : float or None
        Lower end of the interval, where the requirement has a `confidence`.
    not_counted : tuple of float
        Ratios whose legs call everything positive, and so reach no least recall or precision.
    """

    requirement: Requirement
    point: SweepPoint
    met: bool
    lower: float | None = None
    not_counted: tuple[float, ...] = ()

    def __str__(self) -> str:
        """Say the choice in one sentence."""
        at = f"w_r = {self.point.ratio:.4g}: precision {self.point.precision:.3f}, recall {self.point.recall:.3f}"
        if self.lower is not None:
            at += f", lower end of the interval of {self.requirement.kind} {self.lower:.3f}"
        if self.requirement.kind == "cost":
            at += f", cost {self.requirement.cost(self.point):.4g} per item"
        if calls_everything_positive(self.point):
            at += "; it calls everything positive"
        if self.met:
            return f"{self.requirement.text} chooses {at}."
        but = ""
        if self.not_counted:
            ratios = ", ".join(f"{ratio:.4g}" for ratio in self.not_counted)
            but = f" except by calling everything positive (w_r = {ratios}), which does not count"
        return f"No leg meets {self.requirement.text}{but}; the nearest is {at}."


def _count(counts: Any) -> Any:
    return counts if np.ndim(counts) == 0 else np.sum(counts, axis=-1)


def _nearest(written: str) -> str:
    number = re.search(_NUMBER, written)
    forms = ["f1", "recall>=0.95", "precision>=0.9", "cost fp=1 fn=20", "break-even"]
    (form,) = difflib.get_close_matches(written, forms, n=1, cutoff=0)
    if number and 0 < float(number[0]) <= 1 and ">=" in form:
        return form.split(">=")[0] + ">=" + number[0]
    return form
