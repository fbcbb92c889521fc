// Batch norm and ReLU: kernels/norm.rs. Rows are cut into parts of `per` rows.

// A thread a part and channel: the part's mean, and its sum of squared deviations from it. Deviations are taken from the
// part's first value, so that a large mean costs no precision.
template <typename T>
__device__ void norm_parts(u32 rows, u32 channels, u32 per, u32 parts, const T *x, float *mean, float *squares) {
    u32 i = index();
    if (i >= parts * channels) return;
    u32 c = i % channels, begin = i / channels * per, end = min(begin + per, rows);
    float first = read(x[(size_t)begin * channels + c]), sum = 0.0f, square = 0.0f;
    for (u32 row = begin; row < end; row++) {
        float d = read(x[(size_t)row * channels + c]) - first;
        sum += d;
        square += d * d;
    }
    float count = (float)(end - begin);
    mean[i] = first + sum / count;
    squares[i] = square - sum * sum / count;
}

// Chan, Golub and LeVeque: joins the parts of a group. A thread a group and channel.
template <typename T>
__device__ void join(u32 rows, u32 channels, u32 per, u32 first, u32 last, u32 c, const T *means, const T *squares,
                     double *mean, double *square) {
    double m = 0.0, s = 0.0, count = 0.0;
    for (u32 part = first; part < last; part++) {
        u32 begin = part * per, end = min(begin + per, rows);
        double n = (double)(end - begin), total = count + n, delta = (double)means[part * channels + c] - m;
        m += delta * n / total;
        s += (double)squares[part * channels + c] + delta * delta * count * n / total;
        count = total;
    }
    *mean = m;
    *square = s;
}

extern "C" __global__ void norm_groups(u32 rows, u32 channels, u32 per, u32 parts, u32 group, u32 groups, const float *means,
                                       const float *squares, double *mean, double *square) {
    u32 i = index();
    if (i >= groups * channels) return;
    u32 c = i % channels, first = i / channels * group, last = min(first + group, parts);
    join<float>(rows, channels, per, first, last, c, means, squares, &mean[i], &square[i]);
}

// A thread a channel: the batch's mean and 1/√(σ² + ε), and the running statistics, of which PyTorch keeps the unbiased
// variance. `per` is the rows of a group.
extern "C" __global__ void norm_statistics(u32 rows, u32 channels, u32 per, u32 groups, const double *means,
                                           const double *squares, double epsilon, double momentum, float *mean,
                                           float *inverse, float *running_mean, float *running_variance) {
    u32 c = index();
    if (c >= channels) return;
    double m, s;
    join<double>(rows, channels, per, 0, groups, c, means, squares, &m, &s);
    double n = (double)rows, variance = s / n, unbiased = s / (n > 1.0 ? n - 1.0 : 1.0);
    mean[c] = (float)m;
    inverse[c] = (float)(1.0 / sqrt(variance + epsilon));
    running_mean[c] = (float)((1.0 - momentum) * (double)running_mean[c] + momentum * m);
    running_variance[c] = (float)((1.0 - momentum) * (double)running_variance[c] + momentum * unbiased);
}

template <typename T>
__device__ void norm_apply(u32 n, u32 channels, const T *x, const float *gamma, const float *beta, const float *mean,
                           const float *inverse, T *y) {
    u32 i = index();
    if (i >= n) return;
    u32 c = i % channels;
    float scale = gamma[c] * inverse[c], v = read(x[i]) * scale + (beta[c] - mean[c] * scale);
    write(&y[i], v < 0.0f ? 0.0f : v);
}

// A thread a part and channel: dβ = Σ e and dγ = Σ e·x̂, e the gradient where the output is positive.
template <typename T>
__device__ void norm_sums(u32 rows, u32 channels, u32 per, u32 parts, const T *x, const T *y, const T *gradient,
                          const float *mean, const float *inverse, float *dgamma, float *dbeta) {
    u32 i = index();
    if (i >= parts * channels) return;
    u32 c = i % channels, begin = i / channels * per, end = min(begin + per, rows);
    float by_gamma = 0.0f, by_beta = 0.0f, m = mean[c], d = inverse[c];
    for (u32 row = begin; row < end; row++) {
        size_t at = (size_t)row * channels + c;
        float e = read(y[at]) > 0.0f ? read(gradient[at]) : 0.0f;
        by_beta += e;
        by_gamma += e * ((read(x[at]) - m) * d);
    }
    dgamma[i] = by_gamma;
    dbeta[i] = by_beta;
}

// dx = γ/√(σ² + ε) · (e − dβ/n − x̂·dγ/n)
template <typename T>
__device__ void norm_input(u32 n, u32 rows, u32 channels, const T *x, const T *y, const T *gradient, const float *gamma,
                           const float *mean, const float *inverse, const float *dgamma, const float *dbeta, T *dx) {
    u32 i = index();
    if (i >= n) return;
    u32 c = i % channels;
    float e = read(y[i]) > 0.0f ? read(gradient[i]) : 0.0f, d = inverse[c], count = (float)rows;
    float v = e - dbeta[c] / count - (read(x[i]) - mean[c]) * d * (dgamma[c] / count);
    write(&dx[i], gamma[c] * d * v);
}

#define NORMS(T, NAME)                                                                                                     \
    extern "C" __global__ void norm_parts_##NAME(u32 rows, u32 channels, u32 per, u32 parts, const T *x, float *mean,      \
                                                 float *squares) {                                                         \
        norm_parts<T>(rows, channels, per, parts, x, mean, squares);                                                       \
    }                                                                                                                      \
    extern "C" __global__ void norm_apply_##NAME(u32 n, u32 channels, const T *x, const float *gamma, const float *beta,   \
                                                 const float *mean, const float *inverse, T *y) {                          \
        norm_apply<T>(n, channels, x, gamma, beta, mean, inverse, y);                                                      \
    }                                                                                                                      \
    extern "C" __global__ void norm_sums_##NAME(u32 rows, u32 channels, u32 per, u32 parts, const T *x, const T *y,        \
                                                const T *gradient, const float *mean, const float *inverse,                \
                                                float *dgamma, float *dbeta) {                                             \
        norm_sums<T>(rows, channels, per, parts, x, y, gradient, mean, inverse, dgamma, dbeta);                            \
    }                                                                                                                      \
    extern "C" __global__ void norm_input_##NAME(u32 n, u32 rows, u32 channels, const T *x, const T *y, const T *gradient, \
                                                 const float *gamma, const float *mean, const float *inverse,              \
                                                 const float *dgamma, const float *dbeta, T *dx) {                         \
        norm_input<T>(n, rows, channels, x, y, gradient, gamma, mean, inverse, dgamma, dbeta, dx);                         \
    }
NORMS(float, f32)
NORMS(bf16, bf16)
