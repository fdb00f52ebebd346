//! The separable real Fourier basis U ⊗ U of the L × L torus, in which functions of a spectrum are diagonal.

/// U, (frequency, site): the constant, cosine and sine of each frequency, and last the alternating function.
pub fn basis(linear_size: usize) -> Vec<f64> {
    (0..linear_size).flat_map(|row| basis_row(linear_size, row)).collect()
}

/// The transpose of a matrix of L × L.
pub fn transposed(matrix: &[f64], linear_size: usize) -> Vec<f64> {
    (0..linear_size)
        .flat_map(|column| (0..linear_size).map(move |row| matrix[row * linear_size + column]))
        .collect()
}

/// A number for each mode of the basis, of numbers that are given over (k_x, k_y), the same for ±k_x and ±k_y.
pub fn multipliers(linear_size: usize, numbers: &[f64]) -> Vec<f64> {
    let of = |x: usize, y: usize| numbers[frequency(x) * linear_size + frequency(y)];
    (0..linear_size).flat_map(|x| (0..linear_size).map(move |y| of(x, y))).collect()
}

/// Frequency of row 0, 1, 2, 3, 4, … of the basis: 0, 1, 1, 2, 2, ….
fn frequency(row: usize) -> usize {
    row.div_ceil(2)
}

fn basis_row(linear_size: usize, row: usize) -> Vec<f64> {
    let length = linear_size as f64;
    let unpaired = row == 0 || 2 * frequency(row) == linear_size;
    let norm = (if unpaired { 1.0 } else { 2.0 } / length).sqrt();
    (0..linear_size)
        .map(|site| {
            // Reduced modulo L first, so that the phase is exact.
            let phase = (frequency(row) * site % linear_size) as f64;
            let angle = std::f64::consts::TAU * phase / length;
            norm * if row % 2 == 1 {
                angle.cos()
            } else if row == 0 {
                1.0
            } else {
                angle.sin()
            }
        })
        .collect()
}
