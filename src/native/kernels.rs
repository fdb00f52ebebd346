//! Matrix products between weights and panels, in register blocks.
//!
//! A panel holds some units of every row of a chunk: unit u of row r lies at `r * stride + u`, with
//! `LANES` samples each. The kernels are compiled for AVX-512, AVX2 and the plain target, and the
//! best one is chosen as the program runs.

use std::ops::Range;

use multiversion::{multiversion, target::match_target};

use super::lanes::{LANES, Lanes, Real};

/// Consecutive units of all rows of a panel, for reading.
#[derive(Debug, Clone, Copy)]
pub struct Units<'a, T> {
    pub lanes: &'a [Lanes<T>],
    pub stride: usize,
    pub first: usize,
    pub count: usize,
}

impl<'a, T> Units<'a, T> {
    /// The units of one row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [Lanes<T>] {
        &self.lanes[row * self.stride + self.first..][..self.count]
    }
}

/// Consecutive units of all rows of a panel, for writing.
#[derive(Debug)]
pub struct UnitsMut<'a, T> {
    pub lanes: &'a mut [Lanes<T>],
    pub stride: usize,
    pub first: usize,
    pub count: usize,
}

impl<T> UnitsMut<'_, T> {
    /// The units of one row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [Lanes<T>] {
        &mut self.lanes[row * self.stride + self.first..][..self.count]
    }
}

/// What a product does with the numbers that its outputs hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Overwrite,
    Add,
}

/// out_i = Σ_j w_ji in_j (or += with `Store::Add`) for every row and lane; `weights` is row-major,
/// (inputs, outputs).
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn product<T: Real>(
    weights: &[T],
    rows: usize,
    inputs: Units<'_, T>,
    mut outputs: UnitsMut<'_, T>,
    store: Store,
) {
    // Rows in groups, so that few outputs, too, fill the registers with sums that do not wait for each other.
    for first_row in (0..rows).step_by(GROUP) {
        let rows = first_row..rows.min(first_row + GROUP);
        match_target! {
            // SAFETY: this is the version for AVX-512F.
            "x86_64+avx512f" => product_rows::<T, 12>(weights, rows, inputs, &mut outputs, store, |weight, input, sum| unsafe {
                T::add_scaled_512(weight, input, sum);
            }),
            _ => product_rows::<T, 6>(weights, rows, inputs, &mut outputs, store, |weight, input, sum| {
                for (sum, input) in sum.0.iter_mut().zip(&input.0) {
                    *sum = weight.fused(*input, *sum);
                }
            }),
        }
    }
}

/// Most rows whose sums are in registers at once.
const GROUP: usize = 4;

/// A product for up to `GROUP` rows, in blocks of up to `MOST` outputs, which have as many sums in registers; `add` adds a
/// weight times an input.
#[inline(always)]
fn product_rows<T: Real, const MOST: usize>(
    weights: &[T],
    rows: Range<usize>,
    inputs: Units<'_, T>,
    outputs: &mut UnitsMut<'_, T>,
    store: Store,
    add: impl Fn(T, &Lanes<T>, &mut Lanes<T>) + Copy,
) {
    let mut first = 0;
    while first < outputs.count {
        let count = MOST.min(outputs.count - first);
        let whole = rows.len() == GROUP;
        let product = (weights, rows.clone(), inputs, &mut *outputs, first, store);
        match count {
            1 if whole => product_block::<T, 4, 1>(product, add),
            1 => product_block::<T, 1, 1>(product, add),
            2 if whole && MOST >= 8 => product_block::<T, 4, 2>(product, add),
            2 if whole => product_block::<T, 2, 2>(product, add),
            2 => product_block::<T, 1, 2>(product, add),
            3 if whole && MOST >= 12 => product_block::<T, 4, 3>(product, add),
            3 if whole => product_block::<T, 2, 3>(product, add),
            3 => product_block::<T, 1, 3>(product, add),
            4 if whole && MOST >= 8 => product_block::<T, 2, 4>(product, add),
            4 => product_block::<T, 1, 4>(product, add),
            5 if whole && MOST >= 10 => product_block::<T, 2, 5>(product, add),
            5 => product_block::<T, 1, 5>(product, add),
            6 => product_block::<T, 1, 6>(product, add),
            7 => product_block::<T, 1, 7>(product, add),
            8 => product_block::<T, 1, 8>(product, add),
            9 => product_block::<T, 1, 9>(product, add),
            10 => product_block::<T, 1, 10>(product, add),
            11 => product_block::<T, 1, 11>(product, add),
            _ => product_block::<T, 1, 12>(product, add),
        }
        first += count;
    }
}

/// `BLOCK` outputs from `first` on, `ROWS` rows at a time.
#[inline(always)]
#[allow(clippy::type_complexity, reason = "the arguments of one product")]
fn product_block<T: Real, const ROWS: usize, const BLOCK: usize>(
    (weights, rows, inputs, outputs, first, store): (
        &[T],
        Range<usize>,
        Units<'_, T>,
        &mut UnitsMut<'_, T>,
        usize,
        Store,
    ),
    add: impl Fn(T, &Lanes<T>, &mut Lanes<T>) + Copy,
) {
    let width = outputs.count;
    for row in rows.step_by(ROWS) {
        let mut sums = [[Lanes::ZERO; BLOCK]; ROWS];
        if store == Store::Add {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = *first_of(&outputs.row(row + r)[first..]);
            }
        }
        let inputs: [&[Lanes<T>]; ROWS] = std::array::from_fn(|r| inputs.row(row + r));
        for (j, weights) in weights.chunks_exact(width).take(inputs[0].len()).enumerate() {
            let weights: &[T; BLOCK] = first_of(&weights[first..]);
            for (sums, inputs) in sums.iter_mut().zip(&inputs) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    add(*weight, &inputs[j], sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            outputs.row(row + r)[first..][..BLOCK].copy_from_slice(sums);
        }
    }
}

/// Where the sums of a layer's weights, row-major (outputs, inputs), and of its biases are added.
#[derive(Debug)]
pub struct Gradient<'a> {
    pub weights: &'a mut [f64],
    pub biases: Option<&'a mut [f64]>,
}

/// ∂w_ij += Σ δ_i in_j and ∂b_i += Σ δ_i, summed over rows and lanes. With biases the last of the
/// inputs is the 1 that they multiply. `sums` has room for `outer_product_room` of the inputs.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn outer_product<T: Real>(
    rows: usize,
    deltas: Units<'_, T>,
    inputs: Units<'_, T>,
    gradient: Gradient<'_>,
    sums: &mut [Lanes<T>],
) {
    if inputs.count == 0 {
        return;
    }
    // About as many sums as there are registers for, whatever the number of outputs.
    match_target! {
        "x86_64+avx512f" => outer_strips::<T, 6, 12, 12, 16>(rows, deltas, inputs, gradient, sums),
        "x86_64+avx2" => outer_strips::<T, 3, 6, 12, 8>(rows, deltas, inputs, gradient, sums),
        _ => outer_strips::<T, 4, 6, 6, 4>(rows, deltas, inputs, gradient, sums),
    }
}

/// Most outputs whose weights or biases are summed together.
const STRIP: usize = 4;

/// Length of the sums that `outer_product` needs room for.
pub fn outer_product_room(inputs: usize) -> usize {
    STRIP * (inputs + 1)
}

/// The weights of four outputs after the other, then those of two, then of one, to so many inputs at a
/// time.
#[inline(always)]
fn outer_strips<
    T: Real,
    const OF_FOUR: usize,
    const OF_TWO: usize,
    const OF_ONE: usize,
    const WIDTH: usize,
>(
    rows: usize,
    deltas: Units<'_, T>,
    inputs: Units<'_, T>,
    mut gradient: Gradient<'_>,
    sums: &mut [Lanes<T>],
) {
    let mut output = 0;
    while output + 4 <= deltas.count {
        outer_strip::<T, 4, OF_FOUR, WIDTH>(rows, deltas, inputs, output, &mut gradient, sums);
        output += 4;
    }
    if output + 2 <= deltas.count {
        outer_strip::<T, 2, OF_TWO, WIDTH>(rows, deltas, inputs, output, &mut gradient, sums);
        output += 2;
    }
    if output < deltas.count {
        outer_strip::<T, 1, OF_ONE, WIDTH>(rows, deltas, inputs, output, &mut gradient, sums);
    }
}

/// The weights of `OUT` outputs to all inputs: blocks of sums over rows, then those over lanes.
#[inline(always)]
fn outer_strip<T: Real, const OUT: usize, const IN: usize, const WIDTH: usize>(
    rows: usize,
    deltas: Units<'_, T>,
    inputs: Units<'_, T>,
    output: usize,
    gradient: &mut Gradient<'_>,
    sums: &mut [Lanes<T>],
) {
    let mut input = 0;
    while input < inputs.count {
        // Two pairs keep more sums in flight than a block of three and a single one.
        input += match inputs.count - input {
            rest if rest >= IN => {
                outer_block::<T, OUT, IN, WIDTH>(rows, deltas, inputs, output, input, sums)
            }
            1 => outer_block::<T, OUT, 1, WIDTH>(rows, deltas, inputs, output, input, sums),
            2 | 4 => outer_block::<T, OUT, 2, WIDTH>(rows, deltas, inputs, output, input, sums),
            _ => outer_block::<T, OUT, 3, WIDTH>(rows, deltas, inputs, output, input, sums),
        };
    }
    let width = inputs.count - usize::from(gradient.biases.is_some());
    for (output, sums) in (output..).zip(sums.chunks_exact(inputs.count)).take(OUT) {
        let weights = gradient.weights[output * width..][..width].iter_mut();
        for (weight, sum) in weights.zip(sums) {
            *weight += total::<T, WIDTH>(sum);
        }
        if let Some(biases) = &mut gradient.biases {
            biases[output] += total::<T, WIDTH>(&sums[width]);
        }
    }
}

/// `OUT` × `IN` weights, summed over the rows in registers of `WIDTH` numbers, which go to `sums`; returns
/// `IN`.
#[inline(always)]
fn outer_block<T: Real, const OUT: usize, const IN: usize, const WIDTH: usize>(
    rows: usize,
    deltas: Units<'_, T>,
    inputs: Units<'_, T>,
    output: usize,
    input: usize,
    sums: &mut [Lanes<T>],
) -> usize {
    let mut block = [[[T::ZERO; WIDTH]; IN]; OUT];
    for row in 0..rows {
        let deltas: &[Lanes<T>; OUT] = first_of(&deltas.row(row)[output..]);
        let values: &[Lanes<T>; IN] = first_of(&inputs.row(row)[input..]);
        for part in 0..LANES / WIDTH {
            let mut parts = [[T::ZERO; WIDTH]; IN];
            for (numbers, value) in parts.iter_mut().zip(values) {
                numbers.copy_from_slice(&value.0[part * WIDTH..][..WIDTH]);
            }
            for (block, delta) in block.iter_mut().zip(deltas) {
                let delta: &[T; WIDTH] = first_of(&delta.0[part * WIDTH..]);
                for (sum, value) in block.iter_mut().zip(&parts) {
                    for lane in 0..WIDTH {
                        sum[lane] = delta[lane].fused(value[lane], sum[lane]);
                    }
                }
            }
        }
    }
    for (out, block) in block.iter().enumerate() {
        let sums = &mut sums[out * inputs.count + input..][..IN];
        for (sum, block) in sums.iter_mut().zip(block) {
            sum.0[..WIDTH].copy_from_slice(block);
        }
    }
    IN
}

/// The first `N` elements.
#[inline(always)]
fn first_of<T, const N: usize>(values: &[T]) -> &[T; N] {
    values.first_chunk().expect("a whole block")
}

/// Sum of the first `WIDTH` lanes by halves.
#[inline(always)]
fn total<T: Real, const WIDTH: usize>(lanes: &Lanes<T>) -> f64 {
    let mut values: [T; WIDTH] = *first_of(&lanes.0);
    let mut length = WIDTH;
    while length > 1 {
        length /= 2;
        for i in 0..length {
            values[i] += values[i + length];
        }
    }
    values[0].to_f64()
}
