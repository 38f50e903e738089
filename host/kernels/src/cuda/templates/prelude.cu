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

INLINE float bell(float x) { return exponential(-0.5f * x * x); }

INLINE float normal_distribution(float x, float bell) {
    float t = 1.0f / fmaf(fabsf(x), 0.3535534f, 1.0f);
    float series = -0.059068967f;
    series = fmaf(series, t, 0.28457499f);
    series = fmaf(series, t, -0.48719996f);
    series = fmaf(series, t, 0.2780672f);
    series = fmaf(series, t, -0.026625697f);
    series = fmaf(series, t, 0.20268688f);
    series = fmaf(series, t, 0.24310376f);
    series = fmaf(series, t, 0.2823753f);
    series = fmaf(series, t, 0.28208643f);
    float tail = 0.5f * t * (series * bell);
    return x < 0.0f ? tail : 1.0f - tail;
}

INLINE float gelu(float x) { return x * normal_distribution(x, bell(x)); }

INLINE float gelu_slope(float x) {
    float density = bell(x);
    return fmaf(x, 0.3989423f * density, normal_distribution(x, density));
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

// ---- angles: exact for any float32, by taking quarter turns away in float64

struct Angle {
    u64 count;
    double rest;
};

// Cody and Waite 1980, for |x| <= 65536.
INLINE Angle quarter_turns(float of) {
    const double round = 6755399441055744.0;
    double x = (double)of;
    double rounded = x * 0.6366197723675814 + round;
    double count = rounded - round;
    double rest = ((x - count * __longlong_as_double(0x3ff921fb40000000ll)) -
                   count * __longlong_as_double(0x3e74442d00000000ll)) -
                  count * __longlong_as_double(0x3cf8469898cc5170ll);
    return Angle{(u64)__double_as_longlong(rounded), rest};
}

// Payne and Hanek 1983, for any finite angle: the product of 24 bits and 104 of 2/pi.
static __device__ Angle quarter_turns_of_large(float of) {
    const u64 two_over_pi[5] = {0xa2f9836e4e441529ull, 0xfc2757d1f534ddc0ull, 0xdb6295993c439041ull,
                                0xfe5163abdebbc561ull, 0xb7246e3a424dd2e0ull};
    u32 bits = __float_as_uint(of);
    int first = (int)((bits >> 23) & 0xff) - 151;
    u64 fraction = (bits & 0x007fffffu) | 0x00800000u;
    u64 high = 0, low = 0;
    for (int place = first; place < first + 104; place++) {
        u64 bit = 0;
        if (place >= 1 && place <= 320)
            bit = two_over_pi[(place - 1) / 64] >> (63 - (place - 1) % 64) & 1;
        high = high << 1 | low >> 63;
        low = low << 1 | bit;
    }
    u64 product_low = fraction * low;
    u64 product_high = fraction * high + __umul64hi(fraction, low);
    // Behind the point are 102 bits.
    u64 whole = product_high >> 38;
    u64 part_high = product_high & ((1ull << 38) - 1), part_low = product_low;
    bool up = (part_high >> 37) != 0;
    if (up) {
        // What is missing to the next whole one.
        part_low = 0ull - part_low;
        part_high = (1ull << 38) - part_high - (part_low != 0 ? 1 : 0);
        whole++;
    }
    double size;
    if (part_high == 0) {
        size = (double)part_low * __longlong_as_double((1023ll - 102) << 52);
    } else {
        int shift = __clzll((long long)part_high);
        u64 top = shift == 0 ? part_high : part_high << shift | part_low >> (64 - shift);
        // What is left out rounds as if it were there.
        if ((shift == 0 ? part_low : part_low << shift) != 0) top |= 1;
        size = (double)top * __longlong_as_double((1023ll + 64 - shift - 102) << 52);
    }
    double rest = (up ? -size : size) * 1.5707963267948966;
    return of < 0.0f ? Angle{0ull - whole, -rest} : Angle{whole, rest};
}

INLINE double sine_of_rest(double x) {
    double z = x * x;
    double series = z * (z * (z * (z * (1.0 / 362880.0) - 1.0 / 5040.0) + 1.0 / 120.0) - 1.0 / 6.0);
    return x + x * series;
}

INLINE double cosine_of_rest(double x) {
    double z = x * x;
    double series = z * (z * (z * (1.0 / 40320.0) - 1.0 / 720.0) + 1.0 / 24.0) - 0.5;
    return 1.0 + z * series - z * z * z * z * z * (1.0 / 3628800.0);
}

INLINE float sine_after(u64 count, double rest) {
    double size = (count & 1) == 1 ? cosine_of_rest(rest) : sine_of_rest(rest);
    return (float)((count & 2) == 2 ? -size : size);
}

INLINE Angle angle_of(float x) {
    return fabsf(x) > 65536.0f ? quarter_turns_of_large(x) : quarter_turns(x);
}

INLINE bool is_finite(float x) { return fabsf(x) < __uint_as_float(0x7f800000u); }

INLINE float sine(float x) {
    if (!is_finite(x)) return __uint_as_float(0x7fc00000u);
    Angle angle = angle_of(x);
    return x == 0.0f ? x : sine_after(angle.count, angle.rest);
}

INLINE float cosine(float x) {
    if (!is_finite(x)) return __uint_as_float(0x7fc00000u);
    Angle angle = angle_of(x);
    return sine_after(angle.count + 1, angle.rest);
}

INLINE float tangent(float x) {
    if (!is_finite(x)) return __uint_as_float(0x7fc00000u);
    Angle angle = angle_of(x);
    double s = sine_of_rest(angle.rest), c = cosine_of_rest(angle.rest);
    bool odd = (angle.count & 1) == 1;
    return x == 0.0f ? x : (float)((odd ? -c : s) / (odd ? s : c));
}

INLINE float round_to_even(float x) {
    const float whole = 8388608.0f;
    float size = fabsf(x);
    float nearest = (size + whole) - whole;
    return copysignf(size < whole ? nearest : size, x);
}

INLINE float error_function(float x) {
    float z = x * x;
    float series = -9.667045e-6f;
    series = fmaf(series, z, 0.00011265959f);
    series = fmaf(series, z, -0.00084840803f);
    series = fmaf(series, z, 0.0052210316f);
    series = fmaf(series, z, -0.02686543f);
    series = fmaf(series, z, 0.11283782f);
    series = fmaf(series, z, -0.37612638f);
    series = fmaf(series, z, 1.1283792f);
    float small = x * series;
    float turned = -fabsf(x) * 1.41421356f;
    float tail = normal_distribution(turned, bell(turned));
    float large = copysignf(1.0f - 2.0f * tail, x);
    return fabsf(x) < 1.0f ? small : large;
}

INLINE float exponential_minus_one(float x) {
    float series = 2.503899e-5f;
    series = fmaf(series, x, 0.00020078894f);
    series = fmaf(series, x, 0.0013888306f);
    series = fmaf(series, x, 0.00833275f);
    series = fmaf(series, x, 0.04166667f);
    series = fmaf(series, x, 0.1666667f);
    series = fmaf(series, x, 0.5f);
    float small = fmaf(x * x, series, x);
    float large = exponential(x) - 1.0f;
    float found = fabsf(x) < 0.7f ? small : large;
    return x == 0.0f ? x : found;
}

INLINE float log_plus_one(float x) {
    float sum = 1.0f + x;
    float difference = sum - 1.0f;
    float corrected = logarithm(sum) * (x / difference);
    float found = difference == 0.0f ? x : corrected;
    return x == __uint_as_float(0x7f800000u) ? x : found;
}

INLINE float cube_root(float x) {
    double size = (double)fabsf(x);
    u64 guess = (u64)__double_as_longlong(size) / 3 + 0x2a9f7893782da1ceull;
    double root = __longlong_as_double((long long)guess);
    for (int step = 0; step < 2; step++) {
        double cube = root * root * root;
        root *= (cube + size + size) / (cube + cube + size);
    }
    return x == 0.0f || !is_finite(x) ? x : copysignf((float)root, x);
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
