#!/usr/bin/env python3
"""Sets the engine beside PyTorch and onnxruntime on the same networks, batch sizes and machine, in one go.

usage: compare_torch.py [--rounds N] [--batch N] [--threads N] [--only ARCH[:WHAT]] [--precision f32|bf16]
needs: cargo; pip install torch numpy safetensors (and onnx onnxscript onnxruntime for those rows)

Every round runs each contender once, one after the other, each in a process of its own, so that a drift of the machine's
speed meets all of them. Printed a cell (network and work): the median over rounds of our time and of each peer's, the ratio
of the best peer's median to ours (above 1 we are faster), each side's peak memory, the work in GFLOP and the share of the
machine's measured peak that we reach. The peers run fixtures/golden/reference.py: eager, channels_last, torch.compile and
bf16 autocast (the last is set against our bf16), and onnxruntime on the exported encoder and decoder.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "fixtures/golden/reference.py"
ITERATIONS = {"small": 100, "mnist": 5, "celeba": 3}
F32_PEERS = ("eager", "channels_last", "compile", "onnxruntime")

# Run in a process of its own: the encoder or decoder, exported, in onnxruntime.
ONNX = """
import json, sys, time, tempfile, pathlib, importlib.util, warnings, logging
warnings.filterwarnings("ignore"); logging.disable(logging.WARNING)
import torch, onnxruntime
spec = importlib.util.spec_from_file_location("reference", sys.argv[1]); reference = importlib.util.module_from_spec(spec); spec.loader.exec_module(reference)
arch, what, iterations, batch, threads = sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7])
net = reference.Wae(*reference.ARCH[arch]).eval(); h, w, c, latent = reference.ARCH[arch][:4]
class Half(torch.nn.Module):
    def __init__(self): super().__init__(); self.net = net
    def forward(self, x): return self.net.encode(x) if what == "encode" else self.net.decode(x)
x = torch.rand(batch, c, h, w) if what == "encode" else torch.randn(batch, latent)
with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    path = str(pathlib.Path(folder, "net.onnx"))
    torch.onnx.export(Half().eval(), (x,), path, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions(); options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed, times = {session.get_inputs()[0].name: x.numpy()}, []
    for _ in range(iterations + 1):
        start = time.perf_counter(); session.run(None, feed); times.append(time.perf_counter() - start)
times = sorted(times[1:])
print(); print(json.dumps({"median_ms": 1e3 * times[len(times) // 2]}))
"""


def build():
    """The path of our benchmark program: the development profile optimises the engine as a release does."""
    command = ["cargo", "build", "--bench", "network", "-p", "wae-core", "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [m["executable"] for m in map(json.loads, lines) if m.get("executable") and m["target"]["name"] == "network"]
    return found[-1]


def run(command, threads):
    """The last line a program prints, as JSON, and its peak memory in MB; None if it fails."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "TORCHINDUCTOR_MAX_AUTOTUNE": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate()
    lines = out.strip().splitlines()
    if process.returncode or not lines:
        print(f"  {' '.join(command[-4:])} failed: {err.strip().splitlines()[-1:] or 'no output'}", file=sys.stderr)
        return None
    return json.loads(lines[-1]), json.loads(lines[-2])["peak_mb"] if len(lines) > 1 and "peak_mb" in lines[-2] else None


# Runs a command as its only child, prints its peak memory, then its output's last line.
PEAK = """
import json, resource, subprocess, sys
out = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
print(json.dumps({"peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)}))
print((out.stdout.strip().splitlines() or [""])[-1])
sys.exit(out.returncode)
"""


def contenders(program, arch, what, batch, threads, precision):
    iterations = str(ITERATIONS[arch])
    ours = [program, arch, what, iterations, str(batch)] + (["bf16"] if precision == "bf16" else [])
    yield "ours", ours
    reference = [sys.executable, str(REFERENCE), "bench", arch, what]
    if precision == "bf16":
        yield "bf16", reference + ["bf16", iterations, str(batch)]
        return
    for variant in F32_PEERS:
        if variant != "onnxruntime":
            yield variant, reference + [variant, iterations, str(batch)]
        elif what != "train":
            yield variant, [sys.executable, "-c", ONNX, str(REFERENCE), arch, what, iterations, str(batch), str(threads)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    arguments = parser.parse_args()
    program = build()
    (peak, _) = run([program, "peak"], arguments.threads)
    print(f"{arguments.threads} threads, batch {arguments.batch}, {arguments.precision}, {arguments.rounds} rounds; "
          f"measured peak {peak['gflops']:.0f} GFLOP/s ({peak['variant']})")
    print("| network | work | ours ms | best peer ms | peer | ratio | of peak | memory MB | peer's | all peers, ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for arch in ITERATIONS:
        for what in ("encode", "decode", "train"):
            if not f"{arch}:{what}".startswith(arguments.only) or (arguments.precision == "bf16" and what == "train"):
                continue
            cell = list(contenders(program, arch, what, arguments.batch, arguments.threads, arguments.precision))
            times, memory, work = {name: [] for name, _ in cell}, {}, 0
            for _ in range(arguments.rounds):
                for name, command in cell:
                    result = run([sys.executable, "-c", PEAK, *command], arguments.threads)
                    if result:
                        times[name].append(result[0]["median_ms"])
                        memory[name] = max(memory.get(name, 0), result[1])
                        work = result[0].get("gflop", work)
            medians = {name: statistics.median(t) for name, t in times.items() if t}
            ours, peers = medians.pop("ours"), medians
            best = min(peers, key=peers.get)
            share = work / (ours / 1e3) / peak["gflops"]
            others = ", ".join(f"{name} {ms:.1f}" for name, ms in peers.items())
            print(f"| {arch} | {what} | {ours:.1f} | {peers[best]:.1f} | {best} | {peers[best] / ours:.2f} | {share:.0%} "
                  f"| {memory['ours']} | {memory[best]} | {others} |", flush=True)


if __name__ == "__main__":
    main()
