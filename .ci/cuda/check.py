"""Whether the emulated GPU refuses what it should: `.ci/cuda/emulate python3 .ci/cuda/check.py`. Each case runs in a process of its
own, which must end with a message, or say what it saw."""

import ctypes
import os
import sys
from ctypes import byref, c_float, c_int, c_size_t, c_void_p

NOT_READY = 600
gpu = ctypes.CDLL("libcuda.so")


def made(create, *arguments):
    handle = c_void_p()
    assert create(byref(handle), *arguments) == 0
    return handle


def stream():
    return made(gpu.cuStreamCreate, 1)


def array(bytes, on):
    return made(gpu.cuMemAllocAsync, c_size_t(bytes), on)


def pinned(bytes):
    return made(gpu.cuMemHostAlloc, c_size_t(bytes), 0)


def fill(to, value, bytes, on):
    assert gpu.cuMemsetD8Async(to, value, c_size_t(bytes), on) == 0


def upload(to, source, bytes, on):
    assert gpu.cuMemcpyHtoDAsync_v2(to, source, c_size_t(bytes), on) == 0


def download(to, source, bytes, on):
    assert gpu.cuMemcpyDtoHAsync_v2(to, source, c_size_t(bytes), on) == 0


def two_bytes_to_floats(x, y, on):
    kernel, n = c_void_p(), c_int(2)
    assert gpu.cuModuleGetFunction(byref(kernel), None, b"bytes_to_f32") == 0
    arguments = (c_void_p * 3)(*[ctypes.cast(byref(value), c_void_p) for value in (n, x, y)])
    assert gpu.cuLaunchKernel(kernel, 1, 1, 1, 256, 1, 1, 0, on, arguments, None) == 0


def bytes_of(source, on):
    to = ctypes.create_string_buffer(4)
    download(to, source, 4, on)
    return to.raw


def late():
    """Fills an array with 7, and sends it to page-locked memory, with an event behind."""
    s, to, event = stream(), pinned(4), made(gpu.cuEventCreate, 2)
    a = array(4, s)
    fill(a, 7, 4, s)
    download(to, a, 4, s)
    gpu.cuEventRecord(event, s)
    return s, to, event


def downloads_are_late():
    _, to, event = late()
    before = ctypes.string_at(to, 4)
    gpu.cuEventSynchronize(event)
    return before, ctypes.string_at(to, 4)


def events_are_late():
    _, _, event = late()
    return [gpu.cuEventQuery(event) for _ in range(3)]


def another_stream_waits():
    s, other, event = stream(), stream(), made(gpu.cuEventCreate, 2)
    a = array(4, s)
    fill(a, 7, 4, s)
    gpu.cuEventRecord(event, s)
    gpu.cuStreamWaitEvent(other, event, 0)
    return bytes_of(a, other)


def page_locked_memory_is_read_late():
    s, source = stream(), pinned(4)
    a = array(4, s)
    ctypes.memset(source, 1, 4)
    upload(a, source, 4, s)
    ctypes.memset(source, 2, 4)
    return bytes_of(a, s)


def other_memory_is_read_at_once():
    s, source = stream(), ctypes.create_string_buffer(b"\1\1\1\1")
    a = array(4, s)
    upload(a, source, 4, s)
    ctypes.memset(source, 2, 4)
    return bytes_of(a, s)


def unwritten_memory_is_nan():
    s = stream()
    return bytes_of(array(4, s), s)


def freed_under_a_copy():
    s, source = stream(), pinned(4)
    upload(array(4, s), source, 4, s)
    gpu.cuMemFreeHost(source)


def used_after_freeing():
    s = stream()
    a = array(4, s)
    gpu.cuMemFreeAsync(a, s)
    fill(a, 0, 4, s)


def freed_twice():
    s = stream()
    a = array(4, s)
    gpu.cuMemFreeAsync(a, s)
    gpu.cuMemFreeAsync(a, s)


def copied_past_the_end():
    s = stream()
    fill(array(4, s), 0, 5, s)


def written_past_the_end():
    s = stream()
    y = array(4, s)
    two_bytes_to_floats(array(2, s), y, s)
    gpu.cuMemFreeAsync(y, s)
    gpu.cuStreamSynchronize(s)


def not_aligned():
    s = stream()
    x = array(64, s)
    two_bytes_to_floats(x, c_void_p(x.value + 2), s)


def default_stream():
    array(4, c_void_p())


def destroyed_stream():
    s = stream()
    gpu.cuStreamDestroy_v2(s)
    array(4, s)


def no_context():
    gpu.cuCtxSetCurrent(None)
    stream()


def product_without_a_stream():
    blas, one = made(gpu.cublasCreate_v2), c_float(1)
    gpu.cublasGemmEx(blas, 0, 0, 1, 1, 1, byref(one), None, 0, 1, None, 0, 1, byref(one), None, 0, 1, 68, 0)


def convolution(algorithm, scratch_given):
    """1 × 1, by `algorithm` of those that are offered for it, with `scratch_given` more bytes than are needed."""
    dnn, s = made(gpu.cudnnCreate), stream()
    x, w = made(gpu.cudnnCreateTensorDescriptor), made(gpu.cudnnCreateFilterDescriptor)
    c = made(gpu.cudnnCreateConvolutionDescriptor)
    gpu.cudnnSetStream(dnn, s)
    gpu.cudnnSetTensor4dDescriptor(x, 1, 0, 1, 1, 1, 1)
    gpu.cudnnSetFilter4dDescriptor(w, 0, 1, 1, 1, 1, 1)
    gpu.cudnnSetConvolution2dDescriptor(c, 0, 0, 1, 1, 1, 1, 1, 0)
    count, answers, needed = c_int(), ctypes.create_string_buffer(1000), c_size_t()
    assert gpu.cudnnGetConvolutionForwardAlgorithm_v7(dnn, x, w, c, x, 16, byref(count), answers) == 0
    if algorithm is None:
        algorithm = next(a for a in (1, 5) if gpu.cudnnGetConvolutionForwardWorkspaceSize(dnn, x, w, c, x, a, byref(needed)) == 0)
    size = needed.value + scratch_given
    one, zero, values = c_float(1), c_float(0), [array(4, s) for _ in range(3)]
    return gpu.cudnnConvolutionForward(
        dnn, byref(one), x, values[0], w, values[1], c, algorithm, array(5000, s), c_size_t(size), byref(zero), x, values[2]
    )


# What a case returns, or what is said when it ends the process.
CASES = [
    (downloads_are_late, (b"\xff\xff\xff\xff", b"\7\7\7\7")),
    (events_are_late, [NOT_READY, NOT_READY, 0]),
    (another_stream_waits, b"\7\7\7\7"),
    (page_locked_memory_is_read_late, b"\2\2\2\2"),
    (other_memory_is_read_at_once, b"\1\1\1\1"),
    (unwritten_memory_is_nan, b"\xff\xff\xff\xff"),
    (freed_under_a_copy, "a copy from or to this page-locked memory is not done"),
    (used_after_freeing, "not in an array, or in one that was freed"),
    (freed_twice, "freed before"),
    (copied_past_the_end, "not in an array"),
    (written_past_the_end, "written past its end, at 4"),
    (not_aligned, "not aligned"),
    (default_stream, "a stream that was not created"),
    (destroyed_stream, "or was destroyed"),
    (no_context, "without a current context"),
    (product_without_a_stream, "given no stream"),
    (lambda: convolution(None, 0), 0),
    (lambda: convolution(0, 5000), "was not offered"),
    (lambda: convolution(None, -1), "bytes of scratch memory where"),
]


def outcome(case):
    """What the case returned, as text, or what it wrote when it was ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        gpu.cuCtxSetCurrent(c_void_p(1))
        os.write(write, repr(case()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    return said, os.WIFSIGNALED(os.waitpid(child, 0)[1])


failed = 0
for at, (case, expected) in enumerate(CASES):
    said, ended = outcome(case)
    right = ended and expected in said if isinstance(expected, str) else not ended and said == repr(expected)
    if not right:
        print(f"case {at}, {case.__name__}: {said.strip()!r}, expected {expected!r}", file=sys.stderr)
        failed += 1
print(f"{len(CASES) - failed} passed, {failed} failed")
sys.exit(failed > 0)
