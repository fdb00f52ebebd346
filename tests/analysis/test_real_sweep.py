"""The contract of sweep.h5, checked on a file that the program itself wrote."""

import h5py
import numpy as np
import pytest
import xarray as xr

import contract
import sweep

GROUP = contract.lattice_group(4)


@pytest.fixture(scope="module")
def dataset(real_sweep):
    """Opened as the README tells a user to, without this project's reader."""
    with xr.open_dataset(real_sweep, engine="h5netcdf", group=GROUP) as opened:
        yield opened.load()


def test_root_attributes_are_all_there(real_sweep):
    with h5py.File(real_sweep) as file:
        attributes = dict(file.attrs)
        assert int(file[GROUP].attrs["linear_size"]) == 4
    assert set(contract.ATTRIBUTES) <= set(attributes)
    assert "linear_size" not in attributes
    assert attributes["format"] == "neuralrg-sweep"
    assert int(attributes["format_version"]) == sweep.FORMAT_VERSION
    assert "linear_size" in attributes["configuration"]


def test_coordinates_are_named_and_have_their_types(dataset):
    assert set(contract.COORDINATES) <= set(dataset.coords)
    kinds = {name: dataset[name].dtype.kind for name in contract.COORDINATES}
    assert kinds == contract.COORDINATES


@pytest.mark.parametrize("name", contract.VARIABLES)
def test_variable_has_its_dimensions_units_and_name(dataset, name):
    assert name in dataset.data_vars
    assert dataset[name].dims == contract.VARIABLES[name]
    assert {"units", "long_name"} <= set(dataset[name].attrs)


@pytest.mark.parametrize("name", contract.COORDINATES)
def test_coordinate_has_units_and_name(dataset, name):
    assert {"units", "long_name"} <= set(dataset[name].attrs)


@pytest.mark.parametrize("name", contract.VARIABLES)
def test_variable_has_its_number_type(dataset, name):
    expected = {"complete": np.int8, "samples": np.float32}.get(name, np.float64)
    assert dataset[name].dtype == expected


def test_dimension_scales_are_attached(real_sweep):
    with h5py.File(real_sweep) as file:
        for name, dims in contract.VARIABLES.items():
            attached = tuple(axis[0].name for axis in file[GROUP][name].dims)
            assert attached == tuple(f"/{GROUP}/{dim}" for dim in dims), name


def test_every_task_of_the_smoke_sweep_is_finished_and_finite(dataset):
    assert (dataset["complete"] == 1).all()
    for name in ("free_energy", "free_energy_error", "gap", "samples", "energy", "correlation"):
        assert np.isfinite(dataset[name]).all(), name


def test_wave_vectors_and_distances_follow_from_the_lattice(dataset):
    size = int(dataset.attrs["linear_size"])
    for name in ("k_x", "k_y"):
        np.testing.assert_allclose(dataset[name], 2.0 * np.pi * np.arange(size) / size, rtol=1e-12)
    for name in ("r_x", "r_y", "row", "column"):
        np.testing.assert_array_equal(dataset[name], np.arange(size))


def test_the_three_statements_of_the_gap_agree(dataset):
    sites = int(dataset.attrs["linear_size"]) ** 2
    exact = dataset["free_energy_exact"]
    gap = dataset["free_energy"] - exact
    xr.testing.assert_allclose(dataset["gap"].drop_attrs(), gap.drop_attrs(), atol=1e-9)
    for name, unit in (("gap_per_site", sites), ("relative_error", abs(exact))):
        for ending in ("", "_error"):
            stated = dataset[f"{name}{ending}"] * unit
            xr.testing.assert_allclose(stated, dataset[f"gap{ending}"].drop_attrs(), rtol=1e-9)
    yardstick = (dataset["free_energy_gaussian"] - exact) / abs(exact)
    xr.testing.assert_allclose(dataset["relative_error_gaussian"].drop_attrs(), yardstick)


def test_variational_bound_holds_within_errors(dataset):
    assert (dataset["gap"] > -4.0 * dataset["gap_error"]).all()
    assert (dataset["relative_error_gaussian"] > 0.0).all()


def test_fractions_are_fractions(dataset):
    for name in ("effective_sample_size", "largest_weight_share", "acceptance"):
        assert ((dataset[name] >= 0.0) & (dataset[name] <= 1.0)).all(), name


def test_correlation_and_structure_factor_agree_with_each_other(dataset):
    """G(0) = 1, and S(0) / N = <m^2>, whatever the flow."""
    origin = dataset["correlation"].sel(r_x=0, r_y=0)
    np.testing.assert_allclose(origin, 1.0, atol=1e-5)
    uniform = dataset["structure_factor"].sel(k_x=0.0, k_y=0.0)
    sites = int(dataset.attrs["linear_size"]) ** 2
    np.testing.assert_allclose(uniform / sites, dataset["magnetization_squared"], rtol=1e-4)


def test_both_figures_are_drawn(run_figure, real_sweep, tmp_path):
    for name in ("fig_s1", "fig_s2"):
        done = run_figure(f"{name}.py", real_sweep, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / f"{name}.pdf").stat().st_size > 5_000
