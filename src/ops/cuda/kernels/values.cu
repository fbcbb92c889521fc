// Value by value: conversions, sums, padding, bias and activation.

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

// Padding: cuDNN pads both sides alike, SAME does not ---------------------------------------------------------------------

// (n / (height·width·channels), height, width, channels) in which another grid begins at (top, left), zeros around it. Where the
// other is larger, it begins before this one does: top and left are negative, modulo 2³², and what reaches beyond is cut off.
template <typename T>
__device__ void place(u32 n, const T *x, T *y, u32 height, u32 width, u32 channels, u32 top, u32 left, u32 from_height,
                      u32 from_width) {
    u32 i = index();
    if (i >= n) return;
    u32 c = i % channels, pixel = i / channels;
    u32 column = pixel % width - left, line = pixel / width % height - top, image = pixel / width / height;
    bool inside = line < from_height && column < from_width; // below 0, an unsigned number is large
    T zero = {};
    y[i] = inside ? x[((image * from_height + line) * from_width + column) * channels + c] : zero;
}

// 16 bytes of channels at a time: finding the place takes longer than a copy of 2 or 4.
struct alignas(16) Wide {
    u32 of[4];
};

#define PLACES(T, NAME)                                                                                                   \
    extern "C" __global__ void place_##NAME(u32 n, const T *x, T *y, u32 height, u32 width, u32 channels, u32 top,        \
                                            u32 left, u32 from_height, u32 from_width) {                                  \
        place<T>(n, x, y, height, width, channels, top, left, from_height, from_width);                                   \
    }
PLACES(float, f32)
PLACES(bf16, bf16)

extern "C" __global__ void place_wide(u32 n, const Wide *x, Wide *y, u32 height, u32 width, u32 channels, u32 top, u32 left,
                                      u32 from_height, u32 from_width) {
    place<Wide>(n, x, y, height, width, channels, top, left, from_height, from_width);
}

// Bias and activation ----------------------------------------------------------------------------------------------------

enum { IDENTITY = 0, RELU = 1, SIGMOID = 2 };

// A thread a part of the rows and channel. NaN passes through ReLU, so that a diverged training says so.
template <typename T>
__device__ void bias_activation(u32 rows, u32 channels, u32 parts, const T *__restrict__ x, const float *bias, int kind,
                                T *__restrict__ y) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 count = rows_of(rows, parts, i / channels);
    float b = bias[i % channels];
    each_row(count, [&](u32 row) { return x[i + row * all]; }, [&](u32 row, T value) {
        float v = read(value) + b;
        if (kind == RELU) v = v < 0.0f ? 0.0f : v;
        if (kind == SIGMOID) v = 1.0f / (1.0f + expf(-v));
        write(&y[i + row * all], v);
    });
}

extern "C" __global__ void bias_activation_f32(u32 rows, u32 channels, u32 parts, const float *x, const float *bias,
                                               int kind, float *y) {
    bias_activation<float>(rows, channels, parts, x, bias, kind, y);
}
extern "C" __global__ void bias_activation_bf16(u32 rows, u32 channels, u32 parts, const bf16 *x, const float *bias,
                                                int kind, bf16 *y) {
    bias_activation<bf16>(rows, channels, parts, x, bias, kind, y);
}

// A thread a part of the rows and channel: the gradient by the sum of x and bias, and its sums for that by the bias,
// (parts, channels). From the output y: ReLU lets through where it is positive, sigmoid's slope is y(1 − y).
extern "C" __global__ void bias_activation_gradient(u32 rows, u32 channels, u32 parts, const float *__restrict__ y,
                                                    const float *__restrict__ gradient, int kind, float *__restrict__ dx,
                                                    double *sums) {
    u32 i = index(), all = parts * channels;
    if (i >= all) return;
    u32 count = rows_of(rows, parts, i / channels);
    float sum = 0.0f;
    each_row(count, [&](u32 row) { return Pair<float>{y[i + row * all], gradient[i + row * all]}; },
             [&](u32 row, Pair<float> pair) {
        float g = pair.gradient;
        if (kind == RELU) g = pair.value > 0.0f ? g : 0.0f;
        if (kind == SIGMOID) g = g * pair.value * (1.0f - pair.value);
        dx[i + row * all] = g;
        sum += g;
    });
    sums[i] = (double)sum;
}
