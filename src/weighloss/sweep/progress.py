from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm

from ..results.points import FailedLeg, SweepPoint
from .leg import Leg
from .output import SweepOutput


class Progress:
    """A bar over the legs of a sweep, which says which leg runs and its w_r, and one line for each finished leg."""

    def __init__(self, trainer: Any, output: SweepOutput) -> None:
        self._prints, self._num_legs = trainer.is_world_process_zero(), output.num_legs
        self._number = len(output.sweep.done) - len(output.again)
        hidden = trainer.args.disable_tqdm or not self._prints
        self._bar = tqdm(total=self._num_legs, initial=self._number, unit="leg", disable=hidden, smoothing=0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def start(self, leg: Leg) -> None:
        """Show which leg runs."""
        self._number += 1
        self._bar.set_description(f"leg {self._number} of {self._num_legs}, w_r = {leg.ratio:.4g}")

    def end(self, result: SweepPoint | FailedLeg) -> None:
        """Print the result of the leg in one line."""
        if isinstance(result, SweepPoint):
            text = f"precision {result.precision:.3f}  recall {result.recall:.3f}  F1 {result.f1:.3f}"
            text += f"  {result.seconds:.0f} s"
        else:
            text = f"failed: {result.reason}"
        if self._prints:
            tqdm.write(
                f"leg {self._number:>2} of {self._num_legs}  w_r {result.ratio:<8.4g} seed {result.seed}  {text}"
            )
        self._bar.update()
