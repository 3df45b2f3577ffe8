"""A model with a threshold decides by it wherever it is loaded, and without weighloss."""

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from weighloss import InvalidInputError, apply_threshold, remove_threshold

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50,
    "pad_token_id": 0,
}
DISTILBERT = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": 50}
HEADS = {
    "BertForSequenceClassification": SMALL,
    "DistilBertForSequenceClassification": DISTILBERT,
    "RobertaForSequenceClassification": SMALL,
    "DebertaV2ForSequenceClassification": SMALL,
    "ModernBertForSequenceClassification": SMALL | {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1},
    "ElectraForSequenceClassification": SMALL | {"embedding_size": 16},
    "ViTForImageClassification": SMALL | {"image_size": 32, "patch_size": 16},
}


def make(name: str, num_labels: int = 2, **changes):
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    return kind(kind.config_class(**HEADS[name], num_labels=num_labels, **changes)).eval()


def logits_of(model) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    if "Image" in type(model).__name__:
        inputs = {"pixel_values": torch.randn(40, 3, 32, 32, generator=generator)}
    else:
        inputs = {"input_ids": torch.randint(3, 50, (40, 6), generator=generator)}
    with torch.no_grad():
        return model(**inputs).logits.numpy()


@pytest.mark.parametrize("positive_label", [0, 1])
@pytest.mark.parametrize("name", HEADS)
def test_the_most_probable_class_is_the_decision_of_the_rule_after_saving_and_loading(tmp_path, name, positive_label):
    model = make(name)
    model.config.positive_label = positive_label
    before = logits_of(model)
    scores = before[:, positive_label] - before[:, 1 - positive_label]
    threshold = float(np.mean(np.sort(scores)[-6:-4]))
    apply_threshold(model, threshold)
    model.save_pretrained(tmp_path)
    auto = AutoModelForImageClassification if "Image" in name else AutoModelForSequenceClassification
    loaded = auto.from_pretrained(tmp_path).eval()
    assert np.array_equal(logits_of(loaded).argmax(1) == positive_label, scores > threshold)
    assert (scores > threshold).sum() == 5
    assert loaded.config.threshold[positive_label] == threshold
    remove_threshold(loaded)
    assert np.allclose(logits_of(loaded), before, atol=1e-6)
    assert not hasattr(loaded.config, "threshold")


def test_a_new_threshold_replaces_the_one_before():
    model = make("BertForSequenceClassification")
    before = logits_of(model)
    apply_threshold(model, 1.5)
    apply_threshold(model, -0.5)
    assert np.allclose(logits_of(model), before - [0, -0.5], atol=1e-6)
    apply_threshold(model, 0)
    assert np.allclose(logits_of(model), before, atol=1e-6)
    assert not hasattr(model.config, "threshold")
    remove_threshold(model)
    assert np.allclose(logits_of(model), before, atol=1e-6)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "single_label_classification"])
def test_several_labels_or_classes_have_one_number_each(problem_type):
    model = make("BertForSequenceClassification", 3, problem_type=problem_type)
    before = logits_of(model)
    apply_threshold(model, (0.5, -1, 2))
    assert np.allclose(logits_of(model), before - [0.5, -1, 2], atol=1e-6)
    apply_threshold(model, 0.0)
    assert np.allclose(logits_of(model), before, atol=1e-6)


def test_an_adapter_saves_the_threshold_with_its_head(tmp_path):
    model = get_peft_model(
        make("BertForSequenceClassification"), LoraConfig("SEQ_CLS", target_modules=["query"])
    ).eval()
    before = logits_of(model)
    apply_threshold(model, 0.3)
    model.save_pretrained(tmp_path)
    loaded = get_peft_model(
        make("BertForSequenceClassification"), LoraConfig("SEQ_CLS", target_modules=["query"])
    ).eval()
    loaded.load_adapter(tmp_path, "saved")
    loaded.set_adapter("saved")
    assert np.allclose(logits_of(loaded), before - [0, 0.3], atol=1e-6)


@pytest.mark.parametrize(
    ("model", "threshold", "sentence"),
    [
        ({}, (1, 2, 3), "threshold must be a finite number, got"),
        ({}, float("nan"), "threshold must be a finite number, got nan"),
        ({}, "high", "threshold must be a finite number, got 'high'"),
        ({"num_labels": 3}, 0.5, "threshold must be 3 finite numbers, one for each label, got 0.5"),
        ({"dtype": torch.bfloat16}, 0.5, "load the model with dtype=torch.float32"),
        ({"name": "GPT2ForSequenceClassification"}, 0.5, "cannot be part of a GPT2ForSequenceClassification"),
    ],
)
def test_what_cannot_carry_a_threshold_is_refused_by_name(model, threshold, sentence):
    if "name" in model:
        config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, num_labels=2)
        made = transformers.GPT2ForSequenceClassification(config)
    else:
        made = make("BertForSequenceClassification", model.get("num_labels", 2)).to(model.get("dtype", torch.float32))
    with pytest.raises(InvalidInputError, match=sentence):
        apply_threshold(made, threshold)
    assert not hasattr(made.config, "threshold")
