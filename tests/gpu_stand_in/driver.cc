// A stand-in for libcuda.so.1: a GPU whose memory is the host's and whose kernels are functions of shared libraries (nvrtc.cc). Blocks run
// one after the other, when a kernel is launched. For tests of all that surrounds kernels, on machines without a GPU.
//
//   STAND_IN_VERSION   of the driver's interface; default 12090
//   STAND_IN_MEMORY    bytes of the GPU; default 1 GiB
//   STAND_IN_LAUNCHES  so many launches, then the GPU is lost
//   STAND_IN_ARCHITECTURE  compute capability; default 90
//   STAND_IN_GPUS      how many there are; default 1

#include <dlfcn.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

enum Status { DONE = 0, BAD_VALUE = 1, NO_MEMORY = 2, NO_DEVICE = 100, BAD_IMAGE = 200, BAD_CONTEXT = 201, NOT_FOUND = 500, LOST = 719 };

// Whether this thread has said which context it works in.
thread_local bool current = false;
// Shared memory that blocks of a kernel may have.
std::map<void*, int> allowed;

std::mutex lock;
std::map<unsigned long long, size_t> pieces;
size_t used = 0;
long launches = 0;

long number(const char* name, long otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atol(value) : otherwise;
}

bool lost() { return launches > number("STAND_IN_LAUNCHES", 1L << 62); }

// 16 bytes before the library: its length in the last eight.
constexpr size_t HEADER = 16;

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API int cuInit(unsigned) { return number("STAND_IN_GPUS", 1) > 0 ? DONE : NO_DEVICE; }
API int cuDriverGetVersion(int* version) {
    *version = int(number("STAND_IN_VERSION", 12090));
    return DONE;
}
API int cuDeviceGetCount(int* count) {
    *count = int(number("STAND_IN_GPUS", 1));
    return DONE;
}
API int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < number("STAND_IN_GPUS", 1) ? DONE : NO_DEVICE;
}
API int cuDeviceGetName(char* name, int length, int) {
    std::strncpy(name, "stand-in", size_t(length));
    return DONE;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
    // Compute capability, major and minor; shared memory that a block may have.
    const int architecture = int(number("STAND_IN_ARCHITECTURE", 90));
    *value = attribute == 75 ? architecture / 10 : attribute == 76 ? architecture % 10 : attribute == 97 ? 227 << 10 : 0;
    return DONE;
}
API int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &lock;
    return DONE;
}
API int cuDevicePrimaryCtxRelease_v2(int) { return DONE; }
API int cuCtxSetCurrent(void*) {
    current = true;
    return DONE;
}
API int cuCtxSynchronize() { return lost() ? LOST : DONE; }
API int cuMemGetInfo_v2(size_t* free, size_t* total) {
    *total = size_t(number("STAND_IN_MEMORY", 1L << 30));
    *free = *total - used;
    return DONE;
}
API int cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
    if (!current) return BAD_CONTEXT;
    std::lock_guard<std::mutex> guard(lock);
    if (used + bytes > size_t(number("STAND_IN_MEMORY", 1L << 30))) return NO_MEMORY;
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(memory, 0xff, bytes);
    *address = reinterpret_cast<unsigned long long>(memory);
    pieces[*address] = bytes;
    used += bytes;
    return DONE;
}
API int cuMemFree_v2(unsigned long long address) {
    std::lock_guard<std::mutex> guard(lock);
    used -= pieces[address];
    pieces.erase(address);
    std::free(reinterpret_cast<void*>(address));
    return DONE;
}
API int cuMemcpyHtoD_v2(unsigned long long to, const void* from, size_t bytes) {
    if (!current) return BAD_CONTEXT;
    if (lost()) return LOST;
    if (bytes > pieces[to]) std::abort();
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return DONE;
}
API int cuMemcpyDtoH_v2(void* to, unsigned long long from, size_t bytes) {
    if (!current) return BAD_CONTEXT;
    if (lost()) return LOST;
    if (bytes > pieces[from]) std::abort();
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return DONE;
}
API int cuModuleLoadData(void** module, const void* image) {
    if (!current) return BAD_CONTEXT;
    unsigned long long length;
    std::memcpy(&length, static_cast<const char*>(image) + HEADER - sizeof length, sizeof length);
    std::string path = "/tmp/stand-in-XXXXXX";
    const int file = mkstemp(&path[0]);
    const char* bytes = static_cast<const char*>(image) + HEADER;
    if (file < 0 || write(file, bytes, length) != ssize_t(length)) return BAD_IMAGE;
    close(file);
    // It stays until the process ends: the loader knows libraries by their inodes.
    *module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    unlink(path.c_str());
    return *module ? DONE : BAD_IMAGE;
}
API int cuModuleUnload(void*) { return current ? DONE : BAD_CONTEXT; }
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(module, name);
    return *function ? DONE : NOT_FOUND;
}
API int cuFuncSetAttribute(void* function, int, int value) {
    if (!current) return BAD_CONTEXT;
    std::lock_guard<std::mutex> guard(lock);
    allowed[function] = value;
    return value <= 227 << 10 ? DONE : BAD_VALUE;
}
API int cuLaunchKernel(void* function, unsigned blocks, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared, void*,
                       void** parameters, void**) {
    if (!current) return BAD_CONTEXT;
    std::lock_guard<std::mutex> guard(lock);
    ++launches;
    if (lost()) return LOST;
    if (int(shared) > allowed[function]) return BAD_VALUE;
    std::vector<std::max_align_t> memory(shared / sizeof(std::max_align_t) + 1);
    std::memset(memory.data(), 0xff, shared);
    using Kernel = void (*)(const void*, int, char*);
    reinterpret_cast<Kernel>(function)(parameters[0], int(blocks), reinterpret_cast<char*>(memory.data()));
    return DONE;
}
API int cuGetErrorName(int status, const char** name) {
    *name = status == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : status == LOST ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR";
    return DONE;
}
API int cuGetErrorString(int status, const char** words) {
    *words = status == NO_MEMORY ? "out of memory" : status == LOST ? "unspecified launch failure" : "an error of the stand-in";
    return DONE;
}
