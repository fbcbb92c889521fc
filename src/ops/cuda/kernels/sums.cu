// Sums of columns: (rows, columns) → (columns).

// A thread a part of `per` rows and a column.
extern "C" __global__ void column_parts(u32 rows, u32 columns, u32 per, u32 parts, const float *x, float *sums) {
    u32 i = index();
    if (i >= parts * columns) return;
    u32 c = i % columns, begin = i / columns * per, end = min(begin + per, rows);
    float sum = 0.0f;
    for (u32 row = begin; row < end; row++) sum += x[(size_t)row * columns + c];
    sums[i] = sum;
}

// As column_parts, from f32 and from f64, summed in f64.
extern "C" __global__ void column_groups(u32 rows, u32 columns, u32 per, u32 parts, const float *x, double *sums) {
    u32 i = index();
    if (i >= parts * columns) return;
    u32 c = i % columns, begin = i / columns * per, end = min(begin + per, rows);
    double sum = 0.0;
    for (u32 row = begin; row < end; row++) sum += (double)x[(size_t)row * columns + c];
    sums[i] = sum;
}

extern "C" __global__ void column_sums(u32 rows, u32 columns, const double *x, float *sums) {
    u32 c = index();
    if (c >= columns) return;
    double sum = 0.0;
    for (u32 row = 0; row < rows; row++) sum += x[(size_t)row * columns + c];
    sums[c] = (float)sum;
}

// A thread every `threads`th value of n.
extern "C" __global__ void sum_f64(u32 n, u32 threads, const double *x, double *sums) {
    u32 thread = index();
    if (thread >= threads) return;
    double sum = 0.0;
    for (u32 i = thread; i < n; i += threads) sum += x[i];
    sums[thread] = sum;
}
