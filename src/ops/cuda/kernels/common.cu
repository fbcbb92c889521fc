// What the GPU computes beside cuDNN's convolutions and cuBLAS's products. NVRTC compiles these files as one, this one first,
// when a GPU is opened; the emulated GPU compiles them as C++ with host.h before them, and tests compare them with the CPU's
// operations. That is why no kernel synchronises threads: what needs all threads of a sum is a kernel of its own.
//
// Activations are (N, H, W, C). Sums over many values are taken in two or three fixed steps, so that they do not depend on
// timing. Indices are 32 bits: no array has 2^31 values (Gpu::uninit).

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
