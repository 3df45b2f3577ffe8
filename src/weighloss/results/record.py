"""What a `sweep.json` must be: it may come from a stranger, so each value is checked before it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import InvalidInputError
from .files import read_json
from .operating_point import OperatingPoint
from .points import FailedLeg, SweepPoint
from .requirement import Requirement

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_LONGEST_TEXT = 10_000  # of a name; a page with more would be unreadable


def read_record(file: Path) -> dict[str, Any]:
    """The fields of a `RatioSweep` from its `sweep.json`, checked. A damaged leg is left out, with a warning.

    Raises
    ------
    InvalidInputError
        When the file is not a record that this version can read; it names the field and the value found.
    FileNotFoundError
    """
    content = read_json(file)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise InvalidInputError(
            f"{file} has format version {_shown(version)}, but this weighloss reads {FORMAT_VERSION}: install the version "
            "that wrote it."
        )
    fields: dict[str, Any] = {}
    for name, (is_valid, wanted) in _FIELDS.items():
        if name not in content and name in _OPTIONAL:
            continue
        if name not in content or not is_valid(content[name]):
            found = f"got {_shown(content[name])}" if name in content else "but it is missing"
            raise InvalidInputError(f"{file}: {name} must be {wanted}, {found}.")
        fields[name] = content[name]
    _check_together(file, fields)
    fields |= _read_legs(file, content)
    return fields


def _check_together(file: Path, fields: dict[str, Any]) -> None:
    num_labels = len(fields["label_names"])
    if len(fields["counts"]) != num_labels:
        raise InvalidInputError(f"{file}: counts has {len(fields['counts'])} entries for {num_labels} label_names.")
    if fields["positive_label"] >= max(num_labels, 2):
        raise InvalidInputError(
            f"{file}: positive_label must be an id below {num_labels}, got {fields['positive_label']}."
        )
    fields["ratios"] = sorted(set(map(float, fields["ratios"])))
    fields["seeds"] = list(dict.fromkeys(fields["seeds"]))


def _read_legs(file: Path, content: dict[str, Any]) -> dict[str, Any]:
    points: dict[int, SweepPoint] = {}
    failed: list[FailedLeg] = []
    done: set[tuple[float, int]] = set()
    known = content["ratios"], content["seeds"]
    for name, kind, checks in (("points", SweepPoint, _POINT), ("failed", FailedLeg, _FAILED)):
        for i, leg in enumerate(content.get(name) or ()):
            wrong = _what_is_wrong(leg, checks, known)
            if wrong is None and (leg["ratio"], leg["seed"]) in done:
                wrong = "another leg has the same ratio and seed"
            if wrong is not None:
                logger.warning("%s: number %d of its %s is damaged (%s) and left out.", file, i, name, wrong)
                continue
            done.add((leg["ratio"], leg["seed"]))
            values = {key: leg[key] for key in checks if key in leg}
            if kind is SweepPoint:
                points[i] = SweepPoint(**values)
            else:
                failed.append(FailedLeg(**values))
    kept = content.get("kept")
    chosen = points[kept] if _is_int(kept) and kept in points else None
    return {
        "points": tuple(points.values()),
        "failed": tuple(failed),
        "operating_point": None if chosen is None else _operating_point(file, content, chosen),
    }


def _operating_point(file: Path, content: dict[str, Any], leg: SweepPoint) -> OperatingPoint:
    found = content.get("operating_point")
    if found is None:  # of a version that did not move thresholds
        return OperatingPoint.at_argmax(leg)
    wrong = _what_is_wrong({**asdict(leg), **found} if isinstance(found, dict) else found, _OPERATING_POINT, None)
    threshold = found.get("threshold") if isinstance(found, dict) else None
    several = (
        len(content["label_names"])
        if len(content["label_names"]) != 2 or isinstance(content["counts"][0], list)
        else 0
    )
    if wrong is None and isinstance(threshold, list) and len(threshold) != several:
        wrong = f"threshold has {len(threshold)} values for {len(content['label_names'])} label_names"
    if wrong is not None:
        logger.warning("%s: its operating_point is damaged (%s) and left out.", file, wrong)
        return OperatingPoint.at_argmax(leg)
    values = {name: found[name] for name in _OPERATING_POINT if name in found and name != "threshold"}
    rule: Any = tuple(threshold) if isinstance(threshold, list) else threshold
    return OperatingPoint(leg, rule, **values)


def _what_is_wrong(leg: Any, checks: Mapping[str, Any], known: tuple[list[float], list[int]] | None) -> str | None:
    if not isinstance(leg, dict):
        return f"it is {_shown(leg)}"
    for name, (is_valid, wanted) in checks.items():
        if name not in leg and name in ("precision_interval", "recall_interval", "other_metrics"):
            continue
        if name not in leg or not is_valid(leg[name]):
            return f"{name} must be {wanted}, got {_shown(leg.get(name))}"
    if known is not None and (leg["ratio"] not in known[0] or leg["seed"] not in known[1]):
        return "its ratio or seed is not of this sweep"
    if "tp" in leg and not sum(leg[name] for name in ("tp", "fp", "fn", "tn")):
        return "its confusion counts are all 0"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_int(value) and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _is_ratio(value: Any) -> bool:
    return _is_number(value) and 1e-100 < value < 1e100


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value.encode("utf-8")) < _LONGEST_TEXT
    except UnicodeEncodeError:  # half of a surrogate pair, which cannot be printed or written
        return False


def _list_of(is_valid: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(is_valid, value))


def _is_counts(value: Any) -> bool:
    pairs = _list_of(lambda pair: _list_of(_is_count, 2)(pair) and len(pair) == 2 and sum(pair) > 0)
    return pairs(value) or (_list_of(_is_count, 2)(value) and sum(n > 0 for n in value) > 1)


def _is_interval(value: Any) -> bool:
    return value is None or (_list_of(_is_share, 2)(value) and len(value) == 2 and value[0] <= value[1])


def _is_threshold(value: Any) -> bool:
    return any(is_valid(value) for is_valid in (_is_log_odds, _list_of(_is_log_odds)))


def _is_log_odds(value: Any) -> bool:
    return _is_number(value) and abs(value) < 1e6


def _is_requirement(value: Any) -> bool:
    if value is None:
        return True
    try:
        return _is_text(value) and bool(Requirement.parse(value))
    except InvalidInputError:
        return False


def _is_path_inside(value: Any) -> bool:
    if not _is_text(value) or not value.isprintable() or not value:
        return False
    paths = PurePosixPath(value), PureWindowsPath(value)
    return not any(path.is_absolute() or path.drive or path.root or ".." in path.parts for path in paths)


def _dict_of(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(_is_text, value)) and all(map(is_valid, value.values()))


def _is_list_or_none(value: Any) -> bool:
    return value is None or isinstance(value, list)


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "counts": (_is_counts, "a list of numbers of labels, at least two of them above 0, or of pairs of them"),
    "label_names": (_list_of(_is_text), "a list of names"),
    "positive_label": (_is_count, "the id of a class"),
    "natural_ratio": (_is_ratio, "a positive number"),
    "ratios": (_list_of(_is_ratio), "a list of positive numbers"),
    "seeds": (_list_of(_is_count), "a list of whole numbers"),
    "epochs_per_ratio": (lambda value: _is_count(value) and value > 0, "a whole number of at least 1"),
    "model": (_is_text, "a name"),
    "dataset": (_is_text, "a name"),
    "num_eval": (_is_count, "a whole number"),
    "versions": (_dict_of(_is_text), "a mapping of names to versions"),
    "kept_because": (_is_text, "a text"),
    "requirement": (_is_requirement, "a requirement such as 'recall>=0.95'"),
    "threshold": (lambda value: value in ("any", "argmax"), "'any' or 'argmax'"),
    "search": (lambda value: value is None or _is_text(value), "a text"),
    "fingerprint": (_dict_of(_is_text), "a mapping of names to digests"),
    "arguments": (lambda value: isinstance(value, dict), "a mapping"),
    "points": (_is_list_or_none, "a list of legs"),
    "failed": (_is_list_or_none, "a list of legs"),
}
_OPTIONAL = {"kept_because", "requirement", "threshold", "search", "fingerprint", "arguments", "failed"}
_LEG = {
    "ratio": (_is_ratio, "a positive number"),
    "seed": (_is_count, "a whole number"),
    "global_step": (_is_count, "a whole number"),
}
_POINT = {
    **_LEG,
    **dict.fromkeys(("tp", "fp", "fn", "tn"), (_is_count, "a whole number")),
    **dict.fromkeys(("precision", "recall", "f1"), (_is_share, "a number from 0 to 1")),
    **dict.fromkeys(("eval_loss", "eval_plain_loss", "seconds"), (_is_number, "a number")),
    "predictions": (_is_path_inside, "a path inside the folder of the sweep"),
    "precision_interval": (_is_interval, "two numbers from 0 to 1"),
    "recall_interval": (_is_interval, "two numbers from 0 to 1"),
    "other_metrics": (_dict_of(_is_number), "a mapping of names to numbers"),
}
_OPERATING_POINT = {
    **{name: check for name, check in _POINT.items() if name in ("tp", "fp", "fn", "tn", "precision", "recall", "f1")},
    "threshold": (_is_threshold, "a number, or one for each label"),
    "precision_interval": _POINT["precision_interval"],
    "recall_interval": _POINT["recall_interval"],
}
_FAILED = {**_LEG, "reason": (_is_text, "a text")}
