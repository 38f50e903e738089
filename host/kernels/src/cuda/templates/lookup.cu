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
