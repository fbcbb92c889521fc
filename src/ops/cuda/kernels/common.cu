// What the GPU computes beside cuDNN's convolutions and cuBLAS's products. NVRTC compiles these files as one, this one first,
// when a GPU is opened; the emulated GPU compiles them as C++ with host.h before them, and tests compare them with the CPU's
// operations. That is why no kernel synchronises threads: what needs all threads of a sum is a kernel of its own.
//
// Activations are (N, H, W, C). Sums over many values are taken in two or three fixed steps, so that they do not depend on
// timing. Indices are 32 bits: no array has 2^31 values (Gpu::uninit).

typedef unsigned int u32;
typedef unsigned char u8;
typedef unsigned short bf16; // the upper half of a float

__device__ inline u32 index() { return blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline float read(float v) { return v; }
__device__ inline float read(bf16 v) { return __uint_as_float((u32)v << 16); }
__device__ inline void write(float *to, float v) { *to = v; }
// To the nearest, ties to even; NaN stays NaN.
__device__ inline void write(bf16 *to, float v) {
    u32 bits = __float_as_uint(v);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    *to = nan ? (bf16)((bits >> 16) | 0x40u) : (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Rows are cut into parts, and part p of n takes the rows p, p + n, p + 2n, …: threads that run together then read values that
// lie together, however few the columns are. In sums, groups divide the parts, so that group g of m has the rows g, g + m, …
// and is a part of a coarser cut. What goes value by value with something of the channel is cut so, too: a thread keeps to one
// channel.

// Rows of a part that takes every `parts`th one, from row `part` on.
__device__ inline u32 rows_of(u32 rows, u32 parts, u32 part) { return rows / parts + (part < rows % parts ? 1u : 0u); }

// Calls `use` with each row of `count` and what `load` has there, in order. What eight rows load is on its way together: where
// loads and stores take turns, the compiler lets each load wait for the last.
template <typename Load, typename Use> __device__ inline void each_row(u32 count, Load load, Use use) {
    constexpr u32 TOGETHER = 8;
    for (u32 row = 0; row < count; row += TOGETHER) {
        decltype(load(0u)) values[TOGETHER];
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) values[k] = load(min(row + k, count - 1));
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++)
            if (row + k < count) use(row + k, values[k]);
    }
}

// A value with its gradient.
template <typename T> struct Pair {
    T value, gradient;
};

// The sum of a column's values, `stride` apart.
__device__ inline double column_sum(u32 rows, u32 stride, const double *x) {
    double sum = 0.0;
    each_row(rows, [&](u32 row) { return x[row * stride]; }, [&](u32, double v) { sum += v; });
    return sum;
}
