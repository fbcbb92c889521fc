// What the GPU computes beside cuDNN's convolutions and cuBLAS's products. NVRTC compiles this file when a GPU is opened; a
// test compiles it as C++ with host.h before it and compares it with the CPU's operations. That is why no kernel
// synchronises threads: what needs all threads of a sum is a kernel of its own.
//
// Activations are (N, H, W, C). Sums over many values are taken in two or three fixed steps, so that they do not depend on
// timing. Indices are 32 bits: no array has 2^31 values (Array::alloc).

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

// Elementwise ------------------------------------------------------------------------------------------------------------

extern "C" __global__ void bytes_to_f32(u32 n, const u8 *x, float *y) {
    u32 i = index();
    if (i < n) y[i] = (float)x[i] / 255.0f;
}

extern "C" __global__ void f32_to_bf16(u32 n, const float *x, bf16 *y) {
    u32 i = index();
    if (i < n) write(&y[i], x[i]);
}

extern "C" __global__ void bf16_to_f32(u32 n, const bf16 *x, float *y) {
    u32 i = index();
    if (i < n) y[i] = read(x[i]);
}

// x + weight · y
extern "C" __global__ void add_scaled_f32(u32 n, const float *x, float weight, const float *y, float *sum) {
    u32 i = index();
    if (i < n) sum[i] = x[i] + weight * y[i];
}

// kernels/adam.rs: w ← w − η · m̂ / (√v̂ + ε)
extern "C" __global__ void adam_f32(u32 n, float *w, const float *gradient, float *m, float *v, float rate, float beta1,
                                    float rest1, float beta2, float rest2, float epsilon, float correct1, float correct2) {
    u32 i = index();
    if (i >= n) return;
    float g = gradient[i];
    float mean = m[i] = beta1 * m[i] + rest1 * g;
    float square = v[i] = beta2 * v[i] + rest2 * g * g;
    w[i] -= rate * (mean * correct1) / (sqrtf(square * correct2) + epsilon);
}

// Padding: cuDNN pads both sides alike, SAME does not ---------------------------------------------------------------------

// (n / (height·width·channels), height, width, channels) from a smaller grid that begins at (top, left), zeros around it.
template <typename T>
__device__ void pad(u32 n, const T *x, T *y, u32 height, u32 width, u32 channels, u32 top, u32 left, u32 inner_height,
                    u32 inner_width) {
    u32 i = index();
    if (i >= n) return;
    u32 c = i % channels, pixel = i / channels;
    u32 column = pixel % width, line = pixel / width % height, image = pixel / width / height;
    bool inside = line >= top && line < top + inner_height && column >= left && column < left + inner_width;
    T zero = 0;
    y[i] = inside ? x[((image * inner_height + line - top) * inner_width + column - left) * channels + c] : zero;
}

// The reverse: (n / (height·width·channels), height, width, channels) out of a larger grid, from (top, left) on.
template <typename T>
__device__ void crop(u32 n, const T *x, T *y, u32 height, u32 width, u32 channels, u32 top, u32 left, u32 outer_height,
                     u32 outer_width) {
    u32 i = index();
    if (i >= n) return;
    u32 c = i % channels, pixel = i / channels;
    u32 column = pixel % width, line = pixel / width % height, image = pixel / width / height;
    y[i] = x[((image * outer_height + line + top) * outer_width + column + left) * channels + c];
}

#define GRID_COPIES(T, NAME)                                                                                               \
    extern "C" __global__ void pad_##NAME(u32 n, const T *x, T *y, u32 height, u32 width, u32 channels, u32 top, u32 left, \
                                          u32 inner_height, u32 inner_width) {                                             \
        pad<T>(n, x, y, height, width, channels, top, left, inner_height, inner_width);                                    \
    }                                                                                                                      \
    extern "C" __global__ void crop_##NAME(u32 n, const T *x, T *y, u32 height, u32 width, u32 channels, u32 top,          \
                                           u32 left, u32 outer_height, u32 outer_width) {                                  \
        crop<T>(n, x, y, height, width, channels, top, left, outer_height, outer_width);                                   \
    }
GRID_COPIES(float, f32)
GRID_COPIES(bf16, bf16)

// Bias and activation ----------------------------------------------------------------------------------------------------

enum { IDENTITY = 0, RELU = 1, SIGMOID = 2 };

// NaN passes through ReLU, so that a diverged training says so.
template <typename T> __device__ void bias_activation(u32 n, u32 channels, const T *x, const float *bias, int kind, T *y) {
    u32 i = index();
    if (i >= n) return;
    float v = read(x[i]) + bias[i % channels];
    if (kind == RELU) v = v < 0.0f ? 0.0f : v;
    if (kind == SIGMOID) v = 1.0f / (1.0f + expf(-v));
    write(&y[i], v);
}

extern "C" __global__ void bias_activation_f32(u32 n, u32 channels, const float *x, const float *bias, int kind, float *y) {
    bias_activation<float>(n, channels, x, bias, kind, y);
}
extern "C" __global__ void bias_activation_bf16(u32 n, u32 channels, const bf16 *x, const float *bias, int kind, bf16 *y) {
    bias_activation<bf16>(n, channels, x, bias, kind, y);
}

// From the output y: ReLU lets through where it is positive, sigmoid's slope is y(1 − y).
extern "C" __global__ void activation_gradient_f32(u32 n, const float *y, const float *gradient, int kind, float *dx) {
    u32 i = index();
    if (i >= n) return;
    float g = gradient[i];
    if (kind == RELU) g = y[i] > 0.0f ? g : 0.0f;
    if (kind == SIGMOID) g = g * y[i] * (1.0f - y[i]);
    dx[i] = g;
}

// Batch norm and ReLU: kernels/norm.rs. Rows are cut into parts of `per` rows -----------------------------------------------

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

// Sums of columns: (rows, columns) → (columns) -----------------------------------------------------------------------------

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

// Reconstruction cost: objective/cost.rs -----------------------------------------------------------------------------------

enum { SQUARED = 0, L2 = 1, L1 = 2 };

// A thread a part and image, every `parts`th value of it: Σ (x − y)² or Σ |x − y|, (parts, images).
extern "C" __global__ void cost_parts(u32 images, u32 len, u32 parts, const float *x, const float *y, int kind, double *sums) {
    u32 i = index();
    if (i >= images * parts) return;
    u32 image = i / parts, part = i % parts;
    double sum = 0.0;
    for (u32 k = part; k < len; k += parts) {
        double d = (double)(x[(size_t)image * len + k] - y[(size_t)image * len + k]);
        sum += kind == L1 ? fabs(d) : d * d;
    }
    sums[part * images + image] = sum;
}

// A thread an image: the sum of its parts, and its share of the mean cost.
extern "C" __global__ void cost_images(u32 images, u32 parts, const double *in_parts, int kind, double floor, double *sums,
                                       double *shares) {
    u32 image = index();
    if (image >= images) return;
    double sum = 0.0;
    for (u32 part = 0; part < parts; part++) sum += in_parts[part * images + image];
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

#define OTHERS 64

// Rows are n codes q, then m draws p. A thread a row and OTHERS others: its share of MMD², and for codes of the gradient,
// (others, n + m) and (others, n, dim). `bandwidths` are the c of Σ_c c/(c + d²), or the C of exp(−d²/C).
__device__ inline const float *mmd_row(u32 i, u32 n, u32 dim, const float *q, const float *p) {
    return i < n ? q + (size_t)i * dim : p + (size_t)(i - n) * dim;
}

extern "C" __global__ void mmd_parts(u32 n, u32 m, u32 dim, u32 parts, const float *q, const float *p,
                                     const double *bandwidths, u32 kernels, int rbf, double *values, double *gradients) {
    u32 i = index(), rows = n + m;
    if (i >= rows * parts) return;
    u32 row = i % rows, part = i / rows, begin = part * OTHERS, end = min(begin + OTHERS, rows);
    const float *a = mmd_row(row, n, dim, q, p);
    double slopes[OTHERS], value = 0.0, nn = (double)n, mm = (double)m;
    for (u32 j = begin; j < end; j++) {
        const float *b = mmd_row(j, n, dim, q, p);
        double d2 = 0.0, k = 0.0, slope = 0.0;
        for (u32 d = 0; d < dim; d++) {
            double difference = (double)a[d] - (double)b[d];
            d2 += difference * difference;
        }
        for (u32 s = 0; s < kernels; s++) {
            double c = bandwidths[s];
            k += rbf ? exp(-d2 / c) : c / (c + d2);
            slope -= rbf ? exp(-d2 / c) / c : c / ((c + d2) * (c + d2));
        }
        // Pairs of a row with itself are left out; each pair of a code and a draw is met from the code's side alone.
        bool of_codes = row < n && j < n && j != row, of_draws = row >= n && j >= n && j != row, across = row < n && j >= n;
        value += of_codes ? k / (nn * (nn - 1.0)) : of_draws ? k / (mm * (mm - 1.0)) : across ? -2.0 * k / (nn * mm) : 0.0;
        slopes[j - begin] = of_codes ? 4.0 * slope / (nn * (nn - 1.0)) : across ? -4.0 * slope / (nn * mm) : 0.0;
    }
    values[part * rows + row] = value;
    if (row >= n) return;
    for (u32 d = 0; d < dim; d++) {
        double sum = 0.0;
        for (u32 j = begin; j < end; j++) sum += slopes[j - begin] * ((double)a[d] - (double)mmd_row(j, n, dim, q, p)[d]);
        gradients[((size_t)part * n + row) * dim + d] = sum;
    }
}
