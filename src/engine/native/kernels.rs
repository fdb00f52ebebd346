//! Matrix products between weights and panels, in register blocks.
//!
//! A panel holds some units of every row of a chunk: unit u of row r lies at `r * stride + u`, with
//! `LANES` samples each. The kernels are compiled for AVX-512, AVX2 and the plain target, and the
//! best one is chosen as the program runs.

use std::ops::Range;

use multiversion::{multiversion, target::match_target};

use super::lanes::{LANES, Lanes, Real, elu, flat};

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

/// What becomes of the sums of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// They overwrite the outputs,
    Overwrite,
    /// are added to these,
    Add,
    /// or overwrite them after an activation function.
    Elu,
    Tanh,
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
            "x86_64+avx2" => product_rows::<T, 6>(weights, rows, inputs, &mut outputs, store, add_scaled),
            _ => product_rows::<T, PLAIN>(weights, rows, inputs, &mut outputs, store, add_scaled),
        }
    }
}

/// Sums in registers at once on plain targets. An x86 machine without AVX2 has no fused multiplication either and is slow
/// anyway: more would only take long to compile.
const PLAIN: usize = if cfg!(target_arch = "x86_64") { 1 } else { 6 };
const PLAIN_OF_FOUR: usize = if cfg!(target_arch = "x86_64") { 1 } else { 4 };

/// Most rows whose sums are in registers at once.
pub const GROUP: usize = 4;

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
        for (j, weights) in weights[first..].chunks(width).take(inputs[0].len()).enumerate() {
            let weights: &[T; BLOCK] = first_of(weights);
            for (sums, inputs) in sums.iter_mut().zip(&inputs) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    add(*weight, &inputs[j], sum);
                }
            }
        }
        match store {
            Store::Overwrite | Store::Add => {}
            Store::Elu => sums.as_flattened_mut().iter_mut().for_each(|sum| sum.apply(elu)),
            Store::Tanh => {
                sums.as_flattened_mut().iter_mut().for_each(|sum| sum.apply(T::hyperbolic_tangent));
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
        "x86_64+avx512f" => {
            // SAFETY: this is the version for AVX-512F.
            let add = |delta: &_, value: &_, sum: &mut _| unsafe { T::add_product_512(delta, value, sum) };
            let totals = |sums: &_| unsafe { T::totals_512(sums) };
            outer_strips::<T, 6, 10, 12, 16>(rows, deltas, inputs, gradient, sums, add, totals);
        }
        "x86_64+avx2" => outer_strips::<T, 3, 6, 12, 8>(rows, deltas, inputs, gradient, sums, add_product, totals::<T, 8>),
        _ => outer_strips::<T, PLAIN_OF_FOUR, PLAIN, PLAIN, 4>(rows, deltas, inputs, gradient, sums, add_product, totals::<T, 4>),
    }
}

/// Most outputs whose weights or biases are summed together.
const STRIP: usize = 4;

/// Length of the sums that `outer_product` needs room for, whole groups of `LANES`.
pub fn outer_product_room(inputs: usize) -> usize {
    (STRIP * (inputs + 1)).next_multiple_of(LANES)
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
    add: impl Fn(&[T; WIDTH], &[T; WIDTH], &mut [T; WIDTH]) + Copy,
    totals: impl Fn(&[Lanes<T>; LANES]) -> [T; LANES] + Copy,
) {
    let mut output = 0;
    while output + 4 <= deltas.count {
        outer_strip::<T, 4, OF_FOUR, WIDTH>(rows, deltas, inputs, output, sums, add);
        add_totals(inputs.count, output..output + 4, &mut gradient, sums, totals);
        output += 4;
    }
    if output + 2 <= deltas.count {
        outer_strip::<T, 2, OF_TWO, WIDTH>(rows, deltas, inputs, output, sums, add);
        add_totals(inputs.count, output..output + 2, &mut gradient, sums, totals);
        output += 2;
    }
    if output < deltas.count {
        outer_strip::<T, 1, OF_ONE, WIDTH>(rows, deltas, inputs, output, sums, add);
        add_totals(inputs.count, output..output + 1, &mut gradient, sums, totals);
    }
}

/// The sums over rows of the weights of `OUT` outputs, from `output` on, to all inputs.
#[inline(always)]
fn outer_strip<T: Real, const OUT: usize, const IN: usize, const WIDTH: usize>(
    rows: usize,
    deltas: Units<'_, T>,
    inputs: Units<'_, T>,
    output: usize,
    sums: &mut [Lanes<T>],
    add: impl Fn(&[T; WIDTH], &[T; WIDTH], &mut [T; WIDTH]) + Copy,
) {
    let mut input = 0;
    while input < inputs.count {
        let place = (rows, deltas, inputs, output, input);
        // As few blocks as there can be, of about the same size.
        let rest = inputs.count - input;
        input += match rest.div_ceil(rest.div_ceil(IN)) {
            1 => outer_block::<T, OUT, 1, WIDTH>(place, sums, add),
            2 => outer_block::<T, OUT, 2, WIDTH>(place, sums, add),
            3 => outer_block::<T, OUT, 3, WIDTH>(place, sums, add),
            4 => outer_block::<T, OUT, 4, WIDTH>(place, sums, add),
            5 => outer_block::<T, OUT, 5, WIDTH>(place, sums, add),
            6 => outer_block::<T, OUT, 6, WIDTH>(place, sums, add),
            7 => outer_block::<T, OUT, 7, WIDTH>(place, sums, add),
            8 => outer_block::<T, OUT, 8, WIDTH>(place, sums, add),
            9 => outer_block::<T, OUT, 9, WIDTH>(place, sums, add),
            10 => outer_block::<T, OUT, 10, WIDTH>(place, sums, add),
            11 => outer_block::<T, OUT, 11, WIDTH>(place, sums, add),
            _ => outer_block::<T, OUT, 12, WIDTH>(place, sums, add),
        };
    }
}

/// Adds the sums over lanes of the weights, and biases, of some outputs to the gradient.
#[inline(always)]
fn add_totals<T: Real>(
    inputs: usize,
    outputs: Range<usize>,
    gradient: &mut Gradient<'_>,
    sums: &mut [Lanes<T>],
    totals: impl Fn(&[Lanes<T>; LANES]) -> [T; LANES],
) {
    let groups = (outputs.len() * inputs).div_ceil(LANES);
    // The totals take the place of the sums.
    for group in 0..groups {
        sums[group].0 = totals(first_of(&sums[group * LANES..]));
    }
    let width = inputs - usize::from(gradient.biases.is_some());
    for (output, totals) in outputs.zip(flat(sums).chunks_exact(inputs)) {
        let weights = gradient.weights[output * width..][..width].iter_mut();
        for (weight, total) in weights.zip(totals) {
            *weight += total.to_f64();
        }
        if let Some(biases) = &mut gradient.biases {
            biases[output] += totals[width].to_f64();
        }
    }
}

/// `OUT` × `IN` weights, summed over the rows in registers of `WIDTH` numbers, which go to `sums`; returns
/// `IN`.
#[inline(always)]
fn outer_block<T: Real, const OUT: usize, const IN: usize, const WIDTH: usize>(
    (rows, deltas, inputs, output, input): (usize, Units<'_, T>, Units<'_, T>, usize, usize),
    sums: &mut [Lanes<T>],
    add: impl Fn(&[T; WIDTH], &[T; WIDTH], &mut [T; WIDTH]) + Copy,
) -> usize {
    let mut block = [[[T::ZERO; WIDTH]; IN]; OUT];
    for row in 0..rows {
        let deltas: &[Lanes<T>; OUT] = first_of(&deltas.row(row)[output..]);
        let values: &[Lanes<T>; IN] = first_of(&inputs.row(row)[input..]);
        for part in 0..LANES / WIDTH {
            for (block, delta) in block.iter_mut().zip(deltas) {
                for (sum, value) in block.iter_mut().zip(values) {
                    let [delta, value] = [delta, value].map(|of| first_of(&of.0[part * WIDTH..]));
                    add(delta, value, sum);
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

/// sum += factor × numbers.
#[inline(always)]
fn add_scaled<T: Real>(factor: T, numbers: &Lanes<T>, sum: &mut Lanes<T>) {
    add_product(&[factor; LANES], &numbers.0, &mut sum.0);
}

/// sum += a × b.
#[inline(always)]
fn add_product<T: Real, const WIDTH: usize>(a: &[T; WIDTH], b: &[T; WIDTH], sum: &mut [T; WIDTH]) {
    for lane in 0..WIDTH {
        sum[lane] = a[lane].fused(b[lane], sum[lane]);
    }
}

/// Sums of the first `WIDTH` lanes by halves.
#[inline(always)]
fn totals<T: Real, const WIDTH: usize>(sums: &[Lanes<T>; LANES]) -> [T; LANES] {
    sums.map(|lanes| {
        let mut values: [T; WIDTH] = *first_of(&lanes.0);
        let mut length = WIDTH;
        while length > 1 {
            length /= 2;
            for i in 0..length {
                values[i] += values[i + length];
            }
        }
        values[0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_ROWS: usize = 9;
    const MOST_UNITS: usize = 27;

    /// Numbers of no pattern, a panel's or weights'.
    fn numbers(count: usize, seed: usize) -> Vec<f64> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) as f64).sin()).collect()
    }

    fn panel<T: Real>(rows: usize, stride: usize, seed: usize) -> Vec<Lanes<T>> {
        let numbers = numbers(rows * stride * LANES, seed);
        numbers.chunks(LANES).map(|lanes| Lanes(std::array::from_fn(|i| T::of(lanes[i])))).collect()
    }

    fn cast<T: Real>(numbers: &[f64]) -> Vec<T> {
        numbers.iter().map(|&number| T::of(number)).collect()
    }

    fn products_are_those_of_plain_loops<T: Real>(tolerance: f64) {
        for (rows, inputs, outputs) in sizes() {
            let (stride, first) = (inputs + 2, 1);
            let values = panel::<T>(rows, stride, 1);
            let weights = cast::<T>(&numbers(inputs * outputs, 2));
            for store in [Store::Overwrite, Store::Add, Store::Elu, Store::Tanh] {
                let before = panel::<T>(rows, outputs, 3);
                let mut after = before.clone();
                let units = Units { lanes: &values[..], stride, first, count: inputs };
                let place =
                    UnitsMut { lanes: &mut after, stride: outputs, first: 0, count: outputs };
                product(&weights, rows, units, place, store);
                for (index, (after, before)) in after.iter().zip(&before).enumerate() {
                    let (row, output) = (index / outputs, index % outputs);
                    for lane in 0..LANES {
                        let term = |j: usize| {
                            weights[j * outputs + output].to_f64()
                                * values[row * stride + first + j].0[lane].to_f64()
                        };
                        let sum: f64 = (0..inputs).map(term).sum();
                        let expected = match store {
                            Store::Overwrite => sum,
                            Store::Add => before.0[lane].to_f64() + sum,
                            Store::Elu if sum > 0.0 => sum,
                            Store::Elu => sum.exp_m1(),
                            Store::Tanh => sum.tanh(),
                        };
                        let error = (after.0[lane].to_f64() - expected).abs();
                        assert!(
                            error < tolerance,
                            "{rows} rows, {inputs} to {outputs}, {store:?}: off by {error:e}"
                        );
                    }
                }
            }
        }
    }

    fn gradients_are_those_of_plain_loops<T: Real>(tolerance: f64) {
        for (rows, inputs, outputs) in sizes() {
            for biased in [false, true] {
                let units = inputs + usize::from(biased);
                let mut values = panel::<T>(rows, units, 4);
                if biased {
                    values.iter_mut().skip(inputs).step_by(units).for_each(|one| *one = Lanes::ONE);
                }
                let (stride, first) = (outputs + 3, 2);
                let deltas = panel::<T>(rows, stride, 5);
                let (mut weights, mut biases) = (numbers(inputs * outputs, 6), numbers(outputs, 7));
                let (weights_before, biases_before) = (weights.clone(), biases.clone());
                let gradient =
                    Gradient { weights: &mut weights, biases: biased.then_some(&mut biases[..]) };
                let mut sums = vec![Lanes([T::of(f64::NAN); LANES]); outer_product_room(units)];
                outer_product(
                    rows,
                    Units { lanes: &deltas[..], stride, first, count: outputs },
                    Units { lanes: &values[..], stride: units, first: 0, count: units },
                    gradient,
                    &mut sums,
                );
                let sum = |output: usize, input: usize| -> f64 {
                    let term = |index: usize| {
                        let (row, lane) = (index / LANES, index % LANES);
                        deltas[row * stride + first + output].0[lane].to_f64()
                            * values[row * units + input].0[lane].to_f64()
                    };
                    (0..rows * LANES).map(term).sum()
                };
                for output in 0..outputs {
                    for input in 0..inputs {
                        let place = output * inputs + input;
                        let error =
                            (weights[place] - weights_before[place] - sum(output, input)).abs();
                        assert!(
                            error < tolerance,
                            "{rows} rows, {input} of {inputs} to {output} of {outputs}: off by {error:e}"
                        );
                    }
                    let expected =
                        biases_before[output] + if biased { sum(output, inputs) } else { 0.0 };
                    let error = (biases[output] - expected).abs();
                    assert!(
                        error < tolerance,
                        "{rows} rows, bias {output} of {outputs}: off by {error:e}"
                    );
                }
            }
        }
    }

    /// Rows, inputs and outputs: each size of a block, several blocks and rests.
    fn sizes() -> impl Iterator<Item = (usize, usize, usize)> {
        (1..=MOST_ROWS)
            .flat_map(|rows| {
                (1..=MOST_UNITS).flat_map(move |inputs| {
                    (1..=MOST_UNITS).map(move |outputs| (rows, inputs, outputs))
                })
            })
            .filter(|(rows, inputs, outputs)| (rows + inputs + outputs) % 3 == 0)
    }

    #[test]
    fn products() {
        products_are_those_of_plain_loops::<f64>(1e-13);
        products_are_those_of_plain_loops::<f32>(1e-5);
    }

    #[test]
    fn gradients() {
        gradients_are_those_of_plain_loops::<f64>(1e-12);
        gradients_are_those_of_plain_loops::<f32>(1e-4);
    }
}
