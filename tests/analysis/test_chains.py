"""analysis/chains.py: ArviZ finds in the stored chains what the program has found."""

import warnings
from pathlib import Path

import h5py
import pytest

import contract
import sweep

with warnings.catch_warnings():
    # ArviZ announces its own next version.
    warnings.simplefilter("ignore")
    import arviz as az

    import chains


@pytest.fixture(scope="module")
def tasks(real_sweep) -> list[Path]:
    return sorted((real_sweep.parent / "tasks").glob("*.h5"))


def test_summary_agrees_with_the_stored_diagnostics_to_one_percent(tasks):
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
                        stored = estimates[f"{name}{ending}"][()]
                        found = summary.loc[name, column]
                        assert stored == pytest.approx(found, rel=0.01), (path, sampler, name)


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
