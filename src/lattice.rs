//! The periodic lattice and the Fourier transforms of fields on it.

use std::fmt;
use std::sync::Arc;

use ndarray::{Array2, ArrayBase, ArrayView2, Dimension, RawData};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// The periodic L × L lattice, L even, with its Fourier transform x_k = Σ_r x_r e^{-ikr}.
///
/// Each field is transformed by itself, so that none changes a bit of another or makes it NaN. Fields are real, which
/// halves the work: two rows are transformed as the real and imaginary parts of one, and then the columns of k_y ≤ π,
/// since x_{-k} is the conjugate of x_k.
#[derive(Clone)]
pub struct Lattice {
    linear_size: usize,
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
}

impl fmt::Debug for Lattice {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let mut lattice = formatter.debug_struct("Lattice");
        lattice.field("linear_size", &self.linear_size).finish_non_exhaustive()
    }
}

/// Room for the transforms of one field.
struct Room {
    /// (L/2, L): pairs of rows.
    rows: Vec<Complex<f64>>,
    /// (L/2 + 1, L): modes over (k_y, k_x), of which k_y ≤ π.
    modes: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

/// How often L can be halved: the most levels of a hierarchy. The coarse lattice at the top may be odd.
pub fn halvings(linear_size: usize) -> usize {
    linear_size.trailing_zeros() as usize
}

/// L that lattices may have, in words.
pub const ALLOWED_SIZES: &str = "an even number from 4 to 1024";

/// Whether a lattice may have this L.
pub fn is_size(linear_size: usize) -> bool {
    linear_size.is_multiple_of(2) && (4..=1024).contains(&linear_size)
}

impl Lattice {
    /// The lattice of L × L sites, for even L.
    pub fn new(linear_size: usize) -> Self {
        debug_assert!(linear_size.is_multiple_of(2), "rows are transformed in pairs");
        let mut planner = FftPlanner::new();
        let forward = planner.plan_fft_forward(linear_size);
        let inverse = planner.plan_fft_inverse(linear_size);
        Self { linear_size, forward, inverse }
    }

    /// L.
    pub fn linear_size(&self) -> usize {
        self.linear_size
    }

    /// N = L².
    pub fn sites(&self) -> usize {
        self.linear_size * self.linear_size
    }

    /// |x_k|² of every mode.
    ///
    /// Shapes: (batch, N) → (batch, N), modes row-major in (k_x, k_y) with k = 2πn/L, n = 0…L-1.
    pub fn power_spectrum(&self, fields: ArrayView2<f64>) -> Array2<f64> {
        let mut room = self.room();
        self.of_each(fields, |field, powers| {
            self.transform(field, &mut room);
            self.unfold(&room.modes, Complex::norm_sqr, powers);
        })
    }

    /// Multiplies the Fourier modes by real factors, the same for k and -k.
    ///
    /// Shapes: fields (batch, N), factors (N) in the order of [`Lattice::power_spectrum`] → (batch, N).
    pub fn filter(&self, fields: ArrayView2<f64>, factors: &[f64]) -> Array2<f64> {
        let (size, sites) = (self.linear_size, self.sites() as f64);
        let column = |k_y: usize| (0..size).map(move |k_x| factors[k_x * size + k_y] / sites);
        let factors: Vec<f64> = (0..=size / 2).flat_map(column).collect();
        let mut room = self.room();
        self.of_each(fields, |field, filtered| {
            self.transform(field, &mut room);
            room.modes.iter_mut().zip(&factors).for_each(|(mode, factor)| *mode *= *factor);
            self.transform_back(&mut room, filtered);
        })
    }

    /// (1/N) Σ_k S(k) e^{ikr} of real S(k) = S(-k), which is real and even too.
    ///
    /// Shapes: (batch, N) → (batch, N).
    pub fn inverse_of_even(&self, spectra: ArrayView2<f64>) -> Array2<f64> {
        let sites = self.sites() as f64;
        let mut room = self.room();
        self.of_each(spectra, |spectrum, image| {
            // The sign of ikr makes no difference to an even function.
            self.transform(spectrum, &mut room);
            self.unfold(&room.modes, |mode| mode.re / sites, image);
        })
    }

    fn room(&self) -> Room {
        let (pairs, size) = (self.linear_size / 2, self.linear_size);
        let [forward, inverse] =
            [&self.forward, &self.inverse].map(|fft| fft.get_inplace_scratch_len());
        let [rows, modes, scratch] = [pairs * size, (pairs + 1) * size, forward.max(inverse)]
            .map(|length| vec![Complex::new(0.0, 0.0); length]);
        Room { rows, modes, scratch }
    }

    /// What `make` writes for each field. Shapes: (batch, N) → (batch, N).
    fn of_each(
        &self,
        fields: ArrayView2<f64>,
        mut make: impl FnMut(&[f64], &mut [f64]),
    ) -> Array2<f64> {
        let mut images = Array2::zeros((fields.nrows(), self.sites()));
        let fields = fields.as_standard_layout();
        for (field, image) in fields.rows().into_iter().zip(images.rows_mut()) {
            let contiguous = "rows in standard layout are contiguous";
            make(field.to_slice().expect(contiguous), image.into_slice().expect(contiguous));
        }
        images
    }

    /// The modes of a field.
    fn transform(&self, field: &[f64], room: &mut Room) {
        let (size, Room { rows, modes, scratch }) = (self.linear_size, room);
        for (row, pair) in rows.chunks_exact_mut(size).zip(field.chunks_exact(2 * size)) {
            let (first, second) = pair.split_at(size);
            for ((z, a), b) in row.iter_mut().zip(first).zip(second) {
                *z = Complex::new(*a, *b);
            }
        }
        self.forward.process_with_scratch(rows, scratch);
        // Of z = a + ib with real a and b: a_k = ½(z_k + z*_{-k}), b_k = -½i(z_k - z*_{-k}).
        for (pair, row) in rows.chunks_exact(size).enumerate() {
            for (k, column) in modes.chunks_exact_mut(size).enumerate() {
                let (z, mirrored) = (row[k], row[self.opposite(k)].conj());
                let (sum, difference) = (z + mirrored, z - mirrored);
                column[2 * pair] = sum * 0.5;
                column[2 * pair + 1] = Complex::new(difference.im, -difference.re) * 0.5;
            }
        }
        self.forward.process_with_scratch(modes, scratch);
    }

    /// N times the field of the modes, which are lost.
    fn transform_back(&self, room: &mut Room, field: &mut [f64]) {
        let (size, Room { rows, modes, scratch }) = (self.linear_size, room);
        self.inverse.process_with_scratch(modes, scratch);
        for (pair, row) in rows.chunks_exact_mut(size).enumerate() {
            for (k, column) in modes.chunks_exact(size).enumerate() {
                let (a, b) = (column[2 * pair], column[2 * pair + 1]);
                // z_{-k} = a*_k + ib*_k.
                row[self.opposite(k)] = Complex::new(a.re + b.im, b.re - a.im);
                row[k] = Complex::new(a.re - b.im, a.im + b.re);
            }
        }
        self.inverse.process_with_scratch(rows, scratch);
        for (row, pair) in rows.chunks_exact(size).zip(field.chunks_exact_mut(2 * size)) {
            let (first, second) = pair.split_at_mut(size);
            for ((z, a), b) in row.iter().zip(first).zip(second) {
                (*a, *b) = (z.re, z.im);
            }
        }
    }

    /// A number of each mode that is the same for k and -k, row-major in (k_x, k_y).
    fn unfold(
        &self,
        modes: &[Complex<f64>],
        number: impl Fn(&Complex<f64>) -> f64,
        numbers: &mut [f64],
    ) {
        let size = self.linear_size;
        for (k_y, column) in modes.chunks_exact(size).enumerate() {
            for (k_x, mode) in column.iter().enumerate() {
                let number = number(mode);
                numbers[self.opposite(k_x) * size + self.opposite(k_y)] = number;
                numbers[k_x * size + k_y] = number;
            }
        }
    }

    /// -k of a wave number along one axis.
    fn opposite(&self, k: usize) -> usize {
        if k == 0 { 0 } else { self.linear_size - k }
    }
}

/// Fields with their rows and columns, as files have them. Shapes: (…, N) → (…, L, L).
pub fn on_lattice<S: RawData, D: Dimension>(fields: ArrayBase<S, D>) -> ArrayBase<S, D::Larger> {
    let axes = fields.ndim();
    let size = fields.shape()[axes - 1].isqrt();
    let mut shape = D::Larger::zeros(axes + 1);
    shape.slice_mut()[..axes - 1].copy_from_slice(&fields.shape()[..axes - 1]);
    shape.slice_mut()[axes - 1..].fill(size);
    fields.into_shape_with_order(shape).expect("fields lie row by row on L × L sites")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Use};
    use ndarray::s;
    use std::f64::consts::TAU;

    const SIZES: [usize; 3] = [4, 6, 8];

    fn fields(size: usize) -> Array2<f64> {
        Random::new(size as u64).normals(Use::Latents, 0..3, size * size)
    }

    /// k·r of two places, each row-major on the L × L lattice.
    fn phase(size: usize, k: usize, r: usize) -> f64 {
        let product = (k / size) * (r / size) + (k % size) * (r % size);
        TAU * (product % size) as f64 / size as f64
    }

    /// Σ_j values_j e^{±i·phase} for each place, by the definition.
    fn sums(size: usize, values: &[Complex<f64>], sign: f64) -> Vec<Complex<f64>> {
        let term = |i: usize, j: usize| values[j] * Complex::cis(sign * phase(size, i, j));
        let places = 0..size * size;
        places.clone().map(|i| places.clone().map(|j| term(i, j)).sum()).collect()
    }

    fn modes(size: usize, fields: &Array2<f64>, sample: usize) -> Vec<Complex<f64>> {
        let values: Vec<_> = fields.row(sample).iter().map(|&x| Complex::new(x, 0.0)).collect();
        sums(size, &values, -1.0)
    }

    /// The same for k and -k together, but neither for k_x and -k_x alone nor for k_x and k_y.
    fn even_factors(size: usize) -> Vec<f64> {
        let wave = |n: usize| TAU * n as f64 / size as f64;
        let factor = |k: usize| {
            let (x, y) = (wave(k / size), wave(k % size));
            1.1 + x.cos() + 0.3 * (2.0 * y).cos() + 0.2 * x.sin() * y.sin()
        };
        (0..size * size).map(factor).collect()
    }

    #[track_caller]
    fn assert_close(found: &Array2<f64>, sample: usize, expected: impl Iterator<Item = f64>) {
        let expected: Vec<f64> = expected.collect();
        assert_eq!(found.ncols(), expected.len());
        for (place, (found, expected)) in found.row(sample).iter().zip(&expected).enumerate() {
            let error = (found - expected).abs();
            assert!(error < 1e-12 * expected.abs().max(1.0), "{place}: {found} {expected}");
        }
    }

    #[test]
    fn powers_are_those_of_the_naive_transform() {
        for size in SIZES {
            let fields = fields(size);
            let powers = Lattice::new(size).power_spectrum(fields.view());
            for sample in 0..fields.nrows() {
                let modes = modes(size, &fields, sample);
                assert_close(&powers, sample, modes.iter().map(Complex::norm_sqr));
            }
        }
    }

    #[test]
    fn filtered_fields_are_those_of_the_naive_transform() {
        for size in SIZES {
            let (fields, factors) = (fields(size), even_factors(size));
            let filtered = Lattice::new(size).filter(fields.view(), &factors);
            for sample in 0..fields.nrows() {
                let mut modes = modes(size, &fields, sample);
                modes.iter_mut().zip(&factors).for_each(|(mode, factor)| *mode *= *factor);
                let sites = (size * size) as f64;
                let expected = sums(size, &modes, 1.0);
                assert_close(&filtered, sample, expected.iter().map(|x| x.re / sites));
            }
        }
    }

    #[test]
    fn inverses_of_even_spectra_are_those_of_the_naive_transform() {
        for size in SIZES {
            let spectra = Array2::from_shape_vec((1, size * size), even_factors(size)).unwrap();
            let images = Lattice::new(size).inverse_of_even(spectra.view());
            let values: Vec<_> = spectra.iter().map(|&s| Complex::new(s, 0.0)).collect();
            let sites = (size * size) as f64;
            let expected = sums(size, &values, 1.0);
            assert!(expected.iter().all(|x| x.im.abs() < 1e-11));
            assert_close(&images, 0, expected.iter().map(|x| x.re / sites));
        }
    }

    /// A chain that has diverged must not end the others, nor a batch that is split change a bit.
    #[test]
    fn fields_do_not_enter_each_other() {
        let size = 8;
        let (lattice, factors) = (Lattice::new(size), even_factors(size));
        let mut fields = fields(size);
        fields.row_mut(1).fill(f64::NAN);
        let filtered = lattice.filter(fields.view(), &factors);
        assert!(filtered.row(1).iter().all(|x| x.is_nan()));
        for sample in [0, 2] {
            let alone = lattice.filter(fields.slice(s![sample..=sample, ..]), &factors);
            assert_eq!(filtered.row(sample), alone.row(0));
        }
    }

    #[test]
    fn arrays_may_lie_in_any_order() {
        let (lattice, fields) = (Lattice::new(6), fields(6));
        let other = fields.t().as_standard_layout().into_owned();
        assert_eq!(lattice.power_spectrum(other.t()), lattice.power_spectrum(fields.view()));
    }
}
