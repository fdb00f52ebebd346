// One kernel for each evaluation of the engine (`engine.rs`).

constexpr bool HAS_MIRROR = SYMMETRY == MIXTURE || SYMMETRY == REGULARIZER;

// The tiles of a block, one after the other, with their latents or fields loaded.
struct Tiles {
    const Block& block;
    long long number;
    Tile tile;

    DEVICE explicit Tiles(const Block& block) : block(block), number(block.number - block.count) {}

    DEVICE bool next() {
        number += block.count;
        if (number >= block.of.tile_count) return false;
        tile = block.of.tiles[number];
        load(block, tile);
        return true;
    }
};

DEVICE void clear_gradient(const Block& block) {
    double* gradient = block.gradient();
    phase([&](int t) {
        for (int place = t; place < WEIGHT_COUNT; place += THREADS) gradient[place] = 0;
    });
}

template <bool PATH>
DEVICE void loss(const Block& block) {
    clear_gradient(block);
    for (Tiles tiles(block); tiles.next();) {
        const Tile& tile = tiles.tile;
        evaluate<PATH, HAS_MIRROR>(block, tile);
        store_sums(block, tile);
        set_coefficients(block, tile, PATH, block.of.symmetry_weight);
        differentiate<PATH, HAS_MIRROR, true>(block, tile);
    }
}

// Latents of given fields in `field` and, with the mixture, of their negatives in `mirror`.
DEVICE void invert(const Block& block, const Tile& tile) {
    undo_layer(block, tile, block.field());
    if (SYMMETRY == MIXTURE) invert_mirror(block);
    pass<false>(block, block.field(), block.record());
    reduce_to(block, &Sums::log_det);
    dot(block, block.field(), block.field());
    reduce_to(block, &Sums::latent);
    store_sums(block, tile);
}

DEVICE void run_loss_total(const Block& block) { loss<false>(block); }

DEVICE void run_loss_path(const Block& block) { loss<true>(block); }

DEVICE void run_likelihood_loss(const Block& block) {
    clear_gradient(block);
    for (Tiles tiles(block); tiles.next();) {
        const Tile& tile = tiles.tile;
        invert(block, tile);
        phase([&](int lane) {
            if (lane >= LANES) return;
            const Shares shares(block.sums()[lane], true);
            of_ln_q(block)[lane] = lane < tile.count ? real(-shares.straight) : real(0);
            of_mirror(block)[lane] = lane < tile.count ? real(-shares.mirrored) : real(0);
        });
        pull_back_ln_q<true>(block, of_ln_q(block), block.field(), block.cotangent(), block.record());
        if (SYMMETRY == MIXTURE) pull_back_ln_q<true>(block, of_mirror(block), block.mirror(), block.cotangent(), block.mirror_record());
    }
}

DEVICE void run_ln_likelihood(const Block& block) {
    for (Tiles tiles(block); tiles.next();) invert(block, tiles.tile);
}

DEVICE void run_draw(const Block& block) {
    for (Tiles tiles(block); tiles.next();) {
        const Tile& tile = tiles.tile;
        evaluate<false, SYMMETRY == MIXTURE>(block, tile);
        store_sums(block, tile);
        store(tile, block.image(), block.of.field);
    }
}

// The derivative is that of U(z).
DEVICE void run_potential(const Block& block) {
    for (Tiles tiles(block); tiles.next();) {
        const Tile& tile = tiles.tile;
        evaluate<false, SYMMETRY == MIXTURE>(block, tile);
        store_sums(block, tile);
        store(tile, block.image(), block.of.field);
        set_coefficients(block, tile, false, 0);
        differentiate<false, SYMMETRY == MIXTURE, false>(block, tile);
        // What ln p(z) contributes besides: U has -ln p(z) and, in ln q, a share of + ln p(z). The coefficient was negated.
        real *field = block.field(), *cotangent = block.cotangent();
        each([&](int place, int) { cotangent[place] += (1 + of_ln_q(block)[place % LANES]) * field[place]; });
        store(tile, cotangent, block.of.derivative);
    }
}

template <bool UP, bool WITH_LAYER>
DEVICE void map(const Block& block) {
    for (Tiles tiles(block); tiles.next();) {
        const Tile& tile = tiles.tile;
        if (!UP && WITH_LAYER) undo_layer(block, tile, block.field());
        pass<UP>(block, block.field(), block.record());
        reduce_to(block, &Sums::log_det);
        if (UP && WITH_LAYER && LAYER && TARGET) apply_spectrum(block, spectra(block, tile).inverse_root, block.field());
        store_sums(block, tile);
        store(tile, block.field(), block.of.field);
    }
}

DEVICE void run_forward(const Block& block) { map<true, true>(block); }

DEVICE void run_inverse(const Block& block) { map<false, true>(block); }

DEVICE void run_forward_through(const Block& block) { map<true, false>(block); }

DEVICE void run_inverse_through(const Block& block) { map<false, false>(block); }

DEVICE void run_inverse_derivatives(const Block& block) {
    for (Tiles tiles(block); tiles.next();) {
        const Tile& tile = tiles.tile;
        real *field = block.field(), *latent = block.mirror(), *cotangent = block.cotangent();
        undo_layer(block, tile, field);
        pass<false>(block, field, block.record());
        each([&](int place, int) { latent[place] = field[place]; });
        phase([&](int lane) {
            if (lane < LANES) of_ln_q(block)[lane] = 0;
        });
        for (long long number = 0; number < block.of.latent_count; ++number) {
            const int site = block.of.latents[number];
            each([&](int place, int) {
                field[place] = latent[place];
                cotangent[place] = place / LANES == site ? real(1) : real(0);
            });
            pull_back<INVERSE_PASS, false>(block, of_ln_q(block), field, cotangent, block.record());
            undo_layer(block, tile, cotangent);
            store(tile, cotangent, block.of.derivative + number * block.of.batch * SITES);
        }
    }
}

// Sums over blocks in their order, one thread of the grid for each weight, into the first one's.
DEVICE void run_sum_gradients(const Block& block) {
    phase([&](int t) {
        const long long place = (long long)block.number * THREADS + t;
        if (place >= WEIGHT_COUNT) return;
        double sum = 0;
        for (long long other = 0; other < block.of.tile_count; ++other) sum += block.of.gradient[other * WEIGHT_COUNT + place];
        block.of.gradient[place] = sum;
    });
}
