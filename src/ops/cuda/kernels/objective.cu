// What a training minimises, and its step: reconstruction cost, MMD², Adam.

// Reconstruction cost: objective/cost.rs -----------------------------------------------------------------------------------

enum { SQUARED = 0, L2 = 1, L1 = 2 };

// A thread a part and image, every `parts`th value of it: Σ (x − y)² or Σ |x − y|, (parts, images).
extern "C" __global__ void cost_parts(u32 images, u32 len, u32 parts, const float *x, const float *y, int kind, double *sums) {
    u32 i = index();
    if (i >= images * parts) return;
    u32 image = i / parts, part = i % parts;
    u32 count = rows_of(len, parts, part), first = image * len + part;
    double sum = 0.0;
    each_row(count, [&](u32 k) { return x[first + k * parts] - y[first + k * parts]; }, [&](u32, float difference) {
        double d = (double)difference;
        sum += kind == L1 ? fabs(d) : d * d;
    });
    sums[part * images + image] = sum;
}

// A thread an image: the sum of its parts, and its share of the mean cost.
extern "C" __global__ void cost_images(u32 images, u32 parts, const double *in_parts, int kind, double floor, double *sums,
                                       double *shares) {
    u32 image = index();
    if (image >= images) return;
    double sum = column_sum(parts, images, in_parts + image);
    sums[image] = sum;
    shares[image] = (kind == L2 ? sqrt(floor + sum) : sum) / (double)images;
}

// The gradient by y of the mean cost: `scale` is 1/n, `sums` each image's sum.
extern "C" __global__ void cost_gradient(u32 n, u32 len, const float *x, const float *y, const double *sums, int kind,
                                         double floor, float scale, float *gradient) {
    u32 i = index();
    if (i >= n) return;
    float d = y[i] - x[i];
    if (kind == SQUARED) gradient[i] = 2.0f * scale * d;
    if (kind == L2) gradient[i] = scale / (float)sqrt(floor + sums[i / len]) * d;
    if (kind == L1) gradient[i] = d == 0.0f ? 0.0f : (d > 0.0f ? scale : -scale);
    if (d != d) gradient[i] = d;
}

// MMD²: objective/mmd.rs, in f64 as there ------------------------------------------------------------------------------------

#define OTHERS 32

__device__ inline const float *mmd_row(u32 i, u32 n, u32 dim, const float *q, const float *p) {
    return i < n ? q + (size_t)i * dim : p + (size_t)(i - n) * dim;
}

// Rows are n codes q, then m draws p. A thread a row and a part of the others, every `parts`th OTHERS of them: its share of MMD²,
// and for codes of the gradient, (parts, n + m) and (parts, n, dim). `bandwidths` are the c of Σ_c c/(c + d²), or the C of
// exp(−d²/C).
extern "C" __global__ void mmd_parts(u32 n, u32 m, u32 dim, u32 parts, const float *q, const float *p,
                                     const double *bandwidths, u32 kernels, int rbf, double *values, double *gradients) {
    u32 i = index(), rows = n + m;
    if (i >= rows * parts) return;
    u32 row = i % rows, part = i / rows;
    const float *a = mmd_row(row, n, dim, q, p);
    double *gradient = gradients + ((size_t)part * n + row) * dim; // of a code
    double slopes[OTHERS], value = 0.0, nn = (double)n, mm = (double)m;
    for (u32 begin = part * OTHERS; begin < rows; begin += parts * OTHERS) {
        u32 end = min(begin + OTHERS, rows);
        for (u32 j = begin; j < end; j++) {
            const float *b = mmd_row(j, n, dim, q, p);
            double d2 = 0.0, k = 0.0, slope = 0.0;
            for (u32 d = 0; d < dim; d++) {
                double difference = (double)a[d] - (double)b[d];
                d2 += difference * difference;
            }
            for (u32 s = 0; s < kernels; s++) {
                double c = bandwidths[s];
                double inverse = 1.0 / (rbf ? c : c + d2), value = rbf ? exp(-d2 * inverse) : c * inverse;
                k += value;
                slope -= value * inverse;
            }
            // Pairs of a row with itself are left out; each pair of a code and a draw is met from the code's side alone.
            bool of_codes = row < n && j < n && j != row, across = row < n && j >= n;
            bool of_draws = row >= n && j >= n && j != row;
            value += of_codes ? k / (nn * (nn - 1.0)) : of_draws ? k / (mm * (mm - 1.0)) : across ? -2.0 * k / (nn * mm) : 0.0;
            slopes[j - begin] = of_codes ? 4.0 * slope / (nn * (nn - 1.0)) : across ? -4.0 * slope / (nn * mm) : 0.0;
        }
        for (u32 d = 0; row < n && d < dim; d++) {
            double sum = begin == part * OTHERS ? 0.0 : gradient[d];
            for (u32 j = begin; j < end; j++)
                sum += slopes[j - begin] * ((double)a[d] - (double)mmd_row(j, n, dim, q, p)[d]);
            gradient[d] = sum;
        }
    }
    values[part * rows + row] = value;
}
