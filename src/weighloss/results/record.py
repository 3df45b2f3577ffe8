"""What a `sweep.json` must be: it may come from a stranger, so each value is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import InvalidInputError
from .files import read_json
from .operating_point import OperatingPoint
from .points import INTERVALS, MEASURED, FailedLeg, SweepPoint
from .requirement import Requirement

FORMAT_VERSION = 1
_LONGEST_TEXT = 10_000  # of a name; a page with more would be unreadable


def read_record(file: Path) -> dict[str, Any]:
    """The fields of a `RatioSweep` from its `sweep.json`, checked.

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
    fields = _checked(str(file), content, _FIELDS)
    fields["requirement"] = fields.get("requirement") or "f1"
    try:
        Requirement.parse(fields["requirement"])
    except InvalidInputError as error:
        raise InvalidInputError(f"{file}: {error}") from None
    num_labels = len(fields["label_names"])
    if len(fields["counts"]) != num_labels:
        raise InvalidInputError(f"{file}: counts must have one entry for each of the {num_labels} label_names.")
    if fields["positive_label"] >= max(num_labels, 2):
        raise InvalidInputError(f"{file}: positive_label must be the id of a class, got {fields['positive_label']}.")
    done: set[tuple[float, int]] = set()
    points = [SweepPoint(**leg) for leg in _legs(file, "points", _POINT, fields, done)]
    failed = [FailedLeg(**leg) for leg in _legs(file, "failed", _FAILED, fields, done)]
    rule = _operating_point(file, content, points)
    ratios, seeds = sorted(set(map(float, fields["ratios"]))), list(dict.fromkeys(fields["seeds"]))
    legs_and_rule = {"points": tuple(points), "failed": tuple(failed), "operating_point": rule}
    return fields | {"ratios": ratios, "seeds": seeds} | legs_and_rule


def _legs(
    file: Path, name: str, checks: _Checks, fields: dict[str, Any], done: set[tuple[float, int]]
) -> list[dict[str, Any]]:
    """The legs of the list with that name, which are added to those that are done."""
    legs = []
    for i, found in enumerate(fields.get(name, ())):
        leg = _checked(f"{file}: {name}[{i}]", found, checks)
        key = leg["ratio"], leg["seed"]
        if key[0] not in fields["ratios"] or key[1] not in fields["seeds"] or key in done:
            raise InvalidInputError(f"{file}: {name}[{i}]: ratio and seed must be those of a leg of this sweep, once.")
        done.add(key)
        legs.append(leg)
    return legs


def _operating_point(file: Path, content: dict[str, Any], points: Sequence[SweepPoint]) -> OperatingPoint | None:
    kept, found = content.get("kept"), content.get("operating_point")
    if kept is None:
        return None
    if not _count(kept) or kept >= len(points):
        raise InvalidInputError(f"{file}: kept must be the number of a point, got {kept!r:.80}.")
    if found is None:  # of a version that did not move thresholds
        return OperatingPoint.at_argmax(points[kept])
    values = _checked(f"{file}: operating_point", found, _OPERATING_POINT)
    if isinstance(values["threshold"], list):
        num_labels, several = len(content["label_names"]), isinstance(content["counts"][0], list)
        if len(values["threshold"]) != num_labels or (num_labels == 2 and not several):
            raise InvalidInputError(f"{file}: the threshold must be one number, or one for each label.")
        values["threshold"] = tuple(values["threshold"])
    return OperatingPoint(points[kept], **values)


def _checked(where: str, found: Any, checks: _Checks) -> dict[str, Any]:
    """The values that have a check."""
    if not isinstance(found, dict):
        raise InvalidInputError(f"{where} must be a mapping, got {found!r:.80}.")
    for name, (is_valid, wanted) in checks.items():
        if name not in found and name not in _OPTIONAL:
            raise InvalidInputError(f"{where}: {name} must be {wanted}, but it is missing.")
        if name in found and not is_valid(found[name]):
            raise InvalidInputError(f"{where}: {name} must be {wanted}, got {found[name]!r:.80}.")
    if "tp" in checks and not any(found[name] for name in MEASURED[:4]):
        raise InvalidInputError(f"{where}: {', '.join(MEASURED[:4])} must not all be 0.")
    return {name: found[name] for name in checks if name in found}


def _number(low: float, high: float, kinds: Any = (int, float)) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high


_count, _ratio, _share = _number(0, 2**53, int), _number(1e-100, 1e100), _number(0, 1)
_log_odds, _finite = _number(-1e6, 1e6), _number(-1e300, 1e300)


def _text(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value.encode("utf-8")) < _LONGEST_TEXT
    except UnicodeEncodeError:  # half of a surrogate pair, which cannot be printed or written
        return False


def _list_of(is_valid: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(is_valid, value))


def _dict_of(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(_text, value)) and all(map(is_valid, value.values()))


def _counts(value: Any) -> bool:
    pairs = _list_of(lambda pair: _list_of(_count, 2)(pair) and len(pair) == 2 and sum(pair) > 0)
    return pairs(value) or (_list_of(_count, 2)(value) and sum(n > 0 for n in value) > 1)


def _interval(value: Any) -> bool:
    return value is None or (_list_of(_share, 2)(value) and len(value) == 2 and value[0] <= value[1])


def _path_inside(value: Any) -> bool:
    if not _text(value) or not value.isprintable() or not value:
        return False
    paths = PurePosixPath(value), PureWindowsPath(value)
    return not any(path.is_absolute() or path.drive or path.root or ".." in path.parts for path in paths)


_Checks = Mapping[str, tuple[Callable[[Any], bool], str]]
_FIELDS: _Checks = {
    "counts": (_counts, "a list of numbers of labels, at least two of them above 0, or of pairs of them"),
    "label_names": (_list_of(_text), "a list of names"),
    "positive_label": (_count, "the id of a class"),
    "natural_ratio": (_ratio, "a positive number"),
    "ratios": (_list_of(_ratio), "a list of positive numbers"),
    "seeds": (_list_of(_count), "a list of whole numbers"),
    "epochs_per_ratio": (_number(1, 2**53, int), "a whole number of at least 1"),
    "num_eval": (_count, "a whole number"),
    **dict.fromkeys(("model", "dataset", "kept_because"), (_text, "a text")),
    **dict.fromkeys(("versions", "fingerprint"), (_dict_of(_text), "a mapping of names to texts")),
    "threshold": (lambda value: value in ("any", "argmax"), "'any' or 'argmax'"),
    **dict.fromkeys(("requirement", "search"), (lambda value: value is None or _text(value), "a text")),
    "arguments": (lambda value: isinstance(value, dict), "a mapping"),
    **dict.fromkeys(("points", "failed"), (lambda value: isinstance(value, list), "a list of legs")),
}
_LEG: _Checks = {
    "ratio": (_ratio, "a positive number"),
    **dict.fromkeys(("seed", "global_step"), (_count, "a whole number")),
}
_MEASURED: _Checks = {
    **dict.fromkeys(MEASURED[:4], (_count, "a whole number")),
    **dict.fromkeys(MEASURED[4:], (_share, "a number from 0 to 1")),
    **dict.fromkeys(INTERVALS, (_interval, "two numbers from 0 to 1")),
}
_POINT: _Checks = {
    **_LEG,
    **_MEASURED,
    **dict.fromkeys(("eval_loss", "eval_plain_loss", "seconds"), (_finite, "a number")),
    "predictions": (_path_inside, "a path inside the folder of the sweep"),
    "other_metrics": (_dict_of(_finite), "a mapping of names to numbers"),
}
_THRESHOLD = (lambda value: _log_odds(value) or _list_of(_log_odds)(value), "a number, or one for each label")
_OPERATING_POINT: _Checks = {**_MEASURED, "threshold": _THRESHOLD}
_FAILED: _Checks = {**_LEG, "reason": (_text, "a text")}
_OPTIONAL = {
    *INTERVALS, "arguments", "failed", "fingerprint", "kept_because", "other_metrics", "requirement", "search", "threshold",
}  # fmt: skip
