// All couplings on a tile, in both directions (`native/passes.rs`). Passes record the values that they overwrite; derivatives undo the
// couplings one by one and compute the networks again.

DEVICE void load_weights(const Block& block, int coupling, int step, int thread) {
    if (coupling < block.of.begin || coupling >= block.of.end) return;
    const Coupling& of = block.of.couplings[coupling];
    const int groups = of.weight_count / 4;
    const Four* from = reinterpret_cast<const Four*>(block.of.weights + of.weights);
    Four* to = reinterpret_cast<Four*>(block.weights(step));
    for (int place = thread; place < groups; place += THREADS) to[place] = from[place];
}

// v_k = weight_k Σ_j x_j for one row and lane.
template <class S>
DEVICE void gather(const Block& block, const Coupling& coupling, const real* field, int row, int lane, real (&inputs)[some(S::inputs)]) {
    UNROLL for (int k = 0; k < S::inputs; ++k) {
        const Shell shell = block.of.shells[coupling.shells + k];
        const Site* sites = block.of.sites + shell.sites + row;
        if (SINGLE) {
            // No loop: the loads of all inputs overlap.
            inputs[k] = shell.size ? shell.weight * field[sites[0] * LANES + lane] : real(0);
            continue;
        }
        real sum = 0;
        ROLL for (int j = 0; j < shell.size; ++j) sum += field[sites[j * coupling.rows] * LANES + lane];
        inputs[k] = shell.weight * sum;
    }
}

// A row's updated sites, of one lane.
struct Updated {
    const Site* sites;
    int record, rows, lane;

    DEVICE Updated(const Block& block, const Coupling& coupling, int row, int lane)
        : sites(block.of.sites + coupling.updated + row), record(coupling.record + row), rows(coupling.rows), lane(lane) {}

    DEVICE int place(int s) const { return sites[s * rows] * LANES + lane; }
    DEVICE int recorded(int s) const { return (record + s * rows) * LANES + lane; }
};

// The raw parameters of a row's updated site s, as the map has them.
DEVICE void raw_parameters(const real (&outputs)[OUTPUTS], int s, real (&raw)[PARAMETERS]) {
    UNROLL for (int p = 0; p < PARAMETERS; ++p) raw[p] = outputs[Map::order(p) * PER_ROW + s];
}

template <class S>
DEVICE real scale(const real* weights, int s) {
    return SCALES > 0 ? weights[S::scales + s] : real(0);
}

// One coupling, up (z → y) or down; ln|det| goes to the slots.
template <class S, bool UP>
DEVICE void pass_coupling(const Block& block, const Coupling& coupling, int next, int step, real* field, real* record) {
    phase([&](int t) {
        load_weights(block, next, step + 1, t);
        const real* weights = block.weights(step);
        const int lane = t % LANES;
        double log_det = 0;
        for (int item = t; item < coupling.rows * LANES; item += THREADS) {
            const int row = item / LANES;
            real inputs[some(S::inputs)], outputs[OUTPUTS];
            gather<S>(block, coupling, field, row, lane, inputs);
            network<S, false>(weights, inputs, Column{nullptr}, outputs);
            const Updated updated(block, coupling, row, lane);
            UNROLL for (int s = 0; s < PER_ROW; ++s) {
                real raw[PARAMETERS];
                raw_parameters(outputs, s, raw);
                const int place = updated.place(s);
                const real before = field[place];
                const Mapped mapped = UP ? Map::value(raw, scale<S>(weights, s), before) : Map::solve(raw, scale<S>(weights, s), before);
                record[updated.recorded(s)] = before;
                field[place] = mapped.value;
                log_det += UP ? double(mapped.log_slope) : -double(mapped.log_slope);
            }
        }
        block.slots()[t] += log_det;
    });
}

// z → y (UP) or y → z in place; leaves ln|det| in the slots.
template <bool UP>
DEVICE void pass(const Block& block, real* field, real* record) {
    const int begin = int(block.of.begin), end = int(block.of.end);
    const int first = UP ? begin : end - 1, way = UP ? 1 : -1;
    phase([&](int t) { load_weights(block, first, 0, t); });
    for (int step = 0; step < end - begin; ++step) {
        const int number = first + way * step;
        const Coupling& coupling = block.of.couplings[number];
        with_shape(coupling.shape, [&](auto shape) { pass_coupling<decltype(shape), UP>(block, coupling, number + way, step, field, record); });
    }
}

// What is differentiated.
enum Pass {
    // The inverse pass at fixed parameters while the forward pass moves on: the score.
    SCORE_PASS,
    // A recorded forward or inverse pass, which is undone.
    FORWARD_PASS,
    INVERSE_PASS
};

// Cotangents of a row's map; the field goes on, or back.
template <class S, Pass PASS, bool GRADIENT>
DEVICE void pull_back_map(const Block& block, const real* weights, const Updated& updated, real of_log_det, const real (&outputs)[OUTPUTS],
                          real* field, real* cotangent, real* record, const Column& column, real (&deltas)[OUTPUTS], int thread) {
    UNROLL for (int s = 0; s < PER_ROW; ++s) {
        real raw[PARAMETERS];
        raw_parameters(outputs, s, raw);
        const int place = updated.place(s), recorded = updated.recorded(s);
        const real latent = PASS == FORWARD_PASS ? record[recorded] : field[place];
        const auto partials = Map::partials(raw, scale<S>(weights, s), latent);
        // A forward pass has y = f(u; θ) and log_det = ln f'. An inverse one solves f(u; θ) = y with log_det = -ln f': with
        // ĝ = g_u - g_l ∂_u ln f' then g_y = ĝ/f' and g_θ = -g_y ∂_θ f - g_l ∂_θ ln f'.
        const real before = cotangent[place];
        const bool forward = PASS == FORWARD_PASS;
        const real of_log = forward ? of_log_det : -of_log_det;
        const real of_value = forward ? before : (of_log_det * partials.log_slope_by_latent - before) / partials.slope;
        cotangent[place] = forward ? of_value * partials.slope + of_log * partials.log_slope_by_latent : -of_value;
        UNROLL for (int p = 0; p < PARAMETERS; ++p)
            deltas[Map::order(p) * PER_ROW + s] = of_value * partials.value_by[p] + of_log * partials.log_slope_by[p];
        if (GRADIENT && SCALES > 0) column[S::by_scales + s] = of_value * partials.value_by_scale + of_log * partials.log_slope_by_scale;
        if (PASS == SCORE_PASS) {
            const Mapped mapped = Map::value(raw, scale<S>(weights, s), latent);
            record[recorded] = latent;
            field[place] = mapped.value;
            block.slots()[thread] += double(mapped.log_slope);
        } else {
            field[place] = record[recorded];
        }
    }
}

// One row and lane: its networks, its map and both pulled back. Cotangents of its inputs go to `spread`.
template <class S, Pass PASS, bool GRADIENT>
DEVICE void pull_back_row(const Block& block, const Coupling& coupling, const real* weights, int item, const real* of_log_det, real* field,
                          real* cotangent, real* record, int thread) {
    const int row = item / LANES, lane = item % LANES;
    const Column column{block.panel() + thread};
    real inputs[some(S::inputs)], outputs[OUTPUTS], deltas[OUTPUTS], of_inputs[some(S::inputs)];
    gather<S>(block, coupling, field, row, lane, inputs);
    if (GRADIENT) keep<S::inputs>(column, 0, inputs);
    network<S, true>(weights, inputs, column, outputs);
    const Updated updated(block, coupling, row, lane);
    pull_back_map<S, PASS, GRADIENT>(block, weights, updated, of_log_det ? of_log_det[lane] : real(1), outputs, field, cotangent, record, column,
                                     deltas, thread);
    if (GRADIENT) {
        keep<OUTPUTS>(column, S::outputs, deltas);
        column[S::ones] = 1;
    }
    pull_back_network<S, GRADIENT>(weights, column, deltas, of_inputs);
    UNROLL for (int k = 0; k < S::inputs; ++k)
        block.spread()[(k * coupling.rows + row) * LANES + lane] = block.of.shells[coupling.shells + k].weight * of_inputs[k];
}

// The cotangents of all sites that rows of a coupling see.
DEVICE void collect_spread(const Block& block, const Coupling& coupling, real* cotangent, int thread) {
    const Site* seen = block.of.sites + coupling.seen;
    // One more than there are sites seen.
    const int *starts = block.of.seers + coupling.seers, *seers = starts + coupling.seen_count + 1;
    for (int place = thread; place < coupling.seen_count * LANES; place += THREADS) {
        const int number = place / LANES, lane = place % LANES;
        real sum = 0;
        for (int seer = starts[number]; seer < starts[number + 1]; ++seer) sum += block.spread()[seers[seer] * LANES + lane];
        cotangent[seen[number] * LANES + lane] += sum;
    }
}

template <class S, Pass PASS, bool GRADIENT>
DEVICE void pull_back_coupling(const Block& block, const Coupling& coupling, int next, int step, const real* of_log_det, real* field,
                               real* cotangent, real* record) {
    const int items = coupling.rows * LANES;
    const real* weights = block.weights(step);
    for (int first = 0; first < items; first += CHUNK) {
        const int count = items - first < CHUNK ? items - first : CHUNK;
        phase([&](int t) {
            if (first == 0) load_weights(block, next, step + 1, t);
            if (t < count)
                pull_back_row<S, PASS, GRADIENT>(block, coupling, weights, first + t, of_log_det, field, cotangent, record, t);
        });
        if (GRADIENT) {
            for (int tile = 0; tile < Matrices<S>::tiles(); tile += THREADS) {
                phase([&](int t) { sum_parts<S>(block, tile, count, t); });
                phase([&](int t) { add_parts<S>(block, coupling, tile, t); });
            }
        }
    }
    phase([&](int t) { collect_spread(block, coupling, cotangent, t); });
}

// Undoes a recorded pass, or goes forward with the score: the field goes to the other side and its cotangent with it; with GRADIENT those of
// the parameters are added to the block's. `of_log_det`, one a lane, multiplies ln|det|; none: 1.
template <Pass PASS, bool GRADIENT>
DEVICE void pull_back(const Block& block, const real* of_log_det, real* field, real* cotangent, real* record) {
    const int begin = int(block.of.begin), end = int(block.of.end);
    const bool up = PASS != FORWARD_PASS;
    const int first = up ? begin : end - 1, way = up ? 1 : -1;
    phase([&](int t) { load_weights(block, first, 0, t); });
    for (int step = 0; step < end - begin; ++step) {
        const int number = first + way * step;
        const Coupling& coupling = block.of.couplings[number];
        with_shape(coupling.shape, [&](auto shape) {
            pull_back_coupling<decltype(shape), PASS, GRADIENT>(block, coupling, number + way, step, of_log_det, field, cotangent, record);
        });
    }
}
