"""Flags from a file: the same names, in YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import InvalidInputError

CONFIG_FILE = "sweep.yaml"
_SECRET = {"token", "hub_token"}


def words_of(file: str, leave_out: Collection[str] = ()) -> list[str]:
    """The flags of a file as words of a command line, without those to leave out."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        content, as_written = yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"--config {file} cannot be read ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"--config {file} must hold one flag a line, such as 'learning_rate: 1e-4'.")
    words: list[str] = []
    for name, value in content.items():
        written = as_written.get(str(name), value)  # a class may be called "no"
        values = written if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else written]
        if value is not None and str(name).replace("-", "_") not in leave_out:
            words += [f"--{name}", *map(str, values)]
    return words


def write_config(file: Path, given: Collection[str], parsed: Sequence[Any]) -> None:
    """Write the flags that were given, with their values, so that the command can be run again; no tokens."""
    values: dict[str, Any] = {}
    for part in filter(is_dataclass, parsed):
        values |= {name: value for name, value in vars(part).items() if name in given and name not in _SECRET}
    file.write_text(yaml.safe_dump(json.loads(json.dumps(values, default=str)), sort_keys=False), encoding="utf-8")
