#!/usr/bin/env python3
"""Image AUROC, pixel AUROC and AUPRO of the product's maps and scores on drawn defects, and the share of defects found.

usage: textures.py target/data/textures && cargo build --bin wae
       defects.py [--data target/data/textures] [--textures brick grass gravel] [--seeds 0] [--score-scales 8,whole ...]
needs: pip install numpy pyarrow scikit-image

A training a texture, seed and set of scales. The image score of a map is the function beside it. By kind of defect, the test
crops of that kind stand beside all normal ones. A defect is found if a place of the anomaly mask at alpha 0.05 lies on it.
What is in the file of results is not measured again.
"""

import numpy as np
import pyarrow.parquet as pq
from metrics import aupro, auroc
from product import Product, Results, arguments, options
from textures import KINDS, TEXTURES

ALPHA = 0.05
# A map, and the score that goes with it.
MAPS = {"wae_anomaly_map": "wae_anomaly_score", "wae_cost_map": "wae_reconstruction_cost"}
TRAINING = {"epochs": 20, "batch_size": 25}


def grid(column):
    """A column of square maps or masks, (N, H, W)."""
    column = column.combine_chunks()
    values = getattr(column, "storage", column).flatten().to_numpy()
    side = round((len(values) / len(column)) ** 0.5)
    return values.reshape(-1, side, side)


def measure(product, data, texture, training, maps):
    """Trains on a texture, and measures each map: of all kinds together, then of each."""
    model = f"defects-{texture}"
    source, scored = data / texture / "train.parquet", product.models / "scored.parquet"
    columns = ", ".join(f"{name}(image, '{model}') AS \"{name}\"" for pair in maps.items() for name in pair)
    mask = f"wae_anomaly_mask(image, {ALPHA}, '{model}') AS marked"
    product.run(
        f"SELECT epoch FROM wae_train((SELECT image FROM '{source}'), model => '{model}', overwrite => true{options(training)})",
        f"COPY (SELECT i, mask, CAST(kind AS VARCHAR) AS kind, {columns}, {mask} FROM '{data / texture}/test.parquet' ORDER BY i) TO '{scored}'",
    )
    table = pq.read_table(scored)
    kinds = np.array(table["kind"].to_pylist())
    pixels = {name: grid(table[name]) for name in ("mask", "marked", *maps)}
    rows = []
    for kind in ("all", *KINDS):
        chosen = (kinds == "none") | (kinds == kind) | (kind == "all")
        masks = pixels["mask"][chosen] > 0
        marked = pixels["marked"][chosen] > 0
        defective = masks.any((1, 2))
        found = {
            "found": float((masks & marked)[defective].any((1, 2)).mean()),
            "false": float(marked[~defective].any((1, 2)).mean()),
        }
        for name, score in maps.items():
            values = pixels[name][chosen]
            strange = kinds[chosen] != "none"
            rows.append(({"kind": kind, "map": name}, {
                "image_auroc": auroc(table[score].to_numpy()[chosen], strange),
                "pixel_auroc": auroc(values, masks),
                "aupro": aupro(values, masks),
                **(found if name == "wae_anomaly_map" else {}),
            }))
    return rows


def main():
    parser = arguments("defects", __doc__, "target/data/textures", [0])
    parser.add_argument("--textures", nargs="+", default=TEXTURES, choices=TEXTURES)
    parser.add_argument("--score-scales", nargs="+", default=["default"], help="values of wae_train's option")
    parser.add_argument("--maps", nargs="+", default=list(MAPS), choices=MAPS)
    args = parser.parse_args()
    product, results = Product(args.models, args.shell), Results(args.results)
    maps = {name: MAPS[name] for name in args.maps}
    for texture in args.textures:
        for seed in args.seeds:
            for scales in args.score_scales:
                identity = {"texture": texture, "seed": seed, "score_scales": scales, "training": TRAINING}
                if all(results.find({**identity, "map": name}) for name in maps):
                    continue
                training = {**TRAINING, "seed": seed, **({} if scales == "default" else {"score_scales": scales})}
                for place, values in measure(product, args.data, texture, training, maps):
                    results.add({**identity, **place}, values)
    for scales in args.score_scales:
        print(f"\nscore_scales: {scales}\n\n| texture | defect | {' | '.join(f'`{name}`' for name in maps)} |")
        print("|---|---|" + "---|" * len(maps))
        for texture in (*args.textures, "mean"):
            for kind in ("all", *KINDS):
                cells = []
                for name in maps:
                    rows = [row for row in results.rows if (row["kind"], row["map"], row["score_scales"]) == (kind, name, scales)
                            and row["seed"] in args.seeds and row["texture"] in (args.textures if texture == "mean" else [texture])]
                    areas = [a for a in ("image_auroc", "pixel_auroc", "aupro", "found", "false") if all(a in row for row in rows)]
                    cells.append(" ".join(f"{np.mean([row[area] for row in rows]):.3f}" for area in areas))
                print(f"| {texture} | {kind} | {' | '.join(cells)} |")
    print("\nEach cell: image AUROC, pixel AUROC, AUPRO up to a false positive rate of 0.3; mean over seeds. Of the anomaly map,\n"
          f"also the share of defects touched by its mask at alpha {ALPHA}, and of normal crops with any place marked.")


if __name__ == "__main__":
    main()
