#!/usr/bin/env python3
"""Sets the engine beside PyTorch on one GPU: training steps and encoding, at batch 100 and 1,000, in f32, TF32 and bf16.

usage: compare.py --program PATH [--device cuda:0] [--budget SECONDS] [--only ARCH[:WHAT]]
needs: pip install torch safetensors numpy; the bench program `network`, built with the feature `cuda`

A cell is a network, a work, a batch and a precision. Ours and PyTorch's variants (eager, channels_last, compile of
channels_last) run one after the other on fresh random images. Both are given the images in the machine's memory: PyTorch's from
page-locked bytes in training and page-locked floats in encoding, as ours. Encoding ends when the codes are back in memory.
PyTorch's times are those of CUDA events around an iteration; ours are of the clock around a call that waits for its result. The
table gives medians and the best peer's median over ours: above 1 we are faster. Cells that the budget leaves no time for are
named as not measured. On the CPU (--device cpu) it runs with tiny cells, to show that it runs.
"""
import argparse, importlib.util, json, pathlib, statistics, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CELLS = [(arch, what, batch, precision)
         for precision in ("tf32", "bf16", "f32") for arch in ("mnist", "celeba") for batch in (100, 1000) for what in ("train", "encode")]
VARIANTS = ("eager", "channels_last", "compile")


def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "fixtures/golden/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(program, arch, what, batch, precision, device, iterations):
    command = [program, arch, what, str(iterations), str(batch), precision, device]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"  {' '.join(command[1:])} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer(module, arch, what, batch, precision, variant, device, iterations):
    """Median milliseconds of one variant."""
    import torch
    on_gpu = device.startswith("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "f32"
    torch.backends.cudnn.benchmark = True
    net = module.Wae(*module.ARCH[arch]).to(device)
    h, w, c, latent = module.ARCH[arch][:4]
    layout = torch.contiguous_format if variant == "eager" else torch.channels_last
    net = net.to(memory_format=layout).train(what == "train")
    encode, decode = net.encode, net.decode
    if variant == "compile":
        encode, decode = torch.compile(encode), torch.compile(decode)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999), fused=on_gpu)
    raw = torch.randint(0, 256, (batch, c, h, w), dtype=torch.uint8)
    images = raw.float() / 255 if what == "encode" else raw
    images = images.pin_memory() if on_gpu else images

    def step():
        with torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16, enabled=precision == "bf16"):
            x = images.to(device, non_blocking=True)
            if what == "encode":
                with torch.no_grad():
                    return encode(x.contiguous(memory_format=layout)).float().cpu()
            x = (x.float() / 255).contiguous(memory_format=layout)
            code = encode(x)
            cost = module.squared_cost(x, decode(code).float()).mean()
        kernel = lambda a, b: module.imq(a, b, 1.0)
        loss = cost + 200 * module.mmd(code.float(), torch.randn_like(code, dtype=torch.float32), kernel)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()

    times = []
    for i in range(iterations + 3):
        if on_gpu:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record(); step(); end.record(); end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter(); step(); times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--budget", type=float, default=300)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    on_gpu, started = arguments.device.startswith("cuda"), time.time()
    cells = [cell for cell in CELLS if ":".join(cell[:2]).startswith(arguments.only)]
    if not on_gpu:
        cells = [("small", "train", 10, "f32"), ("small", "encode", 10, "f32")]
    module = reference()
    import torch
    name = torch.cuda.get_device_name(0) if on_gpu else "the CPU, to show that it runs"
    print(f"PyTorch {torch.__version__} on {name}\n")
    print("| network | work | batch | precision | ours ms | best peer ms | peer | ratio | our TFLOP/s | all peers, ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    skipped = []
    for arch, what, batch, precision in cells:
        left = lambda: arguments.budget - (time.time() - started)
        if left() < 20:
            skipped.append(f"{arch} {what} {batch} {precision}")
            continue
        iterations = 20 if on_gpu else 2
        our = ours(arguments.program, arch, what, batch, precision, arguments.device, iterations)
        peers = {}
        for variant in VARIANTS:
            if variant == "compile" and (left() < 90 or not on_gpu):
                continue  # compiling takes up to a minute
            try:
                peers[variant] = peer(module, arch, what, batch, precision, variant, arguments.device, iterations)
            except Exception as e:
                print(f"  PyTorch {variant} failed: {str(e).splitlines()[:1]}", file=sys.stderr)
            if on_gpu:
                torch.cuda.empty_cache()
        best = min(peers, key=peers.get) if peers else None
        others = ", ".join(f"{name} {ms:.2f}" for name, ms in peers.items())
        if our and best:
            rate = our["gflop"] / our["median_ms"]
            print(f"| {arch} | {what} | {batch} | {precision} | {our['median_ms']:.2f} | {peers[best]:.2f} | {best} "
                  f"| {peers[best] / our['median_ms']:.2f} | {rate:.1f} | {others} |", flush=True)
        else:
            print(f"| {arch} | {what} | {batch} | {precision} | {'failed' if not our else our['median_ms']} | | | | | {others} |", flush=True)
    if skipped:
        print(f"\nNot measured for want of time: {'; '.join(skipped)}")


if __name__ == "__main__":
    main()
