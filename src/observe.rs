//! Observables of the Ising spins from field samples, exact in the spins where that is possible.
//!
//! Given the field the spins are independent with means t_i = tanh x_i, so that products over distinct
//! sites average to products of t: no spin noise. Only <|m|> needs sampled spins.

use tch::{Kind, Tensor};

use crate::host::from_array;
use crate::random::{Random, Use};

/// The scalar observables, in the order of the last axis of [`scalars`].
pub const SCALARS: [&str; 7] = [
    "energy",
    "magnetization_squared",
    "magnetization_fourth",
    "magnetization_absolute",
    "magnetization",
    "energy_squared",
    "structure_factor_k_min",
];

/// What follows from their means, in the order of [`derived`].
pub const DERIVED: [&str; 5] = [
    "specific_heat",
    "binder_cumulant",
    "susceptibility",
    "susceptibility_connected",
    "correlation_length",
];

const LATTICE: [i64; 2] = [1, 2];

/// Energy per site e = -(1/N) Σ_bonds t_i t_j, m² and m⁴ from the moments of independent spins, |m| of
/// drawn spins (s_i = +1 with probability 1/(1 + e^{-2x_i})), m = (1/N) Σ t_i, e², and S(k) at the smallest wave number
/// 2π/L, averaged over both directions, from the [`structure_factor`] of x. The first sample has number `first`.
///
/// Shapes: x (batch, L, L), structure_factor (batch, L, L) → (batch, 7), in f64, in the order of [`SCALARS`].
pub fn scalars(x: &Tensor, structure_factor: &Tensor, random: &Random, first: usize) -> Tensor {
    let x = x.to_kind(Kind::Double);
    let sites = (x.size()[1] * x.size()[2]) as f64;
    let t = x.tanh();
    let sum = |values: &Tensor| values.sum_dim_intlist(LATTICE.as_slice(), false, None);

    let neighbours = t.roll([1], [1]) + t.roll([1], [2]);
    let energy = -sum(&(&t * neighbours)) / sites;

    let [second, fourth] = magnetization_moments(&t);
    let samples = first..first + x.size()[0] as usize;
    let numbers = from_array(&random.uniforms(Use::Spins, samples, sites as usize));
    let up = numbers.view_as(&x).to_device(x.device()).lt_tensor(&(&x * 2.0).sigmoid());
    let up = up.to_kind(Kind::Double);
    let absolute = sum(&(up * 2.0 - 1.0)).abs() / sites;
    let along = |k_x: i64, k_y: i64| structure_factor.select(1, k_x).select(1, k_y);
    let smallest = (along(1, 0) + along(0, 1)) * 0.5;
    let energy_squared = energy_squared(&t, &(&energy * sites)) / sites.powi(2);
    let magnetization = sum(&t) / sites;
    Tensor::stack(&[energy, second, fourth, absolute, magnetization, energy_squared, smallest], 1)
}

/// <E²> of independent spins with means t, E = -Σ_b B_b over bonds B = s_i s_j: the square of <E>, corrected for pairs
/// of bonds that are the same (B² = 1) or share one site i (s_j s_k remains):
/// <E²> = <E>² + Σ_b (1 - t_i² t_j²) + Σ_i (1 - t_i²) [(Σ_j t_j)² - Σ_j t_j²], j over the neighbours of i.
fn energy_squared(t: &Tensor, energy: &Tensor) -> Tensor {
    let sum = |values: &Tensor| values.sum_dim_intlist(LATTICE.as_slice(), false, None);
    let ahead = |values: &Tensor| values.roll([1], [1]) + values.roll([1], [2]);
    let around = |values: &Tensor| ahead(values) + values.roll([-1], [1]) + values.roll([-1], [2]);
    let squares = t.square();
    let bonds = 2.0 * (t.size()[1] * t.size()[2]) as f64;
    let same = -sum(&(&squares * ahead(&squares))) + bonds;
    let sharing = sum(&((-&squares + 1.0) * (around(t).square() - around(&squares))));
    energy.square() + same + sharing
}

/// Derived quantities from means of [`SCALARS`], on N = L² sites at temperature T, in the order of [`DERIVED`]:
/// specific heat per site β² N (<e²> - <e>²), Binder cumulant 1 - <m⁴>/(3 <m²>²), susceptibility per site β N <m²> and
/// its connected form β N (<m²> - <|m|>²), second-moment correlation length
/// √(S(0)/S(2π/L) - 1) / (2 sin(π/L)), 0 where the root is of a negative number.
pub fn derived(means: &[f64], linear_size: usize, temperature: f64) -> [f64; 5] {
    let &[energy, m_2, m_4, m_absolute, _, energy_squared, structure] = means else {
        unreachable!("one mean for each of SCALARS")
    };
    let (sites, beta) = ((linear_size * linear_size) as f64, 1.0 / temperature);
    let ratio = sites * m_2 / structure - 1.0;
    [
        beta * beta * sites * (energy_squared - energy * energy),
        1.0 - m_4 / (3.0 * m_2 * m_2),
        beta * sites * m_2,
        beta * sites * (m_2 - m_absolute * m_absolute),
        ratio.max(0.0).sqrt() / (2.0 * (std::f64::consts::PI / linear_size as f64).sin()),
    ]
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
        let (mut energy, mut absolute, mut m2, mut m4) = (0.0, 0.0, 0.0, 0.0);
        let (mut magnetization, mut energy_squared, mut smallest) = (0.0, 0.0, 0.0);
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
            absolute += weight * m.abs();
            m2 += weight * m * m;
            m4 += weight * m.powi(4);
            correlation_0_1 += weight * along_row / 16.0;
            magnetization += weight * m;
            energy_squared += weight * (bonds / 16.0).powi(2);
            // |s_k|² at k = (π/2, 0) and (0, π/2): differences of rows and columns two apart.
            for line in [|i: usize| i / 4, |i: usize| i % 4] {
                let total = |n: usize| (0..16).filter(|&i| line(i) == n).map(spin).sum::<f64>();
                let real = total(0) - total(2);
                let imaginary = total(1) - total(3);
                smallest += weight * (real * real + imaginary * imaginary) / 32.0;
            }
        }
        let found: Vec<f64> =
            Vec::try_from(scalars(&x, &structure_factor(&x), &Random::new(1), 0).view([-1]))
                .unwrap();
        let expected = [energy, m2, m4, absolute, magnetization, energy_squared, smallest];
        for ((found, expected), name) in found.iter().zip(expected).zip(SCALARS) {
            let sampled = name == "magnetization_absolute";
            assert!(
                sampled || (found - expected).abs() < 1e-12,
                "{name}: {found} instead of {expected}"
            );
        }
        // |m| is that of drawn spins: a multiple of 1/8, whose mean over draws is the sum.
        let draws = 10_000;
        let same = x.repeat([draws, 1, 1]);
        let drawn = scalars(&same, &structure_factor(&same), &Random::new(2), 0).select(1, 3);
        assert_eq!((&drawn * 8.0).round(), &drawn * 8.0);
        let error = ((m2 - absolute * absolute) / draws as f64).sqrt();
        let deviation = drawn.mean(Kind::Double).double_value(&[]) - absolute;
        assert!(deviation.abs() < 4.0 * error, "{deviation} with an error of {error}");
        let structure = structure_factor(&x);
        assert!((structure.double_value(&[0, 0, 0]) - 16.0 * m2).abs() < 1e-12);
        let g = correlation(&structure);
        assert!((g.double_value(&[0, 0, 0]) - 1.0).abs() < 1e-12);
        assert!((g.double_value(&[0, 0, 1]) - correlation_0_1).abs() < 1e-12);
    }

    #[test]
    fn sampled_spins_give_the_mean_magnetization_of_a_strong_field() {
        let x = Tensor::full([10, 8, 8], 20.0, (Kind::Float, Device::Cpu));
        let absolute =
            scalars(&x, &structure_factor(&x), &Random::new(3), 0).select(1, 3).mean(Kind::Double);
        assert_eq!(absolute.double_value(&[]), 1.0);
    }
}
