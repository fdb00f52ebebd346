//! HMC in the space of the fields, the control of Fig. 3(b): no flow, the same trajectories in another potential.

use ndarray::{Array1, Array2, ArrayView2, Zip};

use crate::engine::Potential;
use crate::random::{Random, Use};
use crate::sampling::config::Start;
use crate::targets::density::Density;

/// The potential -ln π(x) at one temperature, of the field x itself or of y = κ^{1/2} x.
///
/// Unit masses for y are Fourier acceleration of x (Batrouni et al., Phys. Rev. D 32, 2736 (1985)): the mass matrix
/// κ, diagonal in Fourier space, gives all modes of the quadratic form the same period.
#[derive(Debug)]
pub struct PhysicalPotential {
    density: Density,
    /// (N): κ^{-1/2} where accelerated, else κ.
    factors: Vec<f64>,
    accelerated: bool,
}

impl PhysicalPotential {
    /// Of a density.
    pub fn new(density: Density, accelerated: bool) -> Self {
        let factors = density.spectrum_to(if accelerated { -0.5 } else { 1.0 });
        Self { density, factors, accelerated }
    }

    /// U = ½ Σ_k κ_k |x_k|²/N + Σ V(x_i) with its gradient to the position, which is x, or y where accelerated.
    ///
    /// Shapes: position (chains, N).
    pub fn at(&self, position: ArrayView2<f64>) -> Potential {
        let filter = |values: ArrayView2<f64>| self.density.lattice.filter(values, &self.factors);
        if self.accelerated {
            let field = filter(position);
            let (values, slopes) = self.sites(field.view());
            let energy = dot(position, position) * 0.5 + values;
            return Potential { energy, gradient: &position + filter(slopes.view()), field };
        }
        let force = filter(position);
        let (values, slopes) = self.sites(position);
        let energy = dot(force.view(), position) * 0.5 + values;
        Potential { energy, gradient: force + slopes, field: position.to_owned() }
    }

    /// Positions to start from: the Gaussian of the quadratic form, which is the field of free spins (hot), or that of
    /// spins s that all point up (cold), of covariance κ⁻¹ and mean κ⁻¹ s.
    ///
    /// Shapes: (chains, N).
    pub fn start(&self, chains: usize, start: Start, random: &Random) -> Array2<f64> {
        let lattice = &self.density.lattice;
        let noise = random.normals(Use::Latents, 0..chains, lattice.sites());
        let mean = match start {
            Start::Hot => 0.0,
            // Equal spins are the mode of k = 0.
            Start::Cold => self.density.spectrum[0].sqrt().recip(),
        };
        let accelerated = noise + mean;
        if self.accelerated {
            accelerated
        } else {
            lattice.filter(accelerated.view(), &self.density.spectrum_to(-0.5))
        }
    }

    /// Σ V(x_i) of each row, and V'(x_i). Shapes: (chains, N) → (chains), (chains, N).
    fn sites(&self, field: ArrayView2<f64>) -> (Array1<f64>, Array2<f64>) {
        let mut slopes = field.to_owned();
        let sums = slopes.rows_mut().into_iter().map(|mut row| {
            let of_site = |x: &mut f64| {
                let (value, slope) = self.density.site.value_and_slope(*x);
                *x = slope;
                value
            };
            row.iter_mut().map(of_site).sum()
        });
        let sums = sums.collect();
        (sums, slopes)
    }
}

/// aᵀb of each row. Shapes: (chains, N) → (chains).
fn dot(a: ArrayView2<f64>, b: ArrayView2<f64>) -> Array1<f64> {
    Zip::from(a.rows()).and(b.rows()).map_collect(|a, b| a.dot(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::hmc::{State, leapfrog};
    use crate::targets::Target;

    const TEMPERATURE: f64 = 2.269185314213022;
    const SIZE: usize = 8;
    const SITES: usize = SIZE * SIZE;
    /// Of the central differences.
    const STEP: f64 = 1e-4;

    fn density() -> Density {
        Target::ising_dual(SIZE).density(TEMPERATURE)
    }

    #[track_caller]
    fn assert_close<'a>(
        found: impl IntoIterator<Item = &'a f64, IntoIter: ExactSizeIterator>,
        expected: impl IntoIterator<Item = &'a f64, IntoIter: ExactSizeIterator>,
        tolerance: f64,
    ) {
        let (found, expected) = (found.into_iter(), expected.into_iter());
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.zip(expected) {
            assert!((found - expected).abs() < tolerance, "{found} instead of {expected}");
        }
    }

    fn positions(seed: u64, chains: usize) -> Array2<f64> {
        Random::new(seed).normals(Use::Latents, 0..chains, SITES)
    }

    #[test]
    fn both_potentials_are_those_of_the_target_and_gradients_their_differences() {
        let target = density();
        let position = positions(1, 5);
        for accelerated in [false, true] {
            let potential = PhysicalPotential::new(density(), accelerated);
            let root = target.spectrum_to(-0.5);
            let field = |position: &Array2<f64>| match accelerated {
                true => target.lattice.filter(position.view(), &root),
                false => position.clone(),
            };
            let energy = |position: &Array2<f64>| -target.ln_density(field(position).view());
            let found = potential.at(position.view());
            assert_close(&found.energy, &energy(&position), 1e-11);
            assert_close(&found.field, &field(&position), 1e-12);
            for site in 0..SITES {
                let moved = |step: f64| {
                    let mut moved = position.clone();
                    moved.column_mut(site).mapv_inplace(|x| x + step);
                    energy(&moved)
                };
                let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                assert_close(&found.gradient.column(site), &slope, 1e-7);
            }
        }
    }

    /// What differences cannot tell to the last digits: ∂U/∂x = (K+αI)⁻¹x - tanh x, and ∂U/∂y = (K+αI)^{1/2} ∂U/∂x.
    #[test]
    fn gradients_obey_their_identities_to_rounding() {
        let accelerated = PhysicalPotential::new(density(), true);
        let plain = PhysicalPotential::new(density(), false);
        let found = accelerated.at(positions(1, 5).view());
        let Potential { gradient, field, energy } = plain.at(found.field.view());
        assert_close(&found.energy, &energy, 1e-11);
        let by_chain_rule =
            plain.density.lattice.filter(gradient.view(), &plain.density.spectrum_to(-0.5));
        assert_close(&found.gradient, &by_chain_rule, 1e-11);
        let linear = gradient + field.mapv(f64::tanh);
        let same = plain.density.lattice.filter(linear.view(), &plain.density.spectrum_to(-1.0));
        assert_close(&same, &field, 1e-11);
    }

    /// Leapfrog in y with unit masses is leapfrog in x with the mass matrix (K+αI)⁻¹, written out.
    #[test]
    fn acceleration_is_the_mass_matrix_of_the_inverse_covariance() {
        let accelerated = PhysicalPotential::new(density(), true);
        let plain = PhysicalPotential::new(density(), false);
        let filter = |values: &Array2<f64>, factors: &[f64]| {
            plain.density.lattice.filter(values.view(), factors)
        };
        let root = accelerated.density.spectrum_to(-0.5);
        let position = positions(2, 3);
        let momentum = Random::new(2).normals(Use::Momenta, 0..3, SITES);
        let potential = |y: ArrayView2<f64>| accelerated.at(y);
        let start = State::new(&potential, position.view());
        let (end, _) =
            leapfrog(&potential, &start, momentum.view(), Array1::from_elem(3, 0.1).view(), 7);
        let mut x = filter(&position, &root);
        let mut p = filter(&momentum, &accelerated.density.spectrum_to(0.5));
        for _ in 0..7 {
            p -= &(plain.at(x.view()).gradient * 0.05);
            x += &(filter(&p, &accelerated.density.spectrum_to(-1.0)) * 0.1);
            p -= &(plain.at(x.view()).gradient * 0.05);
        }
        assert_close(&end.field, &x, 1e-11);
    }

    /// Cold positions have the mean (K+αI)s of up spins s, and the hot ones' deviations from it.
    #[test]
    fn cold_starts_are_hot_ones_about_the_field_of_up_spins() {
        let eigenvalue = 8.0 / TEMPERATURE + 0.1;
        for (accelerated, mean) in [(false, eigenvalue), (true, eigenvalue.sqrt())] {
            let potential = PhysicalPotential::new(density(), accelerated);
            let [hot, cold] =
                [Start::Hot, Start::Cold].map(|start| potential.start(3, start, &Random::new(4)));
            assert_close(&cold, &(hot + mean), 1e-12);
        }
    }
}
