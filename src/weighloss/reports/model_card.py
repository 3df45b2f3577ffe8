from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers.modelcard import TASK_MAPPING, TASK_TAG_TO_NAME_MAPPING

from ..results.points import with_interval
from ..results.ratio_sweep import RatioSweep
from ..weighting.class_weights import ClassWeights
from ..weighting.task import Task
from .text import COLUMNS, rows, rule_sentence

_METRICS = {"precision": "Precision", "recall": "Recall", "f1": "F1"}  # accuracy is misleading on imbalanced data
_TAGS = ["generated_from_trainer", "weighted-loss", "imbalanced-classification"]
_FRAMEWORKS = ("weighloss", "transformers", "torch", "datasets", "tokenizers")


def model_card(
    *,
    name: str,
    model: Any,
    class_weights: ClassWeights,
    label_names: Sequence[str],
    because: str,
    evaluation: Mapping[str, Any] | None = None,
    test: Mapping[str, Any] | None = None,
    sweep: RatioSweep | None = None,
    chart: str | None = None,
    dataset: str | None = None,
    dataset_id: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    base_model: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    language: str | Sequence[str] | None = None,
) -> ModelCard:
    """The model card of a classifier with class weights: how it was weighted and why, its results, and how to use it.

    Names that come from the data are escaped: markdown and HTML show them as they are.

    `name` is the id on the Hub or the folder from which the model is loaded; `label_names` are those of the classes, by
    id; `because` says why the weights have this ratio, such as "chosen for recall>=0.95". `evaluation` and `test` have
    `precision`, `recall` and `f1`, perhaps with `precision_interval` and `recall_interval`, on the evaluation data, which
    the ratio was chosen on, and on held-out data. `chart` is the path of the chart of the sweep in the repository,
    `dataset_id` and `base_model` are ids on the Hub, and after a sweep `hyperparameters` are those of the leg that is kept.
    See `huggingface_hub.ModelCardData` for the other parameters.
    """
    pipeline_tag = _pipeline_tag(model)
    base_model, dataset_id = _repo_id(base_model), _repo_id(dataset_id)
    eval_results = [
        EvalResult(
            task_type=pipeline_tag or "other",
            task_name=TASK_TAG_TO_NAME_MAPPING.get(pipeline_tag or ""),
            dataset_type=dataset_id or "custom",
            dataset_name=dataset or dataset_id or "custom",
            dataset_split=split,
            metric_type=metric,
            metric_name=title,
            metric_value=round(float(found[metric]), 6),
        )
        for split, found in (("validation", evaluation or {}), ("test", test or {}))
        for metric, title in _METRICS.items()
        if metric in found
    ]
    is_adapter = hasattr(model, "get_base_model")
    data = ModelCardData(
        language=language if language is None or isinstance(language, str) else list(language),
        license=license or None,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=pipeline_tag,
        tags=list(dict.fromkeys([*tags, *_TAGS])),
        base_model=base_model,
        datasets=[dataset_id] if dataset_id else None,
        metrics=list(dict.fromkeys(result.metric_type for result in eval_results)) or None,
        model_name=_title(name) if eval_results else None,
        eval_results=eval_results or None,
    )
    kept = sweep.operating_point if sweep is not None else None
    threshold = getattr(model.config, "threshold", None) if hasattr(model, "config") else None
    evaluated = "evaluation data" if sweep is None else "evaluation data, on which the ratio was chosen"
    results = {evaluated: evaluation or {}, "held-out test data": test or {}}
    names = [f"**{escaped(name)}**" for name in label_names]
    return ModelCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("model_card_template.md")),
        title=escaped(_title(name)),
        base_model=base_model,
        dataset=escaped(dataset or dataset_id or ""),
        dataset_id=dataset_id,
        task=class_weights.task.value,
        weights=class_weights,
        names=names,
        positive=names[class_weights.positive_label] if class_weights.task is Task.BINARY else "",
        because=escaped(because),
        results={data: found for data, found in results.items() if found.keys() & _METRICS.keys()},
        has_intervals=any(found.get("precision_interval") for found in results.values()),
        is_tested=test is not None,
        metrics=list(_METRICS),
        with_interval=with_interval,
        sweep=sweep,
        chart=chart,
        columns=COLUMNS,
        sweep_rows=rows(sweep) if sweep is not None else [],
        kept_sentence=escaped(rule_sentence(sweep, kept)) if sweep is not None and kept is not None else "",
        load_line=f'classify = pipeline("{pipeline_tag}", model="{name}")' if pipeline_tag else "",  # see `renamed`
        has_tokenizer=pipeline_tag in ("text-classification", "token-classification"),
        undo=_undo(class_weights, threshold),
        threshold="" if threshold is None else ", ".join(f"{value:.4g}" for value in threshold),
        threshold_apart=kept.threshold_text if threshold is None and kept is not None and not kept.is_argmax else "",
        hyperparameters={name: escaped(str(value)) for name, value in (hyperparameters or {}).items()},
        versions=[f"{name} {version(name)}" for name in (*_FRAMEWORKS, *(["peft"] if is_adapter else []))],
    )


def renamed(content: str, name: str) -> str:
    """The content of a model card with another id from which the model is loaded.

    The code that loads the model, the title and the metadata change. Any other card stays as it is, and so does a title
    that was edited.
    """
    code = re.search(r'^classify = pipeline\("[^"\n]*", model="([^"\n]*)"', content, re.M)
    if code is None or code[1] == name:
        return content
    content = content[: code.start(1)] + name + content[code.end(1) :]
    before, after = (f"\n# {escaped(_title(name))}\n" for name in (code[1], name))
    card = ModelCard(content.replace(before, after, 1))
    data = cast(ModelCardData, card.data)
    if data.eval_results:
        data.model_name = _title(name)
    return card.content


def escaped(text: str) -> str:
    """Text that markdown and HTML show as it is, in a table too.

    Examples
    --------
    >>> escaped("<b>")
    '&#60;b&#62;'
    """
    text = "".join(c if c.isalnum() or c in " ,.;?-()%" else f"&#{ord(c)};" for c in " ".join(text.split()))
    return re.sub(r"(?i)\bwww\.", lambda found: found[0][:3] + "&#46;", text)  # GitHub's markdown makes it a link


def _title(name: str) -> str:
    return name.split("/")[-1]


def _repo_id(text: str | None) -> str | None:
    """The text if it can be an id on the Hub, which refuses metadata with another one."""
    try:
        validate_repo_id(text or "")
    except HFValidationError:
        return None
    return text


def _pipeline_tag(model: Any) -> str | None:
    """The pipeline of transformers that the class of a model, or a parent of it, belongs to."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # in PEFT's wrapper
    names = {c.__name__ for c in type(model).__mro__}
    for task, models in TASK_MAPPING.items():
        if "classification" in task and "zero-shot" not in task:
            for classes in cast(Any, models).values():  # a name, or several
                if names & {*([classes] if isinstance(classes, str) else classes)}:
                    return task
    return None


def _undo(class_weights: ClassWeights, threshold: Sequence[float] | None) -> str:
    """The numbers whose logarithms undo weighting and threshold of the logits; empty without both."""
    weights = class_weights.weights
    if np.ptp(weights) == 0 and threshold is None:
        return ""
    numbers = weights[:, 1] / weights[:, 0] if class_weights.task is Task.MULTILABEL else weights
    numbers = numbers * np.exp(-np.asarray(threshold or np.zeros(len(numbers))))
    return ", ".join(f"{number:.6g}" for number in numbers)
