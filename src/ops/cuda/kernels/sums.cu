// Sums of columns: (rows, columns) → (columns), in f64.

// A thread a group of rows, every `groups`th one, and a column: (rows, columns) → (groups, columns).
extern "C" __global__ void column_groups(u32 rows, u32 columns, u32 groups, const double *x, double *sums) {
    u32 i = index();
    if (i < groups * columns) sums[i] = column_sum(rows_of(rows, groups, i / columns), groups * columns, x + i);
}

extern "C" __global__ void column_sums(u32 rows, u32 columns, const double *x, float *sums) {
    u32 c = index();
    if (c < columns) sums[c] = (float)column_sum(rows, columns, x + c);
}
