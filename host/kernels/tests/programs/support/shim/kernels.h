// What CUDA C++ takes for granted, for a compiler of the processor. Kernels run on fibers: see
// runtime.cpp. Only tests use this.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

struct ShimDim {
    unsigned x, y, z;
};

struct ShimRuntime {
    ShimDim thread, block, threads, blocks;
    void (*sync)();
    unsigned long long (*exchange)(unsigned long long value, int from);
    void (*launch)(void (*body)(const unsigned long long*), const unsigned long long* arguments,
                   unsigned blocks, unsigned threads);
};

static ShimRuntime* shim;
extern "C" void shim_begin(ShimRuntime* runtime) { shim = runtime; }

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads)
// One block runs at a time.
#define __shared__ static
#define threadIdx shim->thread
#define blockIdx shim->block
#define blockDim shim->threads
#define gridDim shim->blocks

struct alignas(16) float4 {
    float x, y, z, w;
};

template <class To, class From>
static inline To shim_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
static inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return shim_bits<float>(x); }
static inline int __float_as_int(float x) { return shim_bits<int>(x); }
static inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline int __float2int_rz(float x) {
    if (x != x) return 0;
    if (x >= 2147483648.0f) return 2147483647;
    if (x <= -2147483648.0f) return -2147483647 - 1;
    return (int)x;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)(((unsigned long long)a * b) >> 32);
}
static inline unsigned long long atomicMin(unsigned long long* at, unsigned long long value) {
    unsigned long long old = *at;
    if (value < old) *at = value;
    return old;
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __clzll(long long x) {
    return x == 0 ? 64 : __builtin_clzll((unsigned long long)x);
}
static inline void __syncthreads() { shim->sync(); }

template <class T>
static inline T shim_shuffle(T value, int from) {
    static_assert(sizeof(T) == 4);
    return shim_bits<T>((unsigned)shim->exchange(shim_bits<unsigned>(value), from));
}
template <class T>
static inline T __shfl_sync(unsigned, T value, int lane) {
    return shim_shuffle(value, lane % 32);
}
template <class T>
static inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return shim_shuffle(value, (int)(threadIdx.x % 32) ^ mask);
}
template <class T>
static inline T __shfl_down_sync(unsigned, T value, unsigned delta) {
    int lane = (int)(threadIdx.x % 32) + (int)delta;
    return shim_shuffle(value, lane < 32 ? lane : (int)(threadIdx.x % 32));
}

template <class T>
static inline T shim_argument(unsigned long long bits) {
    static_assert(sizeof(T) == 8, "kernels take addresses and 64-bit numbers only");
    return shim_bits<T>(bits);
}
template <class... Types, std::size_t... Places>
static inline void shim_call(void (*kernel)(Types...), const unsigned long long* arguments,
                             std::index_sequence<Places...>) {
    kernel(shim_argument<Types>(arguments[Places])...);
}

// The function by which the host launches a kernel, and how many arguments it takes.
#define SHIM_KERNEL(name)                                                                      \
    template <class... Types>                                                                  \
    static void shim_body_##name(const unsigned long long* arguments, void (*)(Types...)) {    \
        shim_call<Types...>(&name, arguments, std::index_sequence_for<Types...>());            \
    }                                                                                          \
    template <class... Types>                                                                  \
    static constexpr unsigned shim_count_##name(void (*)(Types...)) {                          \
        return sizeof...(Types);                                                               \
    }                                                                                          \
    static void shim_run_##name(const unsigned long long* arguments) {                         \
        shim_body_##name(arguments, &name);                                                    \
    }                                                                                          \
    extern "C" unsigned shim_launch_##name(const unsigned long long* arguments, unsigned given, \
                                           unsigned blocks, unsigned threads) {                \
        constexpr unsigned wanted = shim_count_##name(&name);                                  \
        if (given == wanted) shim->launch(&shim_run_##name, arguments, blocks, threads);       \
        return wanted;                                                                         \
    }
