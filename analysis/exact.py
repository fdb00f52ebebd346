"""Exact energy and specific heat of the Ising spins on the L x L torus, at any temperature.

The program computes the same (`neuralrg exact`), and a sweep holds it at its own temperatures;
here it is for curves between them.
"""

from typing import NamedTuple

import numpy as np

#: Points on the circle about a coupling over which ln Z is averaged.
CIRCLE_POINTS = 32

#: Radius of that circle in units of 1/L or of the coupling, whichever is less: well inside the
#: zeros of Z next to the real axis, whose distance from it falls as 1/L.
CIRCLE_RADIUS = 0.1


class ExactIsing(NamedTuple):
    """Exact values per site (J, k_B) of the spins. Shapes: (num_temperatures,)."""

    energy: np.ndarray
    specific_heat: np.ndarray


def exact_ising(linear_size: int, temperature: np.ndarray) -> ExactIsing:
    """Energy u = -(1/N) d ln Z/d beta and specific heat c = (beta^2/N) d^2 ln Z/d beta^2.

    Both derivatives come from ln Z on a circle in the complex plane (Cauchy's formula), which
    unlike differences loses no digits: errors are about 1e-10 where c is of order one.
    """
    sites = linear_size**2
    coupling = 1.0 / np.asarray(temperature, dtype=float)[:, None]
    radius = CIRCLE_RADIUS * np.minimum(1.0 / linear_size, coupling)
    direction = np.exp(2j * np.pi * np.arange(CIRCLE_POINTS) / CIRCLE_POINTS)
    ln_z = ln_partition_function(linear_size, coupling + radius * direction)
    slope = (ln_z / (radius * direction)).mean(axis=1).real
    curvature = 2.0 * (ln_z / (radius * direction) ** 2).mean(axis=1).real
    return ExactIsing(-slope / sites, coupling[:, 0] ** 2 * curvature / sites)


def ln_partition_function(linear_size: int, coupling: np.ndarray) -> np.ndarray:
    """ln Z of the spins at complex couplings K = beta (Kaufman, Phys. Rev. 76, 1232 (1949)).

    Z = 1/2 (2 sinh 2K)^(N/2) [P 2cosh(L g_(2r+1)/2) + P 2sinh(L g_(2r+1)/2)
                             + P 2cosh(L g_2r/2) + P 2sinh(L g_2r/2)],  P over r = 0 ... L-1,
    cosh g_l = cosh^2 2K / sinh 2K - cos(pi l/L), but g_0 = 2K + ln tanh K, which is negative above
    T_c and makes the last product negative there. From the arccosh it would be positive, and ln Z
    too high by up to ln 2.
    """
    coupling = np.asarray(coupling, dtype=complex)
    cosine = np.cos(np.pi * np.arange(2 * linear_size) / linear_size)
    ratio = np.cosh(2 * coupling) ** 2 / np.sinh(2 * coupling)
    gamma = np.arccosh(ratio[..., None] - cosine)
    first = 2 * coupling + np.log(np.tanh(coupling))
    # |g_0| throughout; its sign is that of the last product.
    sign = np.where(first.real < 0.0, -1.0, 1.0)
    gamma[..., 0] = sign * first

    ln_odd, cosh_odd, sinh_odd = _products(linear_size, gamma[..., 1::2])
    ln_even, cosh_even, sinh_even = _products(linear_size, gamma[..., 0::2])
    products = cosh_odd + sinh_odd + np.exp(ln_even - ln_odd) * (cosh_even + sign * sinh_even)
    prefactor = 0.5 * linear_size**2 * np.log(2 * np.sinh(2 * coupling)) - np.log(2)
    return prefactor + ln_odd + np.log(products)


def _products(linear_size: int, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln P e^(L g/2), which may be far beyond any number, and both products in units of it.

    2cosh x and 2sinh x are e^x (1 + e^-2x) and e^x (1 - e^-2x).
    """
    decay = np.exp(-linear_size * gamma)
    scale = 0.5 * linear_size * gamma.sum(axis=-1)
    return scale, (1.0 + decay).prod(axis=-1), (1.0 - decay).prod(axis=-1)
