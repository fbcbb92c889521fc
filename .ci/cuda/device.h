// The emulated GPU, as its libraries see it: arrays, streams, and work that is done as late as can be. See emulator.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>

typedef void *Handle;
typedef std::function<void()> Task;
struct Stream;

// CUresult.
const int OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, NOT_FOUND = 500, NOT_READY = 600;

// A float, double or bf16 of these bytes is NaN.
const unsigned char POISON = 0xff;

// Calls are taken one at a time, and on a thread with a current context.
extern std::recursive_mutex device;
void need_context(const char *call);
#define CALL std::lock_guard<std::recursive_mutex> guard(device); need_context(__func__)

// Says what is wrong with a call, and ends the process: the GPU path made a mistake that a real GPU may not have shown.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(const char *call, const char *format, ...);

// The stream of a handle, which must have been created and not been destroyed.
Stream *given(const char *call, Handle stream);

// Adds work to a stream. What it needs of the call must be in it by value; arrays are looked at when it is done.
void enqueue(Stream *stream, Task task);

// Fails unless all bytes lie in one array, as the calls so far have taken and freed them.
void need_array(const char *call, const char *what, const void *at, size_t bytes);

// A handle of cuBLAS's or cuDNN's, which must be given a stream before it computes.
struct Library {
    Handle stream = nullptr;
};
inline Stream *stream_of(const char *call, const Library *library) {
    if (!library || !library->stream) fail(call, "the handle was given no stream");
    return given(call, library->stream);
}

// The 19 bits of TF32: a mantissa of 10, to the nearest.
inline float tf32(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&v, &bits, 4);
    return v;
}

// Σ x·y in f32, in eight sums as an instruction takes them.
inline float dot(const float *x, const float *y, size_t len) {
    float sums[8] = {};
    size_t whole = len / 8 * 8;
    for (size_t i = 0; i < whole; i += 8)
        for (size_t k = 0; k < 8; k++) sums[k] += x[i + k] * y[i + k];
    for (size_t i = whole; i < len; i++) sums[i - whole] += x[i] * y[i];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// y ← y + a·x
inline void add(float *y, float a, const float *x, size_t len) {
    for (size_t i = 0; i < len; i++) y[i] += a * x[i];
}
