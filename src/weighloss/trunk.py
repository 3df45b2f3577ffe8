from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from .errors import InvalidInputError


class Trunk:
    """The lower part of an encoder, which stays as it is: embeddings and all but the last layers.

    It knows any model that is built as most encoders are: embeddings, one `ModuleList` of `config.num_hidden_layers`
    alike layers, and what comes after it (BERT, RoBERTa, DistilBERT, DeBERTa-v2, ELECTRA, ModernBERT, ViT and others).

    Parameters
    ----------
    model : PreTrainedModel
    train_layers : int, default 1
        How many of the last layers do not belong to the trunk.

    Raises
    ------
    InvalidInputError
        When the model is not built like that, or has not so many layers.
    """

    def __init__(self, model: Any, train_layers: int = 1) -> None:
        name, base = type(model).__name__, cast(Any, getattr(model, "base_model", None))
        if getattr(getattr(model, "config", None), "model_type", None) == "albert":
            raise InvalidInputError(f"{name} has no lower layers to freeze: all its layers share one set of weights.")
        depth = getattr(getattr(model, "config", None), "num_hidden_layers", 0)
        found = [
            (path, module)
            for path, module in (base.named_modules() if isinstance(base, nn.Module) else ())
            if isinstance(module, nn.ModuleList) and len(module) == depth > 0 and len({type(m) for m in module}) == 1
        ]
        if len(found) != 1 or getattr(model.config, "is_encoder_decoder", False) or hasattr(model, "peft_config"):
            raise InvalidInputError(
                f"{name} is not built of embeddings, one list of layers and a head: there is no trunk of it to freeze; "
                "fine-tune all of it."
            )
        (path, layers), self._model, self._base = found[0], model, base
        if not 1 <= train_layers < depth:
            instead = f"write a number from 1 to {depth - 1}" if depth > 1 else "fine-tune all of it"
            raise InvalidInputError(
                f"train_layers={train_layers!r} leaves no trunk: {name} has {depth} layers, {instead}."
            )
        self.train_layers = train_layers
        self._layers, self._path = layers, path
        self._container = container = path.partition(".")[0]
        before = itertools.takewhile(lambda child: child[0] != container, base.named_children())
        self._before = {name: module for name, module in before if list(module.parameters())}
        # What stands beside the layers, such as relative positions: all of them use it, so none may train it.
        beside = base.get_submodule(container).named_parameters(prefix=container)
        self._beside = [n for n, p in beside if p.requires_grad and not n.startswith(f"{path}.")]
        if not self._before:
            raise InvalidInputError(f"{name} has nothing before its layers: there is no trunk of it to freeze.")

    def freeze(self) -> None:
        """Let only what is not of the trunk be trained; the trunk computes without dropout from now on."""
        for part in (*self._before.values(), self._base.get_submodule(self._container)):
            part.requires_grad_(False)
        self._layers[-self.train_layers :].requires_grad_(True)
        for part in self._parts:
            for module in part.eval().modules():
                module.train = partial(_stays_as_it_is, module)  # type: ignore[method-assign]

    @torch.no_grad()
    def activations(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the trunk makes of a batch, as the first trained layer is given it: (batch, positions, hidden)."""

        def leave(_: nn.Module, args: Any, kwargs: Any) -> None:
            raise _Reached(args[0] if args else kwargs["hidden_states"])

        hook = self._layers[-self.train_layers].register_forward_pre_hook(leave, with_kwargs=True)
        training = self._model.training
        try:
            self._model.eval()(**batch)
        except _Reached as reached:
            return reached.activations
        finally:
            hook.remove()
            self._model.train(training)
        raise InvalidInputError(
            f"{type(self._model).__name__} does not run its own layers: there is no trunk to freeze."
        )

    @torch.no_grad()
    def read_at_first_position_only(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """The linear maps of the last layer whose other positions no logit depends on; the model must be in evaluation."""

        def is_unmoved(module: nn.Linear, positions: slice) -> bool:
            def overwrite(_: nn.Module, __: Any, output: torch.Tensor) -> None:
                output[:, positions] = 1.0

            hook = module.register_forward_hook(overwrite)
            try:
                return torch.equal(self._model(**batch).logits, logits)
            finally:
                hook.remove()

        logits = self._model(**batch).logits
        linears = {n: m for n, m in self._layers[-1].named_modules() if isinstance(m, nn.Linear)}
        if self.activations(batch).shape[1] == 1 or all(is_unmoved(m, slice(None)) for m in linears.values()):
            return []  # there are no others to tell it by, or the head, new and all zero, tells nothing
        return [name for name, module in linears.items() if is_unmoved(module, slice(1, None))]

    @property
    def main_input(self) -> str:
        """What the whole model is given."""
        return self._model.main_input_name

    @property
    def width(self) -> int:
        """Size of the activations of a position."""
        return self._model.config.hidden_size

    @property
    def input_name(self) -> str:
        """What the model that is cut off from its trunk calls the activations that it is given."""
        takes_embeddings = "inputs_embeds" in inspect.signature(self._model.forward).parameters
        return "inputs_embeds" if takes_embeddings else self.main_input

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the trunk."""
        return (parameter for part in self._parts for parameter in part.parameters())

    @property
    def _parts(self) -> tuple[nn.Module, ...]:
        return (*self._before.values(), *self._layers[: -self.train_layers])

    def cut(self, at_first_position_only: Mapping[str, bool] | None = None) -> None:
        """Take the trunk out of the model: it then computes from activations, by its own forward, in `input_name`.

        Parameters
        ----------
        at_first_position_only : mapping of str to bool
            Linear maps of the last layer that are computed at the first position only, since most classifiers of sequences
            look at nothing else; and whether what they give stays that short, or stands at all positions.
        """
        passed = [_Passed(module, takes_first=i > 0) for i, module in enumerate(self._before.values())]
        for name, stand_in in zip(self._before, passed, strict=True):
            setattr(self._base, name, stand_in)
        self._set_layers(self._base, self._layers[-self.train_layers :])
        for name in self._beside:
            self._base.get_parameter(name).requires_grad_(False)
        for name, stays_short in (at_first_position_only or {}).items():
            linear = cast(nn.Linear, self._layers[-1].get_submodule(name))
            through = None if stays_short else passed[0]
            linear.forward = partial(_at_first_position, linear, through)  # type: ignore[method-assign]

    def join(self, model: Any) -> None:
        """Put the trunk into a model, this one or another of its kind, that was cut off from one like it."""
        base = model.base_model
        upper = base.get_submodule(self._path)
        for module in upper[-1].modules():
            if getattr(vars(module).get("forward"), "func", None) is _at_first_position:
                del module.forward
        for name, module in self._before.items():
            setattr(base, name, module)
        self._set_layers(base, nn.ModuleList([*self._layers[: -self.train_layers], *upper]))
        for name in self._beside:
            base.get_parameter(name).requires_grad_(True)

    def _set_layers(self, base: nn.Module, layers: nn.Module) -> None:
        parent, _, name = self._path.rpartition(".")
        setattr(base.get_submodule(parent) if parent else base, name, layers)


def freeze_trunk(model: Any, train_layers: int = 1) -> Any:
    """Freeze embeddings and all but the last layers of an encoder; pooler and head are trained with those.

    The frozen part computes as in evaluation, without dropout.

    Parameters
    ----------
    model : PreTrainedModel
    train_layers : int, default 1

    Returns
    -------
    The same model.

    Raises
    ------
    InvalidInputError
        As `Trunk`.
    """
    Trunk(model, train_layers).freeze()
    return model


def _at_first_position(linear: nn.Linear, passed: _Passed | None, hidden: torch.Tensor) -> torch.Tensor:
    output = nn.functional.linear(hidden[:, :1], linear.weight, linear.bias)
    return output if passed is None else output.expand(-1, passed.positions, -1)


def _stays_as_it_is(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


class _Reached(Exception):  # noqa: N818 — it is no error
    def __init__(self, activations: torch.Tensor) -> None:
        super().__init__()
        self.activations = activations


class _Passed(nn.Module):
    """Stands in for a part of the trunk: gives back the activations that it is given, and looks like that part."""

    def __init__(self, part: nn.Module, takes_first: bool) -> None:
        super().__init__()
        self._stands_for = [part]  # in a list it is no submodule
        self._takes_first = takes_first
        self.positions = 0  # of the batch that it gave back last

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        given = [value for value in (*args, *kwargs.values()) if torch.is_tensor(value) and value.is_floating_point()]
        activations = given[0] if self._takes_first else max(given, key=lambda value: value.ndim)
        self.positions = activations.shape[1]
        return activations.to(next(self._stands_for[0].parameters()).dtype)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_stands_for"][0], name)
