#!/usr/bin/env python3
"""Sets the engine beside PyTorch on one GPU: training steps and encoding, at batch 100 and 1,000, in TF32, bf16 and f32.

usage: compare.py --program PATH [--device cuda:0] [--budget SECONDS] [--only ARCH[:WHAT]]
needs: pip install torch safetensors numpy; the bench program `network`, built with the features `cuda` and `cudnn`

A cell is a network, a work, a batch and a precision. In a cell ours and PyTorch's variants take turns, A B C A B C, each in a
process that stays and has had a turn that does not count. A turn is N steps in a row, by the clock from an idle GPU to an idle
GPU, over N; N fills about a quarter of a second, and is the same for all. The table gives the median of five turns (three where
steps are long), their spread ((longest − shortest) / median), and the fastest variant's median over ours: above 1 we are faster.
Of that variant the time between two CUDA events, before the first step and behind the last, is given too: it shows what the
clock adds.

Both are given random images as bytes in the machine's memory, another batch at each step: N batches in training, 8 in turn in
encoding. A step of ours includes what SQL's does: a training's gathers its rows, shuffled anew each turn.
  train   upload, x = bytes / 255, encoder, decoder, squared cost and λ MMD², gradients, Adam. Neither side reads a value
          from the GPU before it goes on to the next; ours reads the losses of 16 steps together, as its training does, PyTorch none.
  encode  upload, x = bytes / 255, encoder in eval mode, codes in f32 back in memory, before the next step begins, as SQL
          takes them. PyTorch under inference_mode; in bf16 its weights are kept in bf16.
PyTorch's bytes lie in page-locked memory, in the layout of the variant. Its variants: eager; channels_last; compile and
reduce_overhead (torch.compile of all that comes before `backward`, channels_last, in the default mode and with CUDA graphs).
All with cudnn.benchmark, TF32 in tf32 and bf16, autocast in bf16's training, fused Adam. Compiling takes up to a minute, and a C
compiler: it is tried where steps are short, in the order of JOBS, and what is left out or fails is named. A failure of ours is
named apart, and makes the exit code 1. On the CPU (--device cpu) it runs with tiny cells, to show that it runs.
"""
import argparse, importlib.util, json, pathlib, select, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PLAIN, COMPILED = ("eager", "channels_last"), ("compile", "reduce_overhead")
TURNS, BATCHES = 5, 8
# 10⁹ operations an image, and how many of them a millisecond may take: for the number of steps only.
GFLOP = {("mnist", "train"): 5.5, ("mnist", "encode"): 0.19, ("celeba", "train"): 19.2, ("celeba", "encode"): 1.3}
PER_MS = {"tf32": 150, "bf16": 250, "f32": 35}


def cells(precisions, batches=(100, 1000), works=("train", "encode"), archs=("mnist", "celeba")):
    return [(arch, what, batch, precision) for what in works for arch in archs for batch in batches for precision in precisions]


FAST = ("tf32", "bf16")
# What is measured, what matters most first. Where launches take longer than the GPU does, compiling can help.
JOBS = ([(cell, PLAIN) for cell in cells(FAST)]
        + [(cell, COMPILED) for cell in cells(FAST, (100,), ("train",), ("mnist",))]
        + [(cell, PLAIN) for cell in cells(("f32",), (100,))]
        + [(cell, COMPILED) for cell in cells(FAST, (100,), ("train",), ("celeba",))]
        + [(cell, PLAIN) for cell in cells(("f32",), (1000,))]
        + [(cell, COMPILED) for cell in cells(FAST, (100,), ("encode",))])
JOBS_ON_CPU = [(("small", "train", 10, "f32"), PLAIN), (("small", "encode", 10, "f32"), PLAIN), (("small", "encode", 10, "bf16"), PLAIN),
               (("small", "train", 10, "f32"), COMPILED[:1])]


def plan(cell, on_gpu):
    """Steps of a turn, and turns: fewer where steps are long."""
    arch, what, batch, precision = cell
    if not on_gpu:
        return 3, TURNS
    step_ms = GFLOP[arch, what] * batch / PER_MS[precision]
    return min(max(int(250 / step_ms), 4), 64), TURNS if step_ms < 100 else 3


class NoTime(RuntimeError):
    """The time was up."""


class OursFailed(RuntimeError):
    """Our engine gave an error, ended or hung."""


class PeerFailed(RuntimeError):
    """PyTorch did."""


# Seconds after which who does not answer has failed, and is not merely without time: a turn takes a few, and compiling a minute.
PATIENCE = {OursFailed: 60, PeerFailed: 150}


class Server:
    """A process that answers a line with a line of JSON. It is started when it is first asked, and again after it has failed."""

    def __init__(self, command, failure):
        self.command, self.failure, self.process = command, failure, None

    def ask(self, line, seconds):
        if self.process is None:
            self.errors = tempfile.TemporaryFile("w+")
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, bufsize=0)
        answer = b""
        try:
            self.process.stdin.write(line.encode() + b"\n")
            patience = PATIENCE[self.failure]
            if select.select([self.process.stdout], [], [], max(min(seconds, patience), 0))[0]:
                answer = self.process.stdout.readline()
            else:
                raise (self.failure if seconds >= patience else NoTime)(f"'{line}' took longer than {min(seconds, patience):.0f} s")
        except OSError:
            pass  # It has ended, and has said why elsewhere.
        finally:
            if not answer:
                self.stop()
        if not answer:
            self.errors.seek(0)
            raise self.failure((self.errors.read().strip().splitlines() or ["it ended"])[-1])
        answer = json.loads(answer)
        if "error" in answer:
            raise self.failure(answer["error"])
        return answer

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "fixtures/golden/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Peer:
    """One of PyTorch's variants of a cell, in the process that has PyTorch."""

    def __init__(self, torch, module, arch, what, number, batch, precision, device, variant):
        self.torch, self.module, self.number, self.batch, self.device, self.variant = torch, module, number, batch, device, variant
        self.on_gpu, self.bf16 = device.startswith("cuda"), precision == "bf16"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "f32"
        torch.backends.cudnn.benchmark = True
        height, width, channels, self.latent = module.ARCH[arch][:4]
        self.layout = torch.contiguous_format if variant == "eager" else torch.channels_last
        net = module.Wae(*module.ARCH[arch]).to(device).to(memory_format=self.layout).train(what == "train")
        self.net = net.bfloat16() if self.bf16 and what == "encode" else net
        images = (torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8)
                  for _ in range(number if what == "train" else min(number, BATCHES)))
        images = (i.contiguous(memory_format=self.layout) for i in images)
        self.images = [i.pin_memory() if self.on_gpu else i for i in images]
        self.adam = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999), fused=True)
        mode = {"compile": "default", "reduce_overhead": "reduce-overhead"}.get(variant)
        compiled = (lambda f: torch.compile(f, mode=mode, dynamic=False)) if mode else (lambda f: f)
        self.loss, self.encode = compiled(self.loss), compiled(self.encode)
        self.step = self.train if what == "train" else self.score

    def loss(self, images, prior):
        with self.torch.autocast(self.device.split(":")[0], self.torch.bfloat16, enabled=self.bf16):
            x = (images.float() / 255).contiguous(memory_format=self.layout)
            code = self.net.encode(x)
            y = self.net.decode(code)
        kernel = lambda a, b: self.module.imq(a, b, 1.0)
        return self.module.squared_cost(x, y.float()).mean() + 200 * self.module.mmd(code.float(), prior, kernel)

    def encode(self, images):
        x = images.to(self.torch.bfloat16 if self.bf16 else self.torch.float32) / 255
        return self.net.encode(x.contiguous(memory_format=self.layout)).float()

    def train(self, i):
        images = self.images[i].to(self.device, non_blocking=True)
        prior = self.torch.randn(self.batch, self.latent, device=self.device)
        self.adam.zero_grad(set_to_none=True)
        self.loss(images, prior).backward()
        self.adam.step()

    def score(self, i):
        with self.torch.inference_mode():
            return self.encode(self.images[i % len(self.images)].to(self.device, non_blocking=True)).cpu()

    def turn(self):
        """Milliseconds a step, by the clock and by CUDA events."""
        cuda, events = self.torch.cuda, None
        if self.on_gpu:
            events = [cuda.Event(enable_timing=True) for _ in range(2)]
            cuda.synchronize()
        start = time.perf_counter()
        if events:
            events[0].record()
        for i in range(self.number):
            self.step(i)
        if events:
            events[1].record()
            cuda.synchronize()
        ms = 1e3 * (time.perf_counter() - start) / self.number
        return {"ms": ms, "event_ms": events[0].elapsed_time(events[1]) / self.number if events else ms}


def peers():
    """Answers lines as the bench program does; `prepare` ends with a variant, `run` names one, `clear` forgets all."""
    answers, sys.stdout = sys.stdout, sys.stderr
    import torch
    module, variants = reference(), {}
    for line in sys.stdin:
        words = line.split()
        try:
            if words[0] == "prepare":
                arch, what, number, batch, precision, device, variant = words[1:]
                peer = Peer(torch, module, arch, what, int(number), int(batch), precision, device, variant)
                peer.turn()
                variants[variant], answer = peer, {}
            elif words[0] == "run":
                answer = variants[words[1]].turn()
            elif words[0] == "clear":
                variants.clear()
                torch.compiler.reset()
                torch.cuda.empty_cache()
                answer = {}
            else:
                name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
                answer = {"version": torch.__version__, "device": name}
        except Exception as e:
            answer = {"error": (str(e).strip().splitlines() or [type(e).__name__])[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)


def measure(ours, torch, cell, variants, device, left):
    """The turns of each contender that could be prepared, the operations of a step, and why others could not."""
    arch, what, batch, precision = cell
    number, rounds = plan(cell, device.startswith("cuda"))
    prepare = f"prepare {arch} {what} {number} {batch} {precision} {device}"
    gflop = ours.ask(prepare, left())["gflop"]
    turns, failed = {"ours": []}, {}
    torch.ask("clear", left())
    for variant in variants:
        try:
            torch.ask(f"{prepare} {variant}", left())
            turns[variant] = []
        except RuntimeError as e:
            failed[variant] = str(e)
            if torch.process is None:  # and with it those that were prepared before
                turns = {"ours": []}
                break
    for _ in range(rounds):
        turns["ours"].append(ours.ask("run", left()))
        for variant in list(turns)[1:]:
            turns[variant].append(torch.ask(f"run {variant}", left()))
    return turns, gflop, failed


def row(cell, turns, gflop):
    """The line of a job, and the ratio of its fastest variant."""
    times = {name: [turn["ms"] for turn in turns] for name, turns in turns.items()}
    median = {name: statistics.median(all) for name, all in times.items()}
    said = {name: f"{median[name]:.3f} ± {100 * (max(all) - min(all)) / median[name]:.0f} %" for name, all in times.items()}
    peers = [name for name in times if name != "ours"]
    best = min(peers, key=median.get) if peers else None
    ratio = median[best] / median["ours"] if best else None
    events = f"{statistics.median(turn['event_ms'] for turn in turns[best]):.3f}" if best else ""
    others = ", ".join(f"{name} {said[name]}" for name in peers)
    cells = [*cell, said["ours"], f"{gflop / median['ours']:.1f}", others, events, f"{ratio:.2f} ({best})" if best else "no peer"]
    return "| " + " | ".join(map(str, cells)) + " |", ratio


def compare(jobs, ours, torch, device, left):
    """Prints a line for each job. The least ratio of each cell, what was not measured, and where ours failed."""
    ratios, missing, broken = {}, [], []
    for cell, variants in jobs:
        name = " ".join(map(str, cell))
        try:
            # The shortest that such a job has taken elsewhere: there is no use in beginning what cannot end.
            if left() < (20 if variants == COMPILED else 5):
                raise NoTime("no time left")
            turns, gflop, failed = measure(ours, torch, cell, variants, device, left)
            line, ratio = row(cell, turns, gflop)
            print(line, flush=True)
            if ratio:
                ratios[name] = min(ratio, ratios.get(name, ratio))
            missing += [f"{name} {variant} ({why})" for variant, why in failed.items()]
        except OursFailed as e:
            broken.append(f"{name} ({e})")
        except RuntimeError as e:
            missing.append(f"{name} {', '.join(variants)} ({e})")
    return ratios, missing, broken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--budget", type=float, default=300)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    on_gpu, end = arguments.device.startswith("cuda"), time.time() + arguments.budget
    left = lambda: end - time.time()
    ours, torch = Server([arguments.program, "serve"], OursFailed), Server([sys.executable, __file__, "peers"], PeerFailed)
    jobs = [(cell, variants) for cell, variants in (JOBS if on_gpu else JOBS_ON_CPU) if ":".join(cell[:2]).startswith(arguments.only)]
    about = torch.ask("about", left())
    print(f"PyTorch {about['version']} on {about['device'] if on_gpu else 'the CPU, to show that it runs'}\n")
    print("| network | work | batch | precision | ours, ms | our TFLOP/s | PyTorch, ms | best by CUDA events | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios, missing, broken = compare(jobs, ours, torch, arguments.device, left)
    for server in (ours, torch):
        server.stop()
    print("\nPyTorch's best over ours: " + "; ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    if on_gpu:
        missing.append("compile and reduce_overhead elsewhere than at batch 100 in tf32 and bf16 (by choice)")
    print("\nNot measured: " + ("; ".join(missing) or "nothing was left out"))
    if broken:
        print("\nOurs failed: " + "; ".join(broken))
    sys.exit(bool(broken) or not ratios)


if __name__ == "__main__":
    peers() if sys.argv[1:] == ["peers"] else main()
