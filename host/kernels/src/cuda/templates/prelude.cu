// What every template begins with: types, elementary functions, random numbers, folds over
// threads. No header is included, so that the compiler needs nothing but itself.
//
// Kernels take addresses and 64-bit numbers only. Products and sums round apart (the compiler is
// told so) except where `fmaf` says otherwise, and the elementary functions are those of the
// processor's kernels, operation by operation: a map gives the same bits on both.

typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void
#define INLINE static __device__ __forceinline__

// ---- elementary functions

INLINE bool not_a_number(float x) { return x != x; }

INLINE float power_of_two(int exponent) { return __uint_as_float((u32)(exponent + 127) << 23); }

// e to the x: within 2 units in the last place.
INLINE float exponential(float x) {
    const float round = 12582912.0f;
    float bounded = x > -104.0f ? x : -104.0f;
    bounded = bounded < 89.0f ? bounded : 89.0f;
    float rounded = fmaf(bounded, 1.44269504f, round);
    int whole = (int)(__float_as_uint(rounded) - __float_as_uint(round));
    float count = rounded - round;
    float rest = fmaf(count, -0.6933594f, bounded);
    rest = fmaf(count, 2.1219444e-4f, rest);
    float series = 0.0013813145f;
    series = fmaf(series, rest, 0.008369419f);
    series = fmaf(series, rest, 0.041668456f);
    series = fmaf(series, rest, 0.16666515f);
    series = fmaf(series, rest, 0.49999994f);
    float base = fmaf(rest * rest, series, rest) + 1.0f;
    int half = whole >> 1;
    float result = base * power_of_two(half) * power_of_two(whole - half);
    return not_a_number(x) ? x : result;
}

// The natural logarithm: within 2 units in the last place.
INLINE float logarithm(float x) {
    bool subnormal = x < 1.17549435e-38f;
    float scaled = subnormal ? x * 8388608.0f : x;
    float bias = subnormal ? 23.0f : 0.0f;
    int bits = (int)(__float_as_uint(scaled) - 0x3f3504f3u);
    float count = (float)(bits >> 23) - bias;
    float fraction = __uint_as_float((u32)(bits & 0x007fffff) + 0x3f3504f3u) - 1.0f;
    float series = 0.06746641f;
    series = fmaf(series, fraction, -0.11675652f);
    series = fmaf(series, fraction, 0.11888162f);
    series = fmaf(series, fraction, -0.12405589f);
    series = fmaf(series, fraction, 0.14219552f);
    series = fmaf(series, fraction, -0.16667996f);
    series = fmaf(series, fraction, 0.20002119f);
    series = fmaf(series, fraction, -0.2500001f);
    series = fmaf(series, fraction, 0.33333313f);
    float square = fraction * fraction;
    float tail = fmaf(count, -2.1219444e-4f, fraction * square * series);
    tail = fmaf(square, -0.5f, tail);
    float result = fmaf(count, 0.6933594f, fraction + tail);
    result = x == __uint_as_float(0x7f800000u) ? x : result;
    result = x == 0.0f ? __uint_as_float(0xff800000u) : result;
    return x >= 0.0f ? result : __uint_as_float(0x7fc00000u);
}

INLINE float logarithm_of_one_plus(float x) {
    float sum = 1.0f + x;
    float difference = sum - 1.0f;
    float corrected = logarithm(sum) * (x / difference);
    return difference == 0.0f ? x : corrected;
}

INLINE float hyperbolic_tangent(float x) {
    float size = fabsf(x);
    float square = x * x;
    float series = -0.005660789f;
    series = fmaf(series, square, 0.020602008f);
    series = fmaf(series, square, -0.05372923f);
    series = fmaf(series, square, 0.13331328f);
    series = fmaf(series, square, -0.33333278f);
    float small = fmaf(x * square, series, x);
    float large = 1.0f - 2.0f / (exponential(size + size) + 1.0f);
    return size < 0.625f ? small : copysignf(large, x);
}

INLINE float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

INLINE float softplus(float x) {
    float positive = x < 0.0f ? 0.0f : x;
    return positive + logarithm_of_one_plus(exponential(-fabsf(x)));
}

INLINE float normal_distribution(float x) {
    float z = fabsf(x) * 0.70710678f;
    float t = 1.0f / fmaf(z, 0.5f, 1.0f);
    float series = 0.14219478f;
    series = fmaf(series, t, -0.6660659f);
    series = fmaf(series, t, 1.1224074f);
    series = fmaf(series, t, -0.6512569f);
    series = fmaf(series, t, -0.11678076f);
    series = fmaf(series, t, 0.02019252f);
    series = fmaf(series, t, 0.028358232f);
    series = fmaf(series, t, 0.3878995f);
    series = fmaf(series, t, 0.99849254f);
    series = fmaf(series, t, -1.2654414f);
    float tail = 0.5f * t * exponential(fmaf(-z, z, series));
    return x < 0.0f ? tail : 1.0f - tail;
}

INLINE float gelu(float x) { return x * normal_distribution(x); }

INLINE float gelu_slope(float x) {
    float density = 0.3989423f * exponential(-0.5f * x * x);
    return fmaf(x, density, normal_distribution(x));
}

INLINE float silu(float x) { return x * logistic(x); }

INLINE float sign_of(float x) {
    return x == 0.0f || not_a_number(x) ? x : copysignf(1.0f, x);
}

INLINE double logarithm_double(double x) {
    u64 bits = (u64)__double_as_longlong(x) - 0x3fe6a09e667f3bcdull;
    double count = (double)((long long)bits >> 52);
    u64 part = (bits & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull;
    double fraction = __longlong_as_double((long long)part);
    double s = (fraction - 1.0) / (fraction + 1.0);
    double z = s * s;
    double sum = 1.0 / 17.0;
    for (double odd = 15.0; odd >= 1.0; odd -= 2.0) sum = sum * z + 1.0 / odd;
    double result = count * 0.6931471805599453 + 2.0 * s * sum;
    result = x == 0.0 ? __longlong_as_double((long long)0xfff0000000000000ull) : result;
    return x == __longlong_as_double(0x7ff0000000000000ll) || x != x ? x : result;
}

INLINE double exponential_double(double x) {
    const double round = 6755399441055744.0;
    double rounded = x * 1.4426950408889634 + round;
    long long whole = __double_as_longlong(rounded) - __double_as_longlong(round);
    double rest = x - (rounded - round) * 0.6931471805599453;
    double sum = 1.0;
    for (double place = 12.0; place >= 1.0; place -= 1.0) sum = sum * rest / place + 1.0;
    double result = sum * __longlong_as_double((long long)((u64)(whole + 1023) << 52));
    return x != x ? x : result;
}

// x to the power of y as IEEE 754 `pow`.
INLINE float power(float x, float y) {
    const float infinity = __uint_as_float(0x7f800000u);
    const float nan = __uint_as_float(0x7fc00000u);
    double product = (double)y * logarithm_double((double)fabsf(x));
    double bounded = product < -200.0 ? -200.0 : product;
    bounded = bounded > 200.0 ? 200.0 : bounded;
    float result = (float)exponential_double(bounded);
    result = product != product ? nan : result;
    bool whole = floorf(y) == y;
    float half = y * 0.5f;
    bool odd = whole && floorf(half) != half;
    bool negative = (__float_as_uint(x) >> 31) != 0;
    float with_sign = negative && odd ? -result : result;
    with_sign = x < 0.0f && !whole && fabsf(x) < infinity ? nan : with_sign;
    return y == 0.0f || x == 1.0f || (x == -1.0f && fabsf(y) == infinity) ? 1.0f : with_sign;
}

INLINE float larger(float a, float b) { return a > b || not_a_number(a) ? a : b; }
INLINE float smaller(float a, float b) { return a < b || not_a_number(a) ? a : b; }

INLINE int divide_int(int a, int b) {
    if (b == 0) return -1;
    return b == -1 ? (int)(0u - (u32)a) : a / b;
}

// ---- random numbers: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw 2011)

// The number of a dropout at a position. `run` holds the seed and the step.
INLINE u32 drawn(const u64* run, u32 node, u64 position) {
    u64 seed = run[0], step = run[1];
    // Positions come in groups of 64: sixteen ciphers of four words.
    u64 first = (position / 64) * 16;
    u32 within = (u32)(position % 64), word = within / 16;
    u32 a = (u32)first + within % 16;
    u32 b = ((u32)(step >> 32) << 16) ^ (u32)(first >> 32);
    u32 c = (2u << 28) | node;
    u32 d = (u32)step;
    u32 key = (u32)seed, other_key = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u32 low = a * 0xd2511f53u, high = __umulhi(a, 0xd2511f53u);
        u32 low_two = c * 0xcd9e8d57u, high_two = __umulhi(c, 0xcd9e8d57u);
        a = high_two ^ b ^ key;
        b = low_two;
        c = high ^ d ^ other_key;
        d = low;
        key += 0x9e3779b9u;
        other_key += 0xbb67ae85u;
    }
    return word == 0 ? a : word == 1 ? b : word == 2 ? c : d;
}

// Four elements that lie one after the other.
INLINE void load_four(float* into, const float* from) {
    float4 all = *(const float4*)from;
    into[0] = all.x;
    into[1] = all.y;
    into[2] = all.z;
    into[3] = all.w;
}

INLINE void store_four(float* to, const float* from) {
    float4 all;
    all.x = from[0];
    all.y = from[1];
    all.z = from[2];
    all.w = from[3];
    *(float4*)to = all;
}

// ---- folds over threads, always in the same tree

struct Sum {
    static __device__ __forceinline__ float start() { return 0.0f; }
    static __device__ __forceinline__ float join(float a, float b) { return a + b; }
};
struct Maximum {
    static __device__ __forceinline__ float start() { return __uint_as_float(0xff800000u); }
    static __device__ __forceinline__ float join(float a, float b) { return larger(a, b); }
};
struct Minimum {
    static __device__ __forceinline__ float start() { return __uint_as_float(0x7f800000u); }
    static __device__ __forceinline__ float join(float a, float b) { return smaller(a, b); }
};

// Folds the values of `THREADS` threads that work on one row, 32 or all 256 of a block; every
// one of them gets the result.
template <class Fold, u32 THREADS>
INLINE float fold_threads(float value, float* partial) {
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) {
        float other = __shfl_down_sync(0xffffffffu, value, width);
        value = Fold::join(value, other);
    }
    value = __shfl_sync(0xffffffffu, value, 0);
    if (THREADS > 32) {
        if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
        __syncthreads();
        value = partial[0];
        for (u32 warp = 1; warp < THREADS / 32; warp++) value = Fold::join(value, partial[warp]);
        __syncthreads();
    }
    return value;
}

// The row that a thread works on, and its place among the threads of the row.
template <u32 THREADS>
INLINE u64 row_of_thread() {
    return THREADS == 32 ? (u64)blockIdx.x * 8 + threadIdx.x / 32 : blockIdx.x;
}

// Notes the first number that is outside what it selects from.
INLINE bool in_range(int number, u64 size, u64 place, u64* error) {
    if (number >= 0 && (u64)number < size) return true;
    atomicMin(error, (place << 32) | (u64)(u32)number);
    return false;
}
