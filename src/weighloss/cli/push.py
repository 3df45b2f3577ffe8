from __future__ import annotations

from collections.abc import Sequence

from ..training.hub import push_folder
from .arguments import PushArguments
from .common import Command


def main(argv: Sequence[str] | None = None) -> None:
    """Run `weighloss push` with these words, or the script with those of `sys.argv`."""
    command = Command("push", argv)
    what = "Push an output folder of sweep or train to the Hub, for the first time or after a push that failed."
    args, where = command.parse(PushArguments, what, positional="folder")
    with command.ends_in_one_sentence():
        push_folder(
            where.folder,
            args.hub_model_id,
            token=args.hub_token,
            private=args.hub_private_repo,
            revision=args.hub_revision,
            push_predictions=args.push_predictions,
        )
        print(f"Pushed to {args.hub_model_id}.")
