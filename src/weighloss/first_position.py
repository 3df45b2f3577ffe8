from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

_ATTENTION = ("attention", "attn", "self_attn")


class FirstPosition:
    """Lets an encoder layer compute what comes after its attention at the first position only, until it is undone.

    That is most of the layer's arithmetic, and nothing is lost where the head looks at the first position alone. A layer
    that adds its residual outside the attention module, unlike `BertLayer` and its like, still computes every position,
    of which the first is right. Dropout draws what it would draw for all positions.

    Parameters
    ----------
    layer : nn.Module
        The last layer of an encoder; its attention is the child of that name.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._positions = 1
        children = dict(layer.named_children())
        attention = next((children[name] for name in _ATTENTION if name in children), nn.Identity())
        inside = set(attention.modules())
        self._hook = attention.register_forward_hook(self._keep_first)
        self._dropouts = [m for m in layer.modules() if isinstance(m, nn.Dropout) and m not in inside]
        for dropout in self._dropouts:
            dropout.forward = partial(self._drop, dropout)  # type: ignore[method-assign]

    def undo(self) -> None:
        """Let the layer compute all positions again."""
        self._hook.remove()
        for dropout in self._dropouts:
            del dropout.forward

    def _keep_first(self, _: nn.Module, inputs: Any, output: Any) -> Any:
        hidden, *others = output if isinstance(output, tuple) else (output,)
        self._positions = hidden.shape[1]
        return (hidden[:, :1], *others) if isinstance(output, tuple) else hidden[:, :1]

    def _drop(self, dropout: nn.Dropout, hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[1] == self._positions:
            return nn.functional.dropout(hidden, dropout.p, dropout.training)
        everywhere = hidden.expand(-1, self._positions, -1).contiguous()
        return nn.functional.dropout(everywhere, dropout.p, dropout.training)[:, :1]
