//! Observables of the Ising spins from field samples, exact in the spins where that is possible.
//!
//! Given the field the spins are independent with means t_i = tanh x_i, so that products over distinct
//! sites average to products of t: no spin noise. Only <|m|> needs sampled spins.

use tch::{Kind, Tensor};

/// The scalar observables, in the order of the last axis of [`scalars`].
pub const SCALARS: [&str; 4] =
    ["energy", "magnetization_squared", "magnetization_fourth", "magnetization_absolute"];

const LATTICE: [i64; 2] = [1, 2];

/// Energy per site -(1/N) Σ_bonds t_i t_j, m² and m⁴ from the moments of independent spins, and |m| of
/// spins drawn with torch's generator (s_i = +1 with probability 1/(1 + e^{-2x_i})).
///
/// Shapes: x (batch, L, L) → (batch, 4), in f64, in the order of [`SCALARS`].
pub fn scalars(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Double);
    let sites = (x.size()[1] * x.size()[2]) as f64;
    let t = x.tanh();
    let sum = |values: &Tensor| values.sum_dim_intlist(LATTICE.as_slice(), false, None);

    let neighbours = t.roll([1], [1]) + t.roll([1], [2]);
    let energy = -sum(&(&t * neighbours)) / sites;

    let [second, fourth] = magnetization_moments(&t);
    let up = (&x * 2.0).sigmoid().bernoulli();
    let absolute = sum(&(up * 2.0 - 1.0)).abs() / sites;
    Tensor::stack(&[energy, second, fourth, absolute], 1)
}

/// <m²> and <m⁴> of independent spins with means t, through the cumulants of ±1 variables:
/// κ₁ = t, κ₂ = 1-t², κ₃ = -2t+2t³, κ₄ = -2+8t²-6t⁴, which add over sites.
fn magnetization_moments(t: &Tensor) -> [Tensor; 2] {
    let sites = (t.size()[1] * t.size()[2]) as f64;
    let sum = |values: &Tensor| values.sum_dim_intlist(LATTICE.as_slice(), false, None);
    let squares = t.square();
    let (p1, p2, p3, p4) = (sum(t), sum(&squares), sum(&(&squares * t)), sum(&squares.square()));
    let k2 = -&p2 + sites;
    let k3 = (p3 - &p1) * 2.0;
    let k4 = &p2 * 8.0 - p4 * 6.0 - 2.0 * sites;
    let second = &k2 + p1.square();
    let fourth =
        k4 + k3 * &p1 * 4.0 + k2.square() * 3.0 + &k2 * p1.square() * 6.0 + p1.square().square();
    [second / sites.powi(2), fourth / sites.powi(4)]
}

/// Structure factor S(k) = (1/N) Σ_ij <s_i s_j> e^{ik(i-j)} = (|t_k|² + Σ(1-t²))/N; S(0) = N<m²>.
///
/// Shapes: x (batch, L, L) → (batch, L, L) over (k_x, k_y), in f64.
pub fn structure_factor(x: &Tensor) -> Tensor {
    let t = x.to_kind(Kind::Double).tanh();
    let sites = (t.size()[1] * t.size()[2]) as f64;
    let noise = (-t.square() + 1.0).sum_dim_intlist(LATTICE.as_slice(), true, None);
    let modes = t.fft_fft2(None::<&[i64]>, [-2, -1], "backward").view_as_real();
    (modes.square().sum_dim_intlist([-1i64].as_slice(), false, None) + noise) / sites
}

/// Correlation function G(r) = <s_0 s_r>, averaged over the origin: the Fourier transform of S(k).
///
/// Shapes: S(k) (batch, L, L) → (batch, L, L) over (r_x, r_y).
pub fn correlation(structure_factor: &Tensor) -> Tensor {
    structure_factor.fft_ifft2(None::<&[i64]>, [-2, -1], "backward").real()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Averages over all 2^16 spin configurations of the 4 × 4 lattice, each with its probability given
    /// the field.
    #[test]
    fn improved_estimators_equal_the_sum_over_all_spins_given_the_field() {
        tch::manual_seed(3);
        let x = Tensor::randn([1, 4, 4], (Kind::Double, Device::Cpu));
        let field: Vec<f64> = Vec::try_from(x.view([-1])).unwrap();
        let (mut energy, mut m2, mut m4) = (0.0, 0.0, 0.0);
        let mut correlation_0_1 = 0.0;
        for state in 0..1u32 << 16 {
            let spin = |i: usize| if state >> i & 1 == 1 { 1.0 } else { -1.0 };
            let weight: f64 =
                (0..16).map(|i| 1.0 / (1.0 + (-2.0 * spin(i) * field[i]).exp())).product();
            let m: f64 = (0..16).map(spin).sum::<f64>() / 16.0;
            let bonds: f64 = (0..16)
                .map(|i| {
                    let (row, column) = (i / 4, i % 4);
                    spin(i) * (spin(row * 4 + (column + 1) % 4) + spin((row + 1) % 4 * 4 + column))
                })
                .sum();
            let along_row: f64 = (0..16).map(|i| spin(i) * spin(i / 4 * 4 + (i + 1) % 4)).sum();
            energy -= weight * bonds / 16.0;
            m2 += weight * m * m;
            m4 += weight * m.powi(4);
            correlation_0_1 += weight * along_row / 16.0;
        }
        let found: Vec<f64> = Vec::try_from(scalars(&x).view([-1])).unwrap();
        for (found, expected) in found.iter().zip([energy, m2, m4]) {
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
        let structure = structure_factor(&x);
        assert!((structure.double_value(&[0, 0, 0]) - 16.0 * m2).abs() < 1e-12);
        let g = correlation(&structure);
        assert!((g.double_value(&[0, 0, 0]) - 1.0).abs() < 1e-12);
        assert!((g.double_value(&[0, 0, 1]) - correlation_0_1).abs() < 1e-12);
    }

    #[test]
    fn sampled_spins_give_the_mean_magnetization_of_a_strong_field() {
        let x = Tensor::full([10, 8, 8], 20.0, (Kind::Float, Device::Cpu));
        let absolute = scalars(&x).select(1, 3).mean(Kind::Double).double_value(&[]);
        assert_eq!(absolute, 1.0);
    }
}
