# ruff: noqa: RUF009  (_flag is a field)
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..errors import InvalidInputError

# Arguments that let rows be grouped by length, and that let them be read in order. Before transformers 5.2 it is a flag.
if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
    GROUPED: dict[str, Any] = {"train_sampling_strategy": "group_by_length"}
    UNGROUPED: dict[str, Any] = {"train_sampling_strategy": "random"}
else:
    GROUPED, UNGROUPED = {"group_by_length": True}, {"group_by_length": False}


def has_values(args: Any, values: dict[str, Any]) -> bool:
    """Whether training arguments have these values."""
    return all(getattr(args, name) == value for name, value in values.items())


@contextmanager
def changed(owner: Any, **values: Any) -> Iterator[None]:
    """Give attributes of an object, such as the training arguments, other values for a while."""
    before = {name: getattr(owner, name, None) for name in values}
    try:
        vars(owner).update(values)
        yield
    finally:
        vars(owner).update(before)


def _flag(text: str) -> Any:
    return field(default=None, metadata={"help": text})


@dataclass(repr=False)  # that of TrainingArguments shows no token
class WeightedLossConfig(TrainingArguments):
    """`TrainingArguments` with the weights of the classes.

    Parameters
    ----------
    weight_ratio : float or str, optional
        w_r, the weight of the positive class over that of the negative one (of the rarest over the commonest class when
        there are more than two; of the minority over the majority of the most imbalanced label when an example has
        several), or the name of a scheme: see `ClassWeights.from_counts`. None is the natural ratio, 1 is unweighted.
    class_weights : dict, list or JSON string, optional
        Explicit weights up to a common factor, by label name or id (`{"ham": 1, "spam": 7}`) or in the order of the ids
        (`[1, 7]`), instead of `weight_ratio`. For several labels per example, the weight of each label's positives over
        its negatives.
    class_counts : dict, list or JSON string, optional
        Number of training labels of each class, in the same forms, for data that cannot be counted (an `IterableDataset`).
        For several labels per example, the numbers without and with each label: `[[900, 100], [700, 300]]`.
    positive_label : str, optional
        Name or id of the positive class; id 1 when None.
    """

    _argument_group_name = "training"  # in the help of a command

    weight_ratio: float | str | None = _flag(
        "Weight of the positive class over the negative one: a number, natural, unweighted, sqrt or effective:0.999. "
        "Default: the natural ratio."
    )
    class_weights: dict[str, float] | str | None = _flag(  # a list too, but the flags' parser takes no such union
        "Explicit weights as JSON, by label name or id: '{\"ham\": 1, \"spam\": 7}' or '[1, 7]'."
    )
    class_counts: dict[str, int] | str | None = _flag(
        "Number of training labels of each class as JSON, for data that cannot be counted."
    )
    positive_label: str | None = _flag("Name or id of the positive class. Default: 1.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.weight_ratio, str):
            with suppress(ValueError):  # a flag's number
                self.weight_ratio = float(self.weight_ratio)
        if self.resume_from_checkpoint in ("True", "true"):  # a flag's: the last checkpoint there is
            self.resume_from_checkpoint = True  # type: ignore[assignment]
        for name in ("class_weights", "class_counts"):
            value = getattr(self, name)
            if isinstance(value, str):
                try:
                    setattr(self, name, json.loads(value))
                except json.JSONDecodeError:
                    raise InvalidInputError(f"{name}={value!r} is not JSON: write for example '[1, 7]'.") from None
            elif hasattr(value, "tolist"):  # an array, as count_labels returns it, is nothing for a tracker's JSON
                setattr(self, name, value.tolist())
