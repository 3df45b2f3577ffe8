import html
import re

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import DeiTConfig, DeiTForImageClassification

from conftest import make_model
from results.sweeps import make_point, make_sweep
from test_where_it_works import audio_model, image_model, multi_label_model, token_model
from weighloss import ClassWeights
from weighloss.reports.model_card import complete_card, escaped

TRAINERS = """---
library_name: transformers
license: apache-2.0
base_model: distilbert/distilbert-base-uncased
tags:
- generated_from_trainer
model-index:
- name: spam
  results: []
---

# spam

This model is a fine-tuned version of [a](https://huggingface.co/a) on an unknown dataset.
It achieves the following results on the evaluation set:
- Loss: 0.9
- Precision: 0.111

## Model description

More information needed

## Intended uses & limitations

More information needed

## Training and evaluation data

More information needed

## Training procedure

### Training hyperparameters

The following hyperparameters were used during training:
- seed: 42
- num_epochs: 3.0

### Training results

| Training Loss | Epoch |
|:-------------:|:-----:|
| 0.5           | 1.0   |


### Framework versions

- Transformers 5
"""
EVALUATION = {"precision": 0.9, "recall": 0.8, "f1": 0.847, "tp": 8, "precision_interval": [0.85, 0.95]}
TEST = {"precision": 0.7, "recall": 0.6, "f1": 0.646, "accuracy": 0.93}
SWEEP = make_sweep([make_point(1, 8, 1, 12, 79), make_point(7, 15, 3, 5, 77, 7)], (42, 7), kept=1, kept_because="best")


def make_card(**given) -> ModelCard:
    facts = {
        "name": "user/spam",
        "model": make_model(),
        "class_weights": ClassWeights.from_counts([700, 100], 7),
        "label_names": ["ham", "spam"],
        "because": "the best f1 of the sweep",
        "evaluation": EVALUATION,
        "test": TEST,
        "sweep": SWEEP,
        "chart": "precision_recall.png",
        "dataset": "SMS",
        "dataset_id": "ucirvine/sms_spam",
    }
    return complete_card(given.pop("card", ModelCard(TRAINERS)), **facts | given)


def test_the_metadata_say_what_the_model_is_and_how_well_it_does_on_which_split():
    data = yaml.safe_load(re.match(r"---\n(.*?)---\n", make_card().content, re.S)[1])
    assert data["tags"] == ["generated_from_trainer", "weighted-loss", "imbalanced-classification"]
    assert data["library_name"] == "transformers"
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "distilbert/distilbert-base-uncased"
    assert data["pipeline_tag"] == "text-classification"
    assert data["datasets"] == ["ucirvine/sms_spam"]
    (index,) = data["model-index"]
    found = {
        (result["dataset"]["split"], metric["type"]): metric["value"]
        for result in index["results"]
        for metric in result["metrics"]
    }
    names = ("precision", "recall", "f1")
    assert found == {
        (split, name): values[name] for split, values in (("validation", EVALUATION), ("test", TEST)) for name in names
    }
    assert all(result["task"]["type"] == "text-classification" for result in index["results"])
    assert all(result["dataset"]["type"] == "ucirvine/sms_spam" for result in index["results"])


def test_the_text_has_weights_reason_chart_table_figures_use_and_limits_in_place_of_what_was_to_be_filled_in():
    text = make_card().text
    assert "More information needed" not in text
    assert "**w_r = 7**, the weight of **spam** over the other class: the best f1 of the sweep" in text
    assert "| **spam** | 100 | 12.5% | 4 |" in text
    assert "![Precision and recall against the weight ratio](precision_recall.png)" in text
    assert "| 7 | 1 | 0.125 | 0.833 | 0.750 |" in text
    assert "| evaluation data, on which the ratio was chosen | 0.900 (0.850 to 0.950) | 0.800 | 0.847 |" in text
    assert "| test data, which no choice saw | 0.700 | 0.600 | 0.646 |" in text
    assert 'pipeline("text-classification", model="user/spam")' in text
    assert "(logits - torch.tensor([0.571429, 4]).log()).softmax(-1)" in text
    assert "Precision and recall are those of **spam**, with 95% bootstrap intervals" in text
    assert "on the SMS data." in text
    assert text.index("## Limits") < text.index("## Training procedure")


def test_figures_of_the_last_leg_and_epochs_that_were_not_used_are_not_those_of_the_model():
    text = make_card().text
    assert "0.111" not in text
    assert "Training Loss" not in text
    assert "- num_epochs: 1 at every ratio" in text
    assert "- seed: 7" in text
    assert "0.111" in make_card(sweep=None, chart=None).text


def test_without_figures_the_card_says_so():
    text = make_card(evaluation=None, test=None).text
    assert "No figures of precision and recall are known" in text
    assert make_card(evaluation=None, test=None).data.metrics is None
    assert "no figures on data that no choice saw" in text


def test_figures_of_ones_own_are_shown_as_far_as_they_are_known():
    card = make_card(evaluation={"recall": 0.23, "accuracy": 0.9, "loss": 1.0}, test=None)
    assert "| - | 0.230 | - |" in card.text
    assert card.data.metrics == ["recall"]


def test_a_model_from_a_folder_or_of_no_class_known_has_no_wrong_origin_and_no_code_without_names():
    text = TRAINERS.replace("is a fine-tuned version of [a](https://huggingface.co/a)", "was trained from scratch")
    card = make_card(model=torch.nn.Linear(1, 1), card=ModelCard(text))
    assert "This model was fine-tuned on the SMS data" in card.text
    assert card.data.pipeline_tag is None
    assert "classify" not in card.text


@pytest.mark.parametrize(("classes", "words"), [(3, "averages over the 3 classes (macro)"), (2, "those of **b**")])
def test_what_precision_and_recall_are_of_is_said(classes, words):
    counts = ClassWeights.from_counts([50, 20, 10][:classes])
    card = make_card(class_weights=counts, label_names=["a", "b", "c"][:classes], sweep=None)
    assert f"Precision and recall are {words}" in card.text


def several_heads_model() -> torch.nn.Module:
    """DeiT has two classes for images, of which transformers lists both."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return DeiTForImageClassification(DeiTConfig(image_size=8, patch_size=4, **sizes))


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (image_model, "image-classification"),
        (several_heads_model, "image-classification"),
        (audio_model, "audio-classification"),
        (token_model, "token-classification"),
        (multi_label_model, "text-classification"),
    ],
)
def test_the_pipeline_is_that_of_the_model(model, task):
    card = make_card(model=model())
    assert card.data.pipeline_tag == task
    assert f'pipeline("{task}"' in card.text


def test_several_labels_have_a_table_and_a_calibration_of_their_own():
    weights = ClassWeights.from_multi_label_counts([[900, 100], [700, 300]], 9)
    text = make_card(class_weights=weights, model=multi_label_model(), sweep=None).text
    assert "| **spam** | 700 | 300 |" in text
    assert "(logits - torch.tensor([9, 2.33333]).log()).sigmoid()" in text
    assert "micro averages" in text
    assert "minority over the majority of the most imbalanced label" in text


@example(text="see www.example.org")
@given(text=st.text(min_size=1).filter(lambda text: text.isprintable() and text.strip()))
def test_a_name_from_the_data_is_shown_as_it_is_and_makes_neither_markdown_nor_html(text):
    safe = escaped(text)
    assert html.unescape(safe) == " ".join(text.split())
    assert not re.search(r"(?i)www\.", safe)
    assert not set(re.sub(r"&#\d+;", "", safe)) & set("|<>[]`*_\\#~!&\n\"'{}=:/@$")


def test_a_label_that_is_markup_breaks_neither_table_nor_page():
    names = ["ham", "| <script>alert(1)</script> [x](http://y) `\n# z"]
    sweep = make_sweep(list(SWEEP.points), (42, 7), label_names=names, dataset="a | <b>", kept=1)
    text = make_card(label_names=names, sweep=sweep, dataset="a | <b>", because=names[1]).text
    assert "<script>" not in text
    assert "](http" not in text.replace("](https://huggingface.co/a)", "")
    (row,) = [line for line in text.splitlines() if "script" in line and line.startswith("|")]
    assert row.count("|") == 5
    assert "\n# z" not in text
