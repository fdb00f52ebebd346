//! Arithmetic on lanes: the same number of `LANES` samples side by side, in plain loops over branch-free
//! scalar functions that the compiler turns into vector instructions.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// Samples that are worked on side by side.
pub const LANES: usize = 16;

/// One number of `LANES` samples; aligned so that vector loads never straddle cache lines.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes<T>(pub [T; LANES]);

impl<T: Real> Lanes<T> {
    pub const ZERO: Self = Self([T::ZERO; LANES]);
    pub const ONE: Self = Self([T::ONE; LANES]);

    /// Replaces each number by its function.
    #[inline(always)]
    pub fn apply(&mut self, function: impl Fn(T) -> T) {
        for number in &mut self.0 {
            *number = function(*number);
        }
    }
}

/// The numbers of all lanes in one slice.
#[inline(always)]
pub fn flat<T: Real>(lanes: &[Lanes<T>]) -> &[T] {
    const { assert!(size_of::<Lanes<T>>() == LANES * size_of::<T>()) };
    // SAFETY: `Lanes` is repr(C) around an array of LANES numbers and, as asserted, has no padding.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

/// The numbers of all lanes in one slice.
#[inline(always)]
pub fn flat_mut<T: Real>(lanes: &mut [Lanes<T>]) -> &mut [T] {
    const { assert!(size_of::<Lanes<T>>() == LANES * size_of::<T>()) };
    // SAFETY: as in `flat`; the borrow stays exclusive.
    unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * LANES) }
}

/// f32, with functions accurate to a few units in the last place that vectorize, or f64, with the
/// standard library's.
pub trait Real:
    Copy
    + Send
    + Sync
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    const ZERO: Self;
    const ONE: Self;
    /// Relative error at which an iterative inversion has converged; one more step follows.
    const TOLERANCE: Self;

    fn of(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn absolute(self) -> Self;
    /// self × factor + addend, rounded once.
    fn fused(self, factor: Self, addend: Self) -> Self;
    /// eˣ.
    fn exponential(self) -> Self;
    /// (eˣ, eˣ - 1) of x ≤ 0, both accurate; eˣ is flushed to about 1e-38 below x = -87.
    fn decay(self) -> (Self, Self);
    /// eˣ - 1 of x ≤ 0, in fewer operations.
    fn decayed(self) -> Self;
    /// tanh x.
    fn hyperbolic_tangent(self) -> Self;
    /// ln x.
    fn logarithm(self) -> Self;
    /// ln(1 + x) of 0 ≤ x ≤ 1.
    fn logarithm_1p(self) -> Self;

    /// sum += factor × numbers in all lanes, in AVX-512's own instructions. From plain loops LLVM 22 makes vectors of the
    /// same lane of several sums, gathered and scattered each time, which takes ten times as long.
    ///
    /// # Safety
    ///
    /// The machine has AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn add_scaled_512(factor: Self, numbers: &Lanes<Self>, sum: &mut Lanes<Self>);

    /// sum += a × b, as above.
    ///
    /// # Safety
    ///
    /// The machine has AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn add_product_512(a: &[Self; LANES], b: &[Self; LANES], sum: &mut [Self; LANES]);

    /// The sums over the lanes of so many numbers, in AVX-512's own instructions: with a sum at a time, the sums of a small
    /// network's weights over lanes take longer than those over rows.
    ///
    /// # Safety
    ///
    /// The machine has AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn totals_512(numbers: &[Lanes<Self>; LANES]) -> [Self; LANES];
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const TOLERANCE: Self = 1e-6;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn absolute(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn fused(self, factor: Self, addend: Self) -> Self {
        self.mul_add(factor, addend)
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        let low = if self < -104.0 { -104.0 } else { self };
        let (rounded, rest) = reduce(if low > 89.0 { 89.0 } else { low });
        // 2ⁿ in two factors: neither overflows, and the product may be infinite or subnormal.
        let exponent = rounded.to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
        let half = exponent >> 1;
        (expm1_reduced(rest) + 1.0) * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
    }

    #[inline(always)]
    fn decay(self) -> (Self, Self) {
        let (rounded, rest) = reduce(if self < -87.0 { -87.0 } else { self });
        let scale = power_of_two(rounded.to_bits().wrapping_sub(SHIFT.to_bits()) as i32);
        let small = expm1_reduced(rest);
        (small.fused(scale, scale), small.fused(scale, scale - 1.0))
    }

    #[inline(always)]
    fn decayed(self) -> Self {
        // eʳ = 1 + r + r² P(r), least largest error. What the reduction loses at large n the 1 hides.
        const COEFFICIENTS: [f32; 5] =
            [1.388_252e-3, 8.366_527e-3, 4.166_72e-2, 0.166_665_43, 0.499_999_97];
        // As `SHIFT`, but the lowest bits hold n + 127, the exponent bits of 2ⁿ.
        const BIASED_SHIFT: f32 = SHIFT + 127.0;
        let low = if self < -87.0 { -87.0 } else { self };
        let rounded = low.fused(std::f32::consts::LOG2_E, BIASED_SHIFT);
        let rest = (rounded - BIASED_SHIFT).fused(-std::f32::consts::LN_2, low);
        let small = (rest * rest).fused(polynomial(rest, COEFFICIENTS), rest);
        let scale = Self::from_bits(rounded.to_bits() << 23);
        small.fused(scale, scale - 1.0)
    }

    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        // Rational minimax approximation; beyond ±7.905 the result rounds to ±1.
        const LIMIT: f32 = 7.905_311;
        const BETA: f64 = 4.893_525_185_543_85e-3;
        const NUMERATOR: [f32; 7] = [
            (-2.760_768_477_423_55e-16 / BETA) as f32,
            (2.000_187_904_824_77e-13 / BETA) as f32,
            (-8.604_671_522_137_35e-11 / BETA) as f32,
            (5.122_297_090_371_14e-8 / BETA) as f32,
            (1.485_722_357_179_79e-5 / BETA) as f32,
            (6.372_619_288_754_36e-4 / BETA) as f32,
            (4.893_524_558_917_86e-3 / BETA) as f32,
        ];
        const DENOMINATOR: [f32; 4] = [
            (1.198_258_394_667_02e-6 / BETA) as f32,
            (1.185_347_056_866_54e-4 / BETA) as f32,
            (2.268_434_632_439e-3 / BETA) as f32,
            1.0,
        ];
        let low = if self < -LIMIT { -LIMIT } else { self };
        let x = if low > LIMIT { LIMIT } else { low };
        let square = x * x;
        x * (polynomial(square, NUMERATOR) / polynomial(square, DENOMINATOR))
    }

    #[inline(always)]
    fn logarithm(self) -> Self {
        let subnormal = self < f32::MIN_POSITIVE;
        let x = if subnormal { self * 8_388_608.0 } else { self };
        let shift = if subnormal { -23.0 } else { 0.0 };
        // x = m 2ⁿ with m in [√½, √2), ln m = 2 artanh((m - 1)/(m + 1)).
        let exponent = (x.to_bits().wrapping_sub(SQRT_HALF_BITS) as i32) >> 23;
        let mantissa = f32::from_bits(x.to_bits().wrapping_sub((exponent << 23) as u32));
        let power = exponent as f32 + shift;
        let ratio = (mantissa - 1.0) / (mantissa + 1.0);
        let square = ratio * ratio;
        let tail = polynomial(square, [1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0]) * square;
        let twice = ratio + ratio;
        let result = power.fused(LN_2_HIGH, power.fused(LN_2_LOW, twice.fused(tail, twice)));
        let positive = if self < f32::INFINITY { result } else { self };
        let nonnegative = if self == 0.0 { f32::NEG_INFINITY } else { positive };
        if self < 0.0 { f32::NAN } else { nonnegative }
    }

    #[inline(always)]
    fn logarithm_1p(self) -> Self {
        // 2 artanh(x / (2 + x)), a ratio of at most 1/3.
        const SERIES: [f32; 8] = [
            1.0 / 17.0,
            1.0 / 15.0,
            1.0 / 13.0,
            1.0 / 11.0,
            1.0 / 9.0,
            1.0 / 7.0,
            1.0 / 5.0,
            1.0 / 3.0,
        ];
        let ratio = self / (2.0 + self);
        let square = ratio * ratio;
        let twice = ratio + ratio;
        twice.fused(polynomial(square, SERIES) * square, twice)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_scaled_512(factor: Self, numbers: &Lanes<Self>, sum: &mut Lanes<Self>) {
        use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_store_ps};
        let (numbers, sum) = (numbers.0.as_ptr(), sum.0.as_mut_ptr());
        // SAFETY: the caller vouches for AVX-512F; lanes are sixteen numbers, aligned to 64 bytes.
        unsafe {
            let (factor, numbers) = (_mm512_set1_ps(factor), _mm512_load_ps(numbers));
            _mm512_store_ps(sum, _mm512_fmadd_ps(factor, numbers, _mm512_load_ps(sum)));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_product_512(a: &[Self; LANES], b: &[Self; LANES], sum: &mut [Self; LANES]) {
        use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_storeu_ps};
        // SAFETY: the caller vouches for AVX-512F.
        unsafe {
            let (a, b) = (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()));
            let addend = _mm512_loadu_ps(sum.as_ptr());
            _mm512_storeu_ps(sum.as_mut_ptr(), _mm512_fmadd_ps(a, b, addend));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn totals_512(numbers: &[Lanes<Self>; LANES]) -> [Self; LANES] {
        use std::arch::x86_64::{
            _mm512_add_ps, _mm512_load_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
            _mm512_shuffle_ps, _mm512_storeu_ps,
        };
        let mut totals = [0.0; LANES];
        // Each stage halves the lanes that a number has and puts two numbers into one vector, first by quarters, then within
        // them. The pairs are such that number i ends in lane i.
        // SAFETY: the caller vouches for AVX-512F; lanes are sixteen numbers, aligned to 64 bytes.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); 16];
            for i in 0..16 {
                sums[i] = _mm512_load_ps(numbers[i].0.as_ptr());
            }
            for i in [0, 1, 2, 3, 8, 9, 10, 11] {
                let (a, b) = (sums[i], sums[i + 4]);
                sums[i] = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0x44>(a, b),
                    _mm512_shuffle_f32x4::<0xee>(a, b),
                );
            }
            for i in [0, 1, 2, 3] {
                let (a, b) = (sums[i], sums[i + 8]);
                sums[i] = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0x88>(a, b),
                    _mm512_shuffle_f32x4::<0xdd>(a, b),
                );
            }
            for i in [0, 2] {
                let (a, b) = (sums[i], sums[i + 1]);
                sums[i] =
                    _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b));
            }
            let (a, b) = (sums[0], sums[2]);
            let sum =
                _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b));
            _mm512_storeu_ps(totals.as_mut_ptr(), sum);
        }
        totals
    }
}

/// 1.5 × 2²³: adding it rounds a small number to an integer, which then fills the lowest bits.
const SHIFT: f32 = 12_582_912.0;
const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
/// ln 2 in two parts, the first of which times any exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// x = n ln 2 + r with |r| ≤ ½ ln 2, as (`SHIFT` + n, r).
#[inline(always)]
fn reduce(x: f32) -> (f32, f32) {
    let rounded = x.fused(std::f32::consts::LOG2_E, SHIFT);
    let power = rounded - SHIFT;
    (rounded, power.fused(-LN_2_LOW, power.fused(-LN_2_HIGH, x)))
}

/// eˣ - 1 of |x| ≤ ½ ln 2.
#[inline(always)]
fn expm1_reduced(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5];
    (x * x).fused(polynomial(x, COEFFICIENTS), x)
}

/// 2ⁿ of -127 < n < 128.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// Horner's scheme, highest coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = sum.fused(x, *coefficient);
    }
    sum
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const TOLERANCE: Self = 1e-13;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn absolute(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn fused(self, factor: Self, addend: Self) -> Self {
        self.mul_add(factor, addend)
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn decay(self) -> (Self, Self) {
        (self.exp(), self.exp_m1())
    }

    #[inline(always)]
    fn decayed(self) -> Self {
        self.exp_m1()
    }

    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        self.tanh()
    }

    #[inline(always)]
    fn logarithm(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn logarithm_1p(self) -> Self {
        self.ln_1p()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_scaled_512(factor: Self, numbers: &Lanes<Self>, sum: &mut Lanes<Self>) {
        use std::arch::x86_64::{_mm512_fmadd_pd, _mm512_load_pd, _mm512_set1_pd, _mm512_store_pd};
        for first in [0, LANES / 2] {
            let (numbers, sum) = (&raw const numbers.0[first], &raw mut sum.0[first]);
            // SAFETY: the caller vouches for AVX-512F; lanes are sixteen numbers, aligned to 64 bytes, of which eight
            // from `first` on are taken.
            unsafe {
                let (factor, numbers) = (_mm512_set1_pd(factor), _mm512_load_pd(numbers));
                _mm512_store_pd(sum, _mm512_fmadd_pd(factor, numbers, _mm512_load_pd(sum)));
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_product_512(a: &[Self; LANES], b: &[Self; LANES], sum: &mut [Self; LANES]) {
        use std::arch::x86_64::{_mm512_fmadd_pd, _mm512_loadu_pd, _mm512_storeu_pd};
        for first in [0, LANES / 2] {
            // SAFETY: the caller vouches for AVX-512F; eight numbers are taken from `first` on.
            unsafe {
                let sum = sum.as_mut_ptr().add(first);
                let (a, b) = (a.as_ptr().add(first), b.as_ptr().add(first));
                let (a, b, addend) = (_mm512_loadu_pd(a), _mm512_loadu_pd(b), _mm512_loadu_pd(sum));
                _mm512_storeu_pd(sum, _mm512_fmadd_pd(a, b, addend));
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn totals_512(numbers: &[Lanes<Self>; LANES]) -> [Self; LANES] {
        numbers.map(|lanes| lanes.0.iter().sum())
    }
}

/// ELU(x) = x for x > 0, eˣ - 1 else: the larger one of x and e^min(x, 0) - 1. NaN stays.
#[inline(always)]
pub fn elu<T: Real>(x: T) -> T {
    let decayed = (if x > T::ZERO { T::ZERO } else { x }).decayed();
    if x > decayed { x } else { decayed }
}

/// δ ∂ELU/∂x from the value h = ELU(x): the slope is 1 for h > 0, h + 1 else, that is min(h, 0) + 1.
#[inline(always)]
pub fn times_elu_slope<T: Real>(delta: T, value: T) -> T {
    delta.fused(if value > T::ZERO { T::ZERO } else { value }, delta)
}

/// (softplus x = ln(1 + eˣ), its derivative 1/(1 + e⁻ˣ)).
#[inline(always)]
pub fn softplus<T: Real>(x: T) -> (T, T) {
    let (decayed, _) = (-x.absolute()).decay();
    let sigmoid = T::ONE / (T::ONE + decayed);
    let positive = x > T::ZERO;
    let linear = if positive { x } else { T::ZERO };
    let value = linear + decayed.logarithm_1p();
    // A NaN passes through the logarithm.
    (value, if positive { sigmoid } else { decayed * sigmoid })
}

/// (tanh x, sech² x), both accurate also where tanh is near ±1.
#[inline(always)]
pub fn tanh_sech2<T: Real>(x: T) -> (T, T) {
    let magnitude = x.absolute();
    let (decayed, negative) = (-(magnitude + magnitude)).decay();
    let inverse = T::ONE / (T::ONE + decayed);
    let tanh = -negative * inverse;
    let four = T::of(4.0);
    (if x < T::ZERO { -tanh } else { tanh }, four * decayed * inverse * inverse)
}

/// ln cosh x = |x| + ln(1 + e^(-2|x|)) - ln 2.
#[inline(always)]
pub fn ln_cosh<T: Real>(x: T) -> T {
    let magnitude = x.absolute();
    let (decayed, _) = (-(magnitude + magnitude)).decay();
    magnitude + (decayed.logarithm_1p() - T::of(std::f64::consts::LN_2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error of `approximate` in units of the last place of the exact value, or of `floor`.
    fn worst(
        range: (f64, f64),
        floor: f64,
        approximate: fn(f32) -> f32,
        exact: fn(f64) -> f64,
    ) -> f64 {
        let count = 400_000;
        (0..=count)
            .map(|i| (range.0 + (range.1 - range.0) * f64::from(i) / f64::from(count)) as f32)
            .map(|x| {
                let expected = exact(f64::from(x));
                let unit = expected.abs().max(floor) * f64::from(f32::EPSILON);
                (f64::from(approximate(x)) - expected).abs() / unit
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate_to_a_few_units_in_the_last_place() {
        let tiny = 1e-37;
        let exp = |x: f32| x.exponential();
        assert!(worst((-87.0, 88.7), tiny, exp, f64::exp) < 1.5);
        assert!(worst((-1e-3, 1e-3), tiny, exp, f64::exp) < 1.0);
        let decay = |x: f32| x.decay().0;
        assert!(worst((-86.9, 0.0), tiny, decay, f64::exp) < 1.5);
        let decay_1 = |x: f32| x.decay().1;
        assert!(worst((-100.0, 0.0), tiny, decay_1, f64::exp_m1) < 2.0);
        assert!(worst((-1e-3, 0.0), tiny, decay_1, f64::exp_m1) < 1.0);
        assert!(worst((-100.0, 0.0), tiny, elu, f64::exp_m1) < 2.0);
        let tanh = |x: f32| x.hyperbolic_tangent();
        assert!(worst((-10.0, 10.0), tiny, tanh, f64::tanh) < 4.0);
        assert!(worst((-1e-2, 1e-2), tiny, tanh, f64::tanh) < 4.0);
        let ln = |x: f32| x.logarithm();
        assert!(worst((1e-6, 4.0), 1e-7, ln, f64::ln) < 2.0);
        assert!(worst((1e-30, 1e30), 1e-7, ln, f64::ln) < 2.0);
        let ln_1p = |x: f32| x.logarithm_1p();
        assert!(worst((0.0, 1.0), tiny, ln_1p, f64::ln_1p) < 2.0);
        let exact_softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        assert!(worst((-86.0, 100.0), tiny, |x| softplus(x).0, exact_softplus) < 3.0);
        assert!(worst((-86.0, 100.0), tiny, |x| softplus(x).1, |x| 1.0 / (1.0 + (-x).exp())) < 4.0);
        assert!(worst((-40.0, 40.0), tiny, |x| tanh_sech2(x).0, f64::tanh) < 4.0);
        assert!(worst((-40.0, 40.0), tiny, |x| tanh_sech2(x).1, |x| x.cosh().powi(-2)) < 6.0);
        assert!(worst((-50.0, 50.0), 1.0, ln_cosh, |x| x.cosh().ln()) < 2.0);
    }

    #[test]
    fn extreme_arguments_have_their_limits() {
        let (infinity, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!(infinity.exponential(), infinity);
        assert_eq!((-infinity).exponential(), 0.0);
        assert_eq!(1e30_f32.exponential(), infinity);
        assert_eq!(0.0_f32.exponential(), 1.0);
        assert!((-103.0_f32).exponential() > 0.0);
        assert_eq!((-infinity).decay().1, -1.0);
        assert_eq!((elu(infinity), elu(-infinity), elu(0.0_f32)), (infinity, -1.0, 0.0));
        assert!((infinity.hyperbolic_tangent() - 1.0).abs() < 3e-7);
        assert!(((-infinity).hyperbolic_tangent() + 1.0).abs() < 3e-7);
        assert_eq!((tanh_sech2(infinity).0, tanh_sech2(-infinity).0), (1.0, -1.0));
        assert_eq!(0.0_f32.logarithm(), -infinity);
        assert_eq!(infinity.logarithm(), infinity);
        assert!((-1.0_f32).logarithm().is_nan());
        assert_eq!((softplus(infinity).0, softplus(-infinity).0 < 1e-37), (infinity, true));
        assert_eq!(ln_cosh(infinity), infinity);
        for denormal in [1e-40_f32, -1e-40, 1e-45] {
            assert!((denormal.hyperbolic_tangent() - denormal).abs() < 1e-44);
            assert_eq!(elu(denormal), denormal);
        }
        assert!((1e-40_f32.logarithm() - 1e-40_f32.ln()).abs() < 1e-5);
        let functions: [fn(f32) -> f32; 11] = [
            |x| x.exponential(),
            |x| x.decay().0,
            |x| x.decay().1,
            |x| x.hyperbolic_tangent(),
            |x| x.logarithm(),
            |x| x.logarithm_1p(),
            elu,
            |x| softplus(x).0,
            |x| tanh_sech2(x).0,
            |x| tanh_sech2(x).1,
            ln_cosh,
        ];
        assert!(functions.iter().all(|function| function(nan).is_nan()));
    }
}
