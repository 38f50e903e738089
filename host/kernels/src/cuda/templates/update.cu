// What happens to losses, gradients and weights around a step. Sums are taken in one tree,
// whatever the device: 1024 numbers for a block, then the blocks in order.

INLINE double fold_block(double value, double* partial) {
    partial[threadIdx.x] = value;
    __syncthreads();
    for (u32 width = 128; width > 0; width /= 2) {
        if (threadIdx.x < width) partial[threadIdx.x] += partial[threadIdx.x + width];
        __syncthreads();
    }
    value = partial[0];
    __syncthreads();
    return value;
}

// Of [rows] losses and weights (no weights: each 1): results[0] the sum of weight times loss,
// [1] the sum of weights, [2] the first row whose weight is negative or not finite, [3] 1 / the
// sum of weights as a float32, 0 where that is 0. One block.
KERNEL loss_sums(const float* losses, const float* weights, u64 rows, u64* results) {
    __shared__ double partial[256];
    __shared__ u64 bad[1];
    if (threadIdx.x == 0) bad[0] = ~0ull;
    __syncthreads();
    double loss = 0.0, weight = 0.0;
    for (u64 row = threadIdx.x; row < rows; row += 256) {
        float one = weights ? weights[row] : 1.0f;
        if (!(one >= 0.0f && one < __uint_as_float(0x7f800000u))) atomicMin(&bad[0], row);
        loss += (double)losses[row] * (double)one;
        weight += (double)one;
    }
    loss = fold_block(loss, partial);
    weight = fold_block(weight, partial);
    if (threadIdx.x == 0) {
        results[0] = (u64)__double_as_longlong(loss);
        results[1] = (u64)__double_as_longlong(weight);
        results[2] = bad[0];
        results[3] = weight > 0.0 ? (u64)__float_as_uint((float)(1.0 / weight)) : 0;
    }
}

// Scales a gradient by what `loss_sums` found.
KERNEL scale_gradient(float* gradient, u64 elements, const u64* sums) {
    float scale = __uint_as_float((u32)sums[3]);
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements; at += (u64)gridDim.x * 256)
        gradient[at] *= scale;
}

// The gradients of the batches of a step, one after the other.
KERNEL add_gradient(float* sum, const float* gradient, u64 elements, u64 is_first) {
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements; at += (u64)gridDim.x * 256)
        sum[at] = is_first ? gradient[at] : sum[at] + gradient[at];
}

KERNEL take_gradient(const float* sum, float* gradient, u64 elements, u64 scale) {
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements; at += (u64)gridDim.x * 256)
        gradient[at] = sum[at] * __uint_as_float((u32)scale);
}

// The sum of squares of each 1024 numbers.
KERNEL square_sums(const float* values, u64 elements, double* sums) {
    __shared__ double partial[256];
    double sum = 0.0;
    for (u32 part = 0; part < 4; part++) {
        u64 at = (u64)blockIdx.x * 1024 + part * 256 + threadIdx.x;
        double value = at < elements ? (double)values[at] : 0.0;
        sum += value * value;
    }
    sum = fold_block(sum, partial);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// update[1]: what the gradient is scaled by, so that its norm is at most the float64 in
// update[0]. One block.
KERNEL clip_scale(const double* sums, u64 count, u64* update) {
    __shared__ double partial[256];
    double sum = 0.0;
    for (u64 at = threadIdx.x; at < count; at += 256) sum += sums[at];
    sum = fold_block(sum, partial);
    if (threadIdx.x == 0) {
        double norm = sqrt(sum), limit = __longlong_as_double((long long)update[0]);
        update[1] = __float_as_uint(norm > limit ? (float)(limit / norm) : 1.0f);
    }
}

INLINE float number_of(const u64* update, u32 place) {
    return __uint_as_float((u32)update[place]);
}

// update: [1] scale, [2] rate, [3] weight decay, [4] momentum.
KERNEL sgd(const float* gradient, float* weights, float* velocities, u64 elements,
           const u64* update) {
    float scale = number_of(update, 1), rate = number_of(update, 2);
    float decay = number_of(update, 3), momentum = number_of(update, 4);
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements;
         at += (u64)gridDim.x * 256) {
        float weight = weights[at];
        float slope = gradient[at] * scale + decay * weight;
        float velocity = momentum * velocities[at] + slope;
        velocities[at] = velocity;
        weights[at] = weight - rate * velocity;
    }
}

// Kingma and Ba 2015, algorithm 1, the corrections of the bias taken out. update: [1] scale,
// [2] step, [3] 1 / the correction of the second moment, [4] beta1, [5] 1 - beta1, [6] beta2,
// [7] 1 - beta2, [8] epsilon, [9] coupled decay, [10] factor of decoupled decay.
KERNEL adam(const float* gradient, float* weights, float* firsts, float* seconds, u64 elements,
            const u64* update) {
    float scale = number_of(update, 1), step = number_of(update, 2);
    float inverse = number_of(update, 3);
    float beta1 = number_of(update, 4), rest1 = number_of(update, 5);
    float beta2 = number_of(update, 6), rest2 = number_of(update, 7);
    float epsilon = number_of(update, 8), coupled = number_of(update, 9);
    float decay = number_of(update, 10);
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements;
         at += (u64)gridDim.x * 256) {
        float weight = weights[at];
        float slope = gradient[at] * scale + coupled * weight;
        float first = beta1 * firsts[at] + rest1 * slope;
        float second = beta2 * seconds[at] + rest2 * (slope * slope);
        firsts[at] = first;
        seconds[at] = second;
        float size = sqrtf(second) * inverse + epsilon;
        weights[at] = weight * decay - step * (first / size);
    }
}

// Sets flag[0] where a number is not finite.
KERNEL find_not_finite(const float* values, u64 elements, u64* flag) {
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements; at += (u64)gridDim.x * 256)
        if (!(fabsf(values[at]) < __uint_as_float(0x7f800000u))) flag[0] = 1;
}

// float32 to bfloat16, to the nearest, ties to even.
KERNEL to_bfloat16(const float* source, unsigned short* target, u64 elements) {
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements;
         at += (u64)gridDim.x * 256) {
        u32 bits = __float_as_uint(source[at]);
        u32 rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
        bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        target[at] = (unsigned short)(nan ? (bits >> 16) | 0x40u : rounded >> 16);
    }
}
