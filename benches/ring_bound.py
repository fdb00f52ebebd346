#!/usr/bin/env python3
"""The least variational gap of polar maps of the ring, Q_1(r) and Q_2(theta), in nats.

docs/canonical.md derives it: with the best frequencies it is ln Z + E[V] - ln(2 pi e)
+ (1/2) ln E[Q_1'^2] + (1/2) ln(E[1/r^2] 3^(3/2)/(2 pi)), the last factor being the least E[Q_2'^2].
What is left is minimized over r(z), a cubic of the normal number z, by Gauss-Hermite quadrature.
"""

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import minimize

RADIUS, VARIANCE, LN_Z = 2.0, 0.16, 2.533672
#: No radius is less: 1/r^2 has no mean over a normal r, but radii below have a chance of 1e-5.
LEAST_RADIUS = 0.15
POINTS = 60


def gap(parameters: np.ndarray) -> float:
    z, weight = hermegauss(POINTS)
    weight = weight / weight.sum()
    mean, ln_deviation, quadratic, cubic = parameters
    deviation = np.exp(ln_deviation)
    radius = mean + deviation * (z + quadratic * (z**2 - 1) + cubic * (z**3 - 3 * z))
    slope = deviation * (1 + 2 * quadratic * z + cubic * (3 * z**2 - 3))
    radius = np.maximum(radius, LEAST_RADIUS)
    energy = weight @ ((radius - RADIUS) ** 2 / (2 * VARIANCE))
    radial = 0.5 * np.log(weight @ slope**-2)
    angular = 0.5 * np.log((weight @ radius**-2) * 3**1.5 / (2 * np.pi))
    return LN_Z + energy - np.log(2 * np.pi * np.e) + radial + angular


if __name__ == "__main__":
    start = np.array([RADIUS, 0.5 * np.log(VARIANCE), 0.0, 0.0])
    options = {"maxiter": 10_000, "xatol": 1e-8, "fatol": 1e-10}
    found = minimize(gap, start, method="Nelder-Mead", options=options)
    print(f"polar maps of the ring: {found.fun:.4f}; of a thin one: {0.75 * np.log(3) - 0.5:.4f}")
