//! The target at the temperatures that were asked for.

use std::collections::HashMap;

use crate::engine::fourier;
use crate::targets::Target;
use crate::targets::density::SitePotential;

/// Temperatures whose spectra are kept.
const MOST_KNOWN: usize = 256;

/// The target at the temperatures that were asked for.
#[derive(Debug, Default)]
pub struct Known {
    places: HashMap<u64, usize>,
    /// κ, κ^(-1/2) and κ^(1/2) of each.
    pub spectra: Vec<f64>,
    /// ln|det ∂x/∂y| of the Gaussian layer at each.
    pub log_dets: Vec<f64>,
    /// Whether the processor has them all.
    pub written: bool,
}

impl Known {
    /// Forgets all where there are many: between calls, which have places of their temperatures.
    pub fn make_room(&mut self) {
        if self.places.len() >= MOST_KNOWN {
            *self = Self::default();
        }
    }

    /// Where the spectra at a temperature are.
    pub fn slot(&mut self, target: &Target, temperature: f64) -> usize {
        if let Some(&slot) = self.places.get(&temperature.to_bits()) {
            return slot;
        }
        let density = target.density(temperature);
        let SitePotential::LnCosh = density.site;
        let linear_size = density.lattice.linear_size();
        for power in [1.0, -0.5, 0.5] {
            self.spectra.extend(fourier::multipliers(linear_size, &density.spectrum_to(power)));
        }
        self.log_dets.push(density.layer_log_det());
        let slot = self.places.len();
        self.places.insert(temperature.to_bits(), slot);
        self.written = false;
        slot
    }
}
