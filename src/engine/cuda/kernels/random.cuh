// Random numbers as the host's: Philox4x32-10, two normal numbers of a block (`random.rs`).

DEVICE void philox(unsigned (&counter)[4], unsigned long long key) {
    unsigned low = unsigned(key), high = unsigned(key >> 32);
    UNROLL for (int round = 0; round < 10; ++round) {
        const unsigned long long a = 0xD2511F53ull * counter[0], c = 0xCD9E8D57ull * counter[2];
        const unsigned next[4] = {unsigned(c >> 32) ^ counter[1] ^ low, unsigned(c), unsigned(a >> 32) ^ counter[3] ^ high, unsigned(a)};
        UNROLL for (int i = 0; i < 4; ++i) counter[i] = next[i];
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
}

// A number in [0, 1) of 53 bits.
DEVICE double uniform(unsigned high, unsigned low) {
    return high * (1.0 / 4294967296.0) + (low >> 11) * (1.0 / 9007199254740992.0);
}

// Latents 2 `pair` and 2 `pair` + 1 of a sample.
struct Normals {
    double numbers[2];

    DEVICE Normals(unsigned long long key, unsigned long long sample, unsigned pair) {
        unsigned words[4] = {pair, unsigned(sample), unsigned(sample >> 32), USE_LATENTS};
        philox(words, key);
        const double radius = sqrt(-2 * log(1 - uniform(words[0], words[1])));
        const double half_turns = 2 * uniform(words[2], words[3]);
        numbers[0] = radius * cospi(half_turns);
        numbers[1] = radius * sinpi(half_turns);
    }
};
