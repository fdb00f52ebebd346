// How phases run on a host, in tests: the threads of a block one after the other, and so the blocks.

#include <cmath>

#define DEVICE inline
#define UNROLL
#define ROLL
#define UNROLL_BY_FOUR
#define KERNEL(name)                                                                 \
    extern "C" void name(const Arguments& arguments, int blocks, char* memory) {     \
        shared = memory;                                                             \
        for (int block = 0; block < blocks; ++block) run_##name(Block(arguments, block, blocks)); \
    }

using std::exp, std::expm1, std::log, std::log1p, std::nan, std::sqrt, std::tanh;

inline double cospi(double x) { return std::cos(3.141592653589793 * x); }
inline double sinpi(double x) { return std::sin(3.141592653589793 * x); }

inline float quick_exponential(float x) { return std::exp(x); }
inline float quick_quotient(float a, float b) { return a / b; }

// The memory of a block; several threads may be in one library, which flows of the same text share.
static thread_local char* shared;

template <class Work>
void phase(const Work& work) {
    for (int thread = 0; thread < THREADS; ++thread) work(thread);
}
