// ln q - ln π of a tile and its derivatives (`native/energy.rs`). Constants are the host's.

DEVICE const Spectra& spectra(const Block& block, const Tile& tile) { return block.of.spectra[tile.temperature]; }

// Given latents or fields, or latents of the prior; lanes without a sample are zero.
DEVICE void load(const Block& block, const Tile& tile) {
    real* field = block.field();
    const real* given = block.of.given;
    phase([&](int t) {
        block.slots()[t] = 0;
        if (given) {
            for (int place = t; place < SITES * LANES; place += THREADS) {
                const int lane = place / SITES, site = place % SITES;
                field[site * LANES + lane] = lane < tile.count ? given[(long long)(tile.first + lane) * SITES + site] : real(0);
            }
        } else {
            for (int place = t; place < SITES / 2 * LANES; place += THREADS) {
                const int lane = place % LANES, pair = place / LANES;
                const Normals normals(block.of.key, (unsigned long long)(block.of.first_sample + tile.first + lane), unsigned(pair));
                UNROLL for (int i = 0; i < 2; ++i) field[(2 * pair + i) * LANES + lane] = lane < tile.count ? real(normals.numbers[i]) : real(0);
            }
        }
    });
}

// The tile's part of (batch, N).
DEVICE void store(const Tile& tile, const real* field, real* out) {
    each([&](int place, int) {
        const int lane = place / SITES, site = place % SITES;
        if (lane < tile.count) out[(long long)(tile.first + lane) * SITES + site] = field[site * LANES + lane];
    });
}

DEVICE void store_sums(const Block& block, const Tile& tile) {
    phase([&](int t) {
        if (t < tile.count) block.of.sums[tile.first + t] = block.sums()[t];
    });
}

DEVICE void set_negative(const real* field, real* out) {
    each([&](int place, int) { out[place] = -field[place]; });
}

// Sums of the slots to one number of each lane.
DEVICE void reduce_to(const Block& block, double Sums::*number) {
    Sums* sums = block.sums();
    reduce(block, [&](int lane, double sum) { sums[lane].*number = sum; });
}

// The latent of -y, and what its density is made of.
DEVICE void invert_mirror(const Block& block) {
    set_negative(block.field(), block.mirror());
    pass<false>(block, block.mirror(), block.mirror_record());
    reduce_to(block, &Sums::mirror_log_det);
    dot(block, block.mirror(), block.mirror());
    reduce_to(block, &Sums::mirror_latent);
}

// What ln π(x) is made of, x to `image`, and the quadratic form's part of -∂ ln π/∂y to `cotangent`.
DEVICE void evaluate_target(const Block& block, const Tile& tile) {
    real *field = block.field(), *image = block.image(), *cotangent = block.cotangent();
    each([&](int place, int) {
        image[place] = field[place];
        cotangent[place] = TARGET ? field[place] : not_a_number();
    });
    if (!TARGET) return;
    // The quadratic form's derivative by y, where y = x or, with the layer, y = κ^(1/2) x.
    if (LAYER)
        apply_spectrum(block, spectra(block, tile).inverse_root, image);
    else
        apply_spectrum(block, spectra(block, tile).kappa, cotangent);
    dot(block, field, cotangent);
    reduce_to(block, &Sums::quadratic);
    double* slots = block.slots();
    each([&](int place, int t) { slots[t] += double(SitePotential(image[place]).value); });
    reduce_to(block, &Sums::site);
}

// Adds the site potential's part to -∂ ln π/∂y; `image` is lost.
DEVICE void add_site_forces(const Block& block, const Tile& tile) {
    if (!TARGET) return;
    real *image = block.image(), *cotangent = block.cotangent();
    each([&](int place, int) { image[place] = SitePotential(image[place]).slope; });
    if (LAYER) apply_spectrum(block, spectra(block, tile).inverse_root, image);
    each([&](int place, int) { cotangent[place] += image[place]; });
}

// From latents in `field` to y there, x in `image` and the sums; the quadratic form's part of -∂ ln π/∂y in
// `cotangent`; with SCORES ∂ ln q/∂y in `score`, with MIRRORED the latent of -x in `mirror`.
template <bool SCORES, bool MIRRORED>
DEVICE void evaluate(const Block& block, const Tile& tile) {
    dot(block, block.field(), block.field());
    reduce_to(block, &Sums::latent);
    if (SCORES) {
        set_negative(block.field(), block.score());
        pull_back<SCORE_PASS, false>(block, nullptr, block.field(), block.score(), block.record());
    } else {
        pass<true>(block, block.field(), block.record());
    }
    reduce_to(block, &Sums::log_det);
    evaluate_target(block, tile);
    if (MIRRORED) invert_mirror(block);
}

// eᵃ / (eᵃ + eᵇ), or 0 where the other share rounds to 1.
DEVICE double share(double a, double b) {
    const double share = 1 / (1 + exp(b - a));
    return real(1 - share) == real(1) ? 0 : share;
}

// Derivatives of the model's ln q(x) by the flow's ln q(x) and ln q(-x).
struct Shares {
    double straight = 1, mirrored = 0;

    DEVICE explicit Shares(const Sums& sums, bool given) {
        if (SYMMETRY != MIXTURE) return;
        // ln q(x) from the latent of a sample, or from that of a given field.
        const double ln_q = -0.5 * sums.latent + (given ? sums.log_det : -sums.log_det);
        const double ln_q_mirror = -0.5 * sums.mirror_latent + sums.mirror_log_det;
        straight = share(ln_q, ln_q_mirror);
        mirrored = share(ln_q_mirror, ln_q);
    }
};

// Coefficients of each lane's loss: of ln q(x), of ln q(-x), and of the score.
DEVICE real* of_ln_q(const Block& block) { return block.coefficients(); }
DEVICE real* of_mirror(const Block& block) { return block.coefficients() + LANES; }
DEVICE real* of_score(const Block& block) { return block.coefficients() + 2 * LANES; }

// Those of ln q_sym(x) + weight × (ln q(x) - ln q(-x)); the log-determinant of the forward pass has the negative of the first.
DEVICE void set_coefficients(const Block& block, const Tile& tile, bool path, double weight) {
    phase([&](int lane) {
        if (lane >= LANES) return;
        const Shares shares(block.sums()[lane], false);
        const double asymmetry = SYMMETRY == REGULARIZER ? weight : 0;
        const bool sample = lane < tile.count;
        of_ln_q(block)[lane] = sample ? real((path ? 0 : shares.straight) + asymmetry) : real(0);
        of_mirror(block)[lane] = sample ? real(shares.mirrored - asymmetry) : real(0);
        of_score(block)[lane] = sample && path ? real(shares.straight) : real(0);
    });
}

// `field` += `factor` × `other`, one factor a lane; zero factors give zero.
DEVICE void add_product(real* field, const real* factor, const real* other) {
    each([&](int place, int) {
        if (factor[place % LANES] != 0) field[place] += factor[place % LANES] * other[place];
    });
}

DEVICE bool all_zero(const real* coefficients) {
    bool zero = true;
    for (int lane = 0; lane < LANES; ++lane) zero = zero && coefficients[lane] == 0;
    return zero;
}

// After an inverse pass: with ln q(y) = ln p(z) + log_det and ∂ ln p/∂z = -z, coefficient × ∂ ln q/∂y in `cotangent`, and that of the
// parameters in the gradient; the latent goes back to y.
template <bool GRADIENT>
DEVICE void pull_back_ln_q(const Block& block, const real* coefficient, real* latent, real* cotangent, real* record) {
    each([&](int place, int) {
        const real factor = coefficient[place % LANES];
        cotangent[place] = factor != 0 ? -factor * latent[place] : real(0);
    });
    if (!all_zero(coefficient)) pull_back<INVERSE_PASS, GRADIENT>(block, coefficient, latent, cotangent, record);
}

// From -∂ ln π/∂y in `cotangent` to the derivative of the loss by z there, without that of ln p(z) in ln q(x), and z in `field`; the
// cotangent of ln q(-x) takes the place of the score.
template <bool PATH, bool MIRRORED, bool GRADIENT>
DEVICE void differentiate(const Block& block, const Tile& tile) {
    add_site_forces(block, tile);
    real* cotangent = block.cotangent();
    each([&](int place, int) {
        if (place % LANES >= tile.count) cotangent[place] = 0;
    });
    if (PATH) add_product(cotangent, of_score(block), block.score());
    if (MIRRORED) {
        // The path gradient of the mixture holds the parameters of ln q(-x) fixed.
        constexpr bool free = GRADIENT && !(PATH && SYMMETRY == MIXTURE);
        real* of_mirrored = block.score();
        pull_back_ln_q<free>(block, of_mirror(block), block.mirror(), of_mirrored, block.mirror_record());
        each([&](int place, int) { cotangent[place] -= of_mirrored[place]; });
    }
    phase([&](int lane) {
        if (lane < LANES) of_ln_q(block)[lane] = -of_ln_q(block)[lane];
    });
    pull_back<FORWARD_PASS, GRADIENT>(block, of_ln_q(block), block.field(), cotangent, block.record());
}

// y from given x, in place.
DEVICE void undo_layer(const Block& block, const Tile& tile, real* field) {
    if (LAYER && TARGET) apply_spectrum(block, spectra(block, tile).root, field);
}
