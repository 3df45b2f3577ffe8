"""Redraw the charts of a finished sweep from its predictions on disk, with other metrics if asked.

python scripts/plot_precision_recall.py sweep_output
python scripts/plot_precision_recall.py sweep_output --metrics f1 matthews_correlation --output_dir charts
python scripts/plot_precision_recall.py sweep_output --choose "recall>=0.95"
"""

import sys
from dataclasses import dataclass, field

import datasets
from transformers import HfArgumentParser

from weighloss import InvalidInputError, RatioSweep, plot_sweep, report


@dataclass
class PlotArguments:
    """What to draw."""

    metrics: list[str] | None = field(
        default=None, metadata={"help": "More metrics for the chart: evaluate names, or paths of metrics' folders."}
    )
    choose: str | None = field(
        default=None, metadata={"help": "Requirement to answer, such as 'recall>=0.95': see sweep.py --choose."}
    )
    marks: list[str] | None = field(
        default=None, metadata={"help": "Weighting schemes to mark: natural, unweighted, sqrt, effective:0.999."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Where the charts go. Default: the sweep's folder."}
    )


def main() -> None:
    parser = HfArgumentParser(PlotArguments)
    parser.add_argument("sweep_dir", help="Output folder of a sweep, with its sweep.json.")
    args = parser.parse_args()
    try:
        sweep = report.recomputed(RatioSweep.load(args.sweep_dir))
        output_dir = args.output_dir or sweep.folder
        choice = sweep.choose(args.choose) if args.choose else None
        plot_sweep(sweep, output_dir, report.score(sweep, args.metrics or []), args.choose, args.marks or [])
    except InvalidInputError as error:
        sys.exit(f"error: {error}")
    if choice:
        print(choice)
        print(report.worth(sweep, args.choose))
    print(report.table(sweep), f"Charts are in {output_dir}.", sep="\n")


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main()
