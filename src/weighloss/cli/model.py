from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from .demo_data import BUILTIN_MODEL, builtin_model
from ..errors import InvalidInputError, reason


@dataclass
class ModelArguments:
    """Which model to fine-tune; the names are those of transformers' run_classification.py."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub id or path of the model. Default: MiniLM-L6 from the weighloss[demo] extra."},
    )
    config_name: str | None = field(
        default=None, metadata={"help": "Hub id or path of the config, if not the model's."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Hub id or path of the tokenizer, if not the model's."}
    )
    cache_dir: str | None = field(default=None, metadata={"help": "Where models and data from the Hub are kept."})
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the model."})
    token: str | None = field(
        default=None, metadata={"help": "Hub token for private repositories. Default: the one of `hf auth login`."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the model repository's own code. Only for code that you have read."}
    )
    ignore_mismatched_sizes: bool = field(
        default=False,
        metadata={"help": "Load a model whose head has another number of classes; the head starts anew."},
    )

    def __post_init__(self) -> None:
        self.token = self.token.strip() if self.token else None

    @property
    def name(self) -> str:
        """Hub id or path of the model; the built-in one's where none is named."""
        return self.model_name_or_path or builtin_model()

    @property
    def hub_options(self) -> dict[str, Any]:
        """What every `from_pretrained` is given."""
        return {
            "cache_dir": self.cache_dir,
            "revision": self.model_revision,
            "token": self.token,
            "trust_remote_code": self.trust_remote_code,
        }


def load_tokenizer(args: ModelArguments) -> Any:
    """The model's tokenizer.

    Raises
    ------
    InvalidInputError
        When it cannot be loaded, or has no padding token.
    """
    name = args.tokenizer_name or args.name
    tokenizer = _load(AutoTokenizer, name, args)
    if tokenizer.pad_token is None:
        raise InvalidInputError(
            f"the tokenizer of {name} has no padding token, which batches of texts need: name an encoder as "
            "--model_name_or_path, or a model and tokenizer that were saved with one."
        )
    return tokenizer


def classifier_init(args: ModelArguments, label_names: Sequence[str]) -> Callable[[], Any]:
    """The Trainer's `model_init`: a sequence classifier of these classes whose head is drawn from the current seed.

    Parameters
    ----------
    args : ModelArguments
    label_names : sequence of str
        Names of the classes, by id; the saved model answers with them.

    Returns
    -------
    callable without arguments that returns the model. What cannot be loaded raises InvalidInputError.
    """
    ids = {name: i for i, name in enumerate(label_names)}
    names = dict(enumerate(label_names))
    config = _load(AutoConfig, args.config_name or args.name, args, id2label=names, label2id=ids)
    options = {"config": config, "ignore_mismatched_sizes": args.ignore_mismatched_sizes}

    def model_init() -> Any:
        model = _load(AutoModelForSequenceClassification, args.name, args, **options)
        if args.model_name_or_path is None:
            model.config._name_or_path = BUILTIN_MODEL  # not the path of this machine's packages
        return model

    return model_init


def _load(auto_class: Any, name: str, args: ModelArguments, **options: Any) -> Any:
    try:
        return auto_class.from_pretrained(name, **args.hub_options, **options)
    except Exception as error:  # transformers and the Hub's client raise much
        raise InvalidInputError(
            f"{name} cannot be loaded ({reason(error)}): check --model_name_or_path, the login and the network."
        ) from None
