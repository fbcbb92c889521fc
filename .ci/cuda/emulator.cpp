// What the GPU path calls of NVIDIA's libraries, computed on the processor as their documentation says, one thread at a time:
// the driver (driver.cpp), NVRTC, cuBLAS's GemmEx (blas.cpp) and cuDNN's convolutions with channels last (dnn.cpp). The kernels
// are those of kernels/, compiled as C++. It shows that shapes, layouts, padding, order and arithmetic of the GPU path are
// right; it shows nothing about NVIDIA's libraries themselves, about races between threads, or about speed. See emulate.
//
// It does late what a GPU may do late, and ends the process where the GPU path relies on luck:
// - Work on a stream is done when somebody waits for it, so that page-locked memory that is written, read or freed too early
//   gives wrong values, NaN or a message. The arguments of a call are those that it was made with.
// - Memory of the "GPU" is poisoned when it is taken and when it is freed, so that a value that is read before it is written
//   becomes NaN; an array that is used after it was freed, or written beyond its ends, gives a message.
// - cuDNN offers several algorithms, of which some must not be taken, and needs other scratch memory for each shape.
// - Products of f32, TF32 and bf16 are summed in f32.
// CUDA_EMULATOR_BYTES bounds what may be taken.
#include "host.h"
#include "sources.inc"
#include "device.h"
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace {

// A processor reads values wherever they lie, a GPU only where their type may.
template <typename T> void need_pointer(const char *kernel, const T &value) {
    if constexpr (std::is_pointer_v<T>) {
        if (!value) return;
        need_array(kernel, "an argument", value, 1);
        if ((uintptr_t)value % alignof(std::remove_pointer_t<T>)) fail(kernel, "an argument that is not aligned");
    }
}

// A launch, with its arguments as they are now.
template <typename... A, size_t... I>
Task launch(const char *name, void (*kernel)(A...), void **arguments, unsigned blocks, unsigned size, std::index_sequence<I...>) {
    std::tuple<A...> values(*(A *)arguments[I]...);
    (need_pointer(name, std::get<I>(values)), ...);
    return [=] {
        for (unsigned block = 0; block < blocks; block++)
            for (unsigned thread = 0; thread < size; thread++) {
                host_thread(block, thread, size);
                kernel(std::get<I>(values)...);
            }
    };
}
template <typename... A>
Task launch(const char *name, void (*kernel)(A...), void **arguments, unsigned blocks, unsigned size) {
    return launch(name, kernel, arguments, blocks, size, std::index_sequence_for<A...>());
}
typedef Task (*Kernel)(void **arguments, unsigned blocks, unsigned size);
#define KERNEL(NAME)                                                                     \
    {#NAME, [](void **arguments, unsigned blocks, unsigned size) {                       \
         return launch(#NAME, NAME, arguments, blocks, size);                            \
     }},
const std::map<std::string, Kernel> kernels = {
#include "kernels.inc"
};

} // namespace

extern "C" {
int cuModuleLoadData(Handle *module, const void *) { *module = (Handle)1; return OK; }
int cuModuleUnload(Handle) { return OK; }
int cuModuleGetFunction(Handle *function, Handle, const char *name) {
    auto found = kernels.find(name);
    if (found == kernels.end()) return NOT_FOUND;
    *function = (Handle)found->second;
    return OK;
}
int cuLaunchKernel(Handle function, unsigned blocks, unsigned y, unsigned z, unsigned size, unsigned size_y, unsigned size_z,
                   unsigned shared, Handle stream, void **arguments, void **) {
    CALL;
    if (!blocks || !size || size > 1024 || y != 1 || z != 1 || size_y != 1 || size_z != 1 || shared) return INVALID_VALUE;
    enqueue(given(__func__, stream), ((Kernel)function)(arguments, blocks, size));
    return OK;
}

// NVRTC: the kernels are compiled already.
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
}
