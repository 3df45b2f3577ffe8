"""How near does a preview come to the sweep that it stands for, and what does it cost?

Previews the sweeps that benchmarks/article.py has made, with the same ratios and seeds, into their `preview` folders, where
their charts show both:

    python benchmarks/article.py --train_file sms_spam.csv --output_dir article
    python benchmarks/preview.py --train_file sms_spam.csv --output_dir article
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers.utils import logging

from article import SEEDS, data_sets, make_trainer
from weighloss import RatioSweep, RatioSweepCallback, plot_sweep

REQUIREMENTS = ("f1", "recall>=0.9", "precision>=0.9")


def between_seeds(sweep: RatioSweep, name: str) -> float:
    """The mean difference of a figure between two seeds, at the ratios where both have it."""
    legs = {(point.seed, point.ratio): point for point in sweep.points}
    table = np.array([[getattr(legs[seed, ratio], name) for ratio in sweep.ratios] for seed in SEEDS])
    if name == "precision":
        table[[[not legs[seed, ratio].predicts_positives for ratio in sweep.ratios] for seed in SEEDS]] = np.nan
    return float(np.mean([np.nanmean(abs(a - b)) for a, b in itertools.combinations(table, 2)]))


def refined(full: RatioSweep, preview: RatioSweep, requirement: str) -> str:
    """What a requirement chooses among three fine-tunes around the preview's choice, and among all of the sweep's.

    The three are legs of the sweep: a fine-tune at the same ratio and seed is the same, bit for bit.
    """
    three = preview.ratios_around(requirement, 3)
    chosen = [
        replace(full, points=[point for point in full.points if point.ratio in ratios]).choose(requirement).point
        for ratios in (three, full.ratios)
    ]
    figures = [f"{point.precision:.3f} / {point.recall:.3f} at w_r = {point.ratio:.3g}" for point in chosen]
    return f"| {requirement} | {figures[0]} | {figures[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", help="As for article.py.")
    parser.add_argument("--output_dir", type=Path, default=Path("article"), help="That of article.py.")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    for name, file in data_sets(options.train_file).items():
        folder = options.output_dir / name
        full = RatioSweep.load(folder)
        one = RatioSweepCallback(["natural"], output_dir=folder / "one")
        make_trainer(file, folder / "one", one).train()
        callback = RatioSweepCallback(seeds=SEEDS, preview=True, output_dir=folder / "preview")
        trainer = make_trainer(file, folder / "preview", callback)
        started = time.perf_counter()
        trainer.train()
        preview = callback.sweep
        of_others = sum(point.seconds for point in preview.points if point.seed != SEEDS[0])
        seconds = time.perf_counter() - started - of_others
        full_leg = one.sweep.points[0].seconds
        print(f"\n{name}: a preview with one seed {seconds:.0f} s, {seconds / full_leg:.2f} full fine-tunes")
        for figure in ("precision", "recall"):
            apart = np.abs(full.curve(figure)[figure] - preview.curve(figure)[figure])
            print(f"mean difference of {figure}: {apart.mean():.3f} (median {np.median(apart):.3f});", end=" ")
            print(f"of one seed's full sweep to another's: {between_seeds(full, figure):.3f}")
        print("| requirement | preview, then three fine-tunes | all fine-tunes |\n|---|---|---|")
        for requirement in REQUIREMENTS:
            print(refined(full, preview, requirement), flush=True)
        plot_sweep(full, folder)


if __name__ == "__main__":
    main()
