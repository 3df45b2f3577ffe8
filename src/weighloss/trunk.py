from __future__ import annotations

import inspect
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from .errors import InvalidInputError
from .labels import IGNORE_INDEX, LABEL_COLUMNS

logger = logging.getLogger(__name__)

LENGTH = "length"  # the column by which group_by_length groups
_WINDOW = 8  # batches whose rows are sorted by length before the trunk computes them
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
        children = dict(base.named_children())
        before = list(children)[: list(children).index(path.split(".")[0])]
        self._before = {name: children[name] for name in before if any(True for _ in children[name].parameters())}
        if not self._before:
            raise InvalidInputError(f"{name} has nothing before its layers: there is no trunk of it to freeze.")

    def freeze(self) -> None:
        """Let only what is not of the trunk be trained; the trunk computes without dropout from now on."""
        container = self._base.get_submodule(self._path.split(".")[0])
        for part in (*self._before.values(), container):
            part.requires_grad_(False)
        self._layers[-self.train_layers :].requires_grad_(True)
        for part in (*self._before.values(), *self._layers[: -self.train_layers]):
            for module in part.eval().modules():
                module.train = partial(_stays_as_it_is, module)

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
        """The linear maps of the last layer whose other positions no logit depends on, in evaluation."""

        def overwrite_others(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            output[:, 1:] = 1.0

        if self.activations(batch).shape[1] == 1:
            return []  # there are no others to tell it by
        logits, found = self._model(**batch).logits, []
        for name, module in self._layers[-1].named_modules():
            if isinstance(module, nn.Linear):
                hook = module.register_forward_hook(overwrite_others)
                try:
                    if torch.equal(self._model(**batch).logits, logits):
                        found.append(name)
                finally:
                    hook.remove()
        return found

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
        return (p for part in (*self._before.values(), *self._layers[: -self.train_layers]) for p in part.parameters())

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
        return activations

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_stands_for"][0], name)


def cache_activations(
    dataset: Any,
    collate: Callable[[list[Any]], Mapping[str, Any]],
    collator: ActivationCollator,
    file: Path,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    description: str = "lower layers",
    progress: bool = True,
) -> Dataset:
    """Run a dataset once through the trunk, and keep what comes out, memory-mapped, for as many epochs as you like.

    A row has the activations of its own positions, without padding, as one flat list, and everything else that `collate`
    makes of it. What the dataset or `collate` draws anew each time, such as augmentations, is drawn once.

    Parameters
    ----------
    dataset : map-style dataset
    collate : callable
        The trainer's collator, which makes the batches that the whole model is given.
    collator : ActivationCollator
        Of the trunk, whose model is not cut; it makes batches of the result.
    file : Path
        The Arrow file that is written.
    batch_size : int
    device
        That of the model.
    description : str
        For the progress bar.
    progress : bool
        Whether there is a bar.

    Returns
    -------
    datasets.Dataset

    Raises
    ------
    InvalidInputError
        When the disk lacks the room.
    """
    sample = [dataset[i] for i in sorted({int(i) for i in np.linspace(0, len(dataset) - 1, 16)})]
    per_row = np.mean([row[collator.input_name].nbytes for row in collator.rows(collate(sample), device)])
    size, free = int(1.1 * per_row * len(dataset)), shutil.disk_usage(file.parent).free
    logger.warning("The activations of %s rows take about %.2g GB of disk.", f"{len(dataset):,}", size / 1e9)
    if size > free:
        raise InvalidInputError(
            f"the activations of {len(dataset):,} rows take about {size / 1e9:.2g} GB, but {file.parent} has room for "
            f"{free / 1e9:.2g} GB: make room, keep them as float16, or preview on fewer rows."
        )
    writer, features, written = None, Features(), np.empty(0, dtype=np.int64)
    with pa.OSFile(str(file), "wb") as sink, tqdm(total=len(dataset), desc=description, disable=not progress) as bar:
        for chunk, places in _by_length(dataset, batch_size, collator.main_input):
            rows = collator.rows(collate(chunk), device)
            columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
            columns[LENGTH] = [np.int64(_length(row, collator.main_input)) for row in chunk]
            written = np.append(written, places)
            bar.update(len(chunk))
            if writer is None:
                kinds = {name: _feature(values[0]) for name, values in columns.items()}
                labels = _class_labels(dataset) if "labels" in kinds and not isinstance(kinds["labels"], List) else {}
                features = Features(kinds | labels)
                writer = pa.ipc.new_stream(sink, features.arrow_schema)
            writer.write_table(pa.table(columns, schema=features.arrow_schema))
        cast(Any, writer).close()
    return Dataset.from_file(str(file)).select(np.argsort(written)).with_format("numpy")


class ActivationCollator:
    """Makes rows of a batch that the trunk has computed, and batches of such rows for the model that is cut.

    Parameters
    ----------
    trunk : Trunk
    dtype : {"float32", "float16", "bfloat16"}
        What the activations are kept in; they are computed with in float32.
    label_names : sequence of str
        What the batches call the labels, which no trunk is given.
    is_multi_label : bool, default False
        Whether these are several labels per example, not one for each position.

    Raises
    ------
    InvalidInputError
        For another dtype.
    """

    def __init__(
        self,
        trunk: Trunk,
        dtype: str = "float32",
        label_names: Sequence[str] = LABEL_COLUMNS,
        is_multi_label: bool = False,
    ) -> None:
        if dtype not in _DTYPES:
            raise InvalidInputError(f"dtype={dtype!r} is none for activations: write one of {', '.join(_DTYPES)}.")
        self._trunk, self._dtype = trunk, dtype
        self._width, self._label_names, self._is_multi_label = trunk.width, label_names, is_multi_label
        self.input_name, self.main_input = trunk.input_name, trunk.main_input

    def rows(self, batch: Mapping[str, Any], device: str | torch.device) -> list[dict[str, np.ndarray]]:
        """The rows of a batch: the activations of its own positions as a flat array, and what else the batch has."""
        tensors = {name: value.to(device) for name, value in batch.items() if torch.is_tensor(value)}
        inputs = {name: value for name, value in tensors.items() if name not in self._label_names}
        activations = self._trunk.activations(inputs).to(_DTYPES[self._dtype]).cpu()
        if self._dtype == "bfloat16":
            activations = activations.view(torch.int16)  # the same bits, of a type that Arrow has
        positions = activations.shape[1]
        lengths = [positions] * len(activations)
        mask = tensors.get("attention_mask")
        if mask is not None and mask.shape == activations.shape[:2] and (mask[:, :-1] >= mask[:, 1:]).all():
            lengths = mask.sum(dim=1).tolist()
        rows = []
        for i, length in enumerate(lengths):
            row = {self.input_name: activations[i, :length].reshape(-1).numpy()}
            for name, value in tensors.items():
                if name != self.main_input:
                    of_positions = value.ndim > 1 and value.shape[1] == positions
                    of_positions &= not (self._is_multi_label and name in self._label_names)
                    row[name] = (value[i, :length] if of_positions else value[i]).cpu().numpy()
            rows.append(row)
        return rows

    def __call__(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """A padded batch of rows."""
        batch = {}
        for name in rows[0]:
            values = [torch.as_tensor(np.array(row[name])) for row in rows]
            if name == self.input_name:
                if self._dtype == "bfloat16":  # datasets reads every whole number as one of 64 bits
                    values = [value.to(torch.int16).view(torch.bfloat16) for value in values]
                values = [value.float().reshape(-1, self._width) for value in values]
            if name != LENGTH:
                padding = IGNORE_INDEX if name in self._label_names else 0
                batch[name] = (
                    pad_sequence(values, batch_first=True, padding_value=padding)
                    if values[0].ndim
                    else torch.stack(values)
                )
        return batch


def _by_length(dataset: Any, batch_size: int, main_input: str) -> Iterator[tuple[list[Any], list[int]]]:
    """Batches of rows of about the same length, which need little padding, and the rows' places in the dataset."""
    for start in range(0, len(dataset), _WINDOW * batch_size):
        window = [dataset[i] for i in range(start, min(start + _WINDOW * batch_size, len(dataset)))]
        order = sorted(range(len(window)), key=lambda i: _length(window[i], main_input))
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            yield [window[i] for i in places], [start + i for i in places]


def _length(row: Any, main_input: str) -> int:
    """By what group_by_length groups a row: 0 where only the collator makes its input."""
    return len(row[main_input]) if isinstance(row, Mapping) and main_input in row else 0


def _feature(value: Any) -> Any:
    kind = Value(str(np.asarray(value).dtype))
    return List(kind) if np.ndim(value) else kind


def _class_labels(dataset: Any) -> dict[str, Any]:
    """The class names of the labels, by what collators call the column."""
    features = getattr(dataset, "features", None) or {}
    found = [features[name] for name in LABEL_COLUMNS if hasattr(features.get(name), "names")]
    return {"labels": found[0]} if found else {}
