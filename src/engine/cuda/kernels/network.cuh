// The networks of a coupling for one row and lane, a thread each: values, and cotangents pulled back (`native/network.rs`).

// What a coupling's networks look like, and where their weights lie among the packed ones: those of each input together, in
// whole groups of four, and below them the biases.
template <int INPUTS, int LAYERS_>
struct Shape {
    static constexpr int inputs = INPUTS;
    static constexpr int layers = LAYERS_;
    static constexpr int bias = ODD ? 0 : 1;
    // Of a network's outputs.
    static constexpr int own_outputs = OUTPUTS / BRANCHES;
    static constexpr int hidden = (inputs + bias) * padded(WIDTH);
    static constexpr int next_hidden = (WIDTH + bias) * padded(WIDTH);
    static constexpr int head = layers == 0 ? 0 : hidden + (layers - 1) * next_hidden;
    // Of parities; with a whole head the first of these.
    static constexpr int skip = head + (layers == 0 ? 0 : WIDTH) * padded(ODD_OUTPUTS);
    static constexpr int even = layers == 0 ? 0 : skip + inputs * padded(ODD_OUTPUTS);
    static constexpr int branch = ODD ? even + ((layers == 0 ? 0 : WIDTH) + 1) * padded(EVEN_OUTPUTS) : head + (WIDTH + 1) * padded(own_outputs);
    static constexpr int scales = BRANCHES * branch;

    // Rows of the panel: inputs, hidden units of all networks; cotangents of the outputs, of the scales, of the hidden units; ones.
    static constexpr int units = inputs;
    static constexpr int outputs = units + BRANCHES * layers * WIDTH;
    static constexpr int by_scales = outputs + OUTPUTS;
    static constexpr int deltas = by_scales + SCALES;
    static constexpr int ones = deltas + BRANCHES * layers * WIDTH;
};

// out = bias or 0.
template <int OUT>
DEVICE void begin(const real* biases, real (&out)[OUT]) {
    UNROLL for (int o = 0; o < OUT; ++o) out[o] = biases ? biases[o] : real(0);
}

// out += W in.
template <int IN, int OUT>
DEVICE void add_dense(const real* weights, const real (&in)[some(IN)], real (&out)[OUT]) {
    UNROLL for (int i = 0; i < IN; ++i) {
        UNROLL for (int o = 0; o < OUT; o += 4) {
            const Four w = four(weights + i * padded(OUT) + o);
            UNROLL for (int j = 0; j < 4; ++j)
                if (o + j < OUT) out[o + j] += w.of[j] * in[i];
        }
    }
}

// in += Wᵀ out.
template <int IN, int OUT>
DEVICE void add_transposed(const real* weights, const real (&out)[OUT], real (&in)[some(IN)]) {
    UNROLL for (int i = 0; i < IN; ++i) {
        real sums[4] = {};
        UNROLL for (int o = 0; o < OUT; o += 4) {
            const Four w = four(weights + i * padded(OUT) + o);
            UNROLL for (int j = 0; j < 4; ++j)
                if (o + j < OUT) sums[j] += w.of[j] * out[o + j];
        }
        in[i] += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

// A thread's column of the panel.
struct Column {
    real* panel;

    DEVICE real& operator[](int unit) const { return panel[unit * PANEL_STRIDE]; }
};

template <int COUNT>
DEVICE void keep(const Column& column, int first, const real (&values)[some(COUNT)]) {
    UNROLL for (int i = 0; i < COUNT; ++i) column[first + i] = values[i];
}

// A part of an array.
template <int FIRST, int COUNT, int LENGTH>
DEVICE void take(const real (&all)[LENGTH], real (&part)[COUNT]) {
    UNROLL for (int i = 0; i < COUNT; ++i) part[i] = all[FIRST + i];
}

template <int FIRST, int COUNT, int LENGTH>
DEVICE void put(const real (&part)[COUNT], real (&all)[LENGTH]) {
    UNROLL for (int i = 0; i < COUNT; ++i) all[FIRST + i] = part[i];
}

// The hidden layers of a network, from its inputs to the last one's units.
template <class S, bool KEEP>
DEVICE void hidden_layers(const real* weights, const real (&inputs)[some(S::inputs)], const Column& column, int units, real (&h)[WIDTH]) {
    begin(ODD ? nullptr : weights + S::inputs * padded(WIDTH), h);
    add_dense<S::inputs>(weights, inputs, h);
    UNROLL for (int i = 0; i < WIDTH; ++i) h[i] = activated(h[i]);
    if (KEEP) keep<WIDTH>(column, units, h);
    weights += S::hidden;
    ROLL for (int layer = 1; layer < S::layers; ++layer) {
        real next[WIDTH];
        begin(ODD ? nullptr : weights + WIDTH * padded(WIDTH), next);
        add_dense<WIDTH>(weights, h, next);
        UNROLL for (int i = 0; i < WIDTH; ++i) h[i] = activated(next[i]);
        if (KEEP) keep<WIDTH>(column, units + layer * WIDTH, h);
        weights += S::next_hidden;
    }
}

template <class S, int BRANCH, bool KEEP>
DEVICE void branches(const real* weights, const real (&inputs)[some(S::inputs)], const Column& column, real (&outputs)[OUTPUTS]) {
    if constexpr (BRANCH < BRANCHES) {
        const real* own = weights + BRANCH * S::branch;
        real h[WIDTH], heads[S::own_outputs];
        hidden_layers<S, KEEP>(own, inputs, column, S::units + BRANCH * S::layers * WIDTH, h);
        begin(own + S::head + WIDTH * padded(S::own_outputs), heads);
        add_dense<WIDTH>(own + S::head, h, heads);
        put<BRANCH * S::own_outputs>(heads, outputs);
        branches<S, BRANCH + 1, KEEP>(weights, inputs, column, outputs);
    }
}

// Outputs of a row's networks. With KEEP their hidden units go to the panel.
template <class S, bool KEEP>
DEVICE void network(const real* weights, const real (&inputs)[some(S::inputs)], const Column& column, real (&outputs)[OUTPUTS]) {
    if constexpr (ODD) {
        real odd[ODD_OUTPUTS] = {}, even[EVEN_OUTPUTS];
        begin(weights + S::even + (S::layers == 0 ? 0 : WIDTH) * padded(EVEN_OUTPUTS), even);
        if constexpr (S::layers > 0) {
            real h[WIDTH];
            hidden_layers<S, KEEP>(weights, inputs, column, S::units, h);
            add_dense<WIDTH>(weights + S::head, h, odd);
            add_dense<S::inputs>(weights + S::skip, inputs, odd);
            UNROLL for (int i = 0; i < WIDTH; ++i) h[i] *= h[i];
            add_dense<WIDTH>(weights + S::even, h, even);
        }
        put<0>(odd, outputs);
        put<ODD_OUTPUTS>(even, outputs);
    } else {
        branches<S, 0, KEEP>(weights, inputs, column, outputs);
    }
}

// From the cotangents of a network's last hidden units to those of its inputs, which are added. With GRADIENT the cotangents before
// activation go to the panel.
template <class S, bool GRADIENT>
DEVICE void pull_back_hidden(const real* weights, const Column& column, int branch, real (&delta)[WIDTH], real (&of_inputs)[some(S::inputs)]) {
    const int first = branch * S::layers * WIDTH;
    ROLL for (int layer = S::layers - 1; layer >= 0; --layer) {
        UNROLL for (int i = 0; i < WIDTH; ++i) delta[i] *= activation_slope(column[S::units + first + layer * WIDTH + i]);
        if (GRADIENT) keep<WIDTH>(column, S::deltas + first + layer * WIDTH, delta);
        if (layer > 0) {
            real below[WIDTH] = {};
            add_transposed<WIDTH>(weights + S::hidden + (layer - 1) * S::next_hidden, delta, below);
            UNROLL for (int i = 0; i < WIDTH; ++i) delta[i] = below[i];
        }
    }
    add_transposed<S::inputs>(weights, delta, of_inputs);
}

template <class S, int BRANCH, bool GRADIENT>
DEVICE void pull_back_branches(const real* weights, const Column& column, const real (&deltas)[OUTPUTS], real (&of_inputs)[some(S::inputs)]) {
    if constexpr (BRANCH < BRANCHES) {
        const real* own = weights + BRANCH * S::branch;
        real heads[S::own_outputs], delta[WIDTH] = {};
        take<BRANCH * S::own_outputs>(deltas, heads);
        add_transposed<WIDTH>(own + S::head, heads, delta);
        pull_back_hidden<S, GRADIENT>(own, column, BRANCH, delta, of_inputs);
        pull_back_branches<S, BRANCH + 1, GRADIENT>(weights, column, deltas, of_inputs);
    }
}

// Cotangents of a row's inputs from those of its networks' outputs.
template <class S, bool GRADIENT>
DEVICE void pull_back_network(const real* weights, const Column& column, const real (&deltas)[OUTPUTS], real (&of_inputs)[some(S::inputs)]) {
    UNROLL for (int i = 0; i < S::inputs; ++i) of_inputs[i] = 0;
    if constexpr (!ODD) {
        pull_back_branches<S, 0, GRADIENT>(weights, column, deltas, of_inputs);
    } else if constexpr (S::layers > 0) {
        real odd[ODD_OUTPUTS], even[EVEN_OUTPUTS], delta[WIDTH] = {}, of_squares[WIDTH] = {};
        take<0>(deltas, odd);
        take<ODD_OUTPUTS>(deltas, even);
        add_transposed<WIDTH>(weights + S::head, odd, delta);
        add_transposed<WIDTH>(weights + S::even, even, of_squares);
        UNROLL for (int i = 0; i < WIDTH; ++i) delta[i] += 2 * column[S::units + (S::layers - 1) * WIDTH + i] * of_squares[i];
        add_transposed<S::inputs>(weights + S::skip, odd, of_inputs);
        pull_back_hidden<S, GRADIENT>(weights, column, 0, delta, of_inputs);
    }
}
