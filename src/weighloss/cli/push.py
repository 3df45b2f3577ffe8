from __future__ import annotations

from collections.abc import Sequence

from transformers import HfArgumentParser

from ..training.hub import push_folder
from .arguments import PushArguments
from .common import Command


def make_parser(prog: str = "weighloss push") -> HfArgumentParser:
    """Parser of the flags."""
    description = "Push an output folder of sweep or train to the Hub, for the first time or after a push that failed."
    parser = HfArgumentParser([PushArguments], prog=prog, description=description, allow_abbrev=False)  # type: ignore[list-item]
    parser.add_argument("folder", help="Output folder with a model, its card and its sweep.")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run `weighloss push` with these words, or the script with those of `sys.argv`."""
    command = Command("push", argv)
    args, what = command.parse(make_parser)
    with command.ends_in_one_sentence():
        push_folder(
            what.folder,
            args.hub_model_id,
            token=args.hub_token,
            private=args.hub_private_repo,
            revision=args.hub_revision,
            push_predictions=args.push_predictions,
        )
        print(f"Pushed to {args.hub_model_id}.")
