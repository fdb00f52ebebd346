// What a kernel gets, and how a block of threads shares it. Constants in capitals are those of the flow, written above this text.
//
// A block works on a tile of LANES samples of one temperature. Fields lie (site, lane); thread t works for lane t % LANES only.
// A kernel is a list of phases, between which all threads wait: what passes from one to the next lies in shared memory or in
// memory of the block's own, never in a thread's variables, and no thread reads in a phase what another writes in it.

// A coupling's tables, at places in those of the flow.
struct Coupling {
    int shape, rows;
    // Of its weights among all packed ones, and how many.
    int weights, weight_count;
    // Of its updated sites: site s of row r at s × rows + r; and of what passes record of them, in the same order.
    int updated, record;
    // Of its first shell.
    int shells;
    // Of the sites that its rows see, and how many; the list below begins and ends for each of them.
    int seen, seen_count;
    // Of who sees them: shell × rows + row.
    int seers;
};

// One input of each row: weight × the sum over sites, of which number j of row r lies at j × rows + r.
struct Shell {
    int sites, size;
    real weight;
};

// Samples that a block works on together.
struct Tile {
    int first, count, temperature;
};

// κ, κ^(-1/2) and κ^(1/2) at one temperature, for each mode of the basis.
struct Spectra {
    real kappa[SITES], inverse_root[SITES], root[SITES];
};

// What the densities of a sample follow from.
struct Sums {
    // Σ z², ln|det ∂y/∂z|, x·Kx, Σ V(x); of -x: Σ z², ln|det ∂z/∂y|.
    double latent, log_det, quadratic, site, mirror_latent, mirror_log_det;
};

// All pointers and numbers have eight bytes.
struct Arguments {
    const Coupling* couplings;
    const Shell* shells;
    const Site* sites;
    const int* seers;
    const real* weights;
    const real* basis;
    const real* transposed_basis;
    const Spectra* spectra;
    const Tile* tiles;
    long long tile_count;
    // (batch, N); none: drawn from the prior, samples `first_sample`, … of `key`.
    const real* given;
    unsigned long long key;
    long long first_sample;
    // The couplings to go through.
    long long begin, end;
    double symmetry_weight;
    // Sites whose latents are differentiated.
    const int* latents;
    long long latent_count;
    // Memory of the blocks' own.
    char* own;
    // (batch).
    Sums* sums;
    // (batch, N) each, or (latents, batch, N).
    real* field;
    real* derivative;
    long long batch;
    // (blocks, weights).
    double* gradient;
};

// Room for what would be an empty array.
constexpr int some(int count) { return count > 0 ? count : 1; }

// Rows of packed weights are whole groups of four.
constexpr int padded(int count) { return (count + 3) / 4 * 4; }

// Four numbers that lie together.
struct alignas(16) Four {
    real of[4];
};

DEVICE const Four& four(const real* numbers) { return *reinterpret_cast<const Four*>(numbers); }

// A block and where it keeps what.
struct Block {
    const Arguments& of;
    int number, count;
    char* own;

    DEVICE Block(const Arguments& arguments, int number, int count)
        : of(arguments), number(number), count(count), own(arguments.own + (long long)number * OWN_BYTES) {}

    template <class T>
    DEVICE T* at(Place place) const {
        return reinterpret_cast<T*>((place.shared ? ::shared : own) + place.offset);
    }

    // (site, lane): y or z; of y, later z; ∂ ln q/∂y; -y or its latent.
    DEVICE real* field() const { return at<real>(FIELD); }
    DEVICE real* cotangent() const { return at<real>(COTANGENT); }
    DEVICE real* score() const { return at<real>(SCORE); }
    DEVICE real* mirror() const { return at<real>(MIRROR); }
    // The same: x, and room.
    DEVICE real* image() const { return at<real>(IMAGE); }
    DEVICE real* scratch() const { return at<real>(SCRATCH); }
    // Values that a pass has overwritten, (record, lane): of the field, of the mirror.
    DEVICE real* record() const { return at<real>(RECORD); }
    DEVICE real* mirror_record() const { return at<real>(MIRROR_RECORD); }
    // Cotangents of the inputs of a coupling's rows, (shell × rows + row, lane).
    DEVICE real* spread() const { return at<real>(SPREAD); }
    // The networks' units and their cotangents for a chunk of rows and lanes, (unit, item).
    DEVICE real* panel() const { return at<real>(PANEL); }
    // Weights of the coupling at hand and of the next, in turn.
    DEVICE real* weights(int step) const { return at<real>(WEIGHTS) + step % 2 * MOST_WEIGHTS; }
    // Parts of a gradient: 16 of each thread.
    DEVICE real* parts() const { return at<real>(PARTS); }
    // One sum a thread, and those of the tile, one a lane.
    DEVICE double* slots() const { return at<double>(SLOTS); }
    DEVICE Sums* sums() const { return at<Sums>(TOTALS); }
    // Three coefficients a lane: of ln q(x), of ln q(-x), of the score.
    DEVICE real* coefficients() const { return at<real>(COEFFICIENTS); }
    DEVICE double* gradient() const { return of.gradient + (long long)number * WEIGHT_COUNT; }
};

// Sums of the slots of each lane, in an order that depends on nothing, put where `store` wants them. Leaves zeros.
template <class Store>
DEVICE void reduce(const Block& block, const Store& store) {
    double* slots = block.slots();
    for (int half = THREADS / 2; half >= LANES; half /= 2)
        phase([&](int t) {
            if (t < half) slots[t] += slots[t + half];
        });
    phase([&](int t) {
        if (t < LANES) store(t, slots[t]);
    });
    phase([&](int t) { slots[t] = 0; });
}

// Calls `work` for each place of a tile's field.
template <class Work>
DEVICE void each(const Work& work) {
    phase([&](int t) {
        ROLL for (int place = t; place < SITES * LANES; place += THREADS) work(place, t);
    });
}

// Σ_i a_i b_i of each lane into the slots.
DEVICE void dot(const Block& block, const real* a, const real* b) {
    double* slots = block.slots();
    each([&](int place, int t) { slots[t] += double(a[place]) * double(b[place]); });
}
