"""analysis/sweep.py: opening, refusing, averaging."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import contract
import sweep
from synthetic import SyntheticSweep


def with_seed_values(path: Path, values: list[float], errors: list[float]) -> xr.Dataset:
    """A sweep of one temperature and depth whose gap has these values by seed."""
    made = SyntheticSweep(temperatures=[2.0], depths=[1], seeds=range(len(values)))
    made.variables["gap"][0, 0] = values
    made.variables["gap_error"][0, 0] = errors
    return sweep.read_sweep(made.write(path / "sweep.h5"))


def test_critical_temperature_is_onsagers():
    assert pytest.approx(2.269185314213022, abs=1e-15) == sweep.CRITICAL_TEMPERATURE


def test_reader_gives_named_coordinates_and_every_variable(sweep_path):
    with sweep.read_sweep(sweep_path) as dataset:
        assert set(dataset.coords) == set(contract.COORDINATES)
        assert {name: dataset[name].dims for name in dataset.data_vars} == contract.VARIABLES
        assert dataset["gap"].sel(temperature=2.2, depth=2, seed=1) > 0.0


def test_attributes_stored_as_fixed_length_strings_and_arrays_are_understood(sweep_path):
    with h5py.File(sweep_path, "a") as file:
        file.attrs["format"] = np.bytes_("neuralrg-sweep")
        file.attrs["format_version"] = np.array([4], dtype=np.uint32)
    with sweep.read_sweep(sweep_path) as dataset:
        assert dataset.sizes["depth"] == 3


def test_units_of_seconds_leave_numbers_as_numbers(sweep_path):
    with h5py.File(sweep_path, "a") as file:
        file["L8/wall_seconds"].attrs["units"] = "seconds"
    with sweep.read_sweep(sweep_path) as dataset:
        assert dataset["wall_seconds"].dtype == np.float64


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(sweep.SweepError, match=r"absent\.h5: no such file; `neuralrg collect DIR`"):
        sweep.read_sweep(tmp_path / "absent.h5")


def test_directory_is_refused_with_the_command_to_run(tmp_path):
    with pytest.raises(sweep.SweepError, match=r"is a directory; run `neuralrg collect "):
        sweep.read_sweep(tmp_path)


def test_text_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("temperature,depth\n")
    with pytest.raises(sweep.SweepError, match=r"notes\.txt: not a readable HDF5 file"):
        sweep.read_sweep(tmp_path / "notes.txt")


def test_truncated_file_is_refused(sweep_path):
    sweep_path.write_bytes(sweep_path.read_bytes()[:20_000])
    with pytest.raises(sweep.SweepError, match=r"not a readable HDF5 file .*truncated"):
        sweep.read_sweep(sweep_path)


def test_other_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(sweep.SweepError, match=r'not a neuralrg sweep \(its attribute "format"'):
        sweep.read_sweep(tmp_path / "other.h5")


def test_flipped_bytes_of_a_sealed_file_are_noticed(sweep_path):
    content = sweep_path.read_bytes()
    line = b"neuralrg sha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n"
    sealed = line.ljust(512, b"\0") + content
    sweep_path.write_bytes(sealed)
    with sweep.read_sweep(sweep_path) as dataset:
        assert dataset.sizes["depth"] == 3
    for place in [20, 512, 700, len(sealed) // 2, len(sealed) - 1]:
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        sweep_path.write_bytes(damaged)
        with pytest.raises(sweep.SweepError, match="its checksum does not fit"):
            sweep.read_sweep(sweep_path)
    sweep_path.write_bytes(sealed[:-1])
    with pytest.raises(sweep.SweepError, match="its checksum does not fit"):
        sweep.read_sweep(sweep_path)


def test_newer_format_is_refused(sweep_path):
    with h5py.File(sweep_path, "a") as file:
        file.attrs["format_version"] = 5
    with pytest.raises(sweep.SweepError, match=r"format version 5 is newer than the 4"):
        sweep.read_sweep(sweep_path)


@pytest.mark.parametrize("version", [2, 3])
def test_last_formats_with_one_lattice_at_the_root_are_read(tmp_path, version):
    made = SyntheticSweep(linear_size=16)
    path = tmp_path / "sweep.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(made.attributes | {"format_version": version})
        made.write_lattice(file)
    with sweep.read_sweep(path) as dataset, sweep.read_sweep(path, 16) as chosen:
        assert dataset.identical(chosen)
        assert dataset.attrs["linear_size"] == 16
        assert dataset.attrs["name"] == "synthetic"
        np.testing.assert_array_equal(dataset["gap"], made.variables["gap"])
    assert list(sweep.read_sizes(path)) == [16]
    with pytest.raises(sweep.SweepError, match="has no lattice of L = 8; there are: 16"):
        sweep.read_sweep(path, 8)


def test_dataset_has_the_attributes_of_the_file_and_of_its_lattice(sweep_path):
    with sweep.read_sweep(sweep_path) as dataset:
        assert set(dataset.attrs) == {*contract.ATTRIBUTES, "linear_size"}
        assert dataset.attrs["linear_size"] == 8
        assert sweep.source(dataset) == str(sweep_path)


def test_one_of_several_lattices_must_be_chosen(two_lattices):
    with pytest.raises(
        sweep.SweepError,
        match=r"sweep\.h5: has lattices of L = 8, 16; choose one by `--linear-size N`",
    ):
        sweep.read_sweep(two_lattices)
    with pytest.raises(sweep.SweepError, match="has no lattice of L = 4; there are: 8, 16"):
        sweep.read_sweep(two_lattices, 4)
    for size in (8, 16):
        with sweep.read_sweep(two_lattices, size) as dataset:
            assert dataset.attrs["linear_size"] == dataset.sizes["row"] == size


def test_all_lattices_are_read_in_ascending_order(two_lattices):
    sizes = sweep.read_sizes(two_lattices)
    assert list(sizes) == [8, 16]
    for size, dataset in sizes.items():
        assert dataset.attrs["linear_size"] == dataset.sizes["row"] == size
        assert dataset.attrs["name"] == "synthetic"
    assert list(sweep.read_sizes(two_lattices, 16)) == [16]
    with pytest.raises(sweep.SweepError, match="has no lattice of L = 4; there are: 8, 16"):
        sweep.read_sizes(two_lattices, 4)


def test_lattices_without_finished_task_are_left_out(tmp_path):
    small, large = SyntheticSweep(linear_size=8), SyntheticSweep(linear_size=16)
    large.variables["complete"][:] = 0
    path = small.write(tmp_path / "sweep.h5", large)
    assert list(sweep.read_sizes(path)) == [8]
    with pytest.raises(sweep.SweepError, match="no finished task of L = 16; run"):
        sweep.read_sweep(path, 16)
    small.variables["complete"][:] = 0
    with pytest.raises(sweep.SweepError, match="no finished task in this sweep; run"):
        sweep.read_sizes(small.write(path, large))


def test_names_of_tasks_are_found_by_their_lattice(two_lattices):
    with h5py.File(two_lattices) as file:
        assert sweep.linked_names(file["tasks"], [8, 16]) == ["L8_T2_d1_s0", "L16_T2_d1_s0"]
        assert sweep.linked_names(file["tasks"], [1]) == []


def test_damage_of_a_second_lattice_is_noticed(two_lattices):
    with h5py.File(two_lattices, "a") as file:
        del file["L16/complete"]
    with pytest.raises(sweep.SweepError, match="damaged sweep file: no complete"):
        sweep.read_sizes(two_lattices)


def test_sweep_without_lattices_is_refused(sweep_path):
    with h5py.File(sweep_path, "a") as file:
        del file["L8"]
    with pytest.raises(sweep.SweepError, match="damaged sweep file: no group of a lattice"):
        sweep.read_sweep(sweep_path)


def test_format_version_that_is_no_number_is_refused(sweep_path):
    with h5py.File(sweep_path, "a") as file:
        file.attrs["format_version"] = "one"
    with pytest.raises(sweep.SweepError, match=r'"format_version" is not a number'):
        sweep.read_sweep(sweep_path)


@pytest.mark.parametrize("name", ["complete", "seed"])
def test_sweep_without_its_task_axes_is_refused(sweep_path, name):
    with h5py.File(sweep_path, "a") as file:
        del file["L8"][name]
    with pytest.raises(sweep.SweepError, match=r"(damaged|cannot be read as a) sweep file"):
        sweep.read_sweep(sweep_path)


def test_sweep_without_linear_size_is_refused(sweep_path):
    with h5py.File(sweep_path, "a") as file:
        del file["L8"].attrs["linear_size"]
    with pytest.raises(sweep.SweepError, match='no attribute "linear_size"'):
        sweep.read_sweep(sweep_path)


def test_sweep_without_finished_task_is_refused(tmp_path):
    made = SyntheticSweep()
    made.variables["complete"][:] = 0
    with pytest.raises(sweep.SweepError, match="no finished task"):
        sweep.read_sweep(made.write(tmp_path / "sweep.h5"))


def test_missing_variable_is_named(sweep_path):
    with (
        sweep.read_sweep(sweep_path) as dataset,
        pytest.raises(sweep.SweepError, match=r"sweep\.h5: lacks absent, gone; collect"),
    ):
        sweep.require_variables(dataset, ["gap", "absent", "gone"])


def test_one_seed_keeps_its_value_and_error(tmp_path):
    averaged = sweep.average_over_seeds(with_seed_values(tmp_path, [3.0], [0.2]), "gap")
    assert averaged["value"].dims == ("temperature", "depth")
    assert averaged["value"].item() == 3.0
    assert averaged["error"].item() == 0.2
    assert averaged["seeds"].item() == 1


def test_spread_between_seeds_is_the_error_where_it_is_larger(tmp_path):
    dataset = with_seed_values(tmp_path, [1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    averaged = sweep.average_over_seeds(dataset, "gap")
    assert averaged["value"].item() == pytest.approx(2.0)
    assert averaged["error"].item() == pytest.approx(1.0 / np.sqrt(3.0))


def test_own_errors_are_a_floor_where_seeds_agree_by_chance(tmp_path):
    averaged = sweep.average_over_seeds(with_seed_values(tmp_path, [2.0, 2.0], [0.3, 0.4]), "gap")
    assert averaged["error"].item() == pytest.approx(0.25)


def test_error_of_the_mean_has_the_coverage_of_one_standard_error(tmp_path):
    """Eight seeds with true spread 1 and Monte Carlo noise 1: the mean's error is 0.5."""
    random = np.random.default_rng(1)
    made = SyntheticSweep(temperatures=np.linspace(2.0, 2.7, 400), depths=[1], seeds=range(8))
    shape = made.variables["gap"].shape
    made.variables["gap"] = random.standard_normal(shape) + random.standard_normal(shape)
    made.variables["gap_error"] = np.ones(shape)
    averaged = sweep.average_over_seeds(sweep.read_sweep(made.write(tmp_path / "sweep.h5")), "gap")
    root_mean_square = float(np.sqrt((averaged["error"] ** 2).mean()))
    assert root_mean_square == pytest.approx(0.5, rel=0.1)
    covered = float((abs(averaged["value"]) < averaged["error"]).mean())
    assert 0.6 < covered < 0.76


def test_unfinished_seed_does_not_enter_even_where_it_holds_numbers(tmp_path):
    made = SyntheticSweep(temperatures=[2.0], depths=[1], seeds=[0, 1])
    made.variables["gap"][0, 0] = [5.0, 1000.0]
    made.variables["gap_error"][0, 0] = [0.5, 1000.0]
    made.variables["complete"][0, 0, 1] = 0
    averaged = sweep.average_over_seeds(sweep.read_sweep(made.write(tmp_path / "s.h5")), "gap")
    assert averaged["value"].item() == 5.0
    assert averaged["error"].item() == 0.5
    assert averaged["seeds"].item() == 1


def test_point_without_finished_seed_is_nan(tmp_path):
    made = SyntheticSweep(temperatures=[2.0, 2.5], depths=[1], seeds=[0])
    made.unfinish(1, 0, 0)
    averaged = sweep.average_over_seeds(sweep.read_sweep(made.write(tmp_path / "s.h5")), "gap")
    assert np.isnan(averaged["value"].values[1, 0])
    assert np.isnan(averaged["error"].values[1, 0])
    assert averaged["seeds"].values.tolist() == [[1], [0]]


def test_value_whose_own_error_is_unknown_has_no_error_with_one_seed(tmp_path):
    averaged = sweep.average_over_seeds(with_seed_values(tmp_path, [1.0], [np.nan]), "gap")
    assert averaged["value"].item() == 1.0
    assert np.isnan(averaged["error"].item())


def test_description_tells_what_is_missing(tmp_path):
    made = SyntheticSweep()
    made.unfinish(0, 0, 0)
    with sweep.read_sweep(made.write(tmp_path / "sweep.h5")) as dataset:
        line = sweep.describe_progress(dataset)
    assert line == "2 seeds, 23 of 24 tasks finished"
