// What the GPU path calls of NVIDIA's libraries, computed on the processor as their documentation says, one thread at a time:
// the driver, NVRTC, cuBLAS's GemmEx and cuDNN's convolutions with channels last. The kernels are those of kernels/,
// compiled as C++. It shows that shapes, layouts, padding, order and arithmetic of the GPU path are right; it shows nothing
// about NVIDIA's libraries themselves, about races between threads, or about speed. See emulate.
//
// Memory of the "GPU" is poisoned when it is taken and when it is freed, so that a value that is read before it is written,
// or after its memory was given back, becomes NaN. CUDA_EMULATOR_BYTES bounds what may be taken.
#include "host.h"
#include "sources.inc"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

std::recursive_mutex stream; // one stream: its work is done in the order of the calls
thread_local void *current = nullptr; // the context that was made current on this thread
#define ON_STREAM std::lock_guard<std::recursive_mutex> guard(stream); need_context(__func__)

// The default stream is that of the current context.
void need_context(const char *name) {
    if (current) return;
    fprintf(stderr, "%s on a thread without a current context\n", name);
    abort();
}

template <typename... A, size_t... I> void invoke(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*(A *)arguments[I]...);
}
template <typename... A> void invoke(void (*kernel)(A...), void **arguments) {
    invoke(kernel, arguments, std::index_sequence_for<A...>());
}
typedef void (*Kernel)(void **);
#define KERNEL(NAME) {#NAME, [](void **arguments) { invoke(NAME, arguments); }},
const std::map<std::string, Kernel> kernels = {
#include "kernels.inc"
};

std::map<void *, size_t> taken;
size_t total = 0;
const unsigned char POISON = 0xff; // a float, double or bf16 of these bytes is NaN

size_t limit() {
    const char *bytes = getenv("CUDA_EMULATOR_BYTES");
    return bytes ? strtoull(bytes, nullptr, 10) : ~(size_t)0;
}

float bf16_value(uint16_t bits) { return read((bf16)bits); }

// The 19 bits of TF32: a mantissa of 10.
float tf32(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&v, &bits, 4);
    return v;
}

} // namespace

typedef void *Handle;
const int OK = 0, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, NOT_FOUND = 500;

// The driver -------------------------------------------------------------------------------------------------------------------

extern "C" {
int cuInit(unsigned) { return OK; }
int cuDriverGetVersion(int *v) { *v = 13000; return OK; }
int cuDeviceGetCount(int *n) { *n = 1; return OK; }
int cuDeviceGet(int *device, int number) { *device = number; return number == 0 ? OK : INVALID_DEVICE; }
int cuDeviceGetName(char *name, int len, int) { strncpy(name, "emulated GPU", len); return OK; }
// 75 and 76 are the compute capability, 115 whether there are memory pools.
int cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 1;
    return OK;
}
int cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = limit(); return OK; }
int cuDevicePrimaryCtxRetain(Handle *context, int) { *context = (Handle)1; return OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxSetCurrent(Handle context) { current = context; return OK; }
int cuCtxGetCurrent(Handle *context) { *context = current; return OK; }
int cuGetErrorName(int, const char **name) { *name = "an error of the emulated driver"; return OK; }
int cuGetErrorString(int, const char **name) { *name = "an error of the emulated driver"; return OK; }
int cuDeviceGetDefaultMemPool(Handle *pool, int) { *pool = (Handle)1; return OK; }
int cuMemPoolSetAttribute(Handle, int, void *) { return OK; }
int cuMemPoolTrimTo(Handle, size_t) { return OK; }
int cuMemAllocAsync(void **to, size_t bytes, Handle) {
    ON_STREAM;
    if (total + bytes > limit()) return OUT_OF_MEMORY;
    *to = aligned_alloc(256, (bytes + 511) / 256 * 256);
    memset(*to, POISON, bytes);
    taken[*to] = bytes;
    total += bytes;
    return OK;
}
int cuMemFreeAsync(void *at, Handle) {
    ON_STREAM;
    auto found = taken.find(at);
    if (found == taken.end()) abort();
    memset(at, POISON, found->second);
    total -= found->second;
    taken.erase(found);
    free(at);
    return OK;
}
int cuMemHostAlloc(void **to, size_t bytes, unsigned) { *to = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096); return OK; }
int cuMemFreeHost(void *at) { free(at); return OK; }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t n, Handle) { ON_STREAM; memcpy(to, from, n); return OK; }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t n, Handle) { ON_STREAM; memcpy(to, from, n); return OK; }
int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t n, Handle) { ON_STREAM; memcpy(to, from, n); return OK; }
int cuMemsetD8Async(void *to, unsigned char v, size_t n, Handle) { ON_STREAM; memset(to, v, n); return OK; }
int cuStreamCreate(Handle *to, unsigned) { *to = (Handle)1; return OK; }
int cuStreamDestroy_v2(Handle) { return OK; }
int cuStreamSynchronize(Handle) { ON_STREAM; return OK; }
int cuStreamWaitEvent(Handle, Handle, unsigned) { return OK; }
int cuEventCreate(Handle *event, unsigned) { *event = (Handle)1; return OK; }
int cuEventRecord(Handle, Handle) { ON_STREAM; return OK; }
int cuEventSynchronize(Handle) { return OK; }
int cuEventQuery(Handle) { return OK; }
int cuEventDestroy_v2(Handle) { return OK; }
int cuModuleLoadData(Handle *module, const void *) { *module = (Handle)1; return OK; }
int cuModuleUnload(Handle) { return OK; }
int cuModuleGetFunction(Handle *function, Handle, const char *name) {
    auto found = kernels.find(name);
    if (found == kernels.end()) return NOT_FOUND;
    *function = (Handle)found->second;
    return OK;
}
int cuLaunchKernel(Handle function, unsigned blocks, unsigned, unsigned, unsigned size, unsigned, unsigned, unsigned, Handle,
                   void **arguments, void **) {
    ON_STREAM;
    for (unsigned block = 0; block < blocks; block++)
        for (unsigned thread = 0; thread < size; thread++) {
            host_thread(block, thread, size);
            ((Kernel)function)(arguments);
        }
    return OK;
}

// NVRTC: the kernels are compiled already -----------------------------------------------------------------------------------------

int nvrtcCreateProgram(Handle *program, const char *, const char *, int, const char *const *, const char *const *) {
    *program = (Handle)1;
    return OK;
}
int nvrtcDestroyProgram(Handle *) { return OK; }
int nvrtcCompileProgram(Handle, int, const char *const *) { return OK; }
int nvrtcGetCUBINSize(Handle, size_t *bytes) { *bytes = 1; return OK; }
int nvrtcGetCUBIN(Handle, char *code) { *code = 0; return OK; }
int nvrtcGetProgramLogSize(Handle, size_t *bytes) { *bytes = 1; return OK; }
int nvrtcGetProgramLog(Handle, char *log) { *log = 0; return OK; }

// cuBLAS: column-major products of f32 ---------------------------------------------------------------------------------------------

int cublasCreate_v2(Handle *handle) { *handle = (Handle)1; return OK; }
int cublasDestroy_v2(Handle) { return OK; }
int cublasSetStream_v2(Handle, Handle) { return OK; }
int cublasGemmEx(Handle, int first, int second, int m, int n, int k, const float *alpha, const float *a, int a_type, int lda,
                 const float *b, int b_type, int ldb, const float *beta, float *c, int c_type, int ldc, int compute, int) {
    ON_STREAM;
    if (a_type || b_type || c_type) return 7; // CUBLAS_STATUS_INVALID_VALUE: only CUDA_R_32F here
    if (lda < (first ? k : m) || ldb < (second ? n : k) || ldc < m) return 7;
    auto value = [&](float v) { return compute == 77 ? tf32(v) : v; };
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            double sum = 0;
            for (int l = 0; l < k; l++)
                sum += (double)value(a[first ? i * (size_t)lda + l : l * (size_t)lda + i]) *
                       value(b[second ? l * (size_t)ldb + j : j * (size_t)ldb + l]);
            float *to = &c[j * (size_t)ldc + i];
            *to = *alpha * (float)sum + (*beta ? *beta * *to : 0.0f);
        }
    return OK;
}

// cuDNN: convolutions of f32 and bf16 with channels last ------------------------------------------------------------------------------

struct Tensor { int type, n, c, h, w; };
struct Convolution { int pad_h, pad_w, stride_h, stride_w, math; };
const int FLOAT = 0, BF16 = 9, NHWC = 1, BAD_PARAM = 2000;

int cudnnCreate(Handle *handle) { *handle = (Handle)1; return OK; }
int cudnnDestroy(Handle) { return OK; }
int cudnnSetStream(Handle, Handle) { return OK; }
const char *cudnnGetErrorString(int) { return "an error of the emulated cuDNN"; }
int cudnnCreateTensorDescriptor(Tensor **t) { *t = new Tensor(); return OK; }
int cudnnDestroyTensorDescriptor(Tensor *t) { delete t; return OK; }
int cudnnSetTensor4dDescriptor(Tensor *t, int format, int type, int n, int c, int h, int w) {
    *t = {type, n, c, h, w};
    return format == NHWC && (type == FLOAT || type == BF16) ? OK : BAD_PARAM;
}
int cudnnCreateFilterDescriptor(Tensor **t) { *t = new Tensor(); return OK; }
int cudnnDestroyFilterDescriptor(Tensor *t) { delete t; return OK; }
int cudnnSetFilter4dDescriptor(Tensor *t, int type, int format, int k, int c, int h, int w) {
    *t = {type, k, c, h, w};
    return format == NHWC && (type == FLOAT || type == BF16) ? OK : BAD_PARAM;
}
int cudnnCreateConvolutionDescriptor(Convolution **c) { *c = new Convolution(); return OK; }
int cudnnDestroyConvolutionDescriptor(Convolution *c) { delete c; return OK; }
int cudnnSetConvolution2dDescriptor(Convolution *c, int pad_h, int pad_w, int u, int v, int dilation_h, int dilation_w, int mode,
                                    int compute) {
    *c = {pad_h, pad_w, u, v, 0};
    return dilation_h == 1 && dilation_w == 1 && mode == 1 && compute == FLOAT ? OK : BAD_PARAM;
}
int cudnnSetConvolutionMathType(Convolution *c, int math) { c->math = math; return OK; }

struct Algorithm { int algorithm, status; float time; size_t memory; int determinism, math, reserved[3]; };
static int choose(int *count, Algorithm *found) {
    *count = 1;
    found[0] = {1, OK, 1.0f, 64, 1, 0, {0, 0, 0}};
    return OK;
}
int cudnnGetConvolutionForwardAlgorithm_v7(Handle, Tensor *, Tensor *, Convolution *, Tensor *, int, int *n, Algorithm *a) {
    return choose(n, a);
}
int cudnnGetConvolutionBackwardDataAlgorithm_v7(Handle, Tensor *, Tensor *, Convolution *, Tensor *, int, int *n, Algorithm *a) {
    return choose(n, a);
}
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(Handle, Tensor *, Tensor *, Convolution *, Tensor *, int, int *n, Algorithm *a) {
    return choose(n, a);
}
int cudnnGetConvolutionForwardWorkspaceSize(Handle, Tensor *, Tensor *, Convolution *, Tensor *, int, size_t *n) { *n = 64; return OK; }
int cudnnGetConvolutionBackwardDataWorkspaceSize(Handle, Tensor *, Tensor *, Convolution *, Tensor *, int, size_t *n) { *n = 64; return OK; }
int cudnnGetConvolutionBackwardFilterWorkspaceSize(Handle, Tensor *, Tensor *, Convolution *, Tensor *, int, size_t *n) { *n = 64; return OK; }
}

namespace {

// Values in f64 while they are summed.
struct Values {
    std::vector<double> v;
    Values(const Tensor &t) : v((size_t)t.n * t.c * t.h * t.w) {}
    Values(const Tensor &t, const void *from, int math) : Values(t) {
        for (size_t i = 0; i < v.size(); i++) {
            float value = t.type == BF16 ? bf16_value(((const uint16_t *)from)[i]) : ((const float *)from)[i];
            v[i] = t.type == FLOAT && math == 0 ? tf32(value) : value;
        }
    }
    double &at(const Tensor &t, int n, int c, int h, int w) { return v[((size_t)(n * t.h + h) * t.w + w) * t.c + c]; }
    void store(const Tensor &t, void *to) {
        for (size_t i = 0; i < v.size(); i++)
            if (t.type == BF16) write((bf16 *)to + i, (float)v[i]);
            else ((float *)to)[i] = (float)v[i];
    }
};

// Calls `each` with what a product joins: a value of x, of w and of y.
template <typename F> int products(const Tensor &x, const Tensor &w, const Convolution &c, const Tensor &y, F each) {
    bool fits = x.n == y.n && x.c == w.c && y.c == w.n && x.type == w.type && w.type == y.type &&
                y.h == (x.h + 2 * c.pad_h - w.h) / c.stride_h + 1 && y.w == (x.w + 2 * c.pad_w - w.w) / c.stride_w + 1;
    if (!fits) return BAD_PARAM;
    for (int n = 0; n < y.n; n++)
        for (int i = 0; i < y.h; i++)
            for (int j = 0; j < y.w; j++)
                for (int u = 0; u < w.h; u++)
                    for (int v = 0; v < w.w; v++) {
                        int row = i * c.stride_h + u - c.pad_h, column = j * c.stride_w + v - c.pad_w;
                        if (row < 0 || row >= x.h || column < 0 || column >= x.w) continue;
                        for (int b = 0; b < y.c; b++)
                            for (int a = 0; a < x.c; a++) each(n, row, column, a, u, v, b, i, j);
                    }
    return OK;
}

} // namespace

extern "C" {
int cudnnConvolutionForward(Handle, const float *, Tensor *xd, const void *x, Tensor *wd, const void *w, Convolution *c, int,
                            void *, size_t, const float *, Tensor *yd, void *y) {
    ON_STREAM;
    Values in(*xd, x, c->math), weights(*wd, w, c->math), out(*yd);
    int status = products(*xd, *wd, *c, *yd, [&](int n, int row, int column, int a, int u, int v, int b, int i, int j) {
        out.at(*yd, n, b, i, j) += in.at(*xd, n, a, row, column) * weights.at(*wd, b, a, u, v);
    });
    out.store(*yd, y);
    return status;
}
int cudnnConvolutionBackwardData(Handle, const float *, Tensor *wd, const void *w, Tensor *yd, const void *dy, Convolution *c, int,
                                 void *, size_t, const float *, Tensor *xd, void *dx) {
    ON_STREAM;
    Values in(*yd, dy, c->math), weights(*wd, w, c->math), out(*xd);
    int status = products(*xd, *wd, *c, *yd, [&](int n, int row, int column, int a, int u, int v, int b, int i, int j) {
        out.at(*xd, n, a, row, column) += in.at(*yd, n, b, i, j) * weights.at(*wd, b, a, u, v);
    });
    out.store(*xd, dx);
    return status;
}
int cudnnConvolutionBackwardFilter(Handle, const float *, Tensor *xd, const void *x, Tensor *yd, const void *dy, Convolution *c, int,
                                   void *, size_t, const float *, Tensor *wd, void *dw) {
    ON_STREAM;
    Values in(*xd, x, c->math), gradient(*yd, dy, c->math), out(*wd);
    int status = products(*xd, *wd, *c, *yd, [&](int n, int row, int column, int a, int u, int v, int b, int i, int j) {
        out.at(*wd, b, a, u, v) += in.at(*xd, n, a, row, column) * gradient.at(*yd, n, b, i, j);
    });
    out.store(*wd, dw);
    return status;
}
}
