import pytest
from transformers import AutoTokenizer

from conftest import make_model
from weighloss.cli.arguments import ModelArguments
from weighloss.cli.model import classifier_init, load_tokenizer
from weighloss.errors import InvalidInputError


@pytest.mark.parametrize("name", ["./spam_model", "models/spam/best", "/no/such/folder", "~/spam_model", "../x"])
def test_a_model_path_that_does_not_exist_is_refused_with_its_flag(name):
    for load in (load_tokenizer, lambda args: classifier_init(args, ["ham", "spam"])):
        with pytest.raises(
            InvalidInputError,
            match=rf"{name} cannot be loaded \(.*\): check the path or Hub id of --model_name_or_path",
        ):
            load(ModelArguments(model_name_or_path=name))


def test_a_published_classifier_with_other_classes_starts_with_a_new_head_where_that_is_asked(tmp_path):
    make_model(num_labels=5).save_pretrained(tmp_path)
    args = ModelArguments(model_name_or_path=str(tmp_path))
    with pytest.raises(
        InvalidInputError, match="the data's 2 classes: write --ignore_mismatched_sizes True"
    ) as caught:
        classifier_init(args, ["ham", "spam"])()
    assert "\n" not in str(caught.value)
    model = classifier_init(ModelArguments(args.name, ignore_mismatched_sizes=True), ["ham", "spam"])()
    assert model.config.id2label == {0: "ham", 1: "spam"}
    assert model.classifier.out_features == 2


def test_a_fine_tuned_classifier_takes_the_names_and_the_order_of_the_data(tmp_path):
    model = make_model()
    model.config.id2label, model.config.label2id = {0: "spam", 1: "ham"}, {"spam": 0, "ham": 1}
    model.save_pretrained(tmp_path)
    loaded = classifier_init(ModelArguments(model_name_or_path=str(tmp_path)), ["ham", "spam"])()
    assert loaded.config.id2label == {0: "ham", 1: "spam"}


def test_a_tokenizer_without_padding_is_refused(tmp_path, small_model):
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InvalidInputError, match="has no padding token"):
        load_tokenizer(ModelArguments(model_name_or_path=str(tmp_path)))
