// Attention without its matrix of weights in memory (Dao 2023, FlashAttention-2): queries
// [batch, q_time, heads, width], keys and values [batch, k_time, groups, width], where `heads`
// is a multiple of `groups` and heads in a row share a group. Scores are scaled products; where
// `causal`, a query sees the keys up to its own place, counted from the end of both. `levels`
// [batch, heads, q_time] is the logarithm of the sum of the exponentials of a query's scores.
//
// A block takes BQ queries (forward and the gradient of the queries) or BK keys (the gradient of
// keys and values), four threads for a row: each takes every fourth key and every fourth column.
// Everything is summed in one order, and nothing by atomics. Instantiated by the host for the
// widths that a program has, by ATTENTION below.

struct Attention {
    u64 batch, q_time, k_time, heads, groups;
    bool causal;
    float scale;
};

// Where the keys or values of one head are: place by place at a stride, or in pages of PAGE places
// that a table names.
const u32 PAGE = 16;
struct Places {
    const float* from;
    u64 stride;
    const u32* pages;
    __device__ __forceinline__ const float* at(u64 place) const {
        u64 found = pages ? (u64)pages[place / PAGE] * PAGE + place % PAGE : place;
        return from + found * stride;
    }
};

// The sum or the largest over the four threads of a row.
INLINE float fold_four_sum(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}
INLINE float fold_four_largest(float value) {
    value = larger(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return larger(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

// Places `first..first + ROWS`, zeros beyond the end.
template <u32 W, u32 ROWS, u32 THREADS>
INLINE void load_rows(float (*into)[W + 1], Places from, u64 time, u64 first) {
    for (u32 at = threadIdx.x; at < ROWS * W; at += THREADS) {
        u32 row = at / W, column = at % W;
        u64 place = first + row;
        into[row][column] = place < time ? from.at(place)[column] : 0.0f;
    }
}

// One head of [batch, time, heads, W].
template <u32 W>
INLINE Places head_of(const float* all, u64 batch, u64 time, u64 heads, u64 head) {
    return Places{all + (batch * time * heads + head) * W, heads * W, 0};
}

INLINE bool is_seen(const Attention& of, u64 query, u64 key) {
    return key < of.k_time && query < of.q_time &&
           (!of.causal || key + of.q_time <= query + of.k_time);
}

// The first key that no query before `end` sees.
INLINE u64 keys_before(const Attention& of, u64 end) {
    if (!of.causal) return of.k_time;
    u64 last = (end < of.q_time ? end : of.q_time) + of.k_time;
    return last > of.q_time ? last - of.q_time : 0;
}

// A column of a thread; the last there is where its own would be beyond.
template <u32 W>
INLINE u32 column_of(u32 c, u32 part) {
    return c * 4 + part < W ? c * 4 + part : W - 1;
}

// One block of queries of one head.
template <u32 W, u32 BQ, u32 BK>
INLINE void attend(Places queries, Places keys, Places values, float* target, u64 target_stride,
                   float* levels, u64 first, Attention of) {
    const u32 THREADS = BQ * 4, COLUMNS = (W + 3) / 4;
    __shared__ float q[BQ][W + 1], k[BK][W + 1], v[BK][W + 1], p[BQ][BK + 1];
    u32 row = threadIdx.x / 4, part = threadIdx.x % 4;
    load_rows<W, BQ, THREADS>(q, queries, of.q_time, first);
    float sums[COLUMNS];
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) sums[c] = 0.0f;
    float largest = __uint_as_float(0xff800000u), total = 0.0f;
    u64 end = keys_before(of, first + BQ);
    for (u64 start = 0; start < end; start += BK) {
        __syncthreads();
        load_rows<W, BK, THREADS>(k, keys, of.k_time, start);
        load_rows<W, BK, THREADS>(v, values, of.k_time, start);
        __syncthreads();
        float scores[BK / 4];
        float most = largest;
#pragma unroll
        for (u32 j = 0; j < BK / 4; j++) {
            u32 key = j * 4 + part;
            float score = 0.0f;
            for (u32 c = 0; c < W; c++) score = fmaf(q[row][c], k[key][c], score);
            bool seen = is_seen(of, first + row, start + key);
            scores[j] = seen ? score * of.scale : __uint_as_float(0xff800000u);
            most = larger(most, scores[j]);
        }
        most = fold_four_largest(most);
        // Nothing seen yet: keep away from infinity less infinity.
        float level = most == __uint_as_float(0xff800000u) ? 0.0f : most;
        float sum = 0.0f;
#pragma unroll
        for (u32 j = 0; j < BK / 4; j++) {
            float weight = exponential(scores[j] - level);
            p[row][j * 4 + part] = weight;
            sum += weight;
        }
        sum = fold_four_sum(sum);
        float kept = exponential(largest - level);
        total = total * kept + sum;
        largest = most;
        __syncthreads();
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) sums[c] *= kept;
        for (u32 key = 0; key < BK; key++) {
            float weight = p[row][key];
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++)
                sums[c] = fmaf(weight, v[key][column_of<W>(c, part)], sums[c]);
        }
    }
    u64 query = first + row;
    if (query >= of.q_time) return;
    float share = total > 0.0f || not_a_number(total) ? 1.0f / total : 0.0f;
    float* out = target + query * target_stride;
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++)
        if (c * 4 + part < W) out[c * 4 + part] = sums[c] * share;
    if (levels && part == 0) levels[query] = largest + logarithm(total);
}

// The gradient of the queries. `deltas` are the products of each query's result and its slope.
template <u32 W, u32 BQ, u32 BK>
INLINE void attend_slope_q(const float* queries, const float* keys, const float* values,
                           const float* slopes, const float* levels, const float* deltas,
                           float* target, u64 target_stride, Attention of) {
    const u32 THREADS = BQ * 4, COLUMNS = (W + 3) / 4;
    __shared__ float q[BQ][W + 1], g[BQ][W + 1], k[BK][W + 1], v[BK][W + 1], d[BQ][BK + 1];
    u64 tiles = (of.q_time + BQ - 1) / BQ;
    u64 first = blockIdx.x % tiles * BQ, head = blockIdx.x / tiles % of.heads;
    u64 batch = blockIdx.x / tiles / of.heads, group = head / (of.heads / of.groups);
    u32 row = threadIdx.x / 4, part = threadIdx.x % 4;
    Places k_places = head_of<W>(keys, batch, of.k_time, of.groups, group);
    Places v_places = head_of<W>(values, batch, of.k_time, of.groups, group);
    load_rows<W, BQ, THREADS>(q, head_of<W>(queries, batch, of.q_time, of.heads, head), of.q_time,
                              first);
    load_rows<W, BQ, THREADS>(g, head_of<W>(slopes, batch, of.q_time, of.heads, head), of.q_time,
                              first);
    u64 query = first + row;
    u64 place = (batch * of.heads + head) * of.q_time + query;
    float level = query < of.q_time ? levels[place] : 0.0f;
    float delta = query < of.q_time ? deltas[place] : 0.0f;
    float sums[COLUMNS];
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) sums[c] = 0.0f;
    u64 end = keys_before(of, first + BQ);
    for (u64 start = 0; start < end; start += BK) {
        __syncthreads();
        load_rows<W, BK, THREADS>(k, k_places, of.k_time, start);
        load_rows<W, BK, THREADS>(v, v_places, of.k_time, start);
        __syncthreads();
        for (u32 j = 0; j < BK / 4; j++) {
            u32 key = j * 4 + part;
            float score = 0.0f, slope = 0.0f;
            for (u32 c = 0; c < W; c++) {
                score = fmaf(q[row][c], k[key][c], score);
                slope = fmaf(g[row][c], v[key][c], slope);
            }
            bool seen = is_seen(of, query, start + key);
            float weight = seen ? exponential(score * of.scale - level) : 0.0f;
            d[row][key] = seen ? weight * (slope - delta) * of.scale : 0.0f;
        }
        __syncthreads();
        for (u32 key = 0; key < BK; key++) {
            float weight = d[row][key];
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++)
                sums[c] = fmaf(weight, k[key][column_of<W>(c, part)], sums[c]);
        }
    }
    if (query >= of.q_time) return;
    float* out = target + (batch * of.q_time + query) * target_stride + head * W;
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++)
        if (c * 4 + part < W) out[c * 4 + part] = sums[c];
}

// The gradients of keys and values: over the heads of a group, then over the queries.
template <u32 W, u32 BQ, u32 BK>
INLINE void attend_slope_kv(const float* queries, const float* keys, const float* values,
                            const float* slopes, const float* levels, const float* deltas,
                            float* target_k, float* target_v, u64 target_stride,
                            Attention of) {
    const u32 THREADS = BK * 4, COLUMNS = (W + 3) / 4;
    __shared__ float q[BQ][W + 1], g[BQ][W + 1], k[BK][W + 1], v[BK][W + 1];
    __shared__ float p[BK][BQ + 1], d[BK][BQ + 1];
    u64 tiles = (of.k_time + BK - 1) / BK;
    u64 first = blockIdx.x % tiles * BK, group = blockIdx.x / tiles % of.groups;
    u64 batch = blockIdx.x / tiles / of.groups, shared_by = of.heads / of.groups;
    u32 row = threadIdx.x / 4, part = threadIdx.x % 4;
    load_rows<W, BK, THREADS>(k, head_of<W>(keys, batch, of.k_time, of.groups, group), of.k_time,
                              first);
    load_rows<W, BK, THREADS>(v, head_of<W>(values, batch, of.k_time, of.groups, group), of.k_time,
                              first);
    u64 key = first + row;
    float sums_k[COLUMNS], sums_v[COLUMNS];
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) sums_k[c] = sums_v[c] = 0.0f;
    // Queries before this see none of the keys.
    u64 begin = 0;
    if (of.causal && first + of.q_time > of.k_time) begin = first + of.q_time - of.k_time;
    begin = begin / BQ * BQ;
    for (u64 head = group * shared_by; head < (group + 1) * shared_by; head++) {
        for (u64 start = begin; start < of.q_time; start += BQ) {
            __syncthreads();
            load_rows<W, BQ, THREADS>(q, head_of<W>(queries, batch, of.q_time, of.heads, head),
                                      of.q_time, start);
            load_rows<W, BQ, THREADS>(g, head_of<W>(slopes, batch, of.q_time, of.heads, head),
                                      of.q_time, start);
            __syncthreads();
            for (u32 j = 0; j < BQ / 4; j++) {
                u32 one = j * 4 + part;
                u64 query = start + one;
                float score = 0.0f, slope = 0.0f;
                for (u32 c = 0; c < W; c++) {
                    score = fmaf(q[one][c], k[row][c], score);
                    slope = fmaf(g[one][c], v[row][c], slope);
                }
                float weight = 0.0f, change = 0.0f;
                if (is_seen(of, query, key)) {
                    u64 place = (batch * of.heads + head) * of.q_time + query;
                    weight = exponential(score * of.scale - levels[place]);
                    change = weight * (slope - deltas[place]) * of.scale;
                }
                p[row][one] = weight;
                d[row][one] = change;
            }
            __syncthreads();
            for (u32 one = 0; one < BQ; one++) {
                float weight = p[row][one], change = d[row][one];
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++) {
                    sums_v[c] = fmaf(weight, g[one][column_of<W>(c, part)], sums_v[c]);
                    sums_k[c] = fmaf(change, q[one][column_of<W>(c, part)], sums_k[c]);
                }
            }
        }
    }
    if (key >= of.k_time) return;
    u64 out = (batch * of.k_time + key) * target_stride + group * W;
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) {
        if (c * 4 + part >= W) continue;
        target_k[out + c * 4 + part] = sums_k[c];
        target_v[out + c * 4 + part] = sums_v[c];
    }
}

// The product of each query's result and its slope, [batch, heads, time]: a warp for a row.
KERNEL attention_deltas(const float* results, const float* slopes, float* target, u64 batch,
                        u64 time, u64 heads, u64 width) {
    u64 row = (u64)blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= batch * time * heads) return;
    float sum = 0.0f;
    for (u64 at = threadIdx.x % 32; at < width; at += 32)
        sum = fmaf(results[row * width + at], slopes[row * width + at], sum);
    sum = fold_threads<Sum, 32>(sum, 0);
    u64 head = row % heads, place = row / heads % time, one = row / heads / time;
    if (threadIdx.x % 32 == 0) target[(one * heads + head) * time + place] = sum;
}

// The keys and values of new positions into their pages: [batch, time, elements].
KERNEL keep_positions(const float* new_keys, const float* new_values, float* keys, float* values,
                      const u32* pages, const u32* lengths, u64 batch, u64 time, u64 elements,
                      u64 most) {
    u64 all = batch * time * elements;
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < all; at += (u64)gridDim.x * 256) {
        u64 row = at / elements, one = row / time;
        u64 place = lengths[one] + row % time;
        u64 page = pages[one * most + place / PAGE];
        u64 to = (page * PAGE + place % PAGE) * elements + at % elements;
        keys[to] = new_keys[at];
        values[to] = new_values[at];
    }
}

#define ATTENTION_OF(Q_TIME, K_TIME, CAUSAL) \
    Attention{batch, Q_TIME, K_TIME, heads, groups, CAUSAL, __uint_as_float((u32)scale)}

#define ATTENTION(W, BQ, BK)                                                                      \
    KERNEL attention_##W(const float* q, const float* k, const float* v, float* target,           \
                         float* levels, u64 batch, u64 time, u64 heads, u64 groups, u64 causal,   \
                         u64 scale) {                                                             \
        u64 tiles = (time + BQ - 1) / BQ;                                                         \
        u64 first = blockIdx.x % tiles * BQ, head = blockIdx.x / tiles % heads;                   \
        u64 one = blockIdx.x / tiles / heads, group = head / (heads / groups);                    \
        attend<W, BQ, BK>(head_of<W>(q, one, time, heads, head),                                  \
                          head_of<W>(k, one, time, groups, group),                                \
                          head_of<W>(v, one, time, groups, group),                                \
                          target + (one * time * heads + head) * W, heads * W,                    \
                          levels ? levels + (one * heads + head) * time : 0, first,               \
                          ATTENTION_OF(time, time, causal != 0));                                 \
    }                                                                                             \
    KERNEL attention_kept_##W(const float* q, const float* keys, const float* values,             \
                              float* target, const u32* pages, const u32* lengths, u64 batch,     \
                              u64 time, u64 heads, u64 groups, u64 most, u64 scale) {             \
        u64 tiles = (time + BQ - 1) / BQ;                                                         \
        u64 first = blockIdx.x % tiles * BQ, head = blockIdx.x / tiles % heads;                   \
        u64 one = blockIdx.x / tiles / heads, group = head / (heads / groups);                    \
        attend<W, BQ, BK>(head_of<W>(q, one, time, heads, head),                                  \
                          Places{keys + group * W, groups * W, pages + one * most},               \
                          Places{values + group * W, groups * W, pages + one * most},             \
                          target + (one * time * heads + head) * W, heads * W, 0, first,          \
                          ATTENTION_OF(time, lengths[one] + time, true));                         \
    }                                                                                             \
    KERNEL attention_slope_q_##W(const float* q, const float* k, const float* v,                  \
                                 const float* slopes, const float* levels, const float* deltas,   \
                                 float* target, u64 target_stride, u64 batch, u64 time,           \
                                 u64 heads, u64 groups, u64 causal, u64 scale) {                  \
        attend_slope_q<W, BQ, BK>(q, k, v, slopes, levels, deltas, target, target_stride,         \
                                  ATTENTION_OF(time, time, causal != 0));                         \
    }                                                                                             \
    KERNEL attention_slope_kv_##W(const float* q, const float* k, const float* v,                 \
                                  const float* slopes, const float* levels, const float* deltas,  \
                                  float* target_k, float* target_v, u64 target_stride, u64 batch, \
                                  u64 time, u64 heads, u64 groups, u64 causal, u64 scale) {       \
        attend_slope_kv<W, BQ, BK>(q, k, v, slopes, levels, deltas, target_k, target_v,           \
                                   target_stride, ATTENTION_OF(time, time, causal != 0));         \
    }
