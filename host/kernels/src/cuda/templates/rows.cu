// Kernels along the last axis of [rows, count]: a warp for a row, or a block where rows are
// long. Which of them depends on `count` alone, so that a row's bits do not depend on the rows
// around it.

template <u32 THREADS>
INLINE void softmax_row(const float* source, float* target, u64 rows, u32 count, bool log) {
    __shared__ float partial[8];
    u64 row = row_of_thread<THREADS>();
    u32 lane = threadIdx.x % THREADS;
    if (row >= rows) return;
    const float* x = source + row * count;
    float* y = target + row * count;
    float largest = Maximum::start();
    for (u32 at = lane; at < count; at += THREADS) largest = larger(largest, x[at]);
    largest = fold_threads<Maximum, THREADS>(largest, partial);
    float total = 0.0f;
    for (u32 at = lane; at < count; at += THREADS) {
        float value = exponential(x[at] - largest);
        if (!log) y[at] = value;
        total += value;
    }
    total = fold_threads<Sum, THREADS>(total, partial);
    if (log) {
        float level = logarithm(total);
        for (u32 at = lane; at < count; at += THREADS) y[at] = x[at] - largest - level;
    } else {
        float share = 1.0f / total;
        for (u32 at = lane; at < count; at += THREADS) y[at] *= share;
    }
}

template <u32 THREADS>
INLINE void moments(const float* x, u32 count, float epsilon, u32 lane, float* partial,
                    float* mean, float* inverse) {
    float share = 1.0f / (float)count;
    float total = 0.0f;
    for (u32 at = lane; at < count; at += THREADS) total += x[at];
    *mean = fold_threads<Sum, THREADS>(total, partial) * share;
    float squares = 0.0f;
    for (u32 at = lane; at < count; at += THREADS) {
        float difference = x[at] - *mean;
        squares += difference * difference;
    }
    float variance = fold_threads<Sum, THREADS>(squares, partial) * share;
    *inverse = 1.0f / sqrtf(variance + epsilon);
}

template <u32 THREADS>
INLINE void normalize_row(const float* source, float* target, u64 rows, u32 count, float epsilon) {
    __shared__ float partial[8];
    u64 row = row_of_thread<THREADS>();
    u32 lane = threadIdx.x % THREADS;
    if (row >= rows) return;
    const float* x = source + row * count;
    float* y = target + row * count;
    float mean, inverse;
    moments<THREADS>(x, count, epsilon, lane, partial, &mean, &inverse);
    for (u32 at = lane; at < count; at += THREADS) y[at] = (x[at] - mean) * inverse;
}

template <u32 THREADS>
INLINE void normalize_slope_row(const float* source, const float* slopes, float* target, u64 rows,
                                u32 count, float epsilon) {
    __shared__ float partial[8];
    u64 row = row_of_thread<THREADS>();
    u32 lane = threadIdx.x % THREADS;
    if (row >= rows) return;
    const float* x = source + row * count;
    const float* g = slopes + row * count;
    float* y = target + row * count;
    float mean, inverse;
    moments<THREADS>(x, count, epsilon, lane, partial, &mean, &inverse);
    float share = 1.0f / (float)count;
    float total = 0.0f, products = 0.0f;
    for (u32 at = lane; at < count; at += THREADS) {
        total += g[at];
        products += g[at] * ((x[at] - mean) * inverse);
    }
    float slope_mean = fold_threads<Sum, THREADS>(total, partial) * share;
    float correlation = fold_threads<Sum, THREADS>(products, partial) * share;
    for (u32 at = lane; at < count; at += THREADS) {
        float normal = (x[at] - mean) * inverse;
        y[at] = inverse * (g[at] - slope_mean - normal * correlation);
    }
}

// The largest logit of a row and the sum of the exponentials above it.
template <u32 THREADS>
INLINE void exponentials(const float* x, u32 count, u32 lane, float* partial, float* largest,
                         float* total) {
    float most = Maximum::start();
    for (u32 at = lane; at < count; at += THREADS) most = larger(most, x[at]);
    *largest = fold_threads<Maximum, THREADS>(most, partial);
    float sum = 0.0f;
    for (u32 at = lane; at < count; at += THREADS) sum += exponential(x[at] - *largest);
    *total = fold_threads<Sum, THREADS>(sum, partial);
}

template <u32 THREADS>
INLINE void cross_entropy_row(const float* logits, const int* labels, float* target, u64 rows,
                              u32 count, u64* error) {
    __shared__ float partial[8];
    u64 row = row_of_thread<THREADS>();
    u32 lane = threadIdx.x % THREADS;
    if (row >= rows) return;
    const float* x = logits + row * count;
    int label = labels[row];
    float largest, total;
    exponentials<THREADS>(x, count, lane, partial, &largest, &total);
    if (lane == 0) {
        float loss = 0.0f;
        if (in_range(label, count, row, error)) loss = logarithm(total) + (largest - x[label]);
        target[row] = loss;
    }
}

template <u32 THREADS>
INLINE void cross_entropy_slope_row(const float* logits, const int* labels, const float* slopes,
                                    float* target, u64 rows, u32 count, u64* error) {
    __shared__ float partial[8];
    u64 row = row_of_thread<THREADS>();
    u32 lane = threadIdx.x % THREADS;
    if (row >= rows) return;
    const float* x = logits + row * count;
    float* y = target + row * count;
    int label = labels[row];
    float slope = slopes[row];
    float largest, total;
    exponentials<THREADS>(x, count, lane, partial, &largest, &total);
    if (lane == 0) in_range(label, count, row, error);
    float share = slope / total;
    for (u32 at = lane; at < count; at += THREADS) {
        float value = exponential(x[at] - largest) * share;
        y[at] = (int)at == label ? value - slope : value;
    }
}

// The place of the first largest; not a number is largest.
template <u32 THREADS>
INLINE void argmax_row(const float* source, int* target, u64 rows, u32 count) {
    __shared__ float values[8];
    __shared__ u32 places[8];
    u64 row = row_of_thread<THREADS>();
    u32 lane = threadIdx.x % THREADS;
    if (row >= rows) return;
    const float* x = source + row * count;
    float best = Maximum::start();
    u32 place = 0xffffffffu;
    for (u32 at = lane; at < count; at += THREADS) {
        float value = x[at];
        bool better = value > best || (not_a_number(value) && !not_a_number(best));
        if (better || place == 0xffffffffu) {
            best = value;
            place = at;
        }
    }
    for (u32 width = 16; width > 0; width /= 2) {
        float value = __shfl_down_sync(0xffffffffu, best, width);
        u32 other = __shfl_down_sync(0xffffffffu, place, width);
        bool alike = value == best || (not_a_number(value) && not_a_number(best));
        bool better = value > best || (not_a_number(value) && !not_a_number(best));
        if (other != 0xffffffffu &&
            (place == 0xffffffffu || better || (alike && other < place))) {
            best = value;
            place = other;
        }
    }
    if (THREADS > 32) {
        if (threadIdx.x % 32 == 0) {
            values[threadIdx.x / 32] = best;
            places[threadIdx.x / 32] = place;
        }
        __syncthreads();
        for (u32 warp = 0; warp < THREADS / 32; warp++) {
            float value = values[warp];
            u32 other = places[warp];
            bool alike = value == best || (not_a_number(value) && not_a_number(best));
            bool better = value > best || (not_a_number(value) && !not_a_number(best));
            if (other != 0xffffffffu &&
                (place == 0xffffffffu || better || (alike && other < place))) {
                best = value;
                place = other;
            }
        }
    }
    if (lane == 0) target[row] = place == 0xffffffffu ? 0 : (int)place;
}

// Parts of [outer, count, inner] along the middle axis, `chunk` at a time, where `inner` is 1:
// [outer, parts].
template <class Fold, u32 THREADS>
INLINE void reduce_rows(const float* source, float* target, u64 outer, u64 count, u64 chunk) {
    __shared__ float partial[8];
    u64 parts = (count + chunk - 1) / chunk;
    u64 row = row_of_thread<THREADS>();
    u32 lane = threadIdx.x % THREADS;
    if (row >= outer * parts) return;
    u64 first = row % parts * chunk;
    u64 length = count - first < chunk ? count - first : chunk;
    const float* x = source + row / parts * count + first;
    float value = Fold::start();
    for (u64 at = lane; at < length; at += THREADS) value = Fold::join(value, x[at]);
    value = fold_threads<Fold, THREADS>(value, partial);
    if (lane == 0) target[row] = value;
}

// The same where `inner` is more: [outer, parts, inner]. A block of 32 columns by 8 lanes.
template <class Fold>
INLINE void reduce_columns(const float* source, float* target, u64 count, u64 inner, u64 chunk) {
    __shared__ float partial[8][32];
    u64 tiles = (inner + 31) / 32;
    u64 parts = (count + chunk - 1) / chunk;
    u64 tile = blockIdx.x % tiles, part = blockIdx.x / tiles % parts;
    u64 outer = blockIdx.x / tiles / parts;
    u32 column_lane = threadIdx.x % 32, lane = threadIdx.x / 32;
    u64 column = tile * 32 + column_lane;
    u64 end = (part + 1) * chunk < count ? (part + 1) * chunk : count;
    float value = Fold::start();
    if (column < inner) {
        for (u64 at = part * chunk + lane; at < end; at += 8)
            value = Fold::join(value, source[(outer * count + at) * inner + column]);
    }
    partial[lane][column_lane] = value;
    __syncthreads();
    if (lane == 0 && column < inner) {
        for (u32 other = 1; other < 8; other++)
            value = Fold::join(value, partial[other][column_lane]);
        target[(outer * parts + part) * inner + column] = value;
    }
}

#define ROWS(THREADS)                                                                             \
    KERNEL softmax_##THREADS(const float* source, float* target, u64 rows, u64 count, u64 log) {  \
        softmax_row<THREADS>(source, target, rows, (u32)count, log != 0);                         \
    }                                                                                             \
    KERNEL normalize_##THREADS(const float* source, float* target, u64 rows, u64 count,           \
                               u64 epsilon) {                                                     \
        normalize_row<THREADS>(source, target, rows, (u32)count, __uint_as_float((u32)epsilon));  \
    }                                                                                             \
    KERNEL normalize_slope_##THREADS(const float* source, const float* slopes, float* target,     \
                                     u64 rows, u64 count, u64 epsilon) {                          \
        normalize_slope_row<THREADS>(source, slopes, target, rows, (u32)count,                    \
                                     __uint_as_float((u32)epsilon));                              \
    }                                                                                             \
    KERNEL cross_entropy_##THREADS(const float* logits, const int* labels, float* target,         \
                                   u64 rows, u64 count, u64* error) {                             \
        cross_entropy_row<THREADS>(logits, labels, target, rows, (u32)count, error);              \
    }                                                                                             \
    KERNEL cross_entropy_slope_##THREADS(const float* logits, const int* labels,                  \
                                         const float* slopes, float* target, u64 rows, u64 count, \
                                         u64* error) {                                            \
        cross_entropy_slope_row<THREADS>(logits, labels, slopes, target, rows, (u32)count,        \
                                         error);                                                  \
    }                                                                                             \
    KERNEL argmax_##THREADS(const float* source, int* target, u64 rows, u64 count) {              \
        argmax_row<THREADS>(source, target, rows, (u32)count);                                    \
    }                                                                                             \
    KERNEL reduce_rows_sum_##THREADS(const float* source, float* target, u64 outer, u64 count,    \
                                     u64 chunk) {                                                 \
        reduce_rows<Sum, THREADS>(source, target, outer, count, chunk);                           \
    }                                                                                             \
    KERNEL reduce_rows_maximum_##THREADS(const float* source, float* target, u64 outer,           \
                                         u64 count, u64 chunk) {                                  \
        reduce_rows<Maximum, THREADS>(source, target, outer, count, chunk);                       \
    }                                                                                             \
    KERNEL reduce_rows_minimum_##THREADS(const float* source, float* target, u64 outer,           \
                                         u64 count, u64 chunk) {                                  \
        reduce_rows<Minimum, THREADS>(source, target, outer, count, chunk);                       \
    }

ROWS(32)
ROWS(256)

KERNEL reduce_columns_sum(const float* source, float* target, u64 count, u64 inner, u64 chunk) {
    reduce_columns<Sum>(source, target, count, inner, chunk);
}
KERNEL reduce_columns_maximum(const float* source, float* target, u64 count, u64 inner,
                              u64 chunk) {
    reduce_columns<Maximum>(source, target, count, inner, chunk);
}
KERNEL reduce_columns_minimum(const float* source, float* target, u64 count, u64 inner,
                              u64 chunk) {
    reduce_columns<Minimum>(source, target, count, inner, chunk);
}
