from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..training.config import WeightedLossConfig

_WHOLE = 1 << 30  # bytes of data up to which all rows are read
_ROWS = 10_000

# Training arguments that do not influence the result of a leg, or that a sweep sets itself, by their first letters.
_WITHOUT_EFFECT = (
    "class_counts", "dataloader_", "ddp_", "debug", "disable_tqdm", "do_", "enable_jit", "eval_", "hub_", "ignore_data",
    "include_", "local_rank", "log", "num_train_epochs", "output_dir", "per_device_eval", "positive_label", "prediction_",
    "project", "push_to_hub", "remove_unused", "report_to", "restore_", "resume_", "run_name", "save_", "seed",
    "skip_memory", "torch_empty_cache", "trackio_", "use_cache", "weight_ratio",
)  # fmt: skip
_KNOWN = {field.name for field in fields(WeightedLossConfig)}  # a user's own may be anything, even secrets
# Attributes of a configuration that describe the weighting, or that only a saved model has.
_NOT_OF_THE_MODEL = (
    "_", "architectures", "class_counts", "class_weights", "dtype", "natural_ratio", "positive_label", "requirement",
    "threshold", "torch_dtype", "transformers_version", "weight_ratio",
)  # fmt: skip


def of_dataset(dataset: Any) -> str:
    """Digest of the rows of a dataset as they are stored; of more than a GiB, of 10,000 rows at equal distances.

    For a dataset that is not a `datasets.Dataset` it is the digest of its length, since its items may be drawn at random.
    """
    digest = hashlib.sha256(str(len(dataset) if hasattr(dataset, "__len__") else None).encode())
    if hasattr(dataset, "with_format") and hasattr(dataset, "data"):
        if dataset.data.nbytes > _WHOLE and len(dataset) > _ROWS:
            dataset = dataset.select(np.linspace(0, len(dataset) - 1, _ROWS, dtype=np.int64))
        for i, table in enumerate(dataset.with_format("arrow").iter(batch_size=1000)):
            # A copy, since a part of a table is serialized with the bytes beside it.
            table = _without_paths(table.replace_schema_metadata(None)).take(np.arange(len(table))).combine_chunks()
            if i == 0:
                digest.update(table.schema.serialize())
            for batch in table.to_batches():
                digest.update(batch.serialize())
    return digest.hexdigest()[:16]


def of_model(model: Any) -> str:
    """Digest of the configuration, parameters and buffers of a model."""
    config = {name: value for name, value in model.config.to_dict().items() if not name.startswith(_NOT_OF_THE_MODEL)}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def of_arguments(args: Any) -> dict[str, Any]:
    """The training arguments that influence the result of a leg, and the number and kind of devices."""
    values = {
        name: value
        for name, value in args.to_dict().items()
        if name in _KNOWN and (name == "dataloader_drop_last" or not name.startswith(_WITHOUT_EFFECT))
    }
    values |= {"device": args.device.type, "devices": args.world_size * max(1, args.n_gpu)}
    return json.loads(json.dumps(values, default=str))


def _without_paths(table: pa.Table) -> pa.Table:
    """The table with images and sounds as their bytes, or as the names of their files without the folders."""
    for i, field in enumerate(table.schema):
        if pa.types.is_struct(field.type) and {part.name for part in field.type} >= {"bytes", "path"}:
            column = table.column(i).combine_chunks()
            held, paths = column.field("bytes"), column.field("path")
            names = pc.replace_substring_regex(paths.cast(pa.string()), ".*[/\\\\]", "").cast(held.type)
            table = table.set_column(i, field.name, pc.coalesce(held, names))
    return table
