#!/usr/bin/env python3
"""Writes tests/data/statistics.json: what ArviZ and pyerrors make of chains that Rust can make too.

    python tests/statistics_reference.py    # needs arviz and pyerrors

Chains x_0 = 0, x_{t+1} = phi x_t + u with u uniform from a linear congruential generator of
31 bits, so that both languages have the same numbers to rounding.
"""

import json
from pathlib import Path

import arviz as az
import numpy as np
import pyerrors as pe

CASES = (
    {"name": "mixed", "chains": 4, "draws": 500, "phi": 0.7, "shift": 0.0, "drift": 0.0},
    {"name": "many short", "chains": 32, "draws": 25, "phi": 0.3, "shift": 0.0, "drift": 0.0},
    {"name": "alternating", "chains": 8, "draws": 200, "phi": -0.6, "shift": 0.0, "drift": 0.0},
    {"name": "stuck sector", "chains": 4, "draws": 500, "phi": 0.5, "shift": 3.0, "drift": 0.0},
    {"name": "drifting", "chains": 4, "draws": 500, "phi": 0.5, "shift": 0.0, "drift": 3.0},
    {"name": "single long", "chains": 1, "draws": 8000, "phi": 0.8, "shift": 0.0, "drift": 0.0},
)


def generate(case: dict, seed: int) -> np.ndarray:
    """Shape: (chain, draw). Chain 0 is shifted; every chain drifts by `drift` from start to end."""
    state = seed
    chains = np.zeros((case["chains"], case["draws"]))
    for chain in range(case["chains"]):
        value = 0.0
        for draw in range(case["draws"]):
            state = (1103515245 * state + 12345) % 2**31
            value = case["phi"] * value + state / 2**31 - 0.5
            chains[chain, draw] = value
        chains[chain] += case["drift"] * np.arange(case["draws"]) / case["draws"]
    chains[0] += case["shift"]
    return chains


def gamma_method(chains: np.ndarray) -> dict:
    """Mean, error and tau_int by pyerrors, with the window parameter of Wolff's paper."""
    names = [f"ensemble|r{index}" for index in range(len(chains))]
    observable = pe.Obs(list(chains), names)
    observable.gamma_method(S=1.5)
    tau = observable.e_tauint["ensemble"]
    return {
        "mean": observable.value,
        "error": observable.dvalue,
        "tau_int": tau,
        "tau_int_error": observable.e_dtauint["ensemble"],
    }


def reference(case: dict, seed: int) -> dict:
    chains = generate(case, seed)
    dataset = az.convert_to_dataset(chains[:, :, None])
    number = {
        "r_hat": az.rhat(dataset) if case["chains"] > 1 else None,
        "ess_bulk": az.ess(dataset, method="bulk"),
        "ess_tail": az.ess(dataset, method="tail"),
    }
    found = {
        name: None if value is None else float(value["x"][0]) for name, value in number.items()
    }
    bfmi = float((np.diff(chains, axis=1) ** 2).sum() / (chains.var(axis=1).sum() * case["draws"]))
    return {**case, "seed": seed, **found, "e_bfmi": bfmi, "gamma": gamma_method(chains)}


if __name__ == "__main__":
    versions = {"arviz": az.__version__, "pyerrors": pe.__version__}
    cases = [reference(case, 17 + index) for index, case in enumerate(CASES)]
    path = Path(__file__).parent / "data" / "statistics.json"
    path.write_text(json.dumps({"versions": versions, "cases": cases}, indent=1) + "\n")
