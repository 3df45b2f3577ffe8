from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed
from transformers.trainer_utils import number_of_arguments

from .activations import LENGTH, ActivationCollator, cache_activations, row_length
from .errors import InvalidInputError
from .probe import find_at_first_position_only
from .store import ACTIVATIONS_FOLDER
from .trainer import WeightedLossTrainer
from .trunk import Trunk

# A few layers learn what the whole model would in one epoch only with longer steps, and more of them; but a step has its
# price, however small the batch.
LEARNING_RATE_FACTOR = 4.0
BATCH_SIZE_DIVISOR = 2
SMALLEST_BATCH = 8
_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")  # the newer name and the older


@contextmanager
def previewing(
    trainer: WeightedLossTrainer, train_layers: int, dtype: str, folder: Path, seeds: list[int]
) -> Iterator[None]:
    """Let a trainer train the last layers of its model only, from activations that the others computed once.

    Its model, `model_init`, data sets and collator are those of the model that is cut off from its trunk until the end;
    then its model is whole again.

    Raises
    ------
    InvalidInputError
        When the model cannot be cut, or the disk lacks the room for the activations.
    """
    args, make = trainer.args, trainer.model_init
    model = trainer.model if make is None else _made(trainer, seeds[0])
    trunk = Trunk(model, train_layers)
    if make is not None and len(seeds) > 1:
        other = Trunk(_made(trainer, seeds[1]), train_layers)
        if not all(map(torch.equal, trunk.parameters(), other.parameters())):
            raise InvalidInputError(
                "model_init draws the lower layers anew with every seed: a preview needs pretrained ones."
            )
    model.to(args.device)
    given = {
        "model_init": make,
        "train_dataset": trainer.train_dataset,
        "eval_dataset": trainer.eval_dataset,
        "data_collator": trainer.data_collator,
        "optimizer": trainer.optimizer,
        "lr_scheduler": trainer.lr_scheduler,
        "_train_batch_size": trainer._train_batch_size,
    }
    arguments = {
        name: getattr(args, name)
        for name in (
            "learning_rate",
            "per_device_train_batch_size",
            "remove_unused_columns",
            "length_column_name",
            *_CHECKPOINTING,
        )
        if hasattr(args, name)
    }
    collator = ActivationCollator(trunk, dtype, trainer.label_names, trainer.is_multi_label)
    rows, collate = _as_trained_on(trainer, trainer.train_dataset)
    batch = collate(_of_all_lengths(rows, trunk.main_input))
    inputs = {key: value for key, value in batch.items() if key not in trainer.label_names}
    at_first_position_only = find_at_first_position_only(trunk, model, inputs)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{ACTIVATIONS_FOLDER}-") as activations:
        cached: list[Any] = []
        for name, dataset in (("training", trainer.train_dataset), ("evaluation", trainer.eval_dataset)):
            rows, collate = _as_trained_on(trainer, dataset)
            cached.append(
                cache_activations(
                    rows,
                    collate,
                    collator,
                    Path(activations) / f"{name}.arrow",
                    batch_size=args.per_device_eval_batch_size,
                    device=args.device,
                    description=f"lower layers, {name} data",
                    progress=not args.disable_tqdm,
                )
            )
        trunk.cut(at_first_position_only)
        if make is not None:
            takes_trial = number_of_arguments(make) == 1
            trainer.model_init = lambda: _cut(
                make(None) if takes_trial else make(), train_layers, at_first_position_only
            )
        trainer.model = trainer.model_wrapped = model
        trainer.train_dataset, trainer.eval_dataset = cached
        trainer.data_collator = collator
        trainer.optimizer = trainer.lr_scheduler = None  # of the whole model
        vars(trainer).pop("_eval_dataloaders", None)
        args.learning_rate *= LEARNING_RATE_FACTOR
        given_size = args.per_device_train_batch_size
        args.per_device_train_batch_size = min(given_size, max(given_size // BATCH_SIZE_DIVISOR, SMALLEST_BATCH))
        trainer._train_batch_size = args.train_batch_size
        args.remove_unused_columns, args.length_column_name = False, LENGTH
        for name in arguments.keys() & set(_CHECKPOINTING):
            setattr(args, name, False)  # little is left to recompute, and of activations no gradient is asked
        try:
            yield
        finally:
            for name, value in arguments.items():
                setattr(args, name, value)
            trunk.join(trainer.model)
            for name, value in given.items():
                setattr(trainer, name, value)
            trainer.model_wrapped = trainer.model
            vars(trainer).pop("_eval_dataloaders", None)


def _as_trained_on(trainer: WeightedLossTrainer, dataset: Any) -> tuple[Any, Any]:
    """A dataset and the collator as the data loaders use them: without the columns that the model does not take."""
    if hasattr(dataset, "column_names"):
        return trainer._remove_unused_columns(dataset), trainer.data_collator
    return dataset, trainer._get_collator_with_removed_columns(trainer.data_collator)


def _of_all_lengths(dataset: Any, main_input: str) -> list[Any]:
    """The shortest, a middling and the longest of 64 rows: a batch with padding, where there is any."""
    few = [dataset[i] for i in np.unique(np.linspace(0, len(dataset) - 1, 64, dtype=int)).tolist()]
    few.sort(key=lambda row: row_length(row, main_input))
    return [few[i] for i in sorted({0, len(few) // 2, len(few) - 1})]


def _made(trainer: WeightedLossTrainer, seed: int) -> Any:
    set_seed(seed)
    return trainer.call_model_init()


def _cut(model: Any, train_layers: int, at_first_position_only: dict[str, bool]) -> Any:
    Trunk(model, train_layers).cut(at_first_position_only)
    return model
