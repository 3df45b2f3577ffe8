"""Push an output folder of sweep.py or train.py to the Hub, for the first time or after a push that failed.

python scripts/push.py spam_sweep --hub_model_id user/spam
"""

import sys
from dataclasses import dataclass, field

from transformers import HfArgumentParser

from weighloss import InvalidInputError, PushError, push_folder
from weighloss.cli.main import without_tokens


@dataclass
class PushArguments:
    """Where to push to."""

    hub_model_id: str = field(metadata={"help": "Repository on the Hub, user/model; made where it does not exist."})
    hub_token: str | None = field(default=None, metadata={"help": "Default: the token of `hf auth login`."})
    hub_private_repo: bool | None = field(default=None, metadata={"help": "Make the repository private."})
    hub_revision: str | None = field(default=None, metadata={"help": "Branch to push to."})
    push_predictions: bool = field(
        default=False, metadata={"help": "Push the evaluation set's logits and labels too."}
    )


def main() -> None:
    parser = HfArgumentParser(PushArguments)
    parser.add_argument("folder", help="Output folder with model, card and sweep.")
    args, unknown = parser.parse_known_args()
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(without_tokens(unknown))}")
    try:
        push_folder(
            args.folder,
            args.hub_model_id,
            token=args.hub_token,
            private=args.hub_private_repo,
            revision=args.hub_revision,
            push_predictions=args.push_predictions,
        )
    except (InvalidInputError, PushError) as error:
        sys.exit(f"error: {error}")
    print(f"Pushed to {args.hub_model_id}.")


if __name__ == "__main__":
    main()
