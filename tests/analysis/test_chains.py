"""analysis/chains.py: ArviZ finds in the stored chains what the program has found."""

import tempfile
import warnings
from collections import Counter
from pathlib import Path

import h5py
import matplotlib.pyplot  # noqa: F401  its cache of fonts stays the user's
import numpy as np
import pytest

import contract
import sweep

with (
    warnings.catch_warnings(),
    tempfile.TemporaryDirectory() as cache,
    pytest.MonkeyPatch.context() as environment,
):
    # ArviZ announces its own next version, and notes the day in the user's cache, where workers
    # that import it at the same moment take each other's file away.
    warnings.simplefilter("ignore")
    environment.setenv("XDG_CACHE_HOME", cache)
    import arviz as az

    import chains


@pytest.fixture(scope="module")
def tasks(real_sweep) -> list[Path]:
    return sorted((real_sweep.parent / "tasks").glob("*.h5"))


def tied_at_the_tails(values) -> bool:
    """Whether the 5 % or 95 % quantile lies between equal draws, as after a rejection.

    ArviZ's interpolation then misses them by a rounding error, which decides whether they are in
    the tail.
    """
    ordered = np.sort(np.ravel(values))
    below = [int(share * (ordered.size - 1)) for share in (0.05, 0.95)]
    return any(ordered[place] == ordered[place + 1] for place in below)


def test_summary_agrees_with_the_stored_diagnostics_to_one_percent(tasks):
    compared = Counter()
    for path in tasks:
        for sampler in chains.samplers(path):
            summary = az.summary(chains.read_chains(path, sampler), round_to="none")
            with h5py.File(path) as file:
                estimates = file["chains"][sampler]["estimates"]
                for name in contract.OBSERVABLES:
                    for ending, column in (
                        ("", "mean"),
                        ("_r_hat", "r_hat"),
                        ("_ess_bulk", "ess_bulk"),
                        ("_ess_tail", "ess_tail"),
                    ):
                        if column == "ess_tail" and tied_at_the_tails(
                            file["chains"][sampler][name]
                        ):
                            continue
                        stored = estimates[f"{name}{ending}"][()]
                        found = summary.loc[name, column]
                        assert stored == pytest.approx(found, rel=0.01), (path, sampler, name)
                        compared[column] += 1
    assert min(compared[column] for column in ("r_hat", "ess_bulk", "ess_tail")) > 10


def test_sample_statistics_have_the_names_of_arviz(tasks):
    data = chains.read_chains(tasks[0])
    assert {"energy", "diverging", "acceptance_rate"} <= set(data.sample_stats)
    assert data.posterior.attrs["warmup_rule"].startswith("the first ")
    with h5py.File(tasks[0]) as file:
        estimates = file["chains/latent/estimates"]
        assert int(data.sample_stats.diverging.sum()) == estimates["divergences"][()]
        acceptance = float(data.sample_stats.acceptance_rate.mean())
        assert acceptance == pytest.approx(estimates["acceptance"][()])
        # ArviZ gives the ratio of each chain, the file that of all.
        assert az.bfmi(data).mean() == pytest.approx(estimates["e_bfmi"][()], rel=0.1)


def test_all_samplers_of_the_smoke_sweep_are_there(tasks):
    assert chains.samplers(tasks[0]) == sorted(contract.SAMPLERS)


def test_absent_sampler_file_and_format_are_named(tasks, real_sweep, tmp_path):
    with pytest.raises(sweep.SweepError, match=r"no chains of 'nuts'; it has .*latent"):
        chains.read_chains(tasks[0], "nuts")
    with pytest.raises(sweep.SweepError, match="no chains of 'reweighting'"):
        chains.read_chains(tasks[0], "reweighting")
    with pytest.raises(sweep.SweepError, match="no such file"):
        chains.read_chains(tmp_path / "none.h5")
    with pytest.raises(sweep.SweepError, match="not a neuralrg task file"):
        chains.read_chains(real_sweep)
