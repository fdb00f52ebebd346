#!/usr/bin/env python3
"""Writes tests/data/mutual_information.json: scikit-learn on samples that Rust can make too.

    python tests/mutual_information_reference.py    # needs scikit-learn

x = u and y = rho x + u', with u and u' in turn from a linear congruential generator of 31 bits.
scikit-learn's public function first rescales its arguments and adds noise; what is beneath it,
which cuts negative values off, gets them as they are.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.feature_selection._mutual_info import _compute_mi_cc

CASES = (
    {"samples": 50, "seed": 1, "rho": 2.0, "neighbours": 1},
    {"samples": 200, "seed": 2, "rho": 0.5, "neighbours": 3},
    {"samples": 200, "seed": 3, "rho": 1.0, "neighbours": 3},
    {"samples": 500, "seed": 4, "rho": -1.0, "neighbours": 4},
    {"samples": 1000, "seed": 5, "rho": 0.3, "neighbours": 3},
    {"samples": 1000, "seed": 6, "rho": 20.0, "neighbours": 5},
)


def generate(case: dict) -> np.ndarray:
    """Shape: (2, sample)."""
    state = case["seed"]
    samples = np.empty((case["samples"], 2))
    for place in np.ndindex(samples.shape):
        state = (1103515245 * state + 12345) % 2**31
        samples[place] = state / 2**31 - 0.5
    samples[:, 1] += case["rho"] * samples[:, 0]
    return samples.T


def reference(case: dict) -> dict:
    x, y = generate(case)
    estimate = float(_compute_mi_cc(x, y, case["neighbours"]))
    if estimate <= 0.0:
        raise ValueError(f"scikit-learn cuts off what is negative, so {case} tests nothing")
    return {**case, "mutual_information": estimate}


if __name__ == "__main__":
    path = Path(__file__).parent / "data" / "mutual_information.json"
    path.write_text(json.dumps([reference(case) for case in CASES], indent=1) + "\n")
