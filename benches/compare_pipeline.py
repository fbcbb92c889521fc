#!/usr/bin/env python3
"""From PNG rows of Parquet to latent codes in Parquet: the shell against pyarrow + Pillow + PyTorch as a user would write it.

usage: compare_pipeline.py [--rounds N] [--rows N] [--network NAME]
needs: cargo; pip install torch numpy safetensors pyarrow pillow

Both read the same file of Fashion-MNIST PNGs (the fixture's, repeated), apply the same trained model with two threads, and
write one column of codes. They run in turn, each in a process of its own, start to end: what a user waits for. The PyTorch
script reads batches of 256 rows, decodes with Pillow and encodes channels_last, which was its faster variant. Printed: median
seconds and peak memory of each, the ratios, and the largest difference between the two files' codes.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
THREADS = 2

PYTORCH = """
import importlib.util, io, json, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from PIL import Image
from safetensors import safe_open
source, model, target, reference = sys.argv[1:]
spec = importlib.util.spec_from_file_location("reference", reference); r = importlib.util.module_from_spec(spec); spec.loader.exec_module(r)
torch.set_num_threads(2)
with safe_open(model, "pt") as f:
    c = json.loads(f.metadata()["config"]); state = {k: f.get_tensor(k) for k in f.keys() if not k.startswith("calibration.")}
i, n = c["image"], c["network"]
net = r.Wae(i["height"], i["width"], i["channels"], c["latent_dim"], n["encoder_channels"], n["decoder_channels"], n["kernel"])
net.load_state_dict(state, strict=False); net = net.eval().to(memory_format=torch.channels_last)
schema = pa.schema([("id", pa.int64()), ("code", pa.list_(pa.float32(), c["latent_dim"]))])
with pq.ParquetWriter(target, schema) as out, torch.inference_mode():
    for batch in pq.ParquetFile(source).iter_batches(256, columns=["image", "id"]):
        images = [np.asarray(Image.open(io.BytesIO(v))) for v in batch.column(0).field("bytes").to_pylist()]
        x = torch.from_numpy(np.stack(images)[:, None].astype(np.float32) / 255).contiguous(memory_format=torch.channels_last)
        codes = net.encode(x).numpy().ravel()
        out.write_table(pa.table([batch.column(1), pa.FixedSizeListArray.from_arrays(pa.array(codes), c["latent_dim"])], schema=schema))
"""


def run(command, cwd):
    """Seconds and peak memory in MB of a command."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS), "TOKIO_WORKER_THREADS": str(THREADS)}
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{command[0]} failed")
    return seconds, usage.ru_maxrss / 1024


def main():
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--network", default="small")
    arguments = parser.parse_args()
    build = ["cargo", "build", "-p", "datafusion-wae", "--bin", "wae", "--message-format=json"]
    lines = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    shell = [m["executable"] for m in map(json.loads, lines) if m.get("executable")][-1]
    with tempfile.TemporaryDirectory() as folder:
        tables = [pq.read_table(ROOT / f"fixtures/fashion/{part}.parquet").select(["image"]) for part in ("train", "test")]
        rows = pa.concat_tables([t.replace_schema_metadata(None) for t in tables])
        rows = pa.concat_tables([rows] * -(-arguments.rows // len(rows))).slice(0, arguments.rows)
        rows = rows.append_column("id", pa.array(np.arange(arguments.rows)))
        pq.write_table(rows, f"{folder}/images.parquet", row_group_size=1000)
        train = (f"SELECT * FROM wae_train((SELECT image FROM '{ROOT}/fixtures/fashion/test.parquet'), model => 'm', "
                 f"network => '{arguments.network}', epochs => 1)")
        setup = f"SET wae.model_dir = '{folder}'"
        run([shell, "-c", setup, train], ROOT)
        ours = [shell, "-c", setup, f"COPY (SELECT id, wae_encode(image, 'm') AS code FROM 'images.parquet') TO 'ours.parquet'"]
        reference = str(ROOT / "fixtures/golden/reference.py")
        theirs = [sys.executable, "-c", PYTORCH, "images.parquet", "m.safetensors", "theirs.parquet", reference]
        results = {"ours": [], "pytorch": []}
        for round in range(arguments.rounds + 1):
            for name, command in (("ours", ours), ("pytorch", theirs)):
                result = run(command, folder)
                if round:  # the first warms the file cache
                    results[name].append(result)
        # Partitions may come in any order.
        tables = [pq.read_table(f"{folder}/{name}.parquet").sort_by("id") for name in ("ours", "theirs")]
        assert all(t["id"].to_pylist() == list(range(arguments.rows)) for t in tables), "a row is missing"
        a, b = (t["code"].combine_chunks().flatten().to_numpy() for t in tables)
        gap = np.abs(a - b).max() / np.abs(b).max()
    seconds = {name: statistics.median(s for s, _ in r) for name, r in results.items()}
    memory = {name: max(m for _, m in r) for name, r in results.items()}
    print(f"{arguments.rows} rows, network {arguments.network}, {arguments.rounds} rounds, {THREADS} threads")
    for name in results:
        print(f"{name:8} {seconds[name]:.2f} s ({', '.join(f'{s:.2f}' for s, _ in results[name])}), peak {memory[name]:.0f} MB")
    print(f"pytorch / ours: time {seconds['pytorch'] / seconds['ours']:.2f}, memory {memory['pytorch'] / memory['ours']:.2f}; "
          f"largest difference of codes {gap:.1e} of the largest code")


if __name__ == "__main__":
    main()
