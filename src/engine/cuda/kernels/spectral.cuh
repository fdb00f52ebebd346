// Functions of a spectrum, diagonal in the separable real Fourier basis U ⊗ U of the L × L torus (`native/spectral.rs`), as products with U.

// Rows of a matrix product, and columns, that a thread takes.
constexpr int BLOCKED = LINEAR_SIZE % 4 == 0 ? 4 : 2;

// out(f, r) = Σ_k in(r, k) matrix(k, f), each (row, column, lane).
DEVICE void multiply_rows(const real* matrix, const real* in, real* out) {
    constexpr int across = LINEAR_SIZE / BLOCKED;
    phase([&](int t) {
        for (int item = t; item < across * across * LANES; item += THREADS) {
            const int lane = item % LANES, f = item / LANES % across * BLOCKED, r = item / LANES / across * BLOCKED;
            real sums[BLOCKED][BLOCKED] = {};
            UNROLL_BY_FOUR for (int k = 0; k < LINEAR_SIZE; ++k) {
                real row[BLOCKED];
                UNROLL for (int a = 0; a < BLOCKED; ++a) row[a] = in[((r + a) * LINEAR_SIZE + k) * LANES + lane];
                real factors[BLOCKED];
                if (BLOCKED == 4) {
                    const Four together = four(matrix + k * LINEAR_SIZE + f);
                    UNROLL for (int b = 0; b < BLOCKED; ++b) factors[b] = together.of[b];
                } else {
                    UNROLL for (int b = 0; b < BLOCKED; ++b) factors[b] = matrix[k * LINEAR_SIZE + f + b];
                }
                UNROLL for (int b = 0; b < BLOCKED; ++b) {
                    UNROLL for (int a = 0; a < BLOCKED; ++a) sums[a][b] += row[a] * factors[b];
                }
            }
            UNROLL for (int a = 0; a < BLOCKED; ++a) {
                UNROLL for (int b = 0; b < BLOCKED; ++b) out[((f + b) * LINEAR_SIZE + r + a) * LANES + lane] = sums[a][b];
            }
        }
    });
}

// field ← (U ⊗ U)ᵀ diag(multipliers) (U ⊗ U) field.
DEVICE void apply_spectrum(const Block& block, const real* multipliers, real* field) {
    real* scratch = block.scratch();
    multiply_rows(block.of.transposed_basis, field, scratch);
    multiply_rows(block.of.transposed_basis, scratch, field);
    each([&](int place, int) { field[place] *= multipliers[place / LANES]; });
    multiply_rows(block.of.basis, field, scratch);
    multiply_rows(block.of.basis, scratch, field);
}
