from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from ..errors import InvalidInputError, reason
from .arguments import ModelArguments
from .demo_data import DEMO_MODEL


def load_tokenizer(args: ModelArguments) -> Any:
    """The model's tokenizer. Raises InvalidInputError when it cannot be loaded, or has no padding token."""
    tokenizer = _load(AutoTokenizer, args)
    if tokenizer.pad_token is None:
        raise InvalidInputError(
            f"the tokenizer of {args.name} has no padding token, which batches of texts need: give --model_name_or_path an "
            "encoder, or a model whose tokenizer has one."
        )
    return tokenizer


def classifier_init(args: ModelArguments, label_names: Sequence[str]) -> Callable[[], Any]:
    """The Trainer's `model_init`: draws a head for these classes from the current seed, whatever classes the model had.

    It raises InvalidInputError when the model cannot be loaded.
    """
    names = dict(enumerate(label_names))
    labels = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    config = _load(AutoConfig, args, **labels)
    options = {"config": config, "ignore_mismatched_sizes": args.ignore_mismatched_sizes}

    def model_init() -> Any:
        model = _load(AutoModelForSequenceClassification, args, **options)
        if args.model_name_or_path is None:
            model.config.name_or_path = DEMO_MODEL  # not the path of this machine's packages
        return model

    return model_init


def _load(auto_class: Any, args: ModelArguments, **options: Any) -> Any:
    hub = {"revision": args.model_revision, "token": args.token, "trust_remote_code": args.trust_remote_code}
    try:
        return auto_class.from_pretrained(args.name, **hub, **options)
    except Exception as error:  # transformers and the Hub's client raise many kinds of errors
        if "ignore_mismatched_sizes" in str(error):
            raise InvalidInputError(
                f"{args.name} classifies into other than the data's {options['config'].num_labels} classes: write "
                "--ignore_mismatched_sizes True to start with a new head."
            ) from None
        raise InvalidInputError(
            f"{args.name} cannot be loaded ({reason(error)}): check the path or Hub id of --model_name_or_path, the login "
            "and the network."
        ) from None
