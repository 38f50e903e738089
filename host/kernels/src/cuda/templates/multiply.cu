// Matrix products in float32. Every element is one chain of fused products and sums in the order
// of the inner index, begun with the bias: its bits depend neither on the tile that computes it
// nor on the other rows, and are those of a processor that fuses.

// [m, k] times [k, n] for each of a batch. A block computes BM rows and BN columns, a thread TM
// by TN of them, spread so that threads side by side read memory side by side. LK: the left
// operand lies one after the other along k; RN: the right one along n.
template <u32 BM, u32 BN, u32 BK, u32 TM, u32 TN, bool LK, bool RN>
INLINE void multiply_tile(const float* left, const float* right, float* target, const float* bias,
                          u64 m, u64 k, u64 n, u64 left_row, u64 left_column, u64 left_batch,
                          u64 right_row, u64 right_column, u64 right_batch, bool relu) {
    const u32 WIDE = BN / TN;
    const u32 THREADS = BM / TM * WIDE;
    const u32 LEFTS = BM * BK / THREADS, RIGHTS = BK * BN / THREADS;
    __shared__ float lefts[2][BK][BM + 1];
    __shared__ float rights[2][BK][BN + 1];
    u64 tiles_n = (n + BN - 1) / BN, tiles_m = (m + BM - 1) / BM;
    u64 first_n = blockIdx.x % tiles_n * BN;
    u64 first_m = blockIdx.x / tiles_n % tiles_m * BM;
    u64 batch = blockIdx.x / tiles_n / tiles_m;
    left += batch * left_batch;
    right += batch * right_batch;
    target += batch * m * n;
    u32 thread = threadIdx.x, across = thread % WIDE, down = thread / WIDE;
    float sums[TM][TN];
#pragma unroll
    for (u32 j = 0; j < TN; j++) {
        u64 column = first_n + across + j * WIDE;
        float start = bias && column < n ? bias[column] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < TM; i++) sums[i][j] = start;
    }
    float next_left[LEFTS], next_right[RIGHTS];
    u64 steps = (k + BK - 1) / BK;
    for (u64 step = 0; step <= steps; step++) {
        // The next tiles are on their way while this one is computed.
        if (step < steps) {
#pragma unroll
            for (u32 part = 0; part < LEFTS; part++) {
                u32 at = part * THREADS + thread;
                u32 row = LK ? at / BK : at % BM, inner = LK ? at % BK : at / BM;
                u64 i = first_m + row, l = step * BK + inner;
                next_left[part] = i < m && l < k ? left[i * left_row + l * left_column] : 0.0f;
            }
#pragma unroll
            for (u32 part = 0; part < RIGHTS; part++) {
                u32 at = part * THREADS + thread;
                u32 column = RN ? at % BN : at / BK, inner = RN ? at / BN : at % BK;
                u64 j = first_n + column, l = step * BK + inner;
                next_right[part] = j < n && l < k ? right[l * right_row + j * right_column] : 0.0f;
            }
        }
        if (step > 0) {
            u32 side = (u32)(step - 1) % 2;
            u64 here = k - (step - 1) * BK;
            if (here >= BK) {
#pragma unroll
                for (u32 l = 0; l < BK; l++) {
                    float a[TM], b[TN];
#pragma unroll
                    for (u32 i = 0; i < TM; i++) a[i] = lefts[side][l][down + i * (BM / TM)];
#pragma unroll
                    for (u32 j = 0; j < TN; j++) b[j] = rights[side][l][across + j * WIDE];
#pragma unroll
                    for (u32 i = 0; i < TM; i++)
#pragma unroll
                        for (u32 j = 0; j < TN; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
                }
            } else {
                // Not a multiple of the tile: nothing is added beyond the end.
                for (u32 l = 0; l < (u32)here; l++)
#pragma unroll
                    for (u32 i = 0; i < TM; i++)
#pragma unroll
                        for (u32 j = 0; j < TN; j++)
                            sums[i][j] = fmaf(lefts[side][l][down + i * (BM / TM)],
                                              rights[side][l][across + j * WIDE], sums[i][j]);
            }
        }
        if (step < steps) {
            u32 side = (u32)step % 2;
#pragma unroll
            for (u32 part = 0; part < LEFTS; part++) {
                u32 at = part * THREADS + thread;
                u32 row = LK ? at / BK : at % BM, inner = LK ? at % BK : at / BM;
                lefts[side][inner][row] = next_left[part];
            }
#pragma unroll
            for (u32 part = 0; part < RIGHTS; part++) {
                u32 at = part * THREADS + thread;
                u32 column = RN ? at % BN : at / BK, inner = RN ? at / BN : at % BK;
                rights[side][inner][column] = next_right[part];
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (u32 i = 0; i < TM; i++) {
        u64 row = first_m + down + i * (BM / TM);
#pragma unroll
        for (u32 j = 0; j < TN; j++) {
            u64 column = first_n + across + j * WIDE;
            float value = sums[i][j];
            if (relu && value < 0.0f) value = 0.0f;
            if (row < m && column < n) target[row * n + column] = value;
        }
    }
}

#define MULTIPLY(NAME, BM, BN, BK, TM, TN, LK, RN)                                               \
    extern "C" __global__ void __launch_bounds__(256)                                            \
        multiply_##NAME(const float* left, const float* right, float* target, const float* bias, \
                        u64 m, u64 k, u64 n, u64 left_row, u64 left_column, u64 left_batch,      \
                        u64 right_row, u64 right_column, u64 right_batch, u64 relu) {            \
        multiply_tile<BM, BN, BK, TM, TN, LK, RN>(left, right, target, bias, m, k, n, left_row,  \
                                                  left_column, left_batch, right_row,            \
                                                  right_column, right_batch, relu != 0);         \
    }
