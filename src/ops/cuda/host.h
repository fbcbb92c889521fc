// Lets the host's C++ compiler take kernels/*.cu: a kernel becomes a function that a caller runs once for each thread.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
using std::min;
#define __global__
#define __device__ static
struct Index { unsigned x; };
static thread_local Index blockIdx, threadIdx, blockDim;
static float __uint_as_float(unsigned bits) { float v; memcpy(&v, &bits, 4); return v; }
static float __fmul_rn(float a, float b) { return a * b; }
static unsigned __float_as_uint(float v) { unsigned bits; memcpy(&bits, &v, 4); return bits; }
extern "C" void host_thread(unsigned block, unsigned thread, unsigned size) { blockIdx.x = block; threadIdx.x = thread; blockDim.x = size; }
