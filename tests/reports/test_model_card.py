import html
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DeiTConfig,
    DeiTForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from results.sweeps import ARTICLE, golden_sweep, make_point, make_sweep
from weighloss import ClassWeights, OperatingPoint
from weighloss.reports.model_card import escaped, model_card, renamed

EVALUATION = {"precision": 0.9, "recall": 0.8, "f1": 0.847, "tp": 8, "precision_interval": [0.85, 0.95]}
TEST = {"precision": 0.7, "recall": 0.6, "f1": 0.646, "accuracy": 0.93}
SWEEP = make_sweep([make_point(1, 8, 1, 12, 79), make_point(7, 15, 3, 5, 77, 7)], (42, 7), kept=1)
MULTI_LABEL = ClassWeights.from_multi_label_counts([[900, 100], [700, 300]], 9)


def untrained(model_class=BertForSequenceClassification, config_class=BertConfig) -> torch.nn.Module:
    with torch.device("meta"):  # without weights
        return model_class(config_class(num_hidden_layers=1))


class OwnHead(BertForSequenceClassification):
    pass


def make_card(**given) -> ModelCard:
    facts = {
        "name": "user/spam",
        "model": untrained(),
        "class_weights": ClassWeights.from_counts([700, 100], 7),
        "label_names": ["ham", "spam"],
        "because": "chosen for f1",
        "evaluation": EVALUATION,
        "test": TEST,
        "sweep": SWEEP,
        "chart": "precision_recall.png",
        "dataset": "SMS",
        "dataset_id": "ucirvine/sms_spam",
        "hyperparameters": {"learning_rate": 5e-05, "num_epochs": 1, "seed": 7},
        "base_model": "distilbert/distilbert-base-uncased",
        "license": "apache-2.0",
        "tags": ["spam"],
        "language": "en",
    }
    return model_card(**facts | given)


def metadata(content: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)---\n", content, re.S)[1])


def test_the_metadata_say_what_the_model_is_and_how_well_it_does_on_which_split():
    data = metadata(make_card().content)
    assert data["tags"] == ["spam", "generated_from_trainer", "weighted-loss", "imbalanced-classification"]
    assert data["library_name"] == "transformers"
    assert data["license"] == "apache-2.0"
    assert data["language"] == "en"
    assert metadata(make_card(language=("en", "de")).content)["language"] == ["en", "de"]
    assert data["base_model"] == "distilbert/distilbert-base-uncased"
    assert data["pipeline_tag"] == "text-classification"
    assert data["datasets"] == ["ucirvine/sms_spam"]
    assert data["metrics"] == ["precision", "recall", "f1"]
    (index,) = data["model-index"]
    assert index["name"] == "spam"
    found = {
        (result["dataset"]["split"], metric["type"]): metric["value"]
        for result in index["results"]
        for metric in result["metrics"]
    }
    splits = (("validation", EVALUATION), ("test", TEST))
    assert found == {(split, name): values[name] for split, values in splits for name in ("precision", "recall", "f1")}
    assert all(result["task"]["type"] == "text-classification" for result in index["results"])
    assert all(result["dataset"]["type"] == "ucirvine/sms_spam" for result in index["results"])
    read = ModelCardData(**data)
    assert len(read.eval_results) == 6
    assert read.to_dict() == data


def test_the_card_has_weights_reason_results_chart_table_use_limits_and_training_procedure():
    text = make_card().text
    assert text.count("\n# spam\n") == 1
    assert (
        "is [distilbert/distilbert-base-uncased](https://huggingface.co/distilbert/distilbert-base-uncased)," in text
    )
    assert " fine-tuned on [SMS](https://huggingface.co/datasets/ucirvine/sms_spam)," in text
    assert "**w_r = 7**, which is the weight of **spam** over the other class: chosen for f1" in text
    assert "| **spam** | 100 | 12.5% | 4 |" in text
    assert "Precision and recall are those of **spam**, with 95% bootstrap intervals" in text
    assert "| evaluation data, on which the ratio was chosen | 0.900 (0.850 to 0.950) | 0.800 | 0.847 |" in text
    assert "| held-out test data | 0.700 | 0.600 | 0.646 |" in text
    assert "![Precision and recall against the weight ratio](precision_recall.png)" in text
    assert (
        "with seed 42, 7, evaluated on 100 examples. The numbers are means over the seeds; this model has seed 7."
        in text
    )
    assert "| 7 | 1 | 0.125 | 0.833 | 0.750 |" in text
    assert 'classify = pipeline("text-classification", model="user/spam")' in text
    assert "(logits - torch.tensor([0.571429, 4]).log()).softmax(-1)" in text
    assert "| `num_epochs` | 1 |" in text
    assert re.search(r"Framework versions: weighloss \S+, transformers \S+, torch", text)
    titles = re.findall(r"^## (.*)", text, re.M)
    assert titles == [
        *("How the classes were weighted", "Results", "The sweep over the ratio", "How to use it", "Limits"),
        "Training procedure",
    ]
    assert "\n\n\n" not in text


def test_without_metrics_sweep_or_names_the_card_says_less():
    given = {"evaluation": None, "test": None, "sweep": None, "chart": None, "dataset": None, "dataset_id": None}
    card = make_card(**given, base_model=None, hyperparameters=None, license="", language=None, tags=())
    assert "This model was fine-tuned, with a loss" in card.text
    assert "Precision and recall of this model were not measured." in card.text
    assert "not tested on held-out data" in card.text
    assert "not tested" not in make_card().text
    assert "The sweep" not in card.text
    assert "\n\n\n" not in card.text
    assert metadata(card.content).keys() == {"library_name", "pipeline_tag", "tags"}


def test_a_metric_that_was_not_measured_is_a_dash():
    card = make_card(evaluation={"recall": 0.23, "accuracy": 0.9, "loss": 1.0}, test=None)
    assert "| - | 0.230 | - |" in card.text
    assert card.data.metrics == ["recall"]


def test_a_folder_is_not_named_as_an_id_on_the_hub():
    card = make_card(base_model="/home/me/bert", dataset_id="./data.csv")
    assert "/home/me" not in card.content
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert card.data.eval_results[0].dataset_type == "custom"


@pytest.mark.parametrize(("classes", "words"), [(3, "macro averages over the classes"), (2, "those of **b**")])
def test_what_precision_and_recall_are_of_is_said(classes, words):
    counts = ClassWeights.from_counts([50, 20, 10][:classes])
    card = make_card(class_weights=counts, label_names=["a", "b", "c"][:classes], sweep=None)
    assert f"Precision and recall are {words}" in card.text


@pytest.mark.parametrize(
    ("classes", "task"),
    [
        ((ViTForImageClassification, ViTConfig), "image-classification"),
        ((DeiTForImageClassification, DeiTConfig), "image-classification"),  # one of two classes of DeiT for images
        ((Wav2Vec2ForSequenceClassification, Wav2Vec2Config), "audio-classification"),
        ((BertForTokenClassification, BertConfig), "token-classification"),
        ((OwnHead, BertConfig), "text-classification"),
    ],
)
def test_the_pipeline_is_that_of_the_model(classes, task):
    card = make_card(model=untrained(*classes))
    assert card.data.pipeline_tag == task
    assert f'pipeline("{task}"' in card.text
    assert ("classify.tokenizer" in card.text) == (task in ("text-classification", "token-classification"))


def test_a_model_of_an_unknown_class_has_no_code_with_a_pipeline():
    card = make_card(model=torch.nn.Linear(1, 1))
    assert card.data.pipeline_tag is None
    assert "classify" not in card.text
    assert renamed(card.content, "user/other") == card.content


def test_an_adapter_is_one_of_peft():
    peft = pytest.importorskip("peft")
    with torch.device("meta"):
        adapter = peft.get_peft_model(untrained(), peft.LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    card = make_card(model=adapter)
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-classification"
    assert f"peft {peft.__version__}" in card.text


def test_several_labels_have_their_own_table_and_undo_their_own_weights():
    text = make_card(class_weights=MULTI_LABEL, sweep=golden_sweep("several_labels")).text
    assert "| **spam** | 700 | 300 | " in text
    assert "(logits - torch.tensor([9, 2.33333]).log()).sigmoid()" in text
    assert "micro averages" in text
    assert "minority over the majority of the most imbalanced label" in text


@pytest.mark.parametrize(
    "weights", [ClassWeights.from_counts([700, 100], 7), ClassWeights.from_counts([70, 30, 9], 3), MULTI_LABEL]
)
def test_the_code_that_undoes_the_weighting_gives_the_probabilities_of_the_unweighted_loss(weights):
    logits = torch.tensor([[0.3, -1.0, 2.0][: len(weights.counts)]])
    text = make_card(class_weights=weights, label_names=["a", "b", "c"][: logits.shape[1]], sweep=None).text
    (line,) = [line for line in text.splitlines() if line.startswith("probabilities = ")]
    scope = {"torch": torch, "logits": logits}
    exec(line, scope)
    if weights is MULTI_LABEL:
        odds = logits.exp() * torch.tensor(weights.weights[:, 0] / weights.weights[:, 1])
        expected = odds / (1 + odds)
    else:
        parts = logits.exp() / torch.tensor(weights.weights)
        expected = parts / parts.sum()
    assert scope["probabilities"].numpy() == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("ratio", [1, 7])
def test_the_card_says_the_threshold_and_undoes_it_too(ratio):
    model, weights = untrained(), ClassWeights.from_counts([700, 100], ratio)
    model.config.threshold = [0.0, 1.25]
    text = html.unescape(make_card(model=model, class_weights=weights).text)
    assert "It is part of the model: 0, 1.25 was subtracted from the logits of the classes" in text
    line = next(line for line in text.splitlines() if line.startswith("probabilities = "))
    trained = torch.tensor([[0.3, -1.2]])
    found: dict = {"torch": torch, "logits": trained - torch.tensor([0.0, 1.25])}
    exec(line, found)
    expected = (trained - torch.from_numpy(weights.weights).log()).softmax(-1)
    assert torch.allclose(found["probabilities"].double(), expected.double(), atol=1e-5)
    assert "At which threshold" not in make_card().text


def test_a_threshold_that_the_model_does_not_carry_is_said_too():
    rule = replace(OperatingPoint.at_argmax(SWEEP.points[1]), threshold=1.25)
    text = make_card(sweep=replace(SWEEP, operating_point=rule)).text
    assert "With the ratio, the threshold 1.25 (probability 0.777) was chosen. It could not be made part" in text


def test_an_unweighted_model_has_nothing_to_undo():
    text = make_card(class_weights=ClassWeights.from_counts([700, 100], 1)).text
    assert "the probabilities need no correction" in text
    assert "torch.tensor" not in text


def test_a_new_name_changes_code_title_and_metadata_only():
    content = make_card().content
    other = renamed(content, "somebody/else")
    assert 'classify = pipeline("text-classification", model="somebody/else")' in other
    assert "\n# else\n" in other
    assert metadata(other)["model-index"][0]["name"] == "else"
    changed = [(a, b) for a, b in zip(content.split("\n"), other.split("\n"), strict=True) if a != b]
    assert len(changed) == 3
    assert renamed(other, "user/spam") == renamed(content, "user/spam") == content


def test_a_card_that_was_edited_or_is_not_ours_keeps_what_it_says():
    edited = make_card().content.replace("# spam", "# My filter").replace('spam")\n', 'spam", device=0)\n')
    other = renamed(edited, "somebody/else")
    assert 'classify = pipeline("text-classification", model="somebody/else", device=0)\n' in other
    assert "\n# My filter\n" in other
    for foreign in ("", "# Title\n", "---\nlicense: mit\n---\n\n# spam\n", "classify = pipeline(task)\n"):
        assert renamed(foreign, "somebody/else") == foreign


@example(text="see www.example.org")
@given(text=st.text(min_size=1).filter(lambda text: text.isprintable() and text.strip()))
def test_a_name_from_the_data_is_shown_as_it_is_and_makes_neither_markdown_nor_html(text):
    safe = escaped(text)
    assert html.unescape(safe) == " ".join(text.split())
    assert not re.search(r"(?i)www\.", safe)
    assert not set(re.sub(r"&#\d+;", "", safe)) & set("|<>[]`*_\\#~!&\n\"'{}=:/@$")


def test_names_that_are_markup_or_a_template_break_neither_table_nor_page():
    odd = "| <script>alert(1)</script> [x](http://y) `\n# z {{ 7 * 7 }} {% if %}"
    sweep = make_sweep(ARTICLE, label_names=["ham", odd], dataset=odd, kept=2)
    card = make_card(label_names=["ham", odd], sweep=sweep, dataset=odd, because=odd, hyperparameters={"optim": odd})
    text = card.text
    assert "<script>" not in text
    assert "](http://y" not in text
    assert "\n# z" not in text
    assert "49" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| **") and "script" in line]
    assert row.count("|") == 5
    assert metadata(card.content)["model-index"][0]["results"][0]["dataset"]["name"] == odd
    assert np.array_equal(ModelCard(card.content).data.to_dict(), card.data.to_dict())
