#!/usr/bin/env python3
"""All five scores of a table of images against the reconstruction cost alone: what sharing one pass a row leaves of the difference.

usage: compare_scores.py IMAGES.parquet MODEL MODEL_DIR [ROUNDS]
       IMAGES.parquet has a column `image`; the shell is target/debug/wae (cargo build --bin wae)

Both queries run in turn, each in a process of its own; prints medians and their ratios, of wall and of processor time.
"""
import os
import statistics
import subprocess
import sys
import time

SCORES = ("wae_reconstruction_cost(image)", "wae_latent_distance(image)", "wae_anomaly_score(image)", "wae_p_value(image)",
          "CAST(wae_is_outlier(image) AS INT)")


def run(columns, images, model, folder):
    query = f"SELECT {', '.join(f'sum({c})' for c in columns)} FROM '{images}'"
    command = ["target/debug/wae", "-c", f"SET wae.model_dir = '{folder}'", "-c", f"SET wae.model = '{model}'", "-c", query]
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, processor


def main(images, model, folder, rounds=9):
    times = {"cost": [], "all": []}
    for _ in range(int(rounds)):
        times["cost"].append(run(SCORES[:1], images, model, folder))
        times["all"].append(run(SCORES, images, model, folder))
    for i, kind in enumerate(("wall", "processor")):
        cost, every = (statistics.median(t[i] for t in times[name]) for name in ("cost", "all"))
        print(f"{kind}: cost alone {cost:.3f} s, all five {every:.3f} s, ratio {every / cost:.2f}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
