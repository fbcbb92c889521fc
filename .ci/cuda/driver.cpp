// The driver: memory, copies, streams and events.
#include "device.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

std::recursive_mutex device;

// Work in the order of the calls. None of it is done before somebody waits for it, or there is more than a real one takes.
struct Stream {
    std::deque<Task> queue;
    size_t asked = 0, done = 0;
};

namespace {

const size_t LONGEST = 1024; // launches that a real stream holds before the next one waits
const size_t GUARD = 256;    // bytes before and after each array that nobody may write

struct Event {
    Stream *stream = nullptr; // null: not recorded
    size_t work = 0;          // how much of the stream's work it stands behind
};

struct Pinned {
    size_t bytes = 0;
    size_t copies = 0; // copies from and to it that are not done
};

thread_local Handle current = nullptr; // the context that was made current on this thread
std::set<Stream *> &streams = *new std::set<Stream *>;
std::set<Event *> &events = *new std::set<Event *>;
// By their first byte. Arrays as the calls so far have it: memory whose freeing is not done yet is no longer here.
std::map<const char *, size_t> &arrays = *new std::map<const char *, size_t>;
std::map<const char *, Pinned> &pinned = *new std::map<const char *, Pinned>;
size_t taken = 0;

size_t limit() {
    const char *bytes = getenv("CUDA_EMULATOR_BYTES");
    return bytes ? strtoull(bytes, nullptr, 10) : ~(size_t)0;
}

void work(Stream *stream, size_t until) {
    while (stream->done < until) {
        Task task = std::move(stream->queue.front());
        stream->queue.pop_front();
        task();
        stream->done++;
    }
}

// What begins at or before an address, or the end.
template <typename M> typename M::iterator before(M &map, const void *at) {
    auto next = map.upper_bound((const char *)at);
    return next == map.begin() ? map.end() : std::prev(next);
}

Event *known(const char *call, Handle event) {
    if (!events.count((Event *)event)) fail(call, "an event that was not created, or was destroyed");
    return (Event *)event;
}

// The page-locked memory that bytes lie in, or null.
Pinned *pinned_at(const char *call, const void *at, size_t bytes) {
    auto found = before(pinned, at);
    if (found == pinned.end() || (const char *)at >= found->first + found->second.bytes) return nullptr;
    if ((const char *)at + bytes > found->first + found->second.bytes) fail(call, "bytes past the end of page-locked memory");
    return &found->second;
}

size_t with_guards(size_t bytes) { return (bytes + GUARD - 1) / GUARD * GUARD + 2 * GUARD; }

void check_guards(const char *at, size_t bytes) {
    for (size_t i = 0; i < GUARD; i++)
        if ((unsigned char)at[i - GUARD] != POISON) fail(__func__, "an array of %zu bytes was written before its start", bytes);
    for (size_t i = bytes; i < with_guards(bytes) - GUARD; i++)
        if ((unsigned char)at[i] != POISON) fail(__func__, "an array of %zu bytes was written past its end, at %zu", bytes, i);
}

} // namespace

void fail(const char *call, const char *format, ...) {
    va_list values;
    va_start(values, format);
    fprintf(stderr, "emulated GPU: %s: ", call);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    abort();
}

void need_context(const char *call) {
    if (!current) fail(call, "on a thread without a current context");
}

// Nobody here uses the default stream, whose handle is null: it waits for every other one in the process.
Stream *given(const char *call, Handle stream) {
    if (!streams.count((Stream *)stream)) fail(call, "a stream that was not created, or was destroyed");
    return (Stream *)stream;
}

void enqueue(Stream *stream, Task task) {
    stream->queue.push_back(std::move(task));
    stream->asked++;
    if (stream->queue.size() > LONGEST) work(stream, stream->done + 1);
}

void need_array(const char *call, const char *what, const void *at, size_t bytes) {
    auto found = before(arrays, at);
    if (found == arrays.end() || (const char *)at + bytes > found->first + found->second)
        fail(call, "%s, %zu bytes: not in an array, or in one that was freed", what, bytes);
}

extern "C" {
int cuInit(unsigned) { return OK; }
int cuDriverGetVersion(int *v) { *v = 13000; return OK; }
int cuDeviceGetCount(int *n) { *n = 1; return OK; }
int cuDeviceGet(int *to, int number) { *to = number; return number == 0 ? OK : INVALID_DEVICE; }
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
int cuCtxSynchronize() {
    CALL;
    for (Stream *stream : streams) work(stream, stream->asked);
    return OK;
}
int cuGetErrorName(int, const char **name) { *name = "an error of the emulated driver"; return OK; }
int cuGetErrorString(int, const char **name) { *name = "an error of the emulated driver"; return OK; }
int cuDeviceGetDefaultMemPool(Handle *pool, int) { *pool = (Handle)1; return OK; }
int cuMemPoolSetAttribute(Handle, int, void *) { return OK; }
int cuMemPoolTrimTo(Handle, size_t) { return OK; }

int cuStreamCreate(Handle *to, unsigned) {
    CALL;
    Stream *stream = new Stream;
    streams.insert(stream);
    *to = stream;
    return OK;
}
// The stream itself stays: events may stand in it.
int cuStreamDestroy_v2(Handle stream) {
    CALL;
    Stream *gone = given(__func__, stream);
    work(gone, gone->asked);
    streams.erase(gone);
    return OK;
}
int cuStreamSynchronize(Handle stream) {
    CALL;
    work(given(__func__, stream), given(__func__, stream)->asked);
    return OK;
}
int cuStreamWaitEvent(Handle stream, Handle event, unsigned) {
    CALL;
    Event behind = *known(__func__, event);
    enqueue(given(__func__, stream), [behind] { if (behind.stream) work(behind.stream, behind.work); });
    return OK;
}
int cuEventCreate(Handle *to, unsigned) {
    CALL;
    *to = *events.insert(new Event).first;
    return OK;
}
int cuEventDestroy_v2(Handle event) {
    CALL;
    events.erase(known(__func__, event));
    delete (Event *)event;
    return OK;
}
int cuEventRecord(Handle event, Handle stream) {
    CALL;
    Stream *in = given(__func__, stream);
    *known(__func__, event) = {in, in->asked};
    return OK;
}
int cuEventSynchronize(Handle event) {
    CALL;
    Event *behind = known(__func__, event);
    if (behind->stream) work(behind->stream, behind->work);
    return OK;
}
// Who asks again and again is answered in the end.
int cuEventQuery(Handle event) {
    std::lock_guard<std::recursive_mutex> guard(device);
    Event *behind = known(__func__, event);
    if (!behind->stream || behind->stream->done >= behind->work) return OK;
    work(behind->stream, behind->stream->done + 1);
    return NOT_READY;
}

int cuMemAllocAsync(void **to, size_t bytes, Handle stream) {
    CALL;
    given(__func__, stream);
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > limit() || taken > limit() - bytes) return OUT_OF_MEMORY;
    char *memory = (char *)aligned_alloc(GUARD, with_guards(bytes));
    if (!memory) return OUT_OF_MEMORY;
    memset(memory, POISON, with_guards(bytes));
    *to = memory + GUARD;
    arrays[memory + GUARD] = bytes;
    taken += bytes;
    return OK;
}
int cuMemFreeAsync(void *at, Handle stream) {
    CALL;
    auto found = arrays.find((char *)at);
    if (found == arrays.end()) fail(__func__, "what is no array, or was freed before");
    size_t bytes = found->second;
    arrays.erase(found);
    taken -= bytes;
    enqueue(given(__func__, stream), [at, bytes] {
        check_guards((char *)at, bytes);
        memset(at, POISON, bytes);
        free((char *)at - GUARD);
    });
    return OK;
}
int cuMemHostAlloc(void **to, size_t bytes, unsigned) {
    CALL;
    *to = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(*to, POISON, bytes);
    pinned[(char *)*to] = {bytes, 0};
    return OK;
}
int cuMemFreeHost(void *at) {
    CALL;
    auto found = pinned.find((char *)at);
    if (found == pinned.end()) fail(__func__, "what is no page-locked memory, or was freed before");
    if (found->second.copies) fail(__func__, "a copy from or to this page-locked memory is not done");
    pinned.erase(found);
    memset(at, POISON, 1);
    free(at);
    return OK;
}
// Of page-locked memory, the bytes that are there when the copy is done; other memory is read at once.
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t n, Handle stream) {
    CALL;
    need_array(__func__, "the destination", to, n);
    Stream *in = given(__func__, stream);
    if (Pinned *memory = pinned_at(__func__, from, n)) {
        memory->copies++;
        enqueue(in, [=] { memcpy(to, from, n); memory->copies--; });
    } else {
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + n);
        enqueue(in, [=] { memcpy(to, staged->data(), n); });
    }
    return OK;
}
// Other memory than page-locked is waited for.
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t n, Handle stream) {
    CALL;
    need_array(__func__, "the source", from, n);
    Stream *in = given(__func__, stream);
    if (Pinned *memory = pinned_at(__func__, to, n)) {
        memory->copies++;
        memset(to, POISON, n);
        enqueue(in, [=] { memcpy(to, from, n); memory->copies--; });
    } else {
        work(in, in->asked);
        memcpy(to, from, n);
    }
    return OK;
}
int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t n, Handle stream) {
    CALL;
    need_array(__func__, "the destination", to, n);
    need_array(__func__, "the source", from, n);
    enqueue(given(__func__, stream), [=] { memcpy(to, from, n); });
    return OK;
}
int cuMemsetD8Async(void *to, unsigned char v, size_t n, Handle stream) {
    CALL;
    need_array(__func__, "the destination", to, n);
    enqueue(given(__func__, stream), [=] { memset(to, v, n); });
    return OK;
}
}
