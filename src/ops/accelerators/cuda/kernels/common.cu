// Kernels on (rows, channels) of f32. NVRTC compiles these files as one program, this one first.
//
// Sums over many rows are taken in two or three fixed steps, so that they do not depend on timing. Indices have 32 bits: the host
// refuses arrays of 2^31 values and more.

typedef unsigned int u32;

__device__ inline u32 index() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Rows are cut into parts: part p of n takes the rows p, p + n, p + 2n, …, so that threads that run together read values that lie
// together, however few the channels are. Groups divide the parts in the same way: group g of m has the parts g, g + m, …

// The number of rows of a part.
__device__ inline u32 rows_of(u32 rows, u32 parts, u32 part) { return rows / parts + (part < rows % parts ? 1u : 0u); }

// Calls `use` with each row of `count` and with what `load` reads there, in order. Eight rows are loaded before the first is
// used: if loads and stores took turns, the compiler would let each load wait for the last store.
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

// The sum of a column's values, which lie `stride` apart.
__device__ inline double column_sum(u32 rows, u32 stride, const double *x) {
    double sum = 0.0;
    each_row(rows, [&](u32 row) { return x[row * stride]; }, [&](u32, double v) { sum += v; });
    return sum;
}
