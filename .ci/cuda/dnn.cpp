// cuDNN: convolutions of f32 and bf16 with channels last, summed in f32.
#include "device.h"
#include <array>
#include <set>
#include <tuple>
#include <vector>

namespace {

const int FLOAT = 0, BF16 = 9, NHWC = 1;
const int BAD_PARAM = 2000, NOT_SUPPORTED = 3000;
const int DEFAULT_MATH = 0, FMA_MATH = 3;

struct Tensor { int type, n, c, h, w; };
struct Convolution { int pad_h, pad_w, stride_h, stride_w, math; };
enum Operation { FORWARD, DATA_GRADIENT, FILTER_GRADIENT };

size_t count(const Tensor &t) { return (size_t)t.n * t.c * t.h * t.w; }
size_t bytes(const Tensor &t) { return count(t) * (t.type == BF16 ? 2 : 4); }

// A convolution from x by w to y, and which of them it computes.
struct Call {
    Operation operation;
    Tensor x, w, y;
    Convolution c;

    bool fits() const {
        bool eights = x.type == FLOAT || (x.c % 8 == 0 && y.c % 8 == 0);
        return x.n == y.n && x.c == w.c && y.c == w.n && x.type == w.type && w.type == y.type && eights &&
               y.h == (x.h + 2 * c.pad_h - w.h) / c.stride_h + 1 && y.w == (x.w + 2 * c.pad_w - w.w) / c.stride_w + 1;
    }
    std::array<int, 16> shape() const {
        return {operation, x.type, x.n, x.c, x.h, x.w, w.n, w.h, w.w, y.h, y.w, c.pad_h, c.pad_w, c.stride_h, c.stride_w, 0};
    }
    size_t hash() const {
        size_t hash = 1469598103934665603u;
        for (int v : shape()) hash = (hash ^ (size_t)v) * 1099511628211u;
        return hash >> 16;
    }
};

// Algorithms --------------------------------------------------------------------------------------------------------------------

// cudnnConvolution…AlgoPerf_t, which is the same for all three.
struct Answer { int algorithm, status; float time; size_t memory; int determinism, math, reserved[3]; };

// What may be run: algorithms that were offered for a shape as deterministic, each in an arithmetic.
std::set<std::tuple<std::array<int, 16>, int, int>> &offered = *new std::set<std::tuple<std::array<int, 16>, int, int>>;

// The algorithm that a shape has without its being listed, for one in five; the list then holds none that may be taken, or there
// is no list.
const int DOCUMENTED = 1;
bool unlisted(const Call &call) { return call.hash() % 5 == 0; }
int deterministic(const Call &call) { return unlisted(call) ? DOCUMENTED : call.hash() % 2 ? 1 : 5; }

size_t scratch(const Call &call, int algorithm) {
    return algorithm == 4 ? (size_t)2 << 30 : 1 + (call.hash() + 311 * (size_t)algorithm + 97 * (size_t)call.c.math) % 2000;
}

// Fastest first: one whose sums differ from run to run, one that cannot do it, one that needs 2 GiB, one that rounds to TF32
// whatever was asked for, and one that may be taken.
int answers(const Call &call, int most, int *found, Answer *to) {
    std::lock_guard<std::recursive_mutex> guard(device);
    if (!call.fits()) return BAD_PARAM;
    int good = deterministic(call), math = call.c.math;
    std::vector<Answer> all = {{0, OK, -1.0f, scratch(call, 0), 0, math, {}}, {2, NOT_SUPPORTED, -1.0f, 0, 1, math, {}}};
    if (!unlisted(call)) {
        all.push_back({4, OK, -1.0f, scratch(call, 4), 1, math, {}});
        if (math == FMA_MATH) all.push_back({good, OK, -1.0f, scratch(call, good), 1, DEFAULT_MATH, {}});
        all.push_back({good, OK, -1.0f, scratch(call, good), 1, math, {}});
    }
    for (int m : {DEFAULT_MATH, math}) offered.insert({call.shape(), good, m});
    *found = 0;
    if (call.hash() % 10 == 0) return NOT_SUPPORTED;
    for (const Answer &answer : all)
        if (*found < most) to[(*found)++] = answer;
    return OK;
}

int workspace(const Call &call, int algorithm, size_t *to) {
    std::lock_guard<std::recursive_mutex> guard(device);
    bool there = algorithm == 0 || (algorithm == 4 && !unlisted(call)) || algorithm == deterministic(call);
    *to = scratch(call, algorithm);
    return there ? OK : NOT_SUPPORTED;
}

// Arithmetic --------------------------------------------------------------------------------------------------------------------

float widened(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float v;
    memcpy(&v, &wide, 4);
    return v;
}

// To the nearest, ties to even; NaN stays NaN.
uint16_t narrowed(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return v != v ? (uint16_t)(bits >> 16 | 0x40) : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

std::vector<float> load(const Tensor &t, const void *from, int math) {
    std::vector<float> values(count(t));
    for (size_t i = 0; i < values.size(); i++) {
        float v = t.type == BF16 ? widened(((const uint16_t *)from)[i]) : ((const float *)from)[i];
        values[i] = t.type == FLOAT && math != FMA_MATH ? tf32(v) : v;
    }
    return values;
}

void store(const Tensor &t, const std::vector<float> &values, void *to) {
    for (size_t i = 0; i < values.size(); i++)
        if (t.type == BF16) ((uint16_t *)to)[i] = narrowed(values[i]);
        else ((float *)to)[i] = values[i];
}

// Calls `each` with what belongs together: the channels of a pixel of x, those of one of y, and the first weight of a tap.
template <typename F> void taps(const Call &call, int image, F each) {
    const auto &[operation, x, w, y, c] = call;
    for (int i = 0; i < y.h; i++)
        for (int j = 0; j < y.w; j++)
            for (int u = 0; u < w.h; u++)
                for (int v = 0; v < w.w; v++) {
                    int row = i * c.stride_h + u - c.pad_h, column = j * c.stride_w + v - c.pad_w;
                    if (row < 0 || row >= x.h || column < 0 || column >= x.w) continue;
                    each((((size_t)image * x.h + row) * x.w + column) * x.c, (((size_t)image * y.h + i) * y.w + j) * y.c,
                         ((size_t)u * w.w + v) * w.c);
                }
}

// The result of a call from its two operands.
std::vector<float> convolved(const Call &call, std::vector<float> x, std::vector<float> w, std::vector<float> y) {
    size_t in = call.x.c, out = call.y.c, filter = (size_t)call.w.h * call.w.w * in;
    for (int image = 0; image < call.x.n; image++) {
        // The sums of an image apart, as blocks of threads would have them.
        std::vector<float> sums(call.operation == FILTER_GRADIENT ? w.size() : 0);
        taps(call, image, [&](size_t from, size_t to, size_t tap) {
            for (size_t b = 0; b < out; b++)
                if (call.operation == FORWARD) y[to + b] += dot(&x[from], &w[b * filter + tap], in);
                else if (call.operation == DATA_GRADIENT) add(&x[from], y[to + b], &w[b * filter + tap], in);
                else add(&sums[b * filter + tap], y[to + b], &x[from], in);
        });
        add(w.data(), 1.0f, sums.data(), sums.size());
    }
    return call.operation == FORWARD ? y : call.operation == DATA_GRADIENT ? x : w;
}

int run(const char *name, Library *handle, const Call &call, const void *x, const void *w, const void *y, int algorithm,
        void *space, size_t size, const float *alpha, const float *beta) {
    Stream *stream = stream_of(name, handle);
    if (!call.fits()) return BAD_PARAM;
    if (!offered.count({call.shape(), algorithm, call.c.math}))
        fail(name, "algorithm %d was not offered for this shape and arithmetic as deterministic", algorithm);
    size_t needed = scratch(call, algorithm);
    if (size < needed) fail(name, "%zu bytes of scratch memory where %zu are needed", size, needed);
    if (*alpha != 1.0f || *beta != 0.0f) fail(name, "scaling factors");
    need_array(name, "scratch memory", space, size);
    need_array(name, "x", x, bytes(call.x));
    need_array(name, "w", w, bytes(call.w));
    need_array(name, "y", y, bytes(call.y));
    enqueue(stream, [=] {
        memset(space, POISON, size);
        auto operand = [&](Operation result, const Tensor &t, const void *from) {
            return call.operation == result ? std::vector<float>(count(t)) : load(t, from, call.c.math);
        };
        std::vector<float> result = convolved(call, operand(DATA_GRADIENT, call.x, x), operand(FILTER_GRADIENT, call.w, w),
                                              operand(FORWARD, call.y, y));
        if (call.operation == FORWARD) store(call.y, result, (void *)y);
        if (call.operation == DATA_GRADIENT) store(call.x, result, (void *)x);
        if (call.operation == FILTER_GRADIENT) store(call.w, result, (void *)w);
    });
    return OK;
}

} // namespace

extern "C" {
int cudnnCreate(Library **handle) { *handle = new Library; return OK; }
int cudnnDestroy(Library *handle) { delete handle; return OK; }
int cudnnSetStream(Library *handle, Handle stream) {
    std::lock_guard<std::recursive_mutex> guard(device);
    given(__func__, stream);
    handle->stream = stream;
    return OK;
}
const char *cudnnGetErrorString(int) { return "an error of the emulated cuDNN"; }
int cudnnCreateTensorDescriptor(Tensor **t) { *t = new Tensor(); return OK; }
int cudnnDestroyTensorDescriptor(Tensor *t) { delete t; return OK; }
int cudnnSetTensor4dDescriptor(Tensor *t, int format, int type, int n, int c, int h, int w) {
    *t = {type, n, c, h, w};
    return format == NHWC && (type == FLOAT || type == BF16) && n > 0 && c > 0 && h > 0 && w > 0 ? OK : BAD_PARAM;
}
int cudnnCreateFilterDescriptor(Tensor **t) { *t = new Tensor(); return OK; }
int cudnnDestroyFilterDescriptor(Tensor *t) { delete t; return OK; }
int cudnnSetFilter4dDescriptor(Tensor *t, int type, int format, int k, int c, int h, int w) {
    return cudnnSetTensor4dDescriptor(t, format, type, k, c, h, w);
}
int cudnnCreateConvolutionDescriptor(Convolution **c) { *c = new Convolution(); return OK; }
int cudnnDestroyConvolutionDescriptor(Convolution *c) { delete c; return OK; }
int cudnnSetConvolution2dDescriptor(Convolution *c, int pad_h, int pad_w, int u, int v, int dilation_h, int dilation_w, int mode,
                                    int compute) {
    *c = {pad_h, pad_w, u, v, DEFAULT_MATH};
    return dilation_h == 1 && dilation_w == 1 && mode == 1 && compute == FLOAT ? OK : BAD_PARAM;
}
int cudnnSetConvolutionMathType(Convolution *c, int math) { c->math = math; return OK; }

int cudnnGetConvolutionForwardAlgorithm_v7(Library *, Tensor *x, Tensor *w, Convolution *c, Tensor *y, int most, int *n, Answer *to) {
    return answers({FORWARD, *x, *w, *y, *c}, most, n, to);
}
int cudnnGetConvolutionBackwardDataAlgorithm_v7(Library *, Tensor *w, Tensor *y, Convolution *c, Tensor *x, int most, int *n,
                                                Answer *to) {
    return answers({DATA_GRADIENT, *x, *w, *y, *c}, most, n, to);
}
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(Library *, Tensor *x, Tensor *y, Convolution *c, Tensor *w, int most, int *n,
                                                  Answer *to) {
    return answers({FILTER_GRADIENT, *x, *w, *y, *c}, most, n, to);
}
int cudnnGetConvolutionForwardWorkspaceSize(Library *, Tensor *x, Tensor *w, Convolution *c, Tensor *y, int a, size_t *n) {
    return workspace({FORWARD, *x, *w, *y, *c}, a, n);
}
int cudnnGetConvolutionBackwardDataWorkspaceSize(Library *, Tensor *w, Tensor *y, Convolution *c, Tensor *x, int a, size_t *n) {
    return workspace({DATA_GRADIENT, *x, *w, *y, *c}, a, n);
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(Library *, Tensor *x, Tensor *y, Convolution *c, Tensor *w, int a, size_t *n) {
    return workspace({FILTER_GRADIENT, *x, *w, *y, *c}, a, n);
}
int cudnnConvolutionForward(Library *handle, const float *alpha, Tensor *xd, const void *x, Tensor *wd, const void *w, Convolution *c,
                            int algorithm, void *space, size_t size, const float *beta, Tensor *yd, void *y) {
    CALL;
    return run(__func__, handle, {FORWARD, *xd, *wd, *yd, *c}, x, w, y, algorithm, space, size, alpha, beta);
}
int cudnnConvolutionBackwardData(Library *handle, const float *alpha, Tensor *wd, const void *w, Tensor *yd, const void *dy,
                                 Convolution *c, int algorithm, void *space, size_t size, const float *beta, Tensor *xd, void *dx) {
    CALL;
    return run(__func__, handle, {DATA_GRADIENT, *xd, *wd, *yd, *c}, dx, w, dy, algorithm, space, size, alpha, beta);
}
int cudnnConvolutionBackwardFilter(Library *handle, const float *alpha, Tensor *xd, const void *x, Tensor *yd, const void *dy,
                                   Convolution *c, int algorithm, void *space, size_t size, const float *beta, Tensor *wd, void *dw) {
    CALL;
    return run(__func__, handle, {FILTER_GRADIENT, *xd, *wd, *yd, *c}, x, dw, dy, algorithm, space, size, alpha, beta);
}
}
