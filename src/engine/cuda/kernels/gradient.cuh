// The gradient by a coupling's weights: sums over the chunk's rows and lanes of cotangents × units, both in the panel.
//
// A thread takes 4 × 4 weights and some of the items; the parts are then added in a fixed order.

// out × in weights of one layer: where its cotangents, its units and its weights are.
struct Matrix {
    int outputs, inputs;
    bool biased, squared;
    int deltas, units, weights;

    DEVICE int columns() const { return inputs + (biased ? 1 : 0); }
    DEVICE int tiles_down() const { return (outputs + 3) / 4; }
    DEVICE int tiles() const { return tiles_down() * ((columns() + 3) / 4); }
};

// The matrices of a coupling, in the order of their weights.
template <class S>
struct Matrices {
    static constexpr int of_branch = ODD ? S::layers + (S::layers > 0 ? 3 : 1) : S::layers + 1;
    static constexpr int count = BRANCHES * of_branch + (SCALES > 0 ? 1 : 0);

    DEVICE static Matrix get(int number) {
        const int branch = number / of_branch, layer = number % of_branch;
        if (branch == BRANCHES) return {SCALES, 0, true, false, S::by_scales, 0, S::scales};
        const int units = S::units + branch * S::layers * WIDTH, deltas = S::deltas + branch * S::layers * WIDTH;
        const int first = branch * S::branch;
        if (layer < S::layers) {
            const bool lowest = layer == 0;
            return {WIDTH, lowest ? S::inputs : WIDTH, !ODD, false, deltas + layer * WIDTH, lowest ? 0 : units + (layer - 1) * WIDTH,
                    first + (lowest ? 0 : S::hidden + (layer - 1) * S::next_hidden)};
        }
        const int last = units + (S::layers - 1) * WIDTH;
        if (!ODD) return {S::own_outputs, WIDTH, true, false, S::outputs + branch * S::own_outputs, last, first + S::head};
        if (S::layers > 0 && layer == S::layers) return {ODD_OUTPUTS, WIDTH, false, false, S::outputs, last, S::head};
        if (S::layers > 0 && layer == S::layers + 1) return {ODD_OUTPUTS, S::inputs, false, false, S::outputs, 0, S::skip};
        return {EVEN_OUTPUTS, S::layers > 0 ? WIDTH : 0, true, true, S::outputs + ODD_OUTPUTS, last, S::even};
    }

    DEVICE static int tiles() {
        int sum = 0;
        for (int number = 0; number < count; ++number) sum += get(number).tiles();
        return sum;
    }

    // The matrix of a tile, whose number becomes that within it.
    DEVICE static Matrix of_tile(int& tile) {
        int number = 0;
        Matrix matrix = get(0);
        while (tile >= matrix.tiles()) {
            tile -= matrix.tiles();
            matrix = get(++number);
        }
        return matrix;
    }
};

// How many threads share the items of a tile.
template <class S>
DEVICE int slices() {
    const int slices = THREADS / Matrices<S>::tiles();
    return slices > 0 ? slices : 1;
}

// The sums of one thread's tile and items.
template <class S>
DEVICE void sum_tile(const Block& block, int tile, int slice, int slices, int items, int thread) {
    const Matrix matrix = Matrices<S>::of_tile(tile);
    const int o = tile % matrix.tiles_down() * 4, i = tile / matrix.tiles_down() * 4;
    const real* panel = block.panel();
    const real *deltas[4], *units[4];
    UNROLL for (int k = 0; k < 4; ++k) {
        // Behind the last one: anything, for it is not stored.
        const int output = o + k < matrix.outputs ? o + k : matrix.outputs - 1;
        deltas[k] = panel + (matrix.deltas + output) * PANEL_STRIDE;
        units[k] = panel + (i + k < matrix.inputs ? matrix.units + i + k : S::ones) * PANEL_STRIDE;
    }
    real sums[16] = {};
    for (int item = slice; item < items; item += slices) {
        real delta[4], unit[4];
        UNROLL for (int k = 0; k < 4; ++k) {
            delta[k] = deltas[k][item];
            unit[k] = units[k][item];
            if (matrix.squared) unit[k] *= unit[k];
        }
        UNROLL for (int a = 0; a < 4; ++a) {
            UNROLL for (int b = 0; b < 4; ++b) sums[4 * a + b] += delta[a] * unit[b];
        }
    }
    UNROLL for (int k = 0; k < 16; ++k) block.parts()[k * THREADS + thread] = sums[k];
}

// Tiles from `first` on: as many as the block has threads for.
template <class S>
DEVICE void sum_parts(const Block& block, int first, int items, int thread) {
    const int tiles = Matrices<S>::tiles(), slices = ::slices<S>();
    const int at_once = tiles < THREADS ? tiles : THREADS;
    const int tile = first + thread % at_once, slice = thread / at_once;
    if (slice < slices && tile < tiles) sum_tile<S>(block, tile, slice, slices, items, thread);
}

// Adds the parts of those tiles to the block's gradient.
template <class S>
DEVICE void add_parts(const Block& block, const Coupling& coupling, int first, int thread) {
    const int tiles = Matrices<S>::tiles(), slices = ::slices<S>();
    const int at_once = tiles < THREADS ? tiles : THREADS;
    double* gradient = block.gradient() + coupling.weights;
    for (int place = thread; place < 16 * at_once; place += THREADS) {
        int tile = first + place % at_once;
        if (tile >= tiles) continue;
        const int element = place / at_once;
        const real* parts = block.parts() + element * THREADS + place % at_once;
        const Matrix matrix = Matrices<S>::of_tile(tile);
        const int o = tile % matrix.tiles_down() * 4 + element / 4, i = tile / matrix.tiles_down() * 4 + element % 4;
        if (o >= matrix.outputs || i >= matrix.columns()) continue;
        double sum = 0;
        for (int slice = 0; slice < slices; ++slice) sum += parts[slice * at_once];
        gradient[matrix.weights + i * padded(matrix.outputs) + o] += sum;
    }
}
