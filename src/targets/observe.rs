//! Observables of the Ising spins from field samples, exact in the spins where that is possible.
//!
//! Given the field the spins are independent with means t_i = tanh x_i, so that products over distinct
//! sites average to products of t: no spin noise. Only <|m|> needs sampled spins.

use ndarray::{Array2, ArrayView1, ArrayView2, Zip, aview1};

use crate::lattice::Lattice;
use crate::random::{Random, Use};

/// A scalar observable of the spins. Estimators, chains, files and documents have them in the order of
/// [`Observable::TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observable {
    Energy,
    MagnetizationSquared,
    MagnetizationFourth,
    MagnetizationAbsolute,
    Magnetization,
    EnergySquared,
    StructureFactorKMin,
}

/// What follows from means of observables, in the order of [`Derived::TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derived {
    SpecificHeat,
    BinderCumulant,
    Susceptibility,
    SusceptibilityConnected,
    CorrelationLength,
}

/// How files and texts name a quantity.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    pub name: &'static str,
    /// As papers write it.
    pub symbol: &'static str,
    /// Unit in the notation of UDUNITS; "1" for numbers.
    pub units: &'static str,
    /// What the quantity is, of one state and as a mean over states.
    pub of_state: &'static str,
    pub of_mean: &'static str,
}

/// A row of a table: name, symbol, units, meaning for one state, meaning as a mean.
const fn row([name, symbol, units, of_state, of_mean]: [&'static str; 5]) -> Naming {
    Naming { name, symbol, units, of_state, of_mean }
}

impl Observable {
    pub const COUNT: usize = Self::TABLE.len();
    /// All of them with their names.
    #[rustfmt::skip]
    pub const TABLE: [(Self, Naming); 7] = [
        (Self::Energy, row(["energy", "energy", "J", "energy per site", "energy per site"])),
        (Self::MagnetizationSquared, row(["magnetization_squared", "m^2", "1", "m^2", "<m^2>, the uniform structure factor / N"])),
        (Self::MagnetizationFourth, row(["magnetization_fourth", "m^4", "1", "m^4", "<m^4>"])),
        (Self::MagnetizationAbsolute, row(["magnetization_absolute", "|m|", "1", "|m| of sampled spins", "<|m|> of sampled spins"])),
        (Self::Magnetization, row(["magnetization", "m", "1", "m, with its sign", "<m> with its sign, 0 by symmetry"])),
        (Self::EnergySquared, row(["energy_squared", "energy^2", "J^2", "square of the energy per site", "<e^2> of the energy per site e"])),
        (Self::StructureFactorKMin, row(["structure_factor_k_min", "S(2 pi/L)", "1", "S(k) at k = 2 pi / L", "S(k) at k = 2 pi / L, mean of both axes"])),
    ];
}

impl Derived {
    pub const COUNT: usize = Self::TABLE.len();
    /// All of them with name, units and meaning.
    #[rustfmt::skip]
    pub const TABLE: [(Self, [&str; 3]); 5] = [
        (Self::SpecificHeat, ["specific_heat", "k_B", "specific heat per site, beta^2 N (<e^2> - <e>^2)"]),
        (Self::BinderCumulant, ["binder_cumulant", "1", "1 - <m^4> / (3 <m^2>^2)"]),
        (Self::Susceptibility, ["susceptibility", "1/J", "beta N <m^2> per site"]),
        (Self::SusceptibilityConnected, ["susceptibility_connected", "1/J", "beta N (<m^2> - <|m|>^2) per site"]),
        (Self::CorrelationLength, ["correlation_length", "lattice sites",
            "second-moment correlation length, sqrt(S(0) / S(2 pi/L) - 1) / (2 sin(pi/L))"]),
    ];
}

/// Spins given the field: s_i = +1 with probability 1/(1 + e^{-2x_i}) = (1 + t_i)/2, else -1. With x from the target they are
/// samples of the Ising model. The first sample has number `first`.
///
/// Shapes: x (batch, N) → (batch, N).
pub fn draw_spins(x: ArrayView2<f64>, random: &Random, first: usize) -> Array2<f64> {
    let mut spins = random.uniforms(Use::Spins, first..first + x.nrows(), x.ncols());
    spins.zip_mut_with(&x, |spin, x| {
        *spin = if *spin < 0.5 * (1.0 + x.tanh()) { 1.0 } else { -1.0 }
    });
    spins
}

/// Energy per site -(1/N) Σ_bonds s_i s_j and magnetization (1/N) Σ s_i of spins.
///
/// Shapes: spins (batch, N) → (batch, 2).
pub fn of_spins(lattice: &Lattice, spins: ArrayView2<f64>) -> Array2<f64> {
    let sites = lattice.sites() as f64;
    let mut values = Array2::zeros((spins.nrows(), 2));
    for (mut values, spins) in values.rows_mut().into_iter().zip(spins.rows()) {
        let spins = spins.to_vec();
        values[0] = energy_moments(lattice.linear_size(), &spins)[0] / sites;
        values[1] = spins.iter().sum::<f64>() / sites;
    }
    values
}

/// Energy per site e = -(1/N) Σ_bonds t_i t_j, m² and m⁴ from the moments of independent spins, |m| of
/// the drawn `spins`, m = (1/N) Σ t_i, e², and S(k) at the smallest wave number 2π/L, averaged over both directions, from
/// the [`structure_factor`] of x.
///
/// Shapes: x, structure_factor and spins (batch, N) → (batch, 7), in the order of [`Observable::TABLE`].
pub fn scalars(
    lattice: &Lattice,
    x: ArrayView2<f64>,
    structure_factor: ArrayView2<f64>,
    spins: ArrayView2<f64>,
) -> Array2<f64> {
    let mut values = Array2::zeros((x.nrows(), Observable::COUNT));
    let mut t = vec![0.0; lattice.sites()];
    Zip::from(values.rows_mut())
        .and(x.rows())
        .and(structure_factor.rows())
        .and(spins.rows())
        .for_each(|mut values, x, structure_factor, spins| {
            t.iter_mut().zip(x).for_each(|(t, x)| *t = x.tanh());
            let size = lattice.linear_size();
            values.assign(&aview1(&scalars_of_one(size, &t, structure_factor, spins)));
        });
    values
}

/// Of one sample, by its means t.
fn scalars_of_one(
    linear_size: usize,
    t: &[f64],
    structure_factor: ArrayView1<f64>,
    spins: ArrayView1<f64>,
) -> [f64; Observable::COUNT] {
    let sites = t.len() as f64;
    let [energy, energy_squared] = energy_moments(linear_size, t);
    let [second, fourth] = magnetization_moments(t);
    [
        energy / sites,
        second,
        fourth,
        spins.sum().abs() / sites,
        t.iter().sum::<f64>() / sites,
        energy_squared / sites.powi(2),
        0.5 * (structure_factor[linear_size] + structure_factor[1]),
    ]
}

/// <E> and <E²> of independent spins with means t, E = -Σ_b B_b over bonds B = s_i s_j: the square of <E>, corrected for
/// pairs of bonds that are the same (B² = 1) or share one site i (s_j s_k remains):
/// <E²> = <E>² + Σ_b (1 - t_i² t_j²) + Σ_i (1 - t_i²) [(Σ_j t_j)² - Σ_j t_j²], j over the neighbours of i.
fn energy_moments(linear_size: usize, t: &[f64]) -> [f64; 2] {
    let (last, line) = (linear_size - 1, |row: usize| &t[row * linear_size..][..linear_size]);
    let (mut energy, mut same, mut sharing) = (0.0, 2.0 * t.len() as f64, 0.0);
    for row in 0..linear_size {
        let own = line(row);
        let above = line(if row == 0 { last } else { row - 1 });
        let below = line(if row == last { 0 } else { row + 1 });
        for (column, &t) in own.iter().enumerate() {
            let (above, below) = (above[column], below[column]);
            let left = own[if column == 0 { last } else { column - 1 }];
            let right = own[if column == last { 0 } else { column + 1 }];
            let square = t * t;
            // The bonds to above and left are this site's, the others those of its neighbours.
            let squares = above * above + left * left;
            let around = above + left + below + right;
            energy -= t * (above + left);
            same -= square * squares;
            sharing += (1.0 - square) * (around * around - squares - below * below - right * right);
        }
    }
    [energy, energy * energy + same + sharing]
}

/// Derived quantities from means of the observables, on N = L² sites at temperature T, in the order of [`Derived::TABLE`]:
/// specific heat per site β² N (<e²> - <e>²), Binder cumulant 1 - <m⁴>/(3 <m²>²), susceptibility per site β N <m²> and
/// its connected form β N (<m²> - <|m|>²), second-moment correlation length
/// √(S(0)/S(2π/L) - 1) / (2 sin(π/L)), 0 where the root is of a negative number.
pub fn derived(means: &[f64], linear_size: usize, temperature: f64) -> [f64; Derived::COUNT] {
    let &[energy, m_2, m_4, m_absolute, _, energy_squared, structure] = means else {
        unreachable!("one mean for each observable")
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
fn magnetization_moments(t: &[f64]) -> [f64; 2] {
    let sites = t.len() as f64;
    let [mut p1, mut p2, mut p3, mut p4] = [0.0; 4];
    for &t in t {
        let square = t * t;
        p1 += t;
        p2 += square;
        p3 += square * t;
        p4 += square * square;
    }
    let [k2, k3, k4] = [sites - p2, 2.0 * (p3 - p1), 8.0 * p2 - 6.0 * p4 - 2.0 * sites];
    let square = p1 * p1;
    let fourth = k4 + 4.0 * k3 * p1 + 3.0 * k2 * k2 + 6.0 * k2 * square + square * square;
    [(k2 + square) / sites.powi(2), fourth / sites.powi(4)]
}

/// Structure factor S(k) = (1/N) Σ_ij <s_i s_j> e^{ik(i-j)} = (|t_k|² + Σ(1-t²))/N; S(0) = N<m²>.
///
/// Shapes: x (batch, N) → (batch, N) over (k_x, k_y).
pub fn structure_factor(lattice: &Lattice, x: ArrayView2<f64>) -> Array2<f64> {
    let t = x.mapv(f64::tanh);
    let mut structure_factor = lattice.power_spectrum(t.view());
    Zip::from(structure_factor.rows_mut()).and(t.rows()).for_each(|mut powers, t| {
        let noise: f64 = t.iter().map(|t| 1.0 - t * t).sum();
        powers.mapv_inplace(|power| (power + noise) / t.len() as f64);
    });
    structure_factor
}

/// Correlation function G(r) = <s_0 s_r>, averaged over the origin: the Fourier transform of S(k).
///
/// Shapes: S(k) (batch, N) → (batch, N) over (r_x, r_y).
pub fn correlation(lattice: &Lattice, structure_factor: ArrayView2<f64>) -> Array2<f64> {
    lattice.inverse_of_even(structure_factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    #[test]
    fn tables_have_each_quantity_in_its_place() {
        for (place, (observable, _)) in Observable::TABLE.into_iter().enumerate() {
            assert_eq!(observable as usize, place);
        }
        for (place, (derived, _)) in Derived::TABLE.into_iter().enumerate() {
            assert_eq!(derived as usize, place);
        }
    }

    fn scalars_of(x: ArrayView2<f64>, seed: u64) -> Array2<f64> {
        let lattice = Lattice::new(x.ncols().isqrt());
        let structure_factor = structure_factor(&lattice, x);
        let spins = draw_spins(x, &Random::new(seed), 0);
        scalars(&lattice, x, structure_factor.view(), spins.view())
    }

    /// Averages over all 2^16 spin configurations of the 4 × 4 lattice, each with its probability given
    /// the field.
    #[test]
    fn improved_estimators_equal_the_sum_over_all_spins_given_the_field() {
        let x = Random::new(3).normals(Use::Latents, 0..1, 16);
        let field = x.row(0);
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
        let found = scalars_of(x.view(), 1);
        let expected = [energy, m2, m4, absolute, magnetization, energy_squared, smallest];
        let row = found.row(0);
        for ((found, expected), (observable, _)) in row.iter().zip(expected).zip(Observable::TABLE)
        {
            let sampled = observable == Observable::MagnetizationAbsolute;
            assert!(
                sampled || (found - expected).abs() < 1e-12,
                "{observable:?}: {found} instead of {expected}"
            );
        }
        // |m| is that of drawn spins: a multiple of 1/8, whose mean over draws is the sum.
        let draws = 10_000;
        let same = x.broadcast((draws, 16)).unwrap();
        let drawn: Array1<f64> = scalars_of(same, 2).column(3).to_owned();
        assert_eq!((&drawn * 8.0).mapv(f64::round), &drawn * 8.0);
        let error = ((m2 - absolute * absolute) / draws as f64).sqrt();
        let deviation = drawn.mean().unwrap() - absolute;
        assert!(deviation.abs() < 4.0 * error, "{deviation} with an error of {error}");
        let lattice = Lattice::new(4);
        let structure = structure_factor(&lattice, x.view());
        assert!((structure[(0, 0)] - 16.0 * m2).abs() < 1e-12);
        let g = correlation(&lattice, structure.view());
        assert!((g[(0, 0)] - 1.0).abs() < 1e-12);
        assert!((g[(0, 1)] - correlation_0_1).abs() < 1e-12);
    }

    #[test]
    fn sampled_spins_give_the_mean_magnetization_of_a_strong_field() {
        let x = Array2::from_elem((10, 64), 20.0);
        assert_eq!(scalars_of(x.view(), 3).column(3).mean(), Some(1.0));
    }
}
