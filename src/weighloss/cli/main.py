import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

COMMANDS = {
    "sweep": "fine-tune at several weight ratios, draw precision and recall, keep the model that you choose",
    "train": "fine-tune once at one weight ratio",
    "plot": "draw the charts of a finished sweep again",
    "push": "push an output folder of sweep or train to the Hub",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand that the first word names with the words after it; `sys.argv` when None."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        "weighloss",
        description="Weight the classes in the loss of a text classifier, and see how precision and recall move.",
        epilog="`weighloss COMMAND --help` lists the flags of a command; of sweep the main ones, and --help-all all.",
    )
    parser.add_argument("--version", action="version", version=version("weighloss"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    command = parser.parse_args(words[:1]).command
    # Only now, since it imports torch and transformers, which `weighloss --help` does not need.
    import_module(f".{command}", __package__).main(words[1:])
