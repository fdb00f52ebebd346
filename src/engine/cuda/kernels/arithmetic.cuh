// Functions of one number.

DEVICE float exponential(float x) { return expf(x); }
DEVICE double exponential(double x) { return exp(x); }
DEVICE float logarithm(float x) { return logf(x); }
DEVICE double logarithm(double x) { return log(x); }
DEVICE float logarithm_1p(float x) { return log1pf(x); }
DEVICE double logarithm_1p(double x) { return log1p(x); }
// Rational minimax approximation (`native/lanes.rs`); beyond ±7.905 the result rounds to ±1.
DEVICE float hyperbolic_tangent(float x) {
    constexpr double beta = 4.89352518554385e-3;
    x = x < -7.905311f ? -7.905311f : x > 7.905311f ? 7.905311f : x;
    const float square = x * x;
    float above = float(-2.76076847742355e-16 / beta);
    above = above * square + float(2.00018790482477e-13 / beta);
    above = above * square + float(-8.60467152213735e-11 / beta);
    above = above * square + float(5.12229709037114e-8 / beta);
    above = above * square + float(1.48572235717979e-5 / beta);
    above = above * square + float(6.37261928875436e-4 / beta);
    above = above * square + float(4.89352455891786e-3 / beta);
    float below = float(1.19825839466702e-6 / beta);
    below = below * square + float(1.18534705686654e-4 / beta);
    below = below * square + float(2.268434632439e-3 / beta);
    below = below * square + 1;
    return x * quick_quotient(above, below);
}
DEVICE double hyperbolic_tangent(double x) { return tanh(x); }
DEVICE float exponential_minus_1(float x) { return quick_exponential(x) - 1; }
DEVICE double exponential_minus_1(double x) { return expm1(x); }

DEVICE real not_a_number() { return real(nan("")); }

DEVICE real magnitude(real x) { return x < 0 ? -x : x; }

// (ln(1 + eˣ), its derivative).
struct Softplus {
    real value, slope;

    DEVICE explicit Softplus(real x) {
        const real decayed = exponential(-magnitude(x)), sigmoid = 1 / (1 + decayed);
        value = (x > 0 ? x : 0) + logarithm_1p(decayed);
        slope = x > 0 ? sigmoid : decayed * sigmoid;
    }
};

// (tanh x, sech² x), both accurate also where tanh is near ±1.
struct Tanh {
    real value, slope;

    DEVICE explicit Tanh(real x) {
        const real decayed = exponential(-2 * magnitude(x)), inverse = 1 / (1 + decayed);
        value = hyperbolic_tangent(x);
        slope = 4 * decayed * inverse * inverse;
    }
};

// V(x) and V'(x) of the target.
struct SitePotential {
    real value, slope;

    DEVICE explicit SitePotential(real x) {
        // -ln cosh x.
        const real twice = 2 * magnitude(x);
        value = real(0.6931471805599453) - magnitude(x) - logarithm_1p(exponential(-twice));
        slope = -hyperbolic_tangent(x);
    }
};

DEVICE real activated(real x) {
    if (ODD) return hyperbolic_tangent(x);
    return x > 0 ? x : exponential_minus_1(x);
}

// The activation's derivative from its value.
DEVICE real activation_slope(real value) {
    if (ODD) return 1 - value * value;
    return value > 0 ? real(1) : value + 1;
}
