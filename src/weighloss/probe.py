from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from .activations import ActivationCollator
from .errors import InvalidInputError
from .trunk import Trunk

_ALLOWED = 1e-4  # difference in logits of a model that is cut: that of float32's arithmetic


def find_at_first_position_only(trunk: Trunk, model: Any, inputs: dict[str, Any]) -> dict[str, bool]:
    """The linear maps of the last layer that need to be computed at the first position only; which of them stay short.

    Parameters
    ----------
    trunk : Trunk
        That of the model.
    model : PreTrainedModel
    inputs : dict of str to Tensor
        A batch of the whole model, without labels; one with padding tells more.

    Returns
    -------
    dict of str to bool, as `Trunk.cut` takes it.

    Raises
    ------
    InvalidInputError
        For a model that does not come to the same from its activations, as none does that looks at its inputs again.
    """
    training = model.training
    model.eval()
    try:
        difference, reason = _difference(trunk, model, inputs)
        if not difference <= _ALLOWED:
            raise InvalidInputError(
                f"{type(model).__name__} cannot be cut off from its lower layers ({reason}): leave the preview out."
            )
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        found = dict.fromkeys(trunk.read_at_first_position_only(inputs), False)
        cut_inputs = _cut_inputs(trunk, model, inputs)
        model.train()
        drawn = _logits_of_cut(trunk, model, cut_inputs, {})

        def is_same(at_first_position_only: dict[str, bool]) -> bool:
            with suppress(Exception):  # whatever a model makes of what is shorter than it expects
                logits = _logits_of_cut(trunk, model, cut_inputs, at_first_position_only)
                # Dropout draws at all positions in the leg that is computed in full: so it must here.
                return torch.allclose(logits, drawn, rtol=0, atol=_ALLOWED)
            return False

        if not is_same(found):
            return {}
        for name in found:
            found[name] = is_same(found | {name: True})
        return found
    finally:
        model.train(training)


def _difference(trunk: Trunk, model: Any, inputs: dict[str, Any]) -> tuple[float, str]:
    """The largest difference in logits between a model that is cut and the whole one, and what to say of it."""
    with torch.no_grad():
        whole = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits
    try:
        logits = _logits_of_cut(trunk, model, _cut_inputs(trunk, model, inputs), {})
        if whole.ndim > 2:  # of tokens; what stands at the padding is nobody's
            whole = whole[:, : logits.shape[1]]
        differences = (logits.expand_as(whole) - whole).abs()
        if differences.ndim > 2 and "attention_mask" in inputs:
            differences = differences[inputs["attention_mask"][:, : logits.shape[1]].bool()]
    except Exception as error:  # whatever a model makes of inputs that it does not expect
        return float("inf"), f"{type(error).__name__}: {error}".splitlines()[0]
    return differences.max().item(), f"its logits differ by {differences.max():.2g}"


def _cut_inputs(trunk: Trunk, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    collator = ActivationCollator(trunk)
    rows = collator.rows(inputs, model.device)
    return {name: value.to(model.device) for name, value in collator(rows).items()}


@torch.no_grad()
def _logits_of_cut(
    trunk: Trunk, model: Any, cut_inputs: dict[str, Any], at_first_position_only: dict[str, bool]
) -> torch.Tensor:
    """With the same dropout each time, if the model is in training."""
    trunk.cut(at_first_position_only)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return model(**cut_inputs).logits
    finally:
        trunk.join(model)
