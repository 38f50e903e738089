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

// The sum or the largest over the four threads of a row.
INLINE float fold_four_sum(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}
INLINE float fold_four_largest(float value) {
    value = larger(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return larger(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

// Rows `first..first + ROWS` of one head of [batch, time, heads, W], zeros beyond the end.
template <u32 W, u32 ROWS, u32 THREADS>
INLINE void load_rows(float (*into)[W + 1], const float* from, u64 batch, u64 time, u64 heads,
                      u64 head, u64 first) {
    for (u32 at = threadIdx.x; at < ROWS * W; at += THREADS) {
        u32 row = at / W, column = at % W;
        u64 place = first + row;
        into[row][column] =
            place < time ? from[((batch * time + place) * heads + head) * W + column] : 0.0f;
    }
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

template <u32 W, u32 BQ, u32 BK>
INLINE void attend(const float* queries, const float* keys, const float* values, float* target,
                   float* levels, Attention of) {
    const u32 THREADS = BQ * 4, COLUMNS = W / 4;
    __shared__ float q[BQ][W + 1], k[BK][W + 1], v[BK][W + 1], p[BQ][BK + 1];
    u64 tiles = (of.q_time + BQ - 1) / BQ;
    u64 first = blockIdx.x % tiles * BQ, head = blockIdx.x / tiles % of.heads;
    u64 batch = blockIdx.x / tiles / of.heads, group = head / (of.heads / of.groups);
    u32 row = threadIdx.x / 4, part = threadIdx.x % 4;
    load_rows<W, BQ, THREADS>(q, queries, batch, of.q_time, of.heads, head, first);
    float sums[COLUMNS];
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) sums[c] = 0.0f;
    float largest = __uint_as_float(0xff800000u), total = 0.0f;
    u64 end = keys_before(of, first + BQ);
    for (u64 start = 0; start < end; start += BK) {
        __syncthreads();
        load_rows<W, BK, THREADS>(k, keys, batch, of.k_time, of.groups, group, start);
        load_rows<W, BK, THREADS>(v, values, batch, of.k_time, of.groups, group, start);
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
                sums[c] = fmaf(weight, v[key][c * 4 + part], sums[c]);
        }
    }
    u64 query = first + row;
    if (query >= of.q_time) return;
    float share = total > 0.0f || not_a_number(total) ? 1.0f / total : 0.0f;
    float* out = target + ((batch * of.q_time + query) * of.heads + head) * W;
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) out[c * 4 + part] = sums[c] * share;
    if (part == 0)
        levels[(batch * of.heads + head) * of.q_time + query] = largest + logarithm(total);
}

// The gradient of the queries. `deltas` are the products of each query's result and its slope.
template <u32 W, u32 BQ, u32 BK>
INLINE void attend_slope_q(const float* queries, const float* keys, const float* values,
                           const float* slopes, const float* levels, const float* deltas,
                           float* target, Attention of) {
    const u32 THREADS = BQ * 4, COLUMNS = W / 4;
    __shared__ float q[BQ][W + 1], g[BQ][W + 1], k[BK][W + 1], v[BK][W + 1], d[BQ][BK + 1];
    u64 tiles = (of.q_time + BQ - 1) / BQ;
    u64 first = blockIdx.x % tiles * BQ, head = blockIdx.x / tiles % of.heads;
    u64 batch = blockIdx.x / tiles / of.heads, group = head / (of.heads / of.groups);
    u32 row = threadIdx.x / 4, part = threadIdx.x % 4;
    load_rows<W, BQ, THREADS>(q, queries, batch, of.q_time, of.heads, head, first);
    load_rows<W, BQ, THREADS>(g, slopes, batch, of.q_time, of.heads, head, first);
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
        load_rows<W, BK, THREADS>(k, keys, batch, of.k_time, of.groups, group, start);
        load_rows<W, BK, THREADS>(v, values, batch, of.k_time, of.groups, group, start);
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
                sums[c] = fmaf(weight, k[key][c * 4 + part], sums[c]);
        }
    }
    if (query >= of.q_time) return;
    float* out = target + ((batch * of.q_time + query) * of.heads + head) * W;
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) out[c * 4 + part] = sums[c];
}

// The gradients of keys and values: over the heads of a group, then over the queries.
template <u32 W, u32 BQ, u32 BK>
INLINE void attend_slope_kv(const float* queries, const float* keys, const float* values,
                            const float* slopes, const float* levels, const float* deltas,
                            float* target_k, float* target_v, Attention of) {
    const u32 THREADS = BK * 4, COLUMNS = W / 4;
    __shared__ float q[BQ][W + 1], g[BQ][W + 1], k[BK][W + 1], v[BK][W + 1];
    __shared__ float p[BK][BQ + 1], d[BK][BQ + 1];
    u64 tiles = (of.k_time + BK - 1) / BK;
    u64 first = blockIdx.x % tiles * BK, group = blockIdx.x / tiles % of.groups;
    u64 batch = blockIdx.x / tiles / of.groups, shared_by = of.heads / of.groups;
    u32 row = threadIdx.x / 4, part = threadIdx.x % 4;
    load_rows<W, BK, THREADS>(k, keys, batch, of.k_time, of.groups, group, first);
    load_rows<W, BK, THREADS>(v, values, batch, of.k_time, of.groups, group, first);
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
            load_rows<W, BQ, THREADS>(q, queries, batch, of.q_time, of.heads, head, start);
            load_rows<W, BQ, THREADS>(g, slopes, batch, of.q_time, of.heads, head, start);
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
                    sums_v[c] = fmaf(weight, g[one][c * 4 + part], sums_v[c]);
                    sums_k[c] = fmaf(change, q[one][c * 4 + part], sums_k[c]);
                }
            }
        }
    }
    if (key >= of.k_time) return;
    u64 out = ((batch * of.k_time + key) * of.groups + group) * W;
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) {
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

#define ATTENTION_OF Attention{batch, q_time, k_time, heads, groups, causal != 0, \
                               __uint_as_float((u32)scale)}

#define ATTENTION(W, BQ, BK)                                                                      \
    KERNEL attention_##W(const float* q, const float* k, const float* v, float* target,           \
                         float* levels, u64 batch, u64 q_time, u64 k_time, u64 heads, u64 groups, \
                         u64 causal, u64 scale) {                                                 \
        attend<W, BQ, BK>(q, k, v, target, levels, ATTENTION_OF);                                 \
    }                                                                                             \
    KERNEL attention_slope_q_##W(const float* q, const float* k, const float* v,                  \
                                 const float* slopes, const float* levels, const float* deltas,   \
                                 float* target, u64 batch, u64 q_time, u64 k_time, u64 heads,     \
                                 u64 groups, u64 causal, u64 scale) {                             \
        attend_slope_q<W, BQ, BK>(q, k, v, slopes, levels, deltas, target, ATTENTION_OF);         \
    }                                                                                             \
    KERNEL attention_slope_kv_##W(const float* q, const float* k, const float* v,                 \
                                  const float* slopes, const float* levels, const float* deltas,  \
                                  float* target_k, float* target_v, u64 batch, u64 q_time,        \
                                  u64 k_time, u64 heads, u64 groups, u64 causal, u64 scale) {     \
        attend_slope_kv<W, BQ, BK>(q, k, v, slopes, levels, deltas, target_k, target_v,           \
                                   ATTENTION_OF);                                                 \
    }
