"""Where curves of two linear sizes cross: estimates of T_c with no exponent in them.

    from crossings import crossing
    crossing(read_spins(sizes[8]), read_spins(sizes[16]), "binder_cumulant")

The Binder cumulant and xi/L are functions of (T/T_c - 1) L^(1/nu) alone, up to corrections that
vanish with L (Binder, Z. Phys. B 43, 119 (1981)).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from jackknife import jackknife_of_all
from multihistogram import SEARCH_POINTS, Multihistogram
from sweep import Curve, SweepError

#: Draws of points from their errors.
DRAWS = 200


class Crossing(NamedTuple):
    """Where the curves of two linear sizes cross, with standard errors."""

    sizes: tuple[int, int]
    temperature: float
    temperature_error: float
    value: float
    value_error: float


def crossing(smaller: Multihistogram, larger: Multihistogram, quantity: str) -> Crossing:
    """The steepest crossing of two curves of a quantity in the temperatures that both cover.

    Both sizes are independent: the jackknife leaves out blocks of one, then of the other.

    Raises:
        SweepError: they do not cross.
    """
    sizes = (smaller.linear_size, larger.linear_size)
    grid = _common_grid(sizes, smaller.temperature, larger.temperature)

    def cross(r_smaller: int, r_larger: int, near: float | None) -> tuple[float, float]:
        def difference(temperature: np.ndarray) -> np.ndarray:
            small = smaller.values(quantity, temperature, r_smaller)
            return small - larger.values(quantity, temperature, r_larger)

        root = _root(difference, grid, near, f"{quantity} of L = {sizes[0]} and {sizes[1]}")
        return root, float(smaller.values(quantity, np.array([root]), r_smaller)[0])

    whole = cross(0, 0, None)
    by_smaller = [cross(r, 0, whole[0]) for r in smaller.replicates]
    by_larger = [cross(0, r, whole[0]) for r in larger.replicates]
    value, error = jackknife_of_all([np.array(by_smaller), np.array(by_larger)])
    return Crossing(sizes, value[0], error[0], value[1], error[1])


def length_crossing(sizes: tuple[int, int], smaller: Curve, larger: Curve) -> Crossing:
    """The crossing of xi/L of two sizes, from cubic splines of ln(xi/L) through the points.

    Its error is the spread over draws of the points from their errors; that of interpolation is
    not in it, and falls with the fourth power of the distance between temperatures.

    Raises:
        SweepError: they do not cross.
    """
    grid = _common_grid(sizes, smaller.temperature, larger.temperature)
    random = np.random.default_rng(0)

    def cross(noise: float, near: float | None) -> tuple[float, float]:
        splines = [
            length_spline(size, curve, noise * random.standard_normal(len(curve.value)))
            for size, curve in zip(sizes, (smaller, larger), strict=True)
        ]

        def difference(temperature: np.ndarray) -> np.ndarray:
            return splines[0](temperature) - splines[1](temperature)

        root = _root(difference, grid, near, f"xi/L of L = {sizes[0]} and {sizes[1]}")
        return root, float(np.exp(splines[0](root)))

    value = cross(0.0, None)
    error = np.std([cross(1.0, value[0]) for _ in range(DRAWS)], axis=0)
    return Crossing(sizes, value[0], error[0], value[1], error[1])


def length_spline(size: int, curve: Curve, deviates: np.ndarray | float = 0.0) -> CubicSpline:
    """ln(xi/L) through the points, or through points that are so many errors off.

    Where noise makes the root in xi imaginary, xi is 0, and there is no point.

    Raises:
        SweepError: fewer than two points are left.
    """
    length = curve.value + deviates * curve.error
    there = length > 0.0
    if there.sum() < 2:
        raise SweepError(f"L = {size}: fewer than two temperatures have a correlation length")
    return CubicSpline(curve.temperature[there], np.log(length[there] / size))


def _common_grid(sizes: tuple[int, int], *temperatures: np.ndarray) -> np.ndarray:
    low = max(temperature.min() for temperature in temperatures)
    high = min(temperature.max() for temperature in temperatures)
    if low >= high:
        raise SweepError(f"L = {sizes[0]} and {sizes[1]} have no temperatures in common")
    return np.linspace(low, high, SEARCH_POINTS)


def _root(
    difference: Callable[[np.ndarray], np.ndarray],
    grid: np.ndarray,
    near: float | None,
    what: str,
) -> float:
    """The steepest root of a difference, or the one nearest to another."""
    values = difference(grid)
    places = np.flatnonzero(np.sign(values[:-1]) != np.sign(values[1:]))
    if not places.size:
        raise SweepError(f"{what} do not cross between T = {grid[0]:g} and {grid[-1]:g}")
    slope = np.abs(np.diff(values))[places]
    merit = slope if near is None else -np.abs(grid[places] - near)
    place = places[np.argmax(merit)]
    return brentq(
        lambda temperature: float(difference(np.array([temperature]))[0]),
        grid[place],
        grid[place + 1],
        xtol=1e-12,
    )
