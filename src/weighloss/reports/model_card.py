from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.modelcard import TASK_MAPPING, TASK_TAG_TO_NAME_MAPPING

from ..results.points import with_interval
from ..results.ratio_sweep import RatioSweep
from .text import COLUMNS, rows, sentence
from ..weighting.class_weights import ClassWeights

_METRICS = {"precision": "Precision", "recall": "Recall", "f1": "F1"}  # accuracy would flatter on skewed data
_TAGS = ["weighted-loss", "imbalanced-classification"]
# What the Trainer's card leaves to be filled in.
_GAP = re.compile(r"\n## [^\n]+\n\nMore information needed\n")
# What it says of a model from a folder, or without a name.
_NO_ORIGIN = re.compile(r"This model (was trained from scratch|is a fine-tuned version of \[\]\([^)]*\))")
# The Trainer's figures of its last evaluation, and of all: in a sweep those of the last leg, and of every leg.
_LAST_EVALUATION = re.compile(r"\nIt achieves the following results on the evaluation set:\n(- [^\n]*\n)+")
_TRAINING_RESULTS = re.compile(r"\n### Training results\n\n(\|.*\n)+")


def complete_card(
    card: ModelCard,
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
) -> ModelCard:
    """The Trainer's model card, with how the classes were weighted and why, the sweep, the figures, and how to use it.

    Names that come from the data are escaped: they are shown as they are and make neither markdown nor HTML.

    Parameters
    ----------
    card : ModelCard
        As `Trainer.create_model_card` wrote it.
    name : str
        What `from_pretrained` takes: the id on the Hub, or the folder.
    model : PreTrainedModel
    class_weights : ClassWeights
    label_names : sequence of str
        Names of the classes, by id.
    because : str
        Why this ratio, as in "the best F1 of the sweep".
    evaluation, test : mapping, optional
        `precision`, `recall` and `f1`, perhaps with `precision_interval` and `recall_interval`, on the data that the ratio
        was chosen on, and on data that no choice saw.
    sweep : RatioSweep, optional
        The sweep that the ratio comes from.
    chart : str, optional
        Path of the sweep's chart in the repository.
    dataset, dataset_id : str, optional
        Name of the data, and its id where it is on the Hub.

    Returns
    -------
    ModelCard
        The same object, with valid metadata and text.
    """
    task = _task(model)
    figures = {"validation": evaluation, "test": test}
    sections = [
        _weighting(class_weights, label_names, because, dataset),
        _figures(figures, class_weights, label_names, sweep is not None),
        *([_sweep(sweep, chart)] if sweep is not None else []),
        _use(name, task, class_weights),
        _limits(sweep, test),
    ]
    text = _GAP.sub("", card.text)
    if sweep is not None:
        text = _TRAINING_RESULTS.sub("", _LAST_EVALUATION.sub("", text))
        text = re.sub(r"- num_epochs: .*", f"- num_epochs: {sweep.epochs_per_ratio} at every ratio", text)
        if sweep.kept_point is not None:
            text = re.sub(r"- seed: .*", f"- seed: {sweep.kept_point.seed}", text)
    text = _NO_ORIGIN.sub("This model was fine-tuned", text)
    if dataset:
        text = text.replace("an unknown dataset.", f"the {escaped(dataset)} data.", 1)
    head, procedure, rest = text.partition("\n## Training procedure\n")
    card.text = head + "\n" + "".join(sections) + procedure + rest

    data = cast(ModelCardData, card.data)
    data.tags = list(dict.fromkeys([*(data.tags or []), *_TAGS]))
    data.library_name = data.library_name or "transformers"
    data.license = data.license or None
    data.pipeline_tag = task
    data.datasets = [dataset_id] if dataset_id else None
    data.model_name = data.model_name or name.split("/")[-1]
    data.eval_results = [
        EvalResult(
            task_type=task or "other",
            task_name=TASK_TAG_TO_NAME_MAPPING.get(task or ""),
            dataset_type=dataset_id or "custom",
            dataset_name=dataset or "custom",
            dataset_split=split,
            metric_type=metric,
            metric_name=title,
            metric_value=round(float(found[metric]), 6),
        )
        for split, found in figures.items()
        if found is not None
        for metric, title in _METRICS.items()
        if metric in found
    ] or None
    data.metrics = list(dict.fromkeys(result.metric_type for result in data.eval_results or ())) or None
    return card


def escaped(text: str) -> str:
    """Text that markdown and HTML show as it is, in a table too."""
    text = "".join(c if c.isalnum() or c in " ,.;?-()%" else f"&#{ord(c)};" for c in " ".join(text.split()))
    return re.sub(r"(?i)\bwww\.", lambda found: found[0][:3] + "&#46;", text)  # which GitHub's markdown makes a link


def _task(model: Any) -> str | None:
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's wrapper
    names = {c.__name__ for c in type(model).__mro__}  # a subclass of one's own does the same
    tasks = [task for task in TASK_MAPPING if "classification" in task and "zero-shot" not in task]
    return next((task for task in tasks if names & _class_names_of(task)), None)


def _class_names_of(task: str) -> set[str]:
    """The model classes of a task, of which some model types have several."""
    found = cast(Any, TASK_MAPPING[task]).values()
    return {name for names in found for name in ([names] if isinstance(names, str) else names)}


def _table(header: Sequence[str], body: Sequence[Sequence[str]], align: str) -> str:
    rule = [{"l": ":--", "r": "--:"}[side] for side in align]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *body))


def _weighting(class_weights: ClassWeights, label_names: Sequence[str], because: str, dataset: str | None) -> str:
    counts, weights = class_weights.counts, class_weights.weights
    names = [f"**{escaped(name)}**" for name in label_names]
    of_data = f" ({escaped(dataset)})" if dataset else ""
    if counts.ndim == 2:
        of = "the weight of the minority over the majority of the most imbalanced label"
        header = ["label", "without", "with", "weight without", "weight with"]
        body = [
            [name, *(f"{n:,}" for n in count), *(f"{w:.4g}" for w in weight)]
            for name, count, weight in zip(names, counts, weights, strict=True)
        ]
    else:
        positive = names[class_weights.positive_label]
        of = (
            f"the weight of {positive} over the other class"
            if len(names) == 2
            else "that of the rarest over the commonest class"
        )
        header = ["class", "training labels", "share", "weight"]
        shares = counts / counts.sum()
        body = [
            [name, f"{count:,}", f"{share:.1%}", f"{weight:.4g}"]
            for name, count, share, weight in zip(names, counts, shares, weights, strict=True)
        ]
    return (
        "\n## How the classes were weighted\n\n"
        f"The loss weighs the classes at the ratio **w_r = {class_weights.ratio:.4g}**, {of}: {escaped(because)}. The "
        f"natural ratio of the training data{of_data}, at which every class contributes "
        f"the same to the loss, is {class_weights.natural_ratio:.4g}; 1 is unweighted. The weights have mean 1 over the "
        "training labels.\n\n" + _table(header, body, "l" + "r" * (len(header) - 1)) + "\n"
    )


def _figures(
    figures: Mapping[str, Mapping[str, Any] | None], class_weights: ClassWeights, names: Sequence[str], swept: bool
) -> str:
    on = {
        "validation": "evaluation data" + (", on which the ratio was chosen" if swept else ""),
        "test": "test data, which no choice saw",
    }
    if class_weights.counts.ndim == 2:
        of = "all labels of all examples together (micro averages)"
    elif len(names) > 2:
        of = f"averages over the {len(names)} classes (macro)"
    else:
        of = f"those of **{escaped(names[class_weights.positive_label])}**"
    body = [
        [on[split], *(_figure(found, metric) for metric in _METRICS)]
        for split, found in figures.items()
        if found is not None and found.keys() & _METRICS.keys()
    ]
    if not body:
        return "\n## Results\n\nNo figures of precision and recall are known.\n"
    sure = any(found and found.get("precision_interval") for found in figures.values())
    intervals = ", with 95% bootstrap intervals of the evaluation data" if sure else ""
    table = _table(["", *_METRICS.values()], body, "lrrr")
    return f"\n## Results\n\nPrecision and recall are {of}{intervals}.\n\n{table}\n"


def _figure(found: Mapping[str, Any], metric: str) -> str:
    if metric not in found:
        return "-"
    return with_interval(found[metric], found.get(f"{metric}_interval"))


def _sweep(sweep: RatioSweep, chart: str | None) -> str:
    image = f"![Precision and recall against the weight ratio]({chart})\n\n" if chart else ""
    kept = sweep.kept_point
    means = f"; means over the seeds, of which the model has {kept.seed}" if len(sweep.seeds) > 1 and kept else ""
    text = "\n## The sweep over the ratio\n\n" + image
    text += (
        f"One fine-tune of {sweep.epochs_per_ratio} epoch{'s' if sweep.epochs_per_ratio > 1 else ''} at each ratio, seed "
        f"{', '.join(map(str, sweep.seeds))}, evaluated on {sweep.num_eval:,} examples{means}.\n\n"
    )
    text += _table(COLUMNS, rows(sweep), "r" * 10 + "l") + "\n"
    if kept is not None:
        text += f"\n{escaped(sentence(sweep, kept.ratio))}\n"
    return text


def _use(name: str, task: str | None, class_weights: ClassWeights) -> str:
    text = "\n## How to use it\n\n"
    if task:
        text += (
            f'```python\nfrom transformers import pipeline\n\nclassify = pipeline("{task}", model="{name}")\n```\n\n'
        )
    if np.ptp(class_weights.weights) == 0:
        return text + "The loss is unweighted, so that the probabilities are those of the population.\n"
    if class_weights.counts.ndim == 2:
        kind = "each label's positives over its negatives"
        ratios = class_weights.weights[:, 1] / class_weights.weights[:, 0]
        undo = f"(logits - torch.tensor({_literal(ratios)}).log()).sigmoid()"
    else:
        kind = "the classes, by id"
        undo = f"(logits - torch.tensor({_literal(class_weights.weights)}).log()).softmax(-1)"
    logits = "logits = model(**inputs).logits"
    if task in ("text-classification", "token-classification"):
        logits = 'logits = classify.model(**classify.tokenizer("…", return_tensors="pt")).logits'
    return (
        text
        + "A weighted model's probabilities are those of a population in which a class is as many times as frequent "
        "as it weighs. To first order, this undoes it, and moves the most probable class accordingly:\n\n"
        f"```python\nimport torch\n\n{logits}\nprobabilities = {undo}  # weights of {kind}\n```\n"
    )


def _literal(weights: np.ndarray) -> str:
    return "[" + ", ".join(f"{weight:.6g}" for weight in weights) + "]"


def _limits(sweep: RatioSweep | None, test: Mapping[str, float] | None) -> str:
    points = [
        "Precision holds for data in which the classes are as frequent as in the evaluation data; recall does not depend "
        "on that."
    ]
    if test is None:
        points.append("There are no figures on data that no choice saw: those above may flatter.")
    if sweep is not None and len(sweep.seeds) == 1:
        points.append("One seed is one draw: a fine-tune with another one differs, the more so at extreme ratios.")
    points.append(
        "Weights act early and fade once the training data is separated (Byrd and Lipton 2019): longer training at the "
        "same ratio may trade precision and recall differently."
    )
    return "\n## Limits\n\n" + "\n".join(f"- {point}" for point in points) + "\n"
