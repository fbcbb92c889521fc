// Batch norm and ReLU: kernels/norm.rs.

// A thread a part and channel: the part's mean, and its sum of squared deviations from it, (2, parts, channels). Deviations
// are taken from the part's first value, so that a large mean costs no precision.
template <typename T> __device__ void norm_parts(u32 rows, u32 channels, u32 parts, const T *x, double *moments) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 count = rows_of(rows, parts, i / channels);
    float first = read(x[i]), sum = 0.0f, square = 0.0f;
    each_row(count, [&](u32 row) { return x[i + row * all]; }, [&](u32, T v) {
        float d = read(v) - first;
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

// Joins the parts of a group, which has every `groups`th one, for a channel: deviations inside the parts, and of their means
// from that of them all (Chan, Golub and LeVeque).
__device__ inline void join(u32 rows, u32 channels, u32 parts, u32 groups, u32 group, u32 c, const double *moments,
                            double *mean, double *square) {
    const double *means = moments + group * channels + c, *squares = means + parts * channels;
    u32 count = rows_of(parts, groups, group), step = groups * channels;
    u32 least = rows / parts, larger = rows % parts; // rows of a part, and how many have one more
    auto rows_in = [&](u32 k) { return (double)(least + (group + k * groups < larger ? 1u : 0u)); };
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

// A thread a group and channel, (2, parts, channels) → (2, groups, channels).
extern "C" __global__ void norm_groups(u32 rows, u32 channels, u32 parts, u32 groups, const double *moments,
                                       double *grouped) {
    u32 i = index(), all = groups * channels;
    if (i >= all) return;
    join(rows, channels, parts, groups, i / channels, i % channels, moments, &grouped[i], &grouped[all + i]);
}

// A thread a channel: what a batch is normed by, (4, channels), and the running statistics, of which PyTorch keeps the unbiased
// variance.
extern "C" __global__ void norm_statistics(u32 rows, u32 channels, u32 groups, const double *moments, double epsilon,
                                           double momentum, const float *gamma, const float *beta, float *statistics,
                                           float *running_mean, float *running_variance) {
    u32 c = index();
    if (c >= channels) return;
    double m, s;
    join(rows, channels, groups, 1, 0, c, moments, &m, &s);
    double n = (double)rows, variance = s / n, unbiased = s / (n > 1.0 ? n - 1.0 : 1.0);
    float mean = (float)m, inverse = (float)(1.0 / sqrt(variance + epsilon)), scale = gamma[c] * inverse;
    statistics[c] = mean;
    statistics[channels + c] = inverse;
    statistics[2 * channels + c] = scale;
    statistics[3 * channels + c] = beta[c] - mean * scale;
    running_mean[c] = (float)((1.0 - momentum) * (double)running_mean[c] + momentum * m);
    running_variance[c] = (float)((1.0 - momentum) * (double)running_variance[c] + momentum * unbiased);
}

// A channel's μ, 1/√(σ² + ε), γ/√(σ² + ε) and β − μ·γ/√(σ² + ε).
struct Norm {
    float mean, inverse, scale, shift;
};

__device__ inline Norm norm_of(u32 channels, u32 c, const float *statistics) {
    return {statistics[c], statistics[channels + c], statistics[2 * channels + c], statistics[3 * channels + c]};
}

// What ReLU takes. Its gradient computes it again: x is read for it anyway, and the output need not be.
__device__ inline float normed(const Norm &norm, float x) { return x * norm.scale + norm.shift; }

// A thread a part and channel.
template <typename T>
__device__ void norm_apply(u32 rows, u32 channels, u32 parts, const T *__restrict__ x, const float *statistics,
                           T *__restrict__ y) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 count = rows_of(rows, parts, i / channels);
    Norm norm = norm_of(channels, i % channels, statistics);
    each_row(count, [&](u32 row) { return x[i + row * all]; }, [&](u32 row, T value) {
        float v = normed(norm, read(value));
        write(&y[i + row * all], v < 0.0f ? 0.0f : v);
    });
}

// A thread a part and channel: dγ = Σ e·x̂ and dβ = Σ e, e the gradient where the output is positive, (parts, 2, channels).
template <typename T>
__device__ void norm_sums(u32 rows, u32 channels, u32 parts, const T *x, const T *gradient, const float *statistics,
                          double *sums) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 c = i % channels, part = i / channels, count = rows_of(rows, parts, part);
    Norm norm = norm_of(channels, c, statistics);
    float by_gamma = 0.0f, by_beta = 0.0f;
    each_row(count, [&](u32 row) { return Pair<T>{x[i + row * all], gradient[i + row * all]}; }, [&](u32, Pair<T> pair) {
        float v = read(pair.value), e = normed(norm, v) > 0.0f ? read(pair.gradient) : 0.0f;
        by_beta += e;
        by_gamma += e * ((v - norm.mean) * norm.inverse);
    });
    sums[2 * part * channels + c] = (double)by_gamma;
    sums[(2 * part + 1) * channels + c] = (double)by_beta;
}

// A thread a channel of each gradient: (parts, 2, channels) → (channels) twice.
extern "C" __global__ void norm_gradients(u32 parts, u32 channels, const double *sums, float *dgamma, float *dbeta) {
    u32 i = index();
    if (i >= 2 * channels) return;
    *(i < channels ? &dgamma[i] : &dbeta[i - channels]) = (float)column_sum(parts, 2 * channels, sums + i);
}

// A thread a part and channel: dx = γ/√(σ² + ε) · (e − dβ/n − x̂·dγ/n)
template <typename T>
__device__ void norm_input(u32 rows, u32 channels, u32 parts, const T *__restrict__ x, const T *__restrict__ gradient,
                           const float *statistics, const float *dgamma, const float *dbeta, T *__restrict__ dx) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 c = i % channels, count = rows_of(rows, parts, i / channels);
    Norm norm = norm_of(channels, c, statistics);
    float by_beta = dbeta[c] / (float)rows, by_gamma = norm.inverse * (dgamma[c] / (float)rows);
    each_row(count, [&](u32 row) { return Pair<T>{x[i + row * all], gradient[i + row * all]}; }, [&](u32 row, Pair<T> pair) {
        float v = read(pair.value), e = normed(norm, v) > 0.0f ? read(pair.gradient) : 0.0f;
        write(&dx[i + row * all], norm.scale * (e - by_beta - (v - norm.mean) * by_gamma));
    });
}

#define NORMS(T, NAME)                                                                                                     \
    extern "C" __global__ void norm_parts_##NAME(u32 rows, u32 channels, u32 parts, const T *x, double *moments) {         \
        norm_parts<T>(rows, channels, parts, x, moments);                                                                  \
    }                                                                                                                      \
    extern "C" __global__ void norm_apply_##NAME(u32 rows, u32 channels, u32 parts, const T *x, const float *statistics,   \
                                                 T *y) {                                                                   \
        norm_apply<T>(rows, channels, parts, x, statistics, y);                                                            \
    }                                                                                                                      \
    extern "C" __global__ void norm_sums_##NAME(u32 rows, u32 channels, u32 parts, const T *x, const T *gradient,          \
                                                const float *statistics, double *sums) {                                   \
        norm_sums<T>(rows, channels, parts, x, gradient, statistics, sums);                                                \
    }                                                                                                                      \
    extern "C" __global__ void norm_input_##NAME(u32 rows, u32 channels, u32 parts, const T *x, const T *gradient,         \
                                                 const float *statistics, const float *dgamma, const float *dbeta,         \
                                                 T *dx) {                                                                  \
        norm_input<T>(rows, channels, parts, x, gradient, statistics, dgamma, dbeta, dx);                                  \
    }
NORMS(float, f32)
NORMS(bf16, bf16)
