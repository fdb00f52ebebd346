// Monotone maps y = f(u; θ) of one site, with the partial derivatives from which those of both directions follow
// (`native/transform.rs`).

struct Mapped {
    real value, log_slope;
};

// Of maps with P raw parameters.
template <int P>
struct Partials {
    // f', ∂ ln f'/∂u; ∂f/∂θ and ∂ ln f'/∂θ; the same by the scale.
    real slope, log_slope_by_latent;
    real value_by[P], log_slope_by[P];
    real value_by_scale, log_slope_by_scale;
};

// y = eˢ u + t with s = scale × tanh(raw s); raw: s, t.
struct Affine {
    // Of each raw parameter among the network's: even ones come last where there are parities.
    static constexpr int order(int parameter) { return ODD ? 1 - parameter : parameter; }

    DEVICE static Mapped value(const real* raw, real scale, real latent) {
        const real log_slope = scale * hyperbolic_tangent(raw[0]);
        return {exponential(log_slope) * latent + raw[1], log_slope};
    }

    DEVICE static Mapped solve(const real* raw, real scale, real value) {
        const real log_slope = scale * hyperbolic_tangent(raw[0]);
        return {(value - raw[1]) * exponential(-log_slope), log_slope};
    }

    DEVICE static Partials<2> partials(const real* raw, real scale, real latent) {
        const real tanh = hyperbolic_tangent(raw[0]), slope = exponential(scale * tanh);
        const real by_raw = scale * (1 - tanh * tanh);
        return {slope, 0, {slope * latent * by_raw, 1}, {by_raw, 0}, slope * latent * tanh, tanh};
    }
};

// y = eˢ u + t + a tanh(b u + c) with a, b = softplus(raw a, raw b); raw: t, c, s, a, b.
struct Bump {
    static constexpr int order(int parameter) { return parameter; }

    DEVICE static Mapped value(const real* raw, real, real latent) {
        const real base = exponential(raw[2]), height = Softplus(raw[3]).value, steepness = Softplus(raw[4]).value;
        const Tanh tanh(steepness * latent + raw[1]);
        return {base * latent + (height * tanh.value + raw[0]), logarithm(height * steepness * tanh.slope + base)};
    }

    // Newton's method inside a shrinking bracket: y - t lies within ± a of eˢ u.
    DEVICE static Mapped solve(const real* raw, real, real value) {
        const real base = exponential(raw[2]), inverse = exponential(-raw[2]), center = raw[1];
        const real height = Softplus(raw[3]).value, steepness = Softplus(raw[4]).value, target = value - raw[0];
        real low = (target - height) * inverse, high = (target + height) * inverse;
        real last = high - low;
        const real nonnegative = low > 0 ? low : 0;
        real latent = high < nonnegative ? high : nonnegative;
        for (int iteration = 0; iteration < ITERATIONS; ++iteration) {
            const Tanh tanh(steepness * latent + center);
            const real excess = base * latent + (height * tanh.value - target);
            const real step = excess / (height * steepness * tanh.slope + base);
            if (excess > 0) high = latent; else low = latent;
            const real newton = latent - step;
            const bool more = magnitude(excess) > TOLERANCE * (magnitude(base * latent) + height + magnitude(target));
            // A converged one takes its last step whatever the bracket says. NaN counts as converged.
            const bool bisect = more && (magnitude(step) > real(0.5) * last || newton < low || newton > high);
            const real next = bisect ? low + real(0.5) * (high - low) : newton;
            last = magnitude(next - latent);
            latent = next;
            if (!more) break;
        }
        return {latent, logarithm(height * steepness * Tanh(steepness * latent + center).slope + base)};
    }

    DEVICE static Partials<5> partials(const real* raw, real, real latent) {
        const real base = exponential(raw[2]);
        const Softplus height(raw[3]), steepness(raw[4]);
        const Tanh tanh(steepness.value * latent + raw[1]);
        const real slope = height.value * steepness.value * tanh.slope + base, inverse = 1 / slope;
        const real by_center = height.value * tanh.slope;
        // ∂f'/∂c = ab × ∂sech²(bu + c)/∂c.
        const real slope_by_center = -2 * tanh.value * steepness.value * by_center;
        return {slope,
                slope_by_center * steepness.value * inverse,
                {1, by_center, base * latent, tanh.value * height.slope, by_center * latent * steepness.slope},
                {0, slope_by_center * inverse, base * inverse, steepness.value * tanh.slope * inverse * height.slope,
                 (slope_by_center * latent + by_center) * inverse * steepness.slope},
                0,
                0};
    }
};
