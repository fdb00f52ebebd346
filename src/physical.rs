//! HMC in the space of the fields, the control of Fig. 3(b): no flow, the same trajectories in another potential.

use tch::{Device, Kind, Tensor};

use crate::config::Start;
use crate::engine::Potential;
use crate::flow::preconditioner::{filter, half_plane};
use crate::host::normals;
use crate::ising::{coupling_eigenvalues, ln_cosh};
use crate::random::{Random, Use};

/// The potential -ln π(x) (Eq. 7) at one temperature, of the field x itself or of y = (K+αI)^{-1/2} x.
///
/// Unit masses for y are Fourier acceleration of x (Batrouni et al., Phys. Rev. D 32, 2736 (1985)): the mass matrix
/// (K+αI)⁻¹, diagonal in Fourier space, gives all modes of the quadratic form the same period.
#[derive(Debug)]
pub struct PhysicalPotential {
    /// (L, L/2 + 1): eigenvalues of K+αI for the half plane that a real FFT returns.
    eigenvalues: Tensor,
    /// Their square roots where accelerated, else their reciprocals.
    factors: Tensor,
    accelerated: bool,
}

impl PhysicalPotential {
    /// On the L × L lattice at temperature T.
    pub fn new(
        (size, kind, device): (i64, Kind, Device),
        temperature: f64,
        accelerated: bool,
    ) -> Self {
        let eigenvalues = coupling_eigenvalues(size as usize, 1.0 / temperature);
        let eigenvalues = half_plane(&eigenvalues, kind, device);
        let factors = if accelerated { eigenvalues.sqrt() } else { eigenvalues.reciprocal() };
        Self { eigenvalues, factors, accelerated }
    }

    /// U = ½ xᵀ(K+αI)⁻¹x - Σ ln cosh x_i with its gradient to the position, which is x, or y where accelerated.
    ///
    /// Shapes: position (chains, L, L).
    pub fn at(&self, position: &Tensor) -> Potential {
        let sum = |values: &Tensor| values.sum_dim_intlist([1i64, 2].as_slice(), false, None);
        let (field, quadratic, gradient) = if self.accelerated {
            let field = filter(position, &self.factors);
            let gradient = position - filter(&field.tanh(), &self.factors);
            (field, position.square(), gradient)
        } else {
            let force = filter(position, &self.factors);
            let gradient = &force - position.tanh();
            (position.shallow_clone(), force * position, gradient)
        };
        Potential { energy: sum(&quadratic) * 0.5 - sum(&ln_cosh(&field)), gradient, field }
    }

    /// Positions to start from: the Gaussian of the quadratic form, which is the field of free spins (hot), or that of
    /// spins that all point up (cold), x ~ N((K+αI)s, K+αI).
    ///
    /// Shapes: (chains, L, L).
    pub fn start(&self, chains: i64, start: Start, random: &Random) -> Tensor {
        let size = self.eigenvalues.size()[0];
        let options = (size, self.eigenvalues.kind(), self.eigenvalues.device());
        let root = self.eigenvalues.sqrt();
        let noise = normals(random, Use::Latents, 0..chains as usize, options);
        let spins = match start {
            Start::Hot => noise.zeros_like(),
            Start::Cold => noise.ones_like(),
        };
        let accelerated = noise + filter(&spins, &root);
        if self.accelerated { accelerated } else { filter(&accelerated, &root) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hmc::{State, leapfrog};
    use crate::ising::Target;

    const TEMPERATURE: f64 = 2.269185314213022;
    const OPTIONS: (i64, Kind, Device) = (8, Kind::Double, Device::Cpu);

    fn largest(tensor: &Tensor) -> f64 {
        tensor.abs().max().double_value(&[])
    }

    #[test]
    fn both_potentials_and_gradients_are_those_of_the_target_by_autograd() {
        tch::manual_seed(1);
        let target = Target::new(8, TEMPERATURE, Kind::Double, Device::Cpu);
        let position = Tensor::randn([5, 8, 8], (Kind::Double, Device::Cpu));
        for accelerated in [false, true] {
            let potential = PhysicalPotential::new(OPTIONS, TEMPERATURE, accelerated);
            let root = potential.eigenvalues.sqrt();
            let expected = Potential::by_autograd(&position, |position| {
                let field = if accelerated { filter(position, &root) } else { position * 1.0 };
                (-target.ln_density(&field), field)
            });
            let found = potential.at(&position);
            assert!(largest(&(found.energy - expected.energy)) < 1e-11);
            assert!(largest(&(found.gradient - expected.gradient)) < 1e-11);
            assert!(largest(&(found.field - expected.field)) < 1e-12);
        }
    }

    /// Leapfrog in y with unit masses is leapfrog in x with the mass matrix (K+αI)⁻¹, written out.
    #[test]
    fn acceleration_is_the_mass_matrix_of_the_inverse_covariance() {
        tch::manual_seed(2);
        let accelerated = PhysicalPotential::new(OPTIONS, TEMPERATURE, true);
        let plain = PhysicalPotential::new(OPTIONS, TEMPERATURE, false);
        let root = accelerated.eigenvalues.sqrt();
        let position = Tensor::randn([3, 8, 8], (Kind::Double, Device::Cpu));
        let momentum = position.randn_like();
        let start = State::new(&|y: &Tensor| accelerated.at(y), &position);
        let (end, _) = leapfrog(&|y: &Tensor| accelerated.at(y), &start, &momentum, 0.1, 7);
        let mut x = filter(&position, &root);
        let mut p = filter(&momentum, &root.reciprocal());
        for _ in 0..7 {
            p -= plain.at(&x).gradient * 0.05;
            x += filter(&p, &accelerated.eigenvalues) * 0.1;
            p -= plain.at(&x).gradient * 0.05;
        }
        assert!(largest(&(end.field - x)) < 1e-11);
    }
}
