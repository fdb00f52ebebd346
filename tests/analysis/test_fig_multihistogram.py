"""analysis/tasks.py, fig_multihistogram.py and fig_scaling.py, on spins by cluster updates."""

import numpy as np
import pytest

import fig_multihistogram
import fig_scaling
import ising
import tasks
from exact import exact_ising
from jackknife import Chains
from multihistogram import read_spins
from scaling import measure_points
from sweep import SweepError
from synthetic_tasks import SyntheticTask, latent, write_sweep

TEMPERATURES = (2.1, 2.2, 2.269185314213022, 2.35, 2.45)


def made_task(random, size, temperature, chains=32, sweeps=60, **attributes):
    """A task whose improved estimators are those of the spins."""
    spins = ising.swendsen_wang(random, size, temperature, chains, sweeps)
    second = spins.magnetization**2
    absolute = np.abs(spins.magnetization)
    points = measure_points(size, {temperature: [Chains(np.stack([second, second**2]), 3.0)]})
    ratio = size**2 * second.mean() / spins.structure_factor_k_min.mean()
    values = {
        "specific_heat": size**2 / temperature**2 * spins.energy.var(),
        "susceptibility_connected": size**2 / temperature * (second.mean() - absolute.mean() ** 2),
        "magnetization_absolute": absolute.mean(),
        "binder_cumulant": points.binder_cumulant[0, 0],
        "correlation_length": np.sqrt(ratio - 1.0) / (2.0 * np.sin(np.pi / size)),
    }
    errors = {f"{name}_error": 0.03 * value for name, value in values.items()}
    arrays = latent(
        spin_energy=spins.energy,
        spin_magnetization=spins.magnetization,
        magnetization_squared=second,
        magnetization_fourth=second**2,
        energy_tau_int=3.0,
        magnetization_squared_tau_int=3.0,
        **values,
        **errors,
    )
    return SyntheticTask(size, temperature, arrays, **attributes)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """Two folders, the second with the largest size, and a task that must not be used."""
    random = np.random.default_rng(1)
    directory = tmp_path_factory.mktemp("sweeps")
    small = [made_task(random, size, value) for size in (4, 8) for value in TEMPERATURES]
    hot = made_task(random, 8, 5.0, chains=2, sweeps=5, verdict="chains disagree")
    large = [made_task(random, 16, value) for value in TEMPERATURES]
    return [
        write_sweep(directory / "small", [*small, hot]),
        write_sweep(directory / "large", large),
    ]


def header(size, temperature, **attributes):
    """A task without chains."""
    return SyntheticTask(size, temperature, {}, **attributes)


def test_sweeps_are_joined_and_the_deepest_good_tasks_chosen(tmp_path):
    first = [
        header(8, 2.0),
        header(8, 2.0, depth=2),
        header(8, 2.0, depth=2, seed=2),
        header(8, 2.0, depth=3, verdict="chains disagree"),
        header(8, 2.2),
        header(16, 2.2),
    ]
    second = [header(8, 2.0, depth=2), header(8, 2.1, seed=3)]
    one, two = write_sweep(tmp_path / "a", first), write_sweep(tmp_path / "b", second)
    joined = tasks.join([one, two])
    assert len(joined) == 7
    assert {task.sweep for task in joined if task.name == "L8_T2_d2_s1"} == {one}
    names = {
        size: [task.name for same in by_temperature.values() for task in same]
        for size, by_temperature in tasks.select(joined).items()
    }
    eight = ["L8_T2_d2_s1", "L8_T2_d2_s2", "L8_T2.1_d1_s3", "L8_T2.2_d1_s1"]
    assert names == {8: eight, 16: ["L16_T2.2_d1_s1"]}
    assert list(tasks.select(joined, depth=1, seeds=[1])[8]) == [2.0, 2.2]
    with pytest.raises(SweepError, match="no finished task of this depth"):
        tasks.select(joined, depth=3)
    with pytest.raises(SweepError, match="the task L8_T2_d1_s1 has no chains/latent/spin_energy"):
        read_spins(tasks.select(joined, depth=1)[8])


def test_values_of_several_tasks_have_the_larger_error(tmp_path):
    made = [
        header(8, 2.0, seed=seed)._replace(arrays=latent(energy=value, energy_error=error))
        for seed, (value, error) in enumerate([(1.0, 0.1), (2.0, 0.1), (3.0, 0.2)])
    ] + [header(8, 2.2)._replace(arrays=latent(energy=4.0, energy_error=0.5))]
    sizes = tasks.select(tasks.join([write_sweep(tmp_path / "a", made)]))
    curve = tasks.measured(sizes[8], "energy")
    np.testing.assert_allclose(curve.temperature, [2.0, 2.2])
    np.testing.assert_allclose(curve.value, [2.0, 4.0])
    np.testing.assert_allclose(curve.error, [1.0 / np.sqrt(3.0), 0.5])


def test_curves_of_spins_are_exact_within_errors(sweeps):
    sizes = tasks.select(tasks.join(sweeps))
    for size, by_temperature in sizes.items():
        spins = read_spins(by_temperature)
        temperature = np.linspace(2.1, 2.45, 30)
        exact = exact_ising(size, temperature)
        for quantity in ("energy", "specific_heat"):
            curve = spins.curve(quantity, temperature)
            deviation = (curve.value - getattr(exact, quantity)) / curve.error
            assert np.abs(deviation).max() < 4.0, (size, quantity)


def test_script_draws_a_curve_of_each_size_and_prints_peaks(sweeps, run_figure, tmp_path):
    done = run_figure("fig_multihistogram.py", *sweeps, "-o", tmp_path / "f")
    assert done.returncode == 0, done.stderr
    assert "left out, since their verdict is not ok: L8_T5_d1_s1" in done.stderr
    _, _, *rows, png, pdf = done.stdout.splitlines()
    assert (png, pdf) == (str(tmp_path / "f.png"), str(tmp_path / "f.pdf"))
    assert [row.split(" | ")[0] for row in rows] == ["| 4", "| 8", "| 16"]
    place, error = map(float, rows[2].split(" | ")[2].split(" ± "))
    grid = np.linspace(2.25, 2.4, 1501)
    assert abs(place - grid[exact_ising(16, grid).specific_heat.argmax()]) < 4.0 * error
    difference, exact = (float(rows[2].split(" | ")[i].split(" ")[0]) for i in (6, 7))
    assert difference == pytest.approx(exact, abs=0.2)


def test_figure_has_curve_band_and_points_in_every_panel(sweeps):
    sizes = fig_multihistogram.read(tasks.select(tasks.join(sweeps)))
    figure = fig_multihistogram.draw_figure(sizes)
    figure.draw_without_rendering()
    for axes, quantity in zip(figure.axes, fig_multihistogram.PANELS, strict=True):
        labels = [line.get_label() for line in axes.lines]
        assert [label for label in labels if label.startswith("$L")] == [
            "$L = 4$",
            "$L = 8$",
            "$L = 16$",
        ]
        assert labels.count("_exact") == (3 if quantity == "specific_heat" else 0)
        assert len(axes.containers) == 3
        np.testing.assert_array_equal(axes.containers[0].lines[0].get_xdata(), TEMPERATURES)


def test_script_prints_crossings_and_the_collapse(sweeps, run_figure, tmp_path):
    done = run_figure("fig_scaling.py", *sweeps, "-o", tmp_path / "f", "--window", 2)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = {tuple(line.strip("| ").split(" | ")[:2]): line for line in lines if " ± " in line}
    assert {name for name, sizes in rows if sizes == "8, 16"} == {
        "T of the Binder crossing",
        "value at the Binder crossing",
        "T of the xi/L crossing",
        "value at the xi/L crossing",
    }
    for name, exact in (("T_c", 2.269185), ("gamma/nu", 1.75)):
        cell = rows[(f"{name} of the collapse", "4, 8, 16")].strip("| ").split(" | ")[2]
        value, error = map(float, cell.split(" ± "))
        # Lattices so small have corrections of some percent.
        assert abs(value - exact) < 4.0 * error + 0.03 * exact
    assert "degrees of freedom: 15 points (L, T)" in lines[-3]
    assert lines[-2:] == [str(tmp_path / "f.png"), str(tmp_path / "f.pdf")]


def test_two_sizes_cross_without_a_collapse(sweeps, run_figure, tmp_path):
    done = run_figure("fig_scaling.py", *sweeps, "--least-size", 8, "-o", tmp_path / "f")
    assert done.returncode == 0, done.stderr
    assert "T of the Binder crossing | 8, 16" in done.stdout
    assert "collapse" not in done.stdout
    done = run_figure("fig_scaling.py", sweeps[1])
    assert (done.returncode, done.stdout) == (1, "")
    assert "scaling needs several linear sizes" in done.stderr


def test_collapsed_points_outside_the_window_are_pale(sweeps):
    sizes = tasks.select(tasks.join(sweeps))
    scaling = fig_scaling.analyse(sizes, 1.0)
    figure = fig_scaling.draw_figure(scaling, 1.0)
    figure.draw_without_rendering()
    _, _, binder, susceptibility = figure.axes
    distance = scaling.collapse.distance(16, np.array(TEMPERATURES))
    x = scaling.collapse.scaled_temperature(16, np.array(TEMPERATURES))
    for axes in (binder, susceptibility):
        fitted, pale = (container.lines[0] for container in axes.containers[-2:])
        np.testing.assert_allclose(fitted.get_xdata(), x[distance <= 1.0])
        np.testing.assert_allclose(pale.get_xdata(), x[distance > 1.0])
        assert 0 < len(pale.get_xdata()) < len(x)
        assert pale.get_alpha() == fig_scaling.PALE
