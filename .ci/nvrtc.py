#!/usr/bin/env python3
"""Compiles the CUDA kernels by NVRTC, as opening a GPU does, and fails on errors and warnings.

Needs no GPU. Without the wheel `nvidia-cuda-nvrtc` it says that it skips.
"""
import ctypes
import importlib.util
import re
import sys
from pathlib import Path

CUDA = Path(__file__).resolve().parent.parent / "src/ops/accelerators/cuda"
ARCHITECTURES = ("sm_80", "sm_90")  # what program.rs asks for at most, and the H100 and H200


def library():
    """NVRTC of the wheel, or None."""
    nvidia = importlib.util.find_spec("nvidia")
    folders = nvidia.submodule_search_locations if nvidia else []
    found = [file for folder in folders for file in sorted(Path(folder).glob("**/libnvrtc*.so.*[0-9]"))]
    # The builtins come first, so that NVRTC need not look for them.
    return [ctypes.CDLL(str(file)) for file in found][-1] if found else None


def compiled(nvrtc, source, architecture):
    """NVRTC's status and messages."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    status = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None)
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={architecture}".encode())
    status = status or nvrtc.nvrtcCompileProgram(program, 1, options)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value + 1)
    nvrtc.nvrtcGetProgramLog(program, log)
    return status, log.value.decode().strip()


nvrtc = library()
if nvrtc is None:
    sys.exit(print("skipped: no nvidia-cuda-nvrtc"))
names = re.findall(r'include_str!\("(kernels/\w+\.cu)"\)', (CUDA / "program.rs").read_text())
assert names and {CUDA / name for name in names} == set(CUDA.glob("kernels/*.cu")), f"program.rs compiles {names}"
source = "".join(f'#line 1 "{name}"\n' + (CUDA / name).read_text() for name in names).encode()
for architecture in ARCHITECTURES:
    status, log = compiled(nvrtc, source, architecture)
    print(f"{architecture}: {log or 'no warnings'}")
    if status or log:
        sys.exit(f"{architecture}: NVRTC status {status}")
