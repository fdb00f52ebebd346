"""Finite-size scaling: critical temperature and exponents from the collapse of several sizes.

    from scaling import collapse, read_points
    collapse([read_points(tasks) for tasks in sizes.values()], critical_temperature=2.27)

With t = T/T_c - 1 and x = t L^(1/nu) the Binder cumulant is U = f(x), and the susceptibility is
chi = L^(gamma/nu) g(x), up to corrections that vanish with L (Binder, Z. Phys. B 43, 119 (1981)).
Those of them that are analytic in t are fitted, too, to first order: x = (t + b t^2) L^(1/nu), and
chi has a factor exp(c t) (nonlinear scaling fields: Aharony and Fisher, Phys. Rev. B 27, 4394
(1983)). Without them lattices of L = 8 to 32 at distances |t| of some percent give a nu that is off
by a tenth, with many standard errors. The regular background of chi, which does not grow with L, is
fitted as well: U and ln chi each have a term L^-omega, omega = gamma/nu = 7/4 for the Ising model.
Without it the same lattices give a T_c that is low by several standard errors, while chi^2 shows
nothing. Of irrelevant fields, omega = 2, it takes most.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.polynomial.legendre import legvander
from scipy.optimize import least_squares

from jackknife import Chains, jackknife_of_all, leave_out, pool
from sweep import SweepError
from tasks import Task

#: Largest |t| L^(1/nu) of the points that collapse.
WINDOW = 1.0
#: omega of the background's corrections L^-omega, in the Ising model gamma/nu.
CORRECTION = 1.75
#: Degrees of the polynomials for the scaling functions.
DEGREES = range(2, 11)
#: Sizes that a collapse needs: two have a common curve too easily.
LEAST_SIZES = 3


class Points(NamedTuple):
    """What one linear size measured, each temperature for itself, with jackknife replicates.

    Shapes: (num_temperatures,), (1 + num_blocks, num_temperatures).
    """

    linear_size: int
    temperature: np.ndarray
    binder_cumulant: np.ndarray
    susceptibility: np.ndarray

    def targets(self) -> np.ndarray:
        """U and ln chi. Shape: (1 + num_blocks, num_temperatures, 2)."""
        return np.stack([self.binder_cumulant, np.log(self.susceptibility)], axis=-1)


def read_points(tasks: Mapping[float, Sequence[Task]]) -> Points:
    """The points of the tasks of one linear size, from the improved estimators of m^2 and m^4."""
    (size,) = {task.linear_size for same in tasks.values() for task in same}
    return measure_points(
        size, {value: [_moments(task) for task in tasks[value]] for value in tasks}
    )


def _moments(task: Task) -> Chains:
    second, fourth, tau_int = task.read(
        "chains/latent/magnetization_squared",
        "chains/latent/magnetization_fourth",
        "chains/latent/estimates/magnetization_squared_tau_int",
    )
    return Chains(np.stack([second, fourth]), float(tau_int))


def measure_points(linear_size: int, chains: Mapping[float, Sequence[Chains]]) -> Points:
    """Binder cumulant and susceptibility beta N <m^2> per site of chains of m^2 and m^4."""
    samples = pool(chains)
    counts = leave_out(samples.counts())
    second, fourth = (
        leave_out(samples.sums(values, samples.origin)) / counts for values in samples.values
    )
    return Points(
        linear_size,
        samples.temperature,
        1.0 - fourth / (3.0 * second**2),
        linear_size**2 * second / samples.temperature,
    )


class Collapse(NamedTuple):
    """Parameters for which all points lie on two curves. Errors are standard errors."""

    critical_temperature: float
    critical_temperature_error: float
    nu: float
    nu_error: float
    gamma: float
    gamma_error: float
    #: Better known than gamma, whose error is mostly that of nu.
    gamma_by_nu: float
    gamma_by_nu_error: float
    #: b and c, the analytic corrections.
    curvature: float
    slope: float
    #: Amplitudes of L^-omega in U and ln chi, and omega; 0 if they are not fitted.
    backgrounds: tuple[float, float]
    correction: float
    chi_squared: float
    degrees_of_freedom: int
    #: Number of points (L, T), and the degree of the polynomials.
    points: int
    degree: int

    def scaled_temperature(self, linear_size: int, temperature: np.ndarray) -> np.ndarray:
        """x = (t + b t^2) L^(1/nu)."""
        parameters = np.array([self.critical_temperature, 1.0 / self.nu, self.curvature])
        return _scaled(temperature, linear_size, parameters)

    def distance(self, linear_size: int, temperature: np.ndarray) -> np.ndarray:
        """|t| L^(1/nu), by which points are in the window."""
        return _distance(temperature, linear_size, self.critical_temperature, 1.0 / self.nu)

    def scaled_binder_cumulant(self, points: Points) -> np.ndarray:
        """f(x) = U less its background. Shape: as `points.binder_cumulant`."""
        return points.binder_cumulant - self._background(points)[0]

    def scaled_susceptibility(self, points: Points) -> np.ndarray:
        """g(x) = chi exp(-c t) L^(-gamma/nu) without its background. Shape: as that of chi."""
        t = points.temperature / self.critical_temperature - 1.0
        scale = points.linear_size**-self.gamma_by_nu
        corrections = self.slope * t + self._background(points)[1]
        return scale * np.exp(-corrections) * points.susceptibility

    def _background(self, points: Points) -> np.ndarray:
        return np.array(self.backgrounds) * points.linear_size**-self.correction


def collapse(
    points: Sequence[Points],
    critical_temperature: float,
    nu: float = 1.0,
    window: float = WINDOW,
    correction: float = CORRECTION,
) -> Collapse:
    """T_c, nu and gamma for which U and ln chi - (gamma/nu) ln L - c t are polynomials of x.

    Both less a term in L^-omega, omega = `correction`; 0: without.

    Least squares in the points with |t| L^(1/nu) <= `window`; both polynomials have the degree of
    the least Bayesian information criterion chi^2 + p ln n. Coefficients, gamma/nu, c and the
    backgrounds are linear and solved for at each T_c, nu and b (variable projection: Golub and
    Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)). U and chi of one point come from the same chains:
    their covariance is that of the jackknife. Errors are those of a jackknife over the blocks of
    each size; that the degree might have been another is not in them.

    `critical_temperature` and `nu` are where it starts, and what first says which points are in
    the window.

    Raises:
        SweepError: fewer than three sizes, or too few points in the window.
    """
    if len(points) < LEAST_SIZES:
        raise SweepError(f"a collapse needs {LEAST_SIZES} linear sizes; there are {len(points)}")
    options = _Options(window, correction)
    fit = _best_fit(points, np.array([critical_temperature, 1.0 / nu, 0.0]), options)
    # Once more with the points that are in the window by the parameters found.
    fit = _best_fit(points, fit.parameters, options)
    value, error = jackknife_of_all([_replicates(fit, one) for one in points])
    return Collapse(
        *np.stack([value, error], axis=1).ravel(),
        fit.parameters[2],
        fit.slope,
        fit.backgrounds,
        correction,
        fit.chi_squared,
        fit.data.target.size - fit.coefficients,
        len(fit.data.size),
        fit.degree,
    )


class _Options(NamedTuple):
    window: float
    correction: float

    @property
    def extra(self) -> int:
        """Parameters beside the polynomials: T_c, nu, b, c, gamma/nu, and the backgrounds."""
        return 5 + 2 * (self.correction > 0.0)


class _Data(NamedTuple):
    """The points in a window, of all sizes. Shapes: (n,), (n,), (n, 2), (n, 2, 2)."""

    size: np.ndarray
    temperature: np.ndarray
    #: U and ln chi.
    target: np.ndarray
    #: W with W^T W the inverse of their covariance.
    whitening: np.ndarray


class _Fit(NamedTuple):
    data: _Data
    degree: int
    options: _Options
    #: T_c, 1/nu and b.
    parameters: np.ndarray
    backgrounds: tuple[float, float]
    #: c.
    slope: float
    gamma_by_nu: float
    chi_squared: float

    @property
    def coefficients(self) -> int:
        """All that is fitted."""
        return 2 * (self.degree + 1) + self.options.extra

    @property
    def information(self) -> float:
        """The Bayesian information criterion."""
        return self.chi_squared + self.coefficients * np.log(self.data.target.size)

    def results(self) -> list[float]:
        """T_c, nu, gamma, gamma/nu."""
        critical_temperature, inverse_nu, _ = self.parameters
        gamma = self.gamma_by_nu / inverse_nu
        return [critical_temperature, 1.0 / inverse_nu, gamma, self.gamma_by_nu]


def _best_fit(points: Sequence[Points], start: np.ndarray, options: _Options) -> _Fit:
    """The fit of the degree with the least information criterion, in the window of a guess."""
    window = options.window
    data = _gather(points, start, window)
    # At least one degree of freedom.
    most = (data.target.size - options.extra - 1) // 2 - 1
    fits = [_fit(data, degree, options, start) for degree in DEGREES if degree <= most]
    if not fits:
        raise SweepError(
            f"only {len(data.size)} points (L, T) have |t| L^(1/nu) below {window:g}; "
            "widen the window, or add temperatures near T_c"
        )
    return min(fits, key=lambda fit: fit.information)


def _gather(points: Sequence[Points], guess: np.ndarray, window: float) -> _Data:
    parts = []
    for one in points:
        size = np.full(len(one.temperature), one.linear_size)
        here = _distance(one.temperature, size, *guess[:2]) <= window
        whitening = _whitening(one.targets()[:, here])
        parts.append((size[here], one.temperature[here], one.targets()[0, here], whitening))
    return _Data(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _whitening(replicates: np.ndarray) -> np.ndarray:
    """Of the jackknife's covariance of U and ln chi at each temperature.

    Its inverse is too large by (B - 1)/(B - 4), since B blocks tell the covariance roughly (Hartlap
    et al., Astron. Astrophys. 464, 399 (2007), Eq. (17)).

    Shapes: (1 + B, n, 2) -> (n, 2, 2).
    """
    blocks = len(replicates) - 1
    if blocks <= 4:
        raise SweepError(f"{blocks} blocks of chains are too few for covariances; run more chains")
    deviation = replicates[1:] - replicates[1:].mean(axis=0)
    covariance = (blocks - 1) / blocks * np.einsum("bni,bnj->nij", deviation, deviation)
    factor = (blocks - 4) / (blocks - 1)
    return np.sqrt(factor) * np.linalg.inv(np.linalg.cholesky(covariance))


def _fit(data: _Data, degree: int, options: _Options, start: np.ndarray) -> _Fit:
    def residual(parameters: np.ndarray) -> np.ndarray:
        return _project(data, degree, options, parameters)[0]

    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    parameters = least_squares(residual, start, method="lm", **tight).x
    left, linear = _project(data, degree, options, parameters)
    backgrounds = (linear[0], linear[1])
    return _Fit(data, degree, options, parameters, backgrounds, *linear[2:], float(left @ left))


def _project(
    data: _Data, degree: int, options: _Options, parameters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the best linear parameters leave over, in standard errors; the last four of them.

    These are both backgrounds, c and gamma/nu.
    """
    x = _scaled(data.temperature, data.size, parameters)
    powers = legvander(x / options.window, degree)
    # With a column of zeros least squares of least norm give the parameter 0.
    fitted = options.correction > 0.0
    background = fitted * data.size[:, None] ** -options.correction
    extra = np.stack([data.temperature / parameters[0] - 1.0, np.log(data.size)], axis=1)
    nothing = np.zeros_like
    rows = [
        np.hstack([powers, nothing(powers), background, nothing(background), nothing(extra)]),
        np.hstack([nothing(powers), powers, nothing(background), background, extra]),
    ]
    design = (data.whitening @ np.stack(rows, axis=1)).reshape(2 * len(x), -1)
    target = np.einsum("nij,nj->ni", data.whitening, data.target).ravel()
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return target - design @ solution, solution[-4:]


def _scaled(temperature: np.ndarray, size: np.ndarray | int, parameters: np.ndarray) -> np.ndarray:
    """x = (t + b t^2) L^(1/nu)."""
    critical_temperature, inverse_nu, curvature = parameters
    t = temperature / critical_temperature - 1.0
    return (t + curvature * t**2) * size**inverse_nu


def _replicates(fit: _Fit, one: Points) -> np.ndarray:
    """The fit, and those without each block of one size. Shape: (1 + num_blocks, 4)."""
    data = fit.data
    own = data.size == one.linear_size
    here = np.isin(one.temperature, data.temperature[own])
    results = []
    for values in one.targets()[:, here]:
        target = data.target.copy()
        target[own] = values
        changed = data._replace(target=target)
        results.append(_fit(changed, fit.degree, fit.options, fit.parameters).results())
    return np.array(results)


def _distance(
    temperature: np.ndarray,
    size: np.ndarray | int,
    critical_temperature: float,
    inverse_nu: float,
) -> np.ndarray:
    """|t| L^(1/nu)."""
    return np.abs(temperature / critical_temperature - 1.0) * size**inverse_nu
