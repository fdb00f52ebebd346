// How phases run on a GPU: every thread of a block takes its part, then all wait for each other.

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLL _Pragma("unroll 1")
#define UNROLL_BY_FOUR _Pragma("unroll 4")
#define KERNEL(name)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(const __grid_constant__ Arguments arguments) { \
        run_##name(Block(arguments, blockIdx.x, gridDim.x));                                \
    }

// The memory of a block.
extern __shared__ __align__(16) char shared[];

// By the hardware, to a few units in the last place.
DEVICE float quick_exponential(float x) { return __expf(x); }
DEVICE float quick_quotient(float a, float b) { return __fdividef(a, b); }

template <class Work>
DEVICE void phase(const Work& work) {
    work(int(threadIdx.x));
    __syncthreads();
}
