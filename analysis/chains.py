"""Chains of a task file as the ecosystem reads them: an ArviZ InferenceData of one sampler.

from chains import read_chains
data = read_chains("DIR/tasks/L8_T2.2_d3_s1.h5", "latent")
arviz.summary(data)
"""

from pathlib import Path

import arviz as az
import h5py

from sweep import SweepError, arrays_of, open_task

#: What is recorded of the sampler itself, not of the spins.
STATISTICS = {
    "ln_weight": "ln_weight",
    "acceptance": "acceptance_rate",
    "energy_error": "energy_error",
    "hamiltonian": "energy",
    "accepted": "accepted",
}

#: Samples of the flow that need their weights: no posterior draws.
REWEIGHTING = "reweighting"


def samplers(path: str | Path) -> list[str]:
    """Names of the samplers whose chains a task file holds.

    Raises:
        SweepError: as `read_chains`.
    """
    with open_task(Path(path)) as file:
        return sorted(name for name in file["chains"] if name != REWEIGHTING)


def read_chains(path: str | Path, sampler: str = "latent") -> az.InferenceData:
    """Observables as posterior, the sampler's own record as sample_stats, in ArviZ's names.

    A trajectory diverges if its energy error is above the configuration's threshold.

    Raises:
        SweepError: the file is missing, is no task file, or has no such sampler.
    """
    path = Path(path)
    with open_task(path) as file:
        if sampler == REWEIGHTING or sampler not in file["chains"]:
            known = ", ".join(name for name in file["chains"] if name != REWEIGHTING)
            raise SweepError(f"{path}: no chains of {sampler!r}; it has {known}")
        group = file["chains"][sampler]
        arrays = arrays_of(group)
        threshold = _divergence_threshold(file)
        attributes = {"verdict": group.attrs["verdict"], "warmup_rule": group.attrs["warmup_rule"]}
    statistics = {STATISTICS[name]: arrays.pop(name) for name in STATISTICS}
    statistics["diverging"] = statistics["energy_error"] > threshold
    return az.from_dict(posterior=arrays, sample_stats=statistics, posterior_attrs=attributes)


def _divergence_threshold(file: h5py.File) -> float:
    import tomllib

    return tomllib.loads(file["configuration"].asstr()[()])["hmc"]["divergence_threshold"]
