from __future__ import annotations

from collections.abc import Sequence

import datasets
from transformers import HfArgumentParser

from ..reports.html import write_report
from ..reports.plot import plot_sweep
from ..results.other_metrics import score
from ..results.ratio_sweep import RatioSweep
from .arguments import PlotArguments
from .common import Command, check_writable, print_report


def make_parser(prog: str = "weighloss plot") -> HfArgumentParser:
    """Parser of the flags."""
    description = "Draw the charts of a finished sweep again, with other metrics if wanted."
    parser = HfArgumentParser([PlotArguments], prog=prog, description=description, allow_abbrev=False)  # type: ignore[list-item]
    parser.add_argument("sweep_dir", help="Output folder of a sweep, which holds its sweep.json.")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run `weighloss plot` with these words, or the script with those of `sys.argv`."""
    command = Command("plot", argv)
    args, where = command.parse(make_parser)
    datasets.disable_progress_bars()  # evaluate stores predictions in one
    with command.ends_in_one_sentence():
        sweep = RatioSweep.load(where.sweep_dir)
        output_dir = args.output_dir or where.sweep_dir
        check_writable(output_dir)
        print_report(sweep, args.choose)
        scores = score(sweep, args.metrics or [], args.trust_remote_code)
        plot_sweep(sweep, output_dir, scores, args.choose, args.marks or [])
        write_report(sweep, output_dir, args.choose)
        print(f"The charts are in {output_dir}; open its report.html in a browser to move the requirement.")
        if args.choose and sweep.kept_because:
            print(f"The model in {where.sweep_dir} is unchanged ({sweep.kept_because}).")
