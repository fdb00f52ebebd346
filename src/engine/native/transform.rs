//! Monotone maps y = f(u; θ) of one site, with the partial derivatives from which the derivatives of
//! both directions follow.

use multiversion::multiversion;

use super::lanes::{LANES, Lanes, Real, softplus, tanh_sech2};

/// Most iterations of an inversion; each halves either the bracket or the step.
const ITERATIONS: usize = 200;

/// Partial derivatives at u, with respect to the `P` raw outputs of a network and to the scale.
#[derive(Debug, Clone, Copy)]
pub struct Partials<T, const P: usize> {
    /// f' = ∂f/∂u.
    slope: T,
    /// ∂ ln f'/∂u.
    log_slope_by_latent: T,
    /// ∂f/∂θ.
    value_by: [T; P],
    /// ∂ ln f'/∂θ.
    log_slope_by: [T; P],
    /// ∂f/∂scale and ∂ ln f'/∂scale.
    by_scale: (T, T),
}

/// A monotone map with `P` raw parameters and a scale.
pub trait Monotone<T: Real, const P: usize> {
    /// (y, ln f') at u.
    fn value(raw: &[T; P], scale: T, latent: T) -> (T, T);
    /// Derivatives at u.
    fn partials(raw: &[T; P], scale: T, latent: T) -> Partials<T, P>;
    /// (u, ln f') at y, for all lanes.
    fn solve(raw: &[Lanes<T>; P], scale: T, value: &Lanes<T>) -> (Lanes<T>, Lanes<T>);
}

/// y = eˢ u + t with s = scale × tanh(raw s); raw: s, t.
#[derive(Debug)]
pub struct Affine;

impl<T: Real> Monotone<T, 2> for Affine {
    #[inline(always)]
    fn value(&[raw, shift]: &[T; 2], scale: T, latent: T) -> (T, T) {
        let log_slope = scale * raw.hyperbolic_tangent();
        (log_slope.exponential().fused(latent, shift), log_slope)
    }

    #[inline(always)]
    fn partials(&[raw, _]: &[T; 2], scale: T, latent: T) -> Partials<T, 2> {
        let tanh = raw.hyperbolic_tangent();
        let slope = (scale * tanh).exponential();
        let log_slope_by_raw = scale * (T::ONE - tanh * tanh);
        let value_by_log_slope = slope * latent;
        Partials {
            slope,
            log_slope_by_latent: T::ZERO,
            value_by: [value_by_log_slope * log_slope_by_raw, T::ONE],
            log_slope_by: [log_slope_by_raw, T::ZERO],
            by_scale: (value_by_log_slope * tanh, tanh),
        }
    }

    #[inline(always)]
    fn solve([raw, shift]: &[Lanes<T>; 2], scale: T, value: &Lanes<T>) -> (Lanes<T>, Lanes<T>) {
        let (mut latent, mut log_slope) = (Lanes::ZERO, Lanes::ZERO);
        for lane in 0..LANES {
            let exponent = scale * raw.0[lane].hyperbolic_tangent();
            latent.0[lane] = (value.0[lane] - shift.0[lane]) * (-exponent).exponential();
            log_slope.0[lane] = exponent;
        }
        (latent, log_slope)
    }
}

/// y = eˢ u + t + a tanh(b u + c) with a, b = softplus(raw a, raw b); raw: t, c, s, a, b.
#[derive(Debug)]
pub struct Bump;

impl<T: Real> Monotone<T, 5> for Bump {
    #[inline(always)]
    fn value(&[shift, center, log_base, height, steepness]: &[T; 5], _: T, latent: T) -> (T, T) {
        let base = log_base.exponential();
        let ((height, _), (steepness, _)) = (softplus(height), softplus(steepness));
        let (tanh, sech2) = tanh_sech2(steepness.fused(latent, center));
        let value = base.fused(latent, height.fused(tanh, shift));
        (value, (height * steepness).fused(sech2, base).logarithm())
    }

    #[inline(always)]
    fn partials(
        &[_, center, log_base, height, steepness]: &[T; 5],
        _: T,
        latent: T,
    ) -> Partials<T, 5> {
        let base = log_base.exponential();
        let (height, height_by_raw) = softplus(height);
        let (steepness, steepness_by_raw) = softplus(steepness);
        let (tanh, sech2) = tanh_sech2(steepness.fused(latent, center));
        let slope = (height * steepness).fused(sech2, base);
        let inverse = T::ONE / slope;
        let by_center = height * sech2;
        // ∂f'/∂c = ab × ∂sech²(bu + c)/∂c.
        let slope_by_center = -(tanh + tanh) * steepness * by_center;
        Partials {
            slope,
            log_slope_by_latent: slope_by_center * steepness * inverse,
            value_by: [
                T::ONE,
                by_center,
                base * latent,
                tanh * height_by_raw,
                by_center * latent * steepness_by_raw,
            ],
            log_slope_by: [
                T::ZERO,
                slope_by_center * inverse,
                base * inverse,
                steepness * sech2 * inverse * height_by_raw,
                slope_by_center.fused(latent, by_center) * inverse * steepness_by_raw,
            ],
            by_scale: (T::ZERO, T::ZERO),
        }
    }

    #[inline(always)]
    fn solve(raw: &[Lanes<T>; 5], _: T, value: &Lanes<T>) -> (Lanes<T>, Lanes<T>) {
        let mut problem = BumpProblem::new(raw, value);
        for _ in 0..ITERATIONS {
            if !problem.improve() {
                break;
            }
        }
        (problem.latent, problem.log_slope())
    }
}

/// eˢ u + a tanh(b u + c) = y - t for all lanes: Newton's method inside a shrinking bracket.
struct BumpProblem<T> {
    target: Lanes<T>,
    base: Lanes<T>,
    center: Lanes<T>,
    height: Lanes<T>,
    steepness: Lanes<T>,
    latent: Lanes<T>,
    low: Lanes<T>,
    high: Lanes<T>,
    /// Length of the last step.
    step: Lanes<T>,
    /// 1 in lanes that still move, 0 in the others: no lane depends on how long its neighbours take.
    moving: Lanes<T>,
}

impl<T: Real> BumpProblem<T> {
    /// y - t lies within ± a of eˢ u, which brackets u.
    #[inline(always)]
    fn new(raw: &[Lanes<T>; 5], value: &Lanes<T>) -> Self {
        let mut new = Self {
            target: Lanes::ZERO,
            base: Lanes::ZERO,
            center: raw[1],
            height: Lanes::ZERO,
            steepness: Lanes::ZERO,
            latent: Lanes::ZERO,
            low: Lanes::ZERO,
            high: Lanes::ZERO,
            step: Lanes::ZERO,
            moving: Lanes::ONE,
        };
        for lane in 0..LANES {
            let target = value.0[lane] - raw[0].0[lane];
            let inverse = (-raw[2].0[lane]).exponential();
            let (height, _) = softplus(raw[3].0[lane]);
            let (low, high) = ((target - height) * inverse, (target + height) * inverse);
            let nonnegative = if low > T::ZERO { low } else { T::ZERO };
            new.target.0[lane] = target;
            new.base.0[lane] = raw[2].0[lane].exponential();
            new.height.0[lane] = height;
            new.steepness.0[lane] = softplus(raw[4].0[lane]).0;
            new.latent.0[lane] = if high < nonnegative { high } else { nonnegative };
            new.low.0[lane] = low;
            new.high.0[lane] = high;
            new.step.0[lane] = high - low;
        }
        new
    }

    /// One step in every lane that still moves; whether any goes on moving.
    #[inline(always)]
    fn improve(&mut self) -> bool {
        for lane in 0..LANES {
            let (base, height) = (self.base.0[lane], self.height.0[lane]);
            let (steepness, target) = (self.steepness.0[lane], self.target.0[lane]);
            let latent = self.latent.0[lane];
            let (tanh, sech2) = tanh_sech2(steepness.fused(latent, self.center.0[lane]));
            let excess = base.fused(latent, height.fused(tanh, -target));
            let step = excess / (height * steepness).fused(sech2, base);
            let low = if excess > T::ZERO { self.low.0[lane] } else { latent };
            let high = if excess > T::ZERO { latent } else { self.high.0[lane] };
            let newton = latent - step;

            let magnitude = (base * latent).absolute() + height + target.absolute();
            let more = excess.absolute() > T::TOLERANCE * magnitude;
            let half = T::of(0.5);
            let slow = step.absolute() > half * self.step.0[lane];
            // A converged lane takes its last step whatever the bracket says. NaN counts as converged.
            let bisect = more & (slow | (newton < low) | (newton > high));
            let next = if bisect { low + half * (high - low) } else { newton };

            let moving = self.moving.0[lane] > T::ZERO;
            self.low.0[lane] = low;
            self.high.0[lane] = high;
            self.step.0[lane] = (next - latent).absolute();
            self.latent.0[lane] = if moving { next } else { latent };
            self.moving.0[lane] = if moving & more { T::ONE } else { T::ZERO };
        }
        let mut moving = T::ZERO;
        for lane in self.moving.0 {
            moving += lane;
        }
        moving > T::ZERO
    }

    /// ln(eˢ + a b sech²(b u + c)).
    #[inline(always)]
    fn log_slope(&self) -> Lanes<T> {
        let mut log_slope = Lanes::ZERO;
        for lane in 0..LANES {
            let (height, steepness) = (self.height.0[lane], self.steepness.0[lane]);
            let argument = steepness.fused(self.latent.0[lane], self.center.0[lane]);
            let (_, sech2) = tanh_sech2(argument);
            log_slope.0[lane] = (height * steepness).fused(sech2, self.base.0[lane]).logarithm();
        }
        log_slope
    }
}

/// The updated sites of a chunk of rows and the outputs of the network for them.
#[derive(Debug, Clone, Copy)]
pub struct Sites<'a, T, const P: usize> {
    /// rows × per_row.
    pub updated: &'a [u32],
    pub per_row: usize,
    /// rows × (P × per_row).
    pub outputs: &'a [Lanes<T>],
    /// Position of each of the map's raw parameters among the network's.
    pub order: [usize; P],
    /// One per updated site of a row; empty for maps without.
    pub scales: &'a [T],
}

impl<T: Real, const P: usize> Sites<'_, T, P> {
    /// First output of the network for updated site number `index` of the chunk.
    #[inline(always)]
    fn first_output(&self, index: usize) -> usize {
        index / self.per_row * self.per_row * P + index % self.per_row
    }

    #[inline(always)]
    fn raw(&self, index: usize) -> [Lanes<T>; P] {
        let first = self.first_output(index);
        let mut raw = [Lanes::ZERO; P];
        for (raw, position) in raw.iter_mut().zip(self.order) {
            *raw = self.outputs[first + position * self.per_row];
        }
        raw
    }

    #[inline(always)]
    fn scale(&self, index: usize) -> T {
        self.scales.get(index % self.per_row).copied().unwrap_or(T::ZERO)
    }
}

/// The raw parameters of one lane.
#[inline(always)]
fn of_lane<T: Real, const P: usize>(raw: &[Lanes<T>; P], lane: usize) -> [T; P] {
    let mut numbers = [T::ZERO; P];
    for (number, raw) in numbers.iter_mut().zip(raw) {
        *number = raw.0[lane];
    }
    numbers
}

/// u → y in place; `record` keeps u, and ln f' is added to `log_det`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn forward<T: Real, M: Monotone<T, P>, const P: usize>(
    sites: &Sites<'_, T, P>,
    field: &mut [Lanes<T>],
    record: &mut [Lanes<T>],
    log_det: &mut [f64; LANES],
) {
    for (index, (site, record)) in sites.updated.iter().zip(record).enumerate() {
        let (raw, scale) = (sites.raw(index), sites.scale(index));
        let latent = field[*site as usize];
        let (mut value, mut log_slope) = (Lanes::ZERO, Lanes::ZERO);
        for lane in 0..LANES {
            let numbers = of_lane(&raw, lane);
            (value.0[lane], log_slope.0[lane]) = M::value(&numbers, scale, latent.0[lane]);
        }
        *record = latent;
        field[*site as usize] = value;
        for (log_det, log_slope) in log_det.iter_mut().zip(log_slope.0) {
            *log_det += log_slope.to_f64();
        }
    }
}

/// y → u in place; `record` keeps y, and -ln f' is added to `log_det`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn inverse<T: Real, M: Monotone<T, P>, const P: usize>(
    sites: &Sites<'_, T, P>,
    field: &mut [Lanes<T>],
    record: &mut [Lanes<T>],
    log_det: &mut [f64; LANES],
) {
    for (index, (site, record)) in sites.updated.iter().zip(record).enumerate() {
        let value = field[*site as usize];
        let (latent, log_slope) = M::solve(&sites.raw(index), sites.scale(index), &value);
        *record = value;
        field[*site as usize] = latent;
        for (log_det, log_slope) in log_det.iter_mut().zip(log_slope.0) {
            *log_det -= log_slope.to_f64();
        }
    }
}

/// Which way the pass went whose derivatives are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Inverse,
}

/// Cotangents of what a coupling computes.
#[derive(Debug)]
pub struct Cotangents<'a, T> {
    /// Of the field: on entry after the coupling, on return before it.
    pub field: &'a mut [Lanes<T>],
    /// Of the log_det.
    pub log_det: &'a Lanes<T>,
    /// Of the network's outputs, rows × (P × per_row).
    pub outputs: &'a mut [Lanes<T>],
    /// Of the scales, summed over rows.
    pub scales: &'a mut [Lanes<T>],
}

/// Cotangents pulled back through the map; `field` holds u at the updated sites.
///
/// A forward pass has y = f(u; θ) and log_det = ln f'. An inverse one solves f(u; θ) = y with log_det
/// = -ln f': with ĝ = g_u - g_l ∂_u ln f' then g_y = ĝ/f' and g_θ = -g_y ∂_θ f - g_l ∂_θ ln f'.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn pull_back<T: Real, M: Monotone<T, P>, const P: usize>(
    direction: Direction,
    sites: &Sites<'_, T, P>,
    field: &[Lanes<T>],
    cotangents: Cotangents<'_, T>,
) {
    let log_det = *cotangents.log_det;
    for (index, site) in sites.updated.iter().enumerate() {
        let (raw, scale) = (sites.raw(index), sites.scale(index));
        let latent = field[*site as usize];
        let before = cotangents.field[*site as usize];
        let (mut after, mut by_scale) = (Lanes::ZERO, Lanes::ZERO);
        let mut by_raw = [Lanes::ZERO; P];
        for lane in 0..LANES {
            let partials = M::partials(&of_lane(&raw, lane), scale, latent.0[lane]);
            // of_value and of_log multiply ∂f and ∂ ln f'.
            let (of_value, of_log) = match direction {
                Direction::Forward => (before.0[lane], log_det.0[lane]),
                Direction::Inverse => {
                    let change = log_det.0[lane] * partials.log_slope_by_latent;
                    ((change - before.0[lane]) / partials.slope, -log_det.0[lane])
                }
            };
            after.0[lane] = match direction {
                Direction::Forward => {
                    of_value.fused(partials.slope, of_log * partials.log_slope_by_latent)
                }
                Direction::Inverse => -of_value,
            };
            for (p, by_raw) in by_raw.iter_mut().enumerate() {
                by_raw.0[lane] =
                    of_value.fused(partials.value_by[p], of_log * partials.log_slope_by[p]);
            }
            by_scale.0[lane] = of_value.fused(partials.by_scale.0, of_log * partials.by_scale.1);
        }
        cotangents.field[*site as usize] = after;
        let first = sites.first_output(index);
        for (by_raw, position) in by_raw.iter().zip(sites.order) {
            cotangents.outputs[first + position * sites.per_row] = *by_raw;
        }
        if let Some(sums) = cotangents.scales.get_mut(index % sites.per_row) {
            sums.0.iter_mut().zip(by_scale.0).for_each(|(sum, value)| *sum += value);
        }
    }
}
