#!/usr/bin/env python3
"""Stands in for NVIDIA's libraries where a program is linked without them: shared objects with their names and those of their
functions, as cudarc declares them. What calls one stops at once: they are for the linker, never for LD_LIBRARY_PATH.

usage: stubs.py FOLDER"""
import json, pathlib, re, subprocess, sys

LIBRARIES = {"driver": "libcuda.so.1", "nvrtc": "libnvrtc.so.13", "curand": "libcurand.so.10", "cublas": "libcublas.so.13",
             "cublaslt": "libcublasLt.so.13", "cudnn": "libcudnn.so.9", "runtime": "libcudart.so.13"}

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]))
cudarc, = (pathlib.Path(package["manifest_path"]).parent for package in metadata["packages"] if package["name"] == "cudarc")
for module, library in LIBRARIES.items():
    functions = set(re.findall(r"^ +(?:pub )?fn (\w+)\(", (cudarc / "src" / module / "sys/mod.rs").read_text(), re.M))
    code = "".join(f"void {function}(void) {{ __builtin_trap(); }}\n" for function in sorted(functions))
    command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{library}", "-o", folder / f"{library.split('.')[0]}.so"]
    subprocess.run([*command, "-xc", "-"], input=code, text=True, check=True)
