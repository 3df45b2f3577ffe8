from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..training.config import WeightedLossConfig

if TYPE_CHECKING:
    from ..results.ratio_sweep import RatioSweep

_WHOLE = 1 << 30  # bytes of data that are read in full; of more, rows at even distances
_ROWS = 10_000

# Training arguments that do not change what a leg comes to, or that a sweep sets itself, by their first letters.
_WITHOUT_EFFECT = (
    "class_counts", "dataloader_", "ddp_", "debug", "disable_tqdm", "do_", "enable_jit", "eval_", "hub_", "ignore_data",
    "include_", "local_rank", "log", "num_train_epochs", "output_dir", "per_device_eval", "positive_label", "prediction_",
    "project", "push_to_hub", "remove_unused", "report_to", "restore_", "resume_", "run_name", "save_", "seed",
    "skip_memory", "torch_empty_cache", "trackio_", "use_cache", "weight_ratio",
)  # fmt: skip
_KNOWN = {field.name for field in fields(WeightedLossConfig)}  # a user's own may be anything, secrets too
# What a model's configuration says of the weighting, or only once it was saved.
_NOT_OF_THE_MODEL = (
    "_", "architectures", "class_counts", "class_weights", "dtype", "natural_ratio", "positive_label", "requirement",
    "torch_dtype", "transformers_version", "weight_ratio",
)  # fmt: skip


def of_dataset(dataset: Any) -> str:
    """Digest of a dataset's rows, as they are stored; of one of more than a GiB of 10,000 rows at even distances.

    Of a dataset that is not a `datasets` one only its length counts: its items may be drawn anew each time.
    """
    digest = hashlib.sha256(str(len(dataset)).encode())
    if hasattr(dataset, "with_format") and hasattr(dataset, "data"):
        if dataset.data.nbytes > _WHOLE and len(dataset) > _ROWS:
            dataset = dataset.select(np.linspace(0, len(dataset) - 1, _ROWS, dtype=np.int64))
        for i, table in enumerate(dataset.with_format("arrow").iter(batch_size=1000)):
            # A copy: what is serialized of a part of a table would hold the bytes beside it.
            table = _without_paths(table.replace_schema_metadata(None)).take(np.arange(len(table))).combine_chunks()
            if i == 0:
                digest.update(table.schema.serialize())
            for batch in table.to_batches():
                digest.update(batch.serialize())
    return digest.hexdigest()[:16]


def of_sweep(sweep: RatioSweep) -> str:
    """Digest of what a sweep is of, and of its seeds, epochs and requirement."""
    of = [sweep.fingerprint, sweep.arguments, sweep.seeds, sweep.epochs_per_ratio, sweep.requirement, sweep.preview]
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def of_model(model: Any) -> str:
    """Digest of a model's configuration, parameters and buffers."""
    config = {name: value for name, value in model.config.to_dict().items() if not name.startswith(_NOT_OF_THE_MODEL)}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def of_arguments(args: Any) -> dict[str, Any]:
    """The training arguments that decide what a leg comes to, and on how many processes of which kind."""
    values = {
        name: value
        for name, value in args.to_dict().items()
        if name in _KNOWN and (name == "dataloader_drop_last" or not name.startswith(_WITHOUT_EFFECT))
    }
    values |= {"device": args.device.type, "devices": args.world_size * max(1, args.n_gpu)}
    return json.loads(json.dumps(values, default=str))


def _without_paths(table: pa.Table) -> pa.Table:
    """Images and sounds by their bytes, or by the names of their files: where these lie is no matter."""
    for i, field in enumerate(table.schema):
        if pa.types.is_struct(field.type) and {part.name for part in field.type} >= {"bytes", "path"}:
            column = table.column(i).combine_chunks()
            held, paths = column.field("bytes"), column.field("path")
            names = pc.replace_substring_regex(paths.cast(pa.string()), ".*[/\\\\]", "").cast(held.type)
            table = table.set_column(i, field.name, pc.coalesce(held, names))
    return table
