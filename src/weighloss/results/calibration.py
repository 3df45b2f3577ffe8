from __future__ import annotations

import numpy as np


def expected_calibration_error(probabilities: np.ndarray, positives: np.ndarray, num_bins: int = 15) -> float:
    """Mean gap between probability and frequency of the positive label, over bins of equal width.

    Parameters
    ----------
    probabilities : float array (n_items,)
    positives : bool or int array (n_items,)
    num_bins : int, default 15

    References
    ----------
    Naeini, M. P. et al. (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI.
    """
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, probabilities - positives, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(probabilities))
