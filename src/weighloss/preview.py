from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed
from transformers.trainer_utils import number_of_arguments

from .activations import LENGTH, ActivationCollator, cache_activations, length
from .errors import InvalidInputError
from .store import ACTIVATIONS_FOLDER
from .trainer import WeightedLossTrainer
from .trunk import Trunk

# A few layers learn what the whole model would in one epoch only with longer steps, and more of them; but a step has its
# price, however small the batch.
LEARNING_RATE_FACTOR = 4.0
BATCH_SIZE_DIVISOR = 2
SMALLEST_BATCH = 8
_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")  # the newer name and the older
_ALLOWED = 1e-4  # difference in logits of a model that is cut: that of float32's arithmetic


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
    if trainer.neftune_noise_alpha is not None:
        raise InvalidInputError("neftune_noise_alpha changes what a preview computes only once: leave it out.")
    if trainer.given_optimizer:
        raise InvalidInputError(
            "a preview makes an optimizer for what it trains, with four times args.learning_rate: leave optimizers= out."
        )
    if args.n_gpu > 1:
        raise InvalidInputError(
            f"a preview computes on one GPU per process, not on {args.n_gpu}: start it with torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0."
        )
    model = trainer.model if make is None else _made(trainer, seeds[0])
    trunk = Trunk(model, train_layers)
    others = [] if make is None else [Trunk(_made(trainer, seed), train_layers) for seed in seeds[1:2]]
    if any(_digest(other) != _digest(trunk) for other in others):
        raise InvalidInputError(
            "model_init draws the lower layers anew with every seed: a preview needs pretrained ones."
        )
    model.to(args.device)
    given = {
        "model": trainer.model,
        "model_wrapped": trainer.model_wrapped,
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
    at_first_position_only: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{ACTIVATIONS_FOLDER}-") as activations:
        cached: list[Any] = []
        collator = ActivationCollator(trunk, dtype, trainer.label_names, trainer.is_multi_label)
        for name, dataset in (("training", trainer.train_dataset), ("evaluation", trainer.eval_dataset)):
            rows, collate = _as_trained_on(trainer, dataset)
            if not cached:
                batch = collate(_of_all_lengths(rows, trunk.main_input))
                inputs = {key: value for key, value in batch.items() if key not in trainer.label_names}
                at_first_position_only = find_at_first_position_only(trunk, model, inputs)
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
            whole = trainer.model
            trunk.join(whole)
            for name, value in given.items():
                setattr(trainer, name, value)
            trainer.model = trainer.model_wrapped = whole
            vars(trainer).pop("_eval_dataloaders", None)


def _as_trained_on(trainer: WeightedLossTrainer, dataset: Any) -> tuple[Any, Any]:
    """A dataset and the collator as the data loaders use them: without the columns that the model does not take."""
    if hasattr(dataset, "column_names"):
        return trainer._remove_unused_columns(dataset), trainer.data_collator
    return dataset, trainer._get_collator_with_removed_columns(trainer.data_collator)


def _of_all_lengths(dataset: Any, main_input: str) -> list[Any]:
    """The shortest, a middling and the longest of 64 rows: a batch with padding, where there is any."""
    few = [dataset[i] for i in sorted({int(i) for i in np.linspace(0, len(dataset) - 1, 64)})]
    few.sort(key=lambda row: length(row, main_input))
    return [few[i] for i in sorted({0, len(few) // 2, len(few) - 1})]


def _made(trainer: WeightedLossTrainer, seed: int) -> Any:
    set_seed(seed)
    return trainer.call_model_init()


def _cut(model: Any, train_layers: int, at_first_position_only: dict[str, bool]) -> Any:
    Trunk(model, train_layers).cut(at_first_position_only)
    return model


def _digest(trunk: Trunk) -> str:
    digest = hashlib.sha256()
    for parameter in trunk.parameters():
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
        whole = model.eval()(**{name: value.to(model.device) for name, value in inputs.items()}).logits
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
