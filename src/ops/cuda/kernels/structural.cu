// The structural cost: objective/cost.rs and objective/ssim.rs. Its arithmetic is theirs, in their order: where an image is
// flat, large values cancel, and what is left depends on how each was rounded.

constexpr u32 REACH = 3;
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;

// Rounded, where the compiler would fuse a product with a sum.
__device__ inline float product(float a, float b) { return __fmul_rn(a, b); }

// A sum of seven values: of three, of three, and one.
struct Seven {
    float first, second, last;
};

__device__ inline void add(Seven &sum, u32 k, float v) { (k < 3 ? sum.first : k < 6 ? sum.second : sum.last) += v; }

__device__ inline float value(const Seven &sum) { return sum.first + sum.second + sum.last; }

template <u32 N> struct Tuple {
    float of[N];
};

// Means over the window around value i of (N, H, W, C), of what `values` has at a place. Beyond the border they are 0.
template <u32 N, typename F>
__device__ inline Tuple<N> means(u32 i, u32 height, u32 width, u32 channels, F values) {
    u32 pixel = i / channels, column = pixel % width, line = pixel / width % height;
    Seven across[N] = {};
#pragma unroll
    for (u32 h = 0; h <= 2 * REACH; h++) {
        Seven down[N] = {};
#pragma unroll
        for (u32 v = 0; v <= 2 * REACH; v++) {
            // Below 0, an unsigned number is large. All threads load, so that loads need not wait for branches.
            bool inside = line + v - REACH < height && column + h - REACH < width;
            Tuple<N> near = values(inside ? i + ((v - REACH) * width + h - REACH) * channels : i);
#pragma unroll
            for (u32 k = 0; k < N; k++) add(down[k], v, inside ? near.of[k] : 0.0f);
        }
#pragma unroll
        for (u32 k = 0; k < N; k++) add(across[k], h, value(down[k]));
    }
    Tuple<N> result;
#pragma unroll
    for (u32 k = 0; k < N; k++) result.of[k] = value(across[k]) / (float)((2 * REACH + 1) * (2 * REACH + 1));
    return result;
}

// A thread a value: its share of the mean cost of `images` images, and the gradient of the SSIM around it by the means of y,
// of xy and of y², (3, n). `weight` is that of DSSIM.
extern "C" __global__ void structural_windows(u32 n, u32 height, u32 width, u32 channels, u32 images, float weight,
                                              const float *__restrict__ x, const float *__restrict__ y,
                                              double *__restrict__ shares, float *__restrict__ slopes) {
    u32 i = index();
    if (i >= n) return;
    Tuple<4> mean = means<4>(i, height, width, channels, [&](u32 at) {
        float a = x[at], b = y[at];
        return Tuple<4>{{a, b, product(a, a) + product(b, b), product(a, b)}};
    });
    float mean_x = mean.of[0], mean_y = mean.of[1];
    float of_means = product(mean_x, mean_x) + product(mean_y, mean_y), mean_product = product(mean_x, mean_y);
    float d1 = of_means + C1, d2 = fmaxf(mean.of[2] - of_means, 0.0f) + C2;
    float brightness = (2.0f * mean_product + C1) / d1, structure = (2.0f * (mean.of[3] - mean_product) + C2) / d2;
    float difference = x[i] - y[i], dissimilarity = 1.0f - product(brightness, structure);
    shares[i] = (double)(product(difference, difference) + product(weight * 0.5f, dissimilarity)) / (double)images;
    float by_covariance = 2.0f * brightness / d2, by_variance = product(-brightness, structure) / d2;
    float by_brightness = product(structure * 2.0f, mean_x - product(brightness, mean_y)) / d1;
    slopes[i] = by_brightness - product(by_covariance, mean_x) - product(by_variance * 2.0f, mean_y);
    slopes[(size_t)n + i] = by_covariance;
    slopes[2 * (size_t)n + i] = by_variance;
}

// The gradient by y of the mean cost, `scale` being 1/images: a mean over a window is its own transpose.
extern "C" __global__ void structural_gradient(u32 n, u32 height, u32 width, u32 channels, float scale, float weight,
                                               const float *__restrict__ x, const float *__restrict__ y,
                                               const float *__restrict__ slopes, float *__restrict__ gradient) {
    u32 i = index();
    if (i >= n) return;
    Tuple<3> by = means<3>(i, height, width, channels, [&](u32 at) {
        return Tuple<3>{{slopes[at], slopes[(size_t)n + at], slopes[2 * (size_t)n + at]}};
    });
    float similarity = by.of[0] + product(x[i], by.of[1]) + product(2.0f * y[i], by.of[2]);
    gradient[i] = product(2.0f * scale, y[i] - x[i]) - product(weight * scale * 0.5f, similarity);
}
