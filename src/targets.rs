//! What flows are trained towards and chains sample, and all that is known of it.

pub mod density;
pub mod dual;
pub mod exact;
pub mod gaussian;
pub mod ising;
pub mod observe;
pub mod surface;
pub mod wolff;

use crate::lattice::Lattice;
use density::Density;
use exact::{ExactIsing, exact_ising};
use gaussian::gaussian_free_energy;

/// A family of densities over temperature on one lattice.
#[derive(Debug, Clone)]
pub struct Target {
    pub lattice: Lattice,
    pub family: Family,
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The continuous dual of the Ising model (Eq. 7).
    IsingDual,
}

impl Target {
    /// The dual of the Ising model on the L × L lattice.
    pub fn ising_dual(linear_size: usize) -> Self {
        Self { lattice: Lattice::new(linear_size), family: Family::IsingDual }
    }

    /// The density at temperature T.
    pub fn density(&self, temperature: f64) -> Density {
        match self.family {
            Family::IsingDual => ising::dual_density(self.lattice.clone(), temperature),
        }
    }

    /// Whether π(x) = π(-x).
    pub fn is_symmetric(&self) -> bool {
        match self.family {
            Family::IsingDual => true,
        }
    }

    /// A temperature at which chains of the field forget soon where they have been, signs and domain walls too, for targets
    /// for which one is known. That of the Ising model is 1.2 T_c, where its correlations reach over three sites.
    pub fn mixing_temperature(&self) -> Option<f64> {
        match self.family {
            Family::IsingDual => Some(1.2 * ising::CRITICAL_TEMPERATURE),
        }
    }

    /// Exact values at temperature T, for targets that have them.
    pub fn exact(&self, temperature: f64) -> Option<ExactIsing> {
        match self.family {
            Family::IsingDual => Some(exact_ising(self.lattice.linear_size(), temperature)),
        }
    }

    /// The free energy (nats) of the best pair of Gaussians at temperature T, for targets for which it is known.
    pub fn gaussian(&self, temperature: f64) -> Option<f64> {
        match self.family {
            Family::IsingDual => {
                Some(gaussian_free_energy(self.lattice.linear_size(), temperature))
            }
        }
    }
}
