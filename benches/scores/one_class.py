#!/usr/bin/env python3
"""One class of images is normal, the others are strange: image AUROC of the scores, in two settings of training.

usage: fixtures/make.py full target/data && cargo build --bin wae
       one_class.py [--data target/data] [--sets fashion mnist10k] [--settings table defaults] [--classes 0 1 ...]
                    [--seeds 0 1 2] [--score-scales 8,whole ...]

`table` is the setting of the table of the guide's page "Scores and outliers", `defaults` is every option as it comes and 8
epochs. One run of the shell a class. With several --score-scales, a training stops before its last epoch and goes on for each:
they differ in statistics alone. What is in the file of results is not measured again.
Prints the mean over classes, of all and of 0-4 and 5-9 apart, ± the deviation over seeds.
"""

import shutil
import statistics

from product import Product, Results, arguments, options

SETTINGS = {
    "table": {"network": "16,32", "latent_dim": 8, "noise": 0.2, "epochs": 12, "batch_size": 25},
    "defaults": {"epochs": 8},
}
SCORES = ("wae_reconstruction_cost", "wae_anomaly_score")
HALVES = {"0-9": range(10), "0-4": range(5), "5-9": range(5, 10)}


def areas(data, label, model):
    """A query of the AUROC of each score."""
    columns = ", ".join(f"auroc({score}(image, '{model}'), label <> {label}) AS {score}" for score in SCORES)
    return f"SELECT {columns} FROM '{data}/test.parquet'"


def train(data, label, model, training):
    source = f"SELECT image FROM '{data}/train.parquet' WHERE label = {label}"
    return f"SELECT epoch FROM wae_train(({source}), model => '{model}'{options(training)})"


def measure(product, data, label, training, every):
    """The AUROC of each score, for each set of scales."""
    model = f"one-class-{label}"
    given = {scales: {} if scales == "default" else {"score_scales": scales} for scales in every}
    if len(every) == 1:
        statements = [train(data, label, model, {**training, **given[every[0]], "overwrite": True}), areas(data, label, model)]
        return {every[0]: product.run(*statements)[-1]}
    before = {**training, "checkpoint_every": 1}
    product.run(train(data, label, model, {**before, "overwrite": True}) + f" LIMIT {training['epochs'] - 1}")
    checkpoint, found = product.models / f".{model}.checkpoint", {}
    for i, scales in enumerate(every):
        name = f"{model}-{i}"
        shutil.copy(checkpoint, product.models / f".{name}.checkpoint")
        resumed = {**before, **given[scales], "resume": True, "overwrite": True}
        found[scales] = product.run(train(data, label, name, resumed), areas(data, label, name))[-1]
    checkpoint.unlink()
    return found


def report(results, args):
    for setting in args.settings:
        for name in args.sets:
            print(f"\n{name}, {setting}\n\n| score_scales | score | {' | '.join(HALVES)} |\n|---|---|" + "---|" * len(HALVES))
            for scales in args.score_scales:
                for score in SCORES:
                    cells = []
                    for half in HALVES.values():
                        means = []
                        for seed in args.seeds:
                            identity = {"set": name, "setting": setting, "seed": seed, "score_scales": scales}
                            rows = [results.find({**identity, "class": label}) for label in half if label in args.classes]
                            if rows and all(rows):
                                means.append(statistics.mean(row[score] for row in rows))
                        spread = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
                        cells.append(f"{statistics.mean(means):.4f}{spread}" if means else "")
                    print(f"| {scales} | `{score}` | {' | '.join(cells)} |")


def main():
    parser = arguments("one_class", __doc__, "target/data", [0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=["fashion", "mnist10k"])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--classes", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--score-scales", nargs="+", default=["default"], help="values of wae_train's option")
    args = parser.parse_args()
    product, results = Product(args.models, args.shell), Results(args.results)
    for setting in args.settings:
        for seed in args.seeds:
            for name in args.sets:
                for label in args.classes:
                    identity = {"set": name, "setting": setting, "seed": seed, "class": label}
                    missing = [s for s in args.score_scales if not results.find({**identity, "score_scales": s})]
                    if not missing:
                        continue
                    found = measure(product, args.data / name, label, {**SETTINGS[setting], "seed": seed}, missing)
                    for scales, values in found.items():
                        results.add({**identity, "score_scales": scales}, values)
    report(results, args)


if __name__ == "__main__":
    main()
