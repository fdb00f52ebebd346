"""Task files, opened by the tools that their readers have."""

import hashlib
import json
import warnings

import h5py
import numpy as np
import pytest
import xarray as xr


@pytest.fixture(scope="module")
def task_path(real_sweep):
    return next((real_sweep.parent / "tasks").glob("*.h5"))


def test_every_array_has_named_axes(task_path):
    """xarray warns of, or refuses, axes without a dimension scale."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(task_path, engine="h5netcdf")
    with tree:
        assert tree["train"]["loss"].dims == ("step",)
        assert tree["evaluate"]["samples"].dims == ("sample", "row", "column")
        latent = tree["chains/latent"]
        assert latent["energy"].dims == ("chain", "trajectory")
        assert latent["energy"].attrs["units"] == "J"
        assert not latent.coords, "axes have names and lengths, but no values"
        gap = float(tree["scalars"]["gap"])
    with h5py.File(task_path) as file:
        assert gap == file["scalars/gap"][()]


def test_estimates_of_latent_hmc_are_the_scalars_of_the_task(task_path):
    with h5py.File(task_path) as file:
        estimates = file["chains/latent/estimates"]
        assert len(estimates) > 50
        assert all(estimates[name] == file["scalars"][name] for name in estimates)


def test_user_block_says_what_the_file_is(task_path):
    with h5py.File(task_path) as file:
        block, scalars = file.userblock_size, dict(file["scalars"].items())
        numbers = {name: float(value[()]) for name, value in scalars.items()}
    first, second, third = task_path.read_bytes()[:block].rstrip(b"\0").decode().splitlines()
    head = json.loads(second)
    assert first.startswith("neuralrg sha256 ")
    assert third == "# sha256 " + hashlib.sha256(second.encode()).hexdigest()
    content = task_path.read_bytes()[-head["content_bytes"] :]
    assert first.removeprefix("neuralrg sha256 ") == hashlib.sha256(content).hexdigest()
    assert head["task"] == task_path.stem
    finite = {name: value for name, value in numbers.items() if np.isfinite(value)}
    assert head["numbers"]["scalars"] == finite
