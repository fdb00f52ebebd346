"""Free energies of several states from samples of all of them: the multistate Bennett acceptance
ratio (MBAR) of Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008).

Configurations that occur several times, as energies in a histogram, are one with a multiplicity:
then these are the equations of Ferrenberg and Swendsen, Phys. Rev. Lett. 63, 1195 (1989), for
uncorrelated samples and without any binning.
"""

import numpy as np

from sweep import SweepError

#: A Newton step below this, in nats, is the last: its square is below any rounding error.
LAST_STEP = 1e-9
MOST_STEPS = 200

#: By so much of itself the objective may rise in a step: rounding errors.
ROUNDING = 1e-14


def mbar(reduced_potentials: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Free energies f_k = -ln Z_k in nats, less that of the first state: the solution of Eq. (11),

        f_i = -ln sum_n exp[-u_i(x_n)] / sum_k N_k exp[f_k - u_k(x_n)].

    Shapes: `reduced_potentials` u_k(x_n) (num_states, num_samples), the samples of the first
    state first, and so on; `counts` N_k, at least 1, (num_states,) -> (num_states,).

    Raises:
        SweepError: the samples do not determine them.
    """
    origin = np.repeat(np.eye(len(counts)), counts, axis=1)
    start = first_guess(reduced_potentials, origin)
    return solve(reduced_potentials, counts, np.ones(origin.shape[1]), start)


def first_guess(reduced_potentials: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Free energies by thermodynamic integration over neighbouring states, the trapezoidal rule:
    f_{k+1} - f_k = 1/2 (<u_{k+1} - u_k>_k + <u_{k+1} - u_k>_{k+1}).

    Shapes: `reduced_potentials` (num_states, num_configurations); `counts`, how often a state's
    samples are each configuration, the same -> (num_states,).
    """
    share = counts / counts.sum(axis=1, keepdims=True)
    difference = np.diff(reduced_potentials, axis=0)
    steps = 0.5 * (difference * (share[:-1] + share[1:])).sum(axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def solve(
    reduced_potentials: np.ndarray, sizes: np.ndarray, multiplicity: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """The solution of Eq. (11), from a guess, for configurations that occur several times.

    It is the minimum of the convex sum_n c_n ln sum_k N_k exp[f_k - u_k(x_n)] - sum_k N_k f_k,
    whose gradient and Hessian are those of Eqs. (C6) and (C9) up to signs; found by Newton's
    method, with shorter steps where a whole one goes up.

    Shapes: `reduced_potentials` (num_states, num_configurations); `sizes` N_k (num_states,);
    `multiplicity` c_n (num_configurations,), of the same sum -> (num_states,).

    Raises:
        SweepError: the samples do not determine it.
    """
    # What is left to be found is small, so that no digits are lost in large free energies.
    terms = (start + np.log(sizes))[:, None] - reduced_potentials

    def objective(shift: np.ndarray) -> float:
        return multiplicity @ np.logaddexp.reduce(terms + shift[:, None]) - sizes @ shift

    shift, value = np.zeros(len(sizes)), objective(np.zeros(len(sizes)))
    for _ in range(MOST_STEPS):
        step = _newton_step(terms + shift[:, None], sizes, multiplicity)
        trial, limit = objective(shift + step), value + ROUNDING * abs(value)
        while trial > limit and np.abs(step).max() > LAST_STEP:
            step = 0.5 * step
            trial = objective(shift + step)
        shift, value = shift + step, trial
        if np.abs(step).max() <= LAST_STEP:
            free_energy = start + shift
            return free_energy - free_energy[0]
    raise SweepError("free energies of the states do not converge: their samples have no overlap")


def common_samples(
    reduced_potentials: np.ndarray,
    sizes: np.ndarray,
    multiplicity: np.ndarray,
    free_energy: np.ndarray,
) -> np.ndarray:
    """How many samples the states below and above each gap between neighbours have in common.

    With p the probability that a sample is of a state above the gap, given the configuration,
    that is M = sum_n c_n p (1 - p). Both sides as one state each, the variance of their free energy
    difference is 1/M - 1/N_below - 1/N_above (Bennett, J. Comput. Phys. 22, 245 (1976)).

    Shapes: as in `solve` -> (num_states - 1,).
    """
    chances = _state_chances((free_energy + np.log(sizes))[:, None] - reduced_potentials)
    below = np.cumsum(chances, axis=0)[:-1]
    above = np.cumsum(chances[::-1], axis=0)[::-1][1:]
    return (below * above) @ multiplicity


def _newton_step(terms: np.ndarray, sizes: np.ndarray, multiplicity: np.ndarray) -> np.ndarray:
    """Free energies are those up to a constant: the first one stays."""
    chances = _state_chances(terms)
    expected = chances @ multiplicity
    hessian = np.diag(expected) - (chances * multiplicity) @ chances.T
    step = np.linalg.lstsq(hessian[1:, 1:], (sizes - expected)[1:], rcond=None)[0]
    return np.concatenate([[0.0], step])


def _state_chances(terms: np.ndarray) -> np.ndarray:
    """N_k W_kn of Eq. (9): of which state a sample is, given its configuration."""
    return np.exp(terms - np.logaddexp.reduce(terms))
