from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from ..errors import InvalidInputError, reason
from .arguments import ModelArguments
from .demo_data import DEMO_MODEL


def load_tokenizer(args: ModelArguments) -> Any:
    """The model's tokenizer, which must have a padding token."""
    flag = "--tokenizer_name" if args.tokenizer_name else "--model_name_or_path"
    name = args.tokenizer_name or args.name
    tokenizer = _load(AutoTokenizer, name, flag, args)
    if tokenizer.pad_token is None:
        raise InvalidInputError(
            f"the tokenizer of {name} has no padding token, which batches of texts need: give {flag} an encoder, or a "
            "tokenizer that was saved with one."
        )
    return tokenizer


def classifier_init(args: ModelArguments, label_names: Sequence[str]) -> Callable[[], Any]:
    """The Trainer's `model_init`: a sequence classifier of these classes whose head is drawn from the current seed.

    The saved model answers with these names, by id, whatever the loaded one called its classes.
    """
    ids = {name: i for i, name in enumerate(label_names)}
    names = dict(enumerate(label_names))
    flag = "--config_name" if args.config_name else "--model_name_or_path"
    config = _load(AutoConfig, args.config_name or args.name, flag, args, id2label=names, label2id=ids)
    options = {"config": config, "ignore_mismatched_sizes": args.ignore_mismatched_sizes}

    def model_init() -> Any:
        model = _load(AutoModelForSequenceClassification, args.name, "--model_name_or_path", args, **options)
        if args.model_name_or_path is None:
            model.config.name_or_path = DEMO_MODEL  # not the path of this machine's packages
        return model

    return model_init


def _load(auto_class: Any, name: str, flag: str, args: ModelArguments, **options: Any) -> Any:
    if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not Path(name).is_dir():  # a Hub id is user/model
        raise InvalidInputError(f"there is no folder {name}: check the path of {flag}.")
    hub = {"cache_dir": args.cache_dir, "revision": args.model_revision, "token": args.token}
    try:
        return auto_class.from_pretrained(name, **hub, trust_remote_code=args.trust_remote_code, **options)
    except Exception as error:  # transformers and the Hub's client raise many kinds of errors
        if "ignore_mismatched_sizes" in str(error):
            raise InvalidInputError(
                f"{name} classifies into other than the data's {options['config'].num_labels} classes: write "
                "--ignore_mismatched_sizes True to start with a new head."
            ) from None
        raise InvalidInputError(
            f"{name} cannot be loaded ({reason(error)}): check {flag}, the login and the network."
        ) from None
