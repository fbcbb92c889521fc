// Batch norm and ReLU.

// A thread a part and channel: the part's mean, and its sum of squared deviations from it, (2, parts, channels). Sums are of
// differences from the part's first value, so that a large mean costs no precision.
extern "C" __global__ void norm_parts(u32 rows, u32 channels, u32 parts, const float *x, double *moments) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 count = rows_of(rows, parts, i / channels);
    float first = x[i], sum = 0.0f, square = 0.0f;
    each_row(count, [&](u32 row) { return x[i + row * all]; }, [&](u32, float v) {
        float d = v - first;
        sum += d;
        square += d * d;
    });
    double mean = (double)sum / (double)count;
    moments[i] = (double)first + mean;
    moments[all + i] = (double)square - (double)sum * mean;
}

struct Part {
    double mean, squares;
};

// Joins the parts of a group for a channel: squared deviations within the parts, and those of the parts' means from the group's
// (Chan, Golub and LeVeque).
__device__ inline void join(u32 rows, u32 channels, u32 parts, u32 groups, u32 group, u32 c, const double *moments,
                            double *mean, double *square) {
    const double *means = moments + group * channels + c, *squares = means + parts * channels;
    u32 count = rows_of(parts, groups, group), step = groups * channels;
    auto rows_in = [&](u32 k) { return (double)rows_of(rows, parts, group + k * groups); };
    double sum = 0.0, deviations = 0.0, m;
    each_row(count, [&](u32 k) { return means[k * step]; }, [&](u32 k, double v) { sum += rows_in(k) * v; });
    m = sum / (double)rows_of(rows, groups, group);
    each_row(count, [&](u32 k) { return Part{means[k * step], squares[k * step]}; }, [&](u32 k, Part part) {
        double d = part.mean - m;
        deviations += part.squares + rows_in(k) * d * d;
    });
    *mean = m;
    *square = deviations;
}

// A thread a group and channel: (2, parts, channels) → (2, groups, channels).
extern "C" __global__ void norm_groups(u32 rows, u32 channels, u32 parts, u32 groups, const double *moments,
                                       double *grouped) {
    u32 i = index(), all = groups * channels;
    if (i >= all) return;
    join(rows, channels, parts, groups, i / channels, i % channels, moments, &grouped[i], &grouped[all + i]);
}

// A thread a channel: the batch's mean, biased variance and 1/√(σ² + ε).
extern "C" __global__ void norm_statistics(u32 rows, u32 channels, u32 groups, const double *moments, float *mean,
                                           float *variance, float *inverse, double epsilon) {
    u32 c = index();
    if (c >= channels) return;
    double m, squares;
    join(rows, channels, groups, 1, 0, c, moments, &m, &squares);
    double v = squares / (double)rows;
    mean[c] = (float)m;
    variance[c] = (float)v;
    inverse[c] = (float)(1.0 / sqrt(v + epsilon));
}

// A thread a part and channel: y = max(0, γ·(x − μ)/√(σ² + ε) + β). NaN stays NaN.
extern "C" __global__ void norm_apply(u32 rows, u32 channels, u32 parts, const float *__restrict__ x, const float *mean,
                                      const float *inverse, const float *gamma, const float *beta, float *__restrict__ y) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 c = i % channels, count = rows_of(rows, parts, i / channels);
    float m = mean[c], scale = gamma[c] * inverse[c], shift = beta[c];
    each_row(count, [&](u32 row) { return x[i + row * all]; }, [&](u32 row, float value) {
        float v = (value - m) * scale + shift;
        y[i + row * all] = v < 0.0f ? 0.0f : v;
    });
}

// A value, and the gradient of ReLU's input: e = that of the output where the output is positive, else 0.
struct Pair {
    float x, e;
};

__device__ inline Pair pair(const float *x, const float *y, const float *gradient, u32 at) {
    float e = gradient[at];
    return {x[at], y[at] > 0.0f ? e : 0.0f};
}

// A thread a part and channel: dγ = Σ e·x̂ and dβ = Σ e, (parts, 2, channels).
extern "C" __global__ void norm_sums(u32 rows, u32 channels, u32 parts, const float *x, const float *y, const float *gradient,
                                     const float *mean, const float *inverse, double *sums) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 c = i % channels, part = i / channels, count = rows_of(rows, parts, part);
    float m = mean[c], scale = inverse[c], by_gamma = 0.0f, by_beta = 0.0f;
    each_row(count, [&](u32 row) { return pair(x, y, gradient, i + row * all); }, [&](u32, Pair p) {
        by_beta += p.e;
        by_gamma += p.e * ((p.x - m) * scale);
    });
    sums[2 * part * channels + c] = (double)by_gamma;
    sums[(2 * part + 1) * channels + c] = (double)by_beta;
}

// A thread a group and column: (parts, columns) → (groups, columns).
extern "C" __global__ void norm_sum_groups(u32 parts, u32 columns, u32 groups, const double *sums, double *grouped) {
    u32 i = index(), all = groups * columns;
    if (i < all) grouped[i] = column_sum(rows_of(parts, groups, i / columns), all, sums + i);
}

// A thread a channel of each gradient: (groups, 2, channels) → (channels) twice.
extern "C" __global__ void norm_gradients(u32 groups, u32 channels, const double *sums, float *dgamma, float *dbeta) {
    u32 i = index();
    if (i >= 2 * channels) return;
    *(i < channels ? &dgamma[i] : &dbeta[i - channels]) = (float)column_sum(groups, 2 * channels, sums + i);
}

// A thread a part and channel: dx = γ/√(σ² + ε) · (e − dβ/n − x̂·dγ/n)
extern "C" __global__ void norm_input(u32 rows, u32 channels, u32 parts, const float *__restrict__ x,
                                      const float *__restrict__ y, const float *__restrict__ gradient, const float *mean,
                                      const float *inverse, const float *gamma, const float *dgamma, const float *dbeta,
                                      float *__restrict__ dx) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 c = i % channels, count = rows_of(rows, parts, i / channels);
    float m = mean[c], scale = gamma[c] * inverse[c];
    float by_beta = dbeta[c] / (float)rows, by_gamma = inverse[c] * (dgamma[c] / (float)rows);
    each_row(count, [&](u32 row) { return pair(x, y, gradient, i + row * all); }, [&](u32 row, Pair p) {
        dx[i + row * all] = scale * (p.e - by_beta - (p.x - m) * by_gamma);
    });
}
