//! Random numbers as a function of a key and a place: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC11, 2011), a counter-based generator.
//!
//! A key belongs to one step of one stage of one task ([`crate::seed`]); the words of the counter are
//!
//! | word | what |
//! |---|---|
//! | 0 | block: numbers 2b and 2b + 1 of a sample, as of a pair of sites, come from block b |
//! | 1, 2 | number of the sample, the lower word first |
//! | 3 | what the numbers are for ([`Use`]) |
//!
//! So a number depends on nothing but its place: not on threads, ranks, or how a batch is split, and whoever needs some of the
//! samples draws only those. All arithmetic is that of single IEEE operations, the same on every machine.

use std::ops::Range;

use multiversion::multiversion;
use ndarray::{Array1, Array2, Axis};

/// What random numbers are for. Each use has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Latents z of samples, and whatever else is normal and there only once: positions where chains start, the noise of
    /// fields around their spins.
    Latents = 0,
    /// Momenta of HMC.
    Momenta = 1,
    /// Whether the trajectory is accepted.
    Acceptance = 2,
    /// Latents that the flow proposes to a chain.
    Proposals = 3,
    /// Whether the proposal is accepted.
    ProposalAcceptance = 4,
    /// Signs of the mixture's samples.
    Signs = 5,
    /// Spins that are drawn given the field.
    Spins = 6,
    /// The order of a permutation.
    Order = 7,
    /// Initial parameters: uniform ones, and normal ones. The sample is the number of the coupling.
    UniformParameters = 8,
    NormalParameters = 9,
    /// Keys of the parts of a step.
    Keys = 10,
    /// Whether replicas exchange their states.
    Exchanges = 11,
    /// Lengths of their trajectories.
    Lengths = 12,
}

/// The random numbers of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Random {
    key: [u32; 2],
}

/// Blocks that are made side by side.
const LANES: usize = 16;

/// One word of so many blocks.
type Words = [u32; LANES];
/// One number of so many blocks.
type Numbers = [f64; LANES];

impl Random {
    /// The numbers of a key of 64 bits.
    pub fn new(key: u64) -> Self {
        Self { key: [key as u32, (key >> 32) as u32] }
    }

    /// The key.
    pub fn key(&self) -> u64 {
        u64::from(self.key[0]) | u64::from(self.key[1]) << 32
    }

    /// The numbers of a part of the step: a key of its own.
    pub fn part(&self, part: usize) -> Self {
        let place = [part as u32, (part as u64 >> 32) as u32, Use::Keys as u32];
        let [first, second, ..] = blocks(0, place, self.key);
        Self { key: [first[0], second[0]] }
    }

    /// Standard normal numbers of some samples, by the transform of Box and Muller. Shapes: (sample, number).
    pub fn normals(&self, of: Use, samples: Range<usize>, count: usize) -> Array2<f64> {
        self.numbers(of, samples, count, fill_normals)
    }

    /// Numbers of some samples, uniform in [0, 1) with 53 bits. Shapes: (sample, number).
    pub fn uniforms(&self, of: Use, samples: Range<usize>, count: usize) -> Array2<f64> {
        self.numbers(of, samples, count, fill_uniforms)
    }

    /// One uniform number of each of some samples. Shapes: (sample).
    pub fn uniform(&self, of: Use, samples: Range<usize>) -> Array1<f64> {
        self.uniforms(of, samples, 1).remove_axis(Axis(1))
    }

    /// A random permutation of 0, 1, …, count - 1, by exchanges with a place from each one on (Fisher and Yates).
    pub fn permutation(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        let numbers = self.uniforms(Use::Order, 0..1, count);
        for (place, number) in numbers.iter().enumerate() {
            order.swap(place, place + (number * (count - place) as f64) as usize);
        }
        order
    }

    fn numbers(
        &self,
        of: Use,
        samples: Range<usize>,
        count: usize,
        fill: fn([u32; 2], [u32; 3], &mut [f64]),
    ) -> Array2<f64> {
        let mut numbers = Array2::zeros((samples.len(), count));
        for (sample, mut row) in samples.zip(numbers.rows_mut()) {
            let place = [sample as u32, (sample as u64 >> 32) as u32, of as u32];
            fill(self.key, place, row.as_slice_mut().expect("rows of a new array are contiguous"));
        }
        numbers
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2", "x86_64+avx2"))]
fn fill_normals(key: [u32; 2], place: [u32; 3], numbers: &mut [f64]) {
    #[allow(
        clippy::redundant_closure,
        reason = "a function that is passed by name is not inlined"
    )]
    fill(key, place, numbers, |u, v| normal_pair(u, v));
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2", "x86_64+avx2"))]
fn fill_uniforms(key: [u32; 2], place: [u32; 3], numbers: &mut [f64]) {
    fill(key, place, numbers, |u, v| [u, v]);
}

/// The numbers of a sample: of each block what `pair` makes of its two uniform ones.
#[inline(always)]
fn fill(key: [u32; 2], place: [u32; 3], numbers: &mut [f64], pair: impl Fn(f64, f64) -> [f64; 2]) {
    for (chunk, numbers) in numbers.chunks_mut(2 * LANES).enumerate() {
        let [u, v] = uniform_pairs(blocks(chunk, place, key));
        let mut pairs = [[0.0; 2]; LANES];
        for (place, (u, v)) in pairs.iter_mut().zip(u.into_iter().zip(v)) {
            *place = pair(u, v);
        }
        numbers.copy_from_slice(&pairs.as_flattened()[..numbers.len()]);
    }
}

/// The next `LANES` blocks of a sample.
#[inline(always)]
fn blocks(chunk: usize, place: [u32; 3], key: [u32; 2]) -> [Words; 4] {
    let block = std::array::from_fn(|lane| (chunk * LANES + lane) as u32);
    let [first, second, third] = place.map(|word| [word; LANES]);
    philox([block, first, second, third], key)
}

/// Multipliers and increments of the key, of Salmon et al.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Philox4x32-10 of counters side by side.
#[inline(always)]
fn philox(mut counters: [Words; 4], mut key: [u32; 2]) -> [Words; 4] {
    for _ in 0..ROUNDS {
        let [a, b, c, d] = counters;
        let [high_a, low_a] = wide_product(MULTIPLIERS[0], a);
        let [high_c, low_c] = wide_product(MULTIPLIERS[1], c);
        counters = [mix(high_c, b, key[0]), low_c, mix(high_a, d, key[1]), low_a];
        key = [key[0].wrapping_add(INCREMENTS[0]), key[1].wrapping_add(INCREMENTS[1])];
    }
    counters
}

/// The higher and the lower words of the products.
#[inline(always)]
fn wide_product(multiplier: u32, words: Words) -> [Words; 2] {
    let products = words.map(|word| u64::from(multiplier) * u64::from(word));
    [products.map(|product| (product >> 32) as u32), products.map(|product| product as u32)]
}

#[inline(always)]
fn mix(a: Words, b: Words, key: u32) -> Words {
    std::array::from_fn(|lane| a[lane] ^ b[lane] ^ key)
}

/// Two numbers in [0, 1) of each block, of 32 and 21 bits of two words each.
#[inline(always)]
fn uniform_pairs(words: [Words; 4]) -> [Numbers; 2] {
    let mut pairs = [[0.0; LANES]; 2];
    for (pair, numbers) in pairs.iter_mut().enumerate() {
        for lane in 0..LANES {
            let (high, low) = (words[2 * pair][lane], words[2 * pair + 1][lane] >> 11);
            numbers[lane] = f64::from(high) * 2f64.powi(-32) + f64::from(low) * 2f64.powi(-53);
        }
    }
    pairs
}

/// √(-2 ln(1 - u)) (cos 2πv, sin 2πv).
#[inline(always)]
fn normal_pair(u: f64, v: f64) -> [f64; 2] {
    let radius = (-2.0 * logarithm(1.0 - u)).sqrt();
    let [cosine, sine] = cosine_sine(v);
    [radius * cosine, radius * sine]
}

/// 2⁵², whose lowest bit counts ones.
const COUNTING: f64 = 4_503_599_627_370_496.0;

/// ln x of 2⁻⁵³ ≤ x ≤ 1.
#[inline(always)]
fn logarithm(x: f64) -> f64 {
    /// √½'s bits: mantissas from there on count to the next power of two.
    const SQRT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    // x = m 2ⁿ with m in [√½, √2), ln m = 2 artanh s = 2 (s + s³/3 + …), s = (m - 1)/(m + 1).
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF).wrapping_add(1024 << 52);
    let exponent = f64::from_bits(COUNTING.to_bits() | shifted >> 52) - (COUNTING + 1024.0);
    let mantissa = f64::from_bits((shifted & ((1 << 52) - 1)).wrapping_add(SQRT_HALF));
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let mut series = 0.0;
    for odd in [23.0, 21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        series = series * square + 1.0 / odd;
    }
    let twice = ratio + ratio;
    exponent * std::f64::consts::LN_2 + (twice + twice * square * series)
}

/// (cos 2πv, sin 2πv) of 0 ≤ v < 1.
#[inline(always)]
fn cosine_sine(v: f64) -> [f64; 2] {
    // 2πv = (q + f) π/2 with a whole q, from 0 to 4, and |f| ≤ ½.
    let turns = 4.0 * v;
    let quarter = (turns + COUNTING) - COUNTING;
    let angle = (turns - quarter) * std::f64::consts::FRAC_PI_2;
    let square = -angle * angle;
    // Taylor's series: terms x^k / k! of alternating sign.
    let (mut cosine, mut sine) = (0.0, 0.0);
    for k in [16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0] {
        cosine = (cosine * square + square) * (1.0 / (k * (k - 1.0)));
        sine = (sine * square + square) * (1.0 / (k * (k + 1.0)));
    }
    let (cosine, sine) = (1.0 + cosine, angle + angle * sine);
    let odd = (quarter == 1.0) | (quarter == 3.0);
    let (along, across) = if odd { (sine, cosine) } else { (cosine, sine) };
    let back = (quarter == 1.0) | (quarter == 2.0);
    let down = (quarter == 2.0) | (quarter == 3.0);
    [if back { -along } else { along }, if down { -across } else { across }]
}

#[cfg(test)]
mod tests {
    use super::*;

    use statrs::distribution::{ContinuousCDF, Normal};

    #[test]
    fn blocks_are_those_of_the_published_known_answers() {
        // kat_vectors of Random123, "philox4x32 10".
        let known: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in known {
            let words = philox(counter.map(|word| [word; LANES]), key);
            assert_eq!(words, expected.map(|word| [word; LANES]));
        }
    }

    #[test]
    fn logarithm_cosine_and_sine_are_those_of_the_standard_library() {
        for i in 0..200_000 {
            let x = (f64::from(i) + 0.37) / 200_000.0;
            let small = x.powi(1 + i % 40) * 0.999 + 2f64.powi(-53);
            for x in [x, small] {
                assert!((logarithm(x) - x.ln()).abs() <= 1e-15 * x.ln().abs().max(1e-3), "ln {x}");
            }
            let [cosine, sine] = cosine_sine(x);
            let angle = std::f64::consts::TAU * x;
            assert!((cosine - angle.cos()).abs() < 1e-15, "cos 2π {x}");
            assert!((sine - angle.sin()).abs() < 1e-15, "sin 2π {x}");
        }
        assert_eq!(logarithm(1.0), 0.0);
        assert_eq!(cosine_sine(0.0), [1.0, 0.0]);
        assert!(cosine_sine(1.0 - 2f64.powi(-53))[1] <= 0.0);
    }

    #[test]
    fn a_number_depends_on_its_place_only() {
        let random = Random::new(0x0123_4567_89ab_cdef);
        let all = random.normals(Use::Latents, 0..20, 70);
        let some = random.normals(Use::Latents, 7..9, 33);
        assert_eq!(all.slice(ndarray::s![7..9, ..33]), some);
        let uniforms = random.uniforms(Use::Signs, 0..20, 7);
        assert_eq!(uniforms.slice(ndarray::s![3.., ..1]), random.uniforms(Use::Signs, 3..20, 1));
        for other in [
            Random::new(0x0123_4567_89ab_cdee).normals(Use::Latents, 0..20, 70),
            random.normals(Use::Momenta, 0..20, 70),
        ] {
            assert!(all.iter().zip(&other).all(|(a, b)| a != b));
        }
        let beyond = 5 + (1 << 32);
        assert_ne!(
            random.normals(Use::Latents, 5..6, 4),
            random.normals(Use::Latents, beyond..beyond + 1, 4)
        );
    }

    /// Largest distance of the sorted values' distribution function from the given one, times √n: above 2 in 0.07 %.
    fn kolmogorov_smirnov(values: &Array2<f64>, distribution: impl Fn(f64) -> f64) -> f64 {
        let mut values: Vec<f64> = values.iter().copied().collect();
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let distances = values.iter().enumerate().map(|(i, &value)| {
            let expected = distribution(value);
            (expected - i as f64 / count).abs().max((expected - (i + 1) as f64 / count).abs())
        });
        distances.fold(0.0, f64::max) * count.sqrt()
    }

    #[test]
    fn numbers_have_their_distributions_and_are_not_correlated() {
        let random = Random::new(7);
        let (samples, count) = (2000, 256);
        let normal = Normal::new(0.0, 1.0).unwrap();
        let normals = random.normals(Use::Latents, 0..samples, count);
        assert!(kolmogorov_smirnov(&normals, |x| normal.cdf(x)) < 2.0);
        let uniforms = random.uniforms(Use::Spins, 0..samples, count);
        assert!(kolmogorov_smirnov(&uniforms, |x| x) < 2.0);
        assert!(uniforms.iter().all(|number| (0.0..1.0).contains(number)));
        // Products of neighbours in a sample, of the two of a pair, and in neighbouring samples: means of 0 ± 1/√n.
        for shift in [1, 2, count] {
            for center in [|x: f64| x, |x: f64| (x * x - 1.0) / 2f64.sqrt()] {
                let numbers: Vec<f64> = normals.iter().map(|&x| center(x)).collect();
                let products = numbers.iter().zip(&numbers[shift..]).map(|(a, b)| a * b);
                let length = (numbers.len() - shift) as f64;
                let mean = products.sum::<f64>() / length;
                assert!(mean.abs() * length.sqrt() < 4.0, "shift {shift}: {mean}");
            }
        }
    }

    #[test]
    fn permutations_are_uniform() {
        let mut found = [0; 6];
        let draws = 6000;
        for key in 0..draws {
            let order = Random::new(key).permutation(3);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            found[order[0] * 2 + usize::from(order[1] > order[2])] += 1;
        }
        // Multinomial: a χ² of 5 degrees of freedom, above 25.7 in 1e-4.
        let expected = draws as f64 / 6.0;
        let chi_squared: f64 =
            found.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        assert!(chi_squared < 25.7, "{found:?}");
    }
}
