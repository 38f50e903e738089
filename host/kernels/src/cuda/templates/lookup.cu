// Kernels that go by numbers found in tensors, and plain copies. Every number is compared with
// the size of what it selects from before it is used; the first that is outside is noted.

#define EACH(at, elements)                                                                     \
    for (u64 at = (u64)blockIdx.x * 256 + threadIdx.x; at < elements; at += (u64)gridDim.x * 256)

KERNEL fill(float* target, u64 elements, u64 value) {
    EACH(at, elements) target[at] = __uint_as_float((u32)value);
}

KERNEL copy_rows(const float* source, float* target, u64 rows, u64 width, u64 source_stride,
                 u64 target_stride) {
    EACH(at, rows * width)
    target[at / width * target_stride + at % width] =
        source[at / width * source_stride + at % width];
}

// A [k, n] matrix of these strides, row-major.
KERNEL copy_matrix(const float* source, float* target, u64 k, u64 n, u64 row_stride,
                   u64 column_stride) {
    EACH(at, k * n) target[at] = source[at / n * row_stride + at % n * column_stride];
}

// Rows of a data set, by numbers that the host has compared with its length. Windows of a sequence
// are rows that begin less than their width apart.
KERNEL take_rows(const float* table, const u32* rows, float* target, u64 count, u64 width,
                 u64 stride) {
    EACH(at, count * width) target[at] = table[(u64)rows[at / width] * stride + at % width];
}

KERNEL check_numbers(const int* indices, u64 count, u64 size, u64* error) {
    EACH(at, count) in_range(indices[at], size, at, error);
}

// `width` is not 0.
KERNEL gather(const float* table, const int* indices, float* target, u64 count, u64 size,
              u64 width, u64* error) {
    EACH(at, count * width) {
        u64 place = at / width, column = at % width;
        int number = indices[place];
        bool inside = number >= 0 && (u64)number < size;
        if (!inside && column == 0) in_range(number, size, place, error);
        target[at] = inside ? table[(u64)number * width + column] : 0.0f;
    }
}

KERNEL one_hot(const int* indices, float* target, u64 count, u64 depth) {
    EACH(at, count * depth)
    target[at] = (u64)(long long)indices[at / depth] == at % depth ? 1.0f : 0.0f;
}

// Adding rows of one number in the order of their places needs them sorted: by number, then by
// place. Each block of 256 threads sorts 1024 keys of number and place (Batcher 1968).
#define SORTED 1024

KERNEL sort_block(const int* indices, u64* keys, u64 count, u64 size, u64* error) {
    __shared__ u64 held[SORTED];
    u64 first = (u64)blockIdx.x * SORTED;
    for (u32 at = threadIdx.x; at < SORTED; at += 256) {
        u64 place = first + at;
        u64 key = ~0ull;
        if (place < count) {
            int number = indices[place];
            bool inside = in_range(number, size, place, error);
            key = ((u64)(inside ? (u32)number : 0xffffffffu) << 32) | place;
        }
        held[at] = key;
    }
    __syncthreads();
    for (u32 length = 2; length <= SORTED; length *= 2) {
        for (u32 distance = length / 2; distance > 0; distance /= 2) {
            for (u32 pair = threadIdx.x; pair < SORTED / 2; pair += 256) {
                u32 low = pair / distance * distance * 2 + pair % distance;
                u32 high = low + distance;
                bool up = (low & length) == 0;
                u64 a = held[low], b = held[high];
                if ((a > b) == up) {
                    held[low] = b;
                    held[high] = a;
                }
            }
            __syncthreads();
        }
    }
    for (u32 at = threadIdx.x; at < SORTED && first + at < count; at += 256)
        keys[first + at] = held[at];
}

// How many keys of a sorted run are below one.
INLINE u64 below(const u64* keys, u64 count, u64 key) {
    u64 low = 0, high = count;
    while (low < high) {
        u64 middle = (low + high) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Merges sorted runs of `length` in pairs. No two keys are alike, so a key's place is its place
// in its own run and the number of keys below it in the other.
KERNEL merge_runs(const u64* keys, u64* merged, u64 count, u64 length) {
    EACH(at, count) {
        u64 pair = at / (2 * length) * (2 * length);
        u64 middle = pair + length < count ? pair + length : count;
        u64 end = middle + length < count ? middle + length : count;
        u64 key = keys[at];
        u64 place = at < middle ? at + below(keys + middle, end - middle, key)
                                : at - (middle - pair) + below(keys + pair, middle - pair, key);
        merged[place] = key;
    }
}

// Each row of the target: zeros, then the rows of its number in the order of their places.
KERNEL add_sorted(const u64* keys, const float* source, float* target, u64 count, u64 size,
                  u64 width) {
    EACH(at, size * width) {
        u64 number = at / width, column = at % width;
        u64 next = below(keys, count, number << 32);
        float sum = 0.0f;
        while (next < count && keys[next] >> 32 == number) {
            sum += source[(keys[next] & 0xffffffffull) * width + column];
            next++;
        }
        target[at] = sum;
    }
}

// [outer, count, inner]: the sum of those up to each, or from each on. A thread for a line.
KERNEL cumulative_sum(const float* source, float* target, u64 outer, u64 count, u64 inner,
                      u64 exclusive, u64 reverse) {
    EACH(line, outer * inner) {
        u64 first = line / inner * count * inner + line % inner;
        float sum = 0.0f;
        for (u64 step = 0; step < count; step++) {
            u64 at = first + (reverse ? count - 1 - step : step) * inner;
            float value = source[at];
            if (exclusive) target[at] = sum;
            sum = step == 0 ? value : sum + value;
            if (!exclusive) target[at] = sum;
        }
    }
}

// Largest first; not a number before all, equal ones by place.
INLINE bool is_before(float a, u32 a_place, float b, u32 b_place) {
    bool a_nan = not_a_number(a), b_nan = not_a_number(b);
    if (a_nan != b_nan) return a_nan;
    if (a > b) return true;
    if (a < b) return false;
    return a_place < b_place;
}

// [rows, count] to the places of the `kept` largest of each row, in order: a warp for a row finds
// one after the other.
KERNEL top_k(const float* source, int* target, u64 rows, u64 count, u64 kept) {
    u64 row = (u64)blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const float* x = source + row * count;
    u32 lane = threadIdx.x % 32, last = 0xffffffffu;
    float last_value = 0.0f;
    for (u64 next = 0; next < kept; next++) {
        float best = 0.0f;
        u32 place = 0xffffffffu;
        for (u32 at = lane; at < count; at += 32) {
            float value = x[at];
            if (last != 0xffffffffu && !is_before(last_value, last, value, at)) continue;
            if (place == 0xffffffffu || is_before(value, at, best, place)) {
                best = value;
                place = at;
            }
        }
        for (u32 width = 16; width > 0; width /= 2) {
            float value = __shfl_down_sync(0xffffffffu, best, width);
            u32 other = __shfl_down_sync(0xffffffffu, place, width);
            if (other != 0xffffffffu &&
                (place == 0xffffffffu || is_before(value, other, best, place))) {
                best = value;
                place = other;
            }
        }
        last_value = __shfl_sync(0xffffffffu, best, 0);
        last = __shfl_sync(0xffffffffu, place, 0);
        if (lane == 0) target[row * kept + next] = (int)last;
    }
}

// Of each row of [rows, count], the elements of [rows, taken] indices.
KERNEL take_along(const float* source, const int* indices, float* target, u64 rows, u64 count,
                  u64 taken, u64* error) {
    EACH(at, rows * taken) {
        int number = indices[at];
        target[at] = in_range(number, count, at, error) ? source[at / taken * count + number] : 0.0f;
    }
}

// Zeros [rows, count], to which [rows, taken] elements are added at their indices, in order.
KERNEL put_along(const int* indices, const float* source, float* target, u64 rows, u64 count,
                 u64 taken) {
    EACH(at, rows * count) {
        u64 first = at / count * taken;
        float sum = 0.0f;
        for (u64 next = first; next < first + taken; next++)
            if ((u64)(long long)indices[next] == at % count) sum += source[next];
        target[at] = sum;
    }
}

// [outer, windows, size, inner] to the sums at each place of [outer, extent, inner], window after
// window.
KERNEL unwindow(const float* source, float* target, u64 outer, u64 windows, u64 size, u64 stride,
                u64 dilation, u64 extent, u64 inner) {
    EACH(at, outer * extent * inner) {
        u64 column = at % inner, place = at / inner % extent, one = at / inner / extent;
        float sum = 0.0f;
        for (u64 window = 0; window < windows && window * stride <= place; window++) {
            u64 within = place - window * stride;
            if (within % dilation != 0 || within / dilation >= size) continue;
            sum += source[((one * windows + window) * size + within / dilation) * inner + column];
        }
        target[at] = sum;
    }
}

// [rows, words] to the first `count` whole numbers of `bits` in each row, with their sign.
KERNEL unpack(const int* source, float* target, u64 rows, u64 words, u64 count, u64 bits) {
    u32 each = 32 / (u32)bits;
    EACH(at, rows * count) {
        u64 place = at % count;
        u32 word = (u32)source[at / count * words + place / each];
        u32 up = 32 - (u32)bits * ((u32)(place % each) + 1);
        target[at] = (float)((int)(word << up) >> (32 - (int)bits));
    }
}
