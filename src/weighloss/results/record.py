"""What a `sweep.json` must be: it may come from a stranger, so each value is checked before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ..errors import InvalidInputError
from ..weighting.task import Task
from .files import read_json
from .operating_point import OperatingPoint
from .points import SweepPoint
from .sweep_data import FORMAT_VERSION, SweepData

_Sweep = TypeVar("_Sweep", bound=SweepData)
_T = TypeVar("_T")


def read_record(kind: Callable[..., _Sweep], file: Path) -> _Sweep:
    """A sweep from its `sweep.json`, checked.

    Raises
    ------
    InvalidInputError
        When the file is not a record that this version can read; it names the leg, the field and the value found.
    FileNotFoundError
    """
    content = read_json(file)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise InvalidInputError(
            f"{file} has format version {version!r:.80}, but this weighloss reads {FORMAT_VERSION}: install the version "
            "that wrote it."
        )
    kept, rule = content.pop("kept", None), content.pop("operating_point", None)
    if content.get("requirement") is None:  # of a version in which a sweep could have none
        content.pop("requirement", None)
    sweep = _valid(kind, str(file), content)
    ratios, seeds = sorted(set(sweep.ratios)), list(dict.fromkeys(sweep.seeds))
    sweep = replace(sweep, ratios=ratios, seeds=seeds, folder=file.parent)
    if kept is not None:
        if type(kept) is not int or kept not in range(len(sweep.points)):
            raise InvalidInputError(f"{file}: kept must be the number of a point, got {kept!r:.80}.")
        sweep = replace(sweep, operating_point=_rule(file, rule, sweep.points[kept]))
    for is_there, contradiction in _contradictions(sweep):
        if is_there:
            raise InvalidInputError(f"{file}: {contradiction}.")
    return sweep


def _rule(file: Path, found: Any, leg: SweepPoint) -> OperatingPoint:
    if found is None:  # of a version that did not move thresholds
        return OperatingPoint.at_argmax(leg)
    with_leg = {**found, "leg": asdict(leg)} if isinstance(found, dict) else found
    return _valid(OperatingPoint, f"{file}: operating_point", with_leg)


def _valid(kind: Callable[..., _T], where: str, found: Any) -> _T:
    """What was found as a dataclass, whose types say what its values may be."""
    checked: Any = TypeAdapter(kind)  # type: ignore[arg-type]
    try:
        return checked.validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        wrong = max(
            error.errors(include_url=False), key=lambda wrong: len(wrong["loc"])
        )  # of a union the nearest type
        names = [str(part) for part in wrong["loc"] if re.fullmatch(r"\w+", str(part))]  # the others are types
        field = re.sub(r"\.(\d+)", r"[\1]", ".".join(names))
        message = wrong["msg"].removeprefix("Value error, ").rstrip(".")
        if wrong["type"] not in ("missing", "value_error"):  # of our own checks, whose sentence says it
            message += f", got {wrong['input']!r:.80}"
        raise InvalidInputError(f"{where}: {field}: {message}." if field else f"{where}: {message}.") from None


def _contradictions(sweep: SweepData) -> Iterator[tuple[bool, str]]:
    """Whether fields of a sweep do not fit each other, and in what way."""
    counts, num_labels = np.array(sweep.counts), len(sweep.label_names)
    has_pairs = counts.ndim == 2
    empty = not counts.sum(axis=1).all() if has_pairs else np.count_nonzero(counts) < 2
    yield bool(empty), "counts must have at least two classes with labels, or examples of every label"
    yield len(counts) != num_labels, f"counts must have one entry for each of the {num_labels} label_names"
    no_class = f"positive_label must be the id of a class, got {sweep.positive_label}"
    yield sweep.positive_label >= max(num_labels, 2), no_class
    done: set[tuple[float, int]] = set()
    for name in ("points", "failed"):
        for i, leg in enumerate(getattr(sweep, name)):
            is_known = leg.ratio in sweep.ratios and leg.seed in sweep.seeds and (leg.ratio, leg.seed) not in done
            yield not is_known, f"{name}[{i}]: ratio and seed must be those of a leg of this sweep, once"
            done.add((leg.ratio, leg.seed))
    rules: dict[str, Any] = {f"points[{i}]": point for i, point in enumerate(sweep.points)}
    rules |= {} if sweep.operating_point is None else {"operating_point": sweep.operating_point}
    for name, rule in rules.items():
        yield not rule.tp + rule.fp + rule.fn + rule.tn, f"{name}: tp, fp, fn, tn must not all be 0"
    threshold = 0.0 if sweep.operating_point is None else sweep.operating_point.threshold
    fits = isinstance(threshold, float) or (len(threshold) == num_labels and sweep.task is not Task.BINARY)
    yield not fits, "the threshold must be one number, or one for each label"
