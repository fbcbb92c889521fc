#!/usr/bin/env python3
"""AUROC of the product on vectors, beside Mahalanobis distance, Isolation Forest and PCA of scikit-learn.

usage: fixtures/make.py full target/data fashion && cargo build --bin wae
       vectors.py [--sets digits cancer codes] [--seeds 0 1 2] [--data target/data/fashion]
needs: pip install numpy pyarrow scikit-learn

digits  scikit-learn's digits as 64 numbers: each class in turn is normal, the nine others are strange; mean of ten
cancer  scikit-learn's breast cancer, 30 numbers: benign is normal, malignant is strange
codes   codes of 32 numbers that another model gives to Fashion-MNIST: the model is trained on all clothes, shoes and bags of the
        training file; of its codes clothes are normal, and shoes and bags of the test file are strange
Of normal rows, 70 % are trained on (of `codes`, those of the training file), drawn anew for each seed; the others and all
strange rows are scored. The product gets the numbers as they are; for scikit-learn each is divided by its deviation over
training rows. Every method has one setting for all sets.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from metrics import auroc
from product import Product, Results, arguments, options
from sklearn.covariance import EmpiricalCovariance
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

TRAINING = {"input": "features", "epochs": 100, "batch_size": 16}
# More rows need fewer passes.
TRAINING_OF_MANY = {"input": "features", "epochs": 10, "batch_size": 100}
MANY = 5000
SCORES = ("wae_anomaly_score", "wae_reconstruction_cost", "wae_latent_distance")
CLOTHES = (0, 1, 2, 3, 4, 6)


def split(values, normal, seed):
    """Training rows, scored rows, and which of these are strange."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(normal))
    trained = order[:round(0.7 * len(order))]
    scored = np.setdiff1d(np.arange(len(values)), trained)
    return values[trained], values[scored], ~normal[scored]


def digits(product, args, seed):
    data = load_digits()
    return [split(data.data, data.target == label, seed) for label in range(10)]


def cancer(product, args, seed):
    data = load_breast_cancer()
    return [split(data.data, data.target == 1, seed)]


def codes(product, args, seed):
    source = {file: f"'{args.data}/{file}.parquet'" for file in ("train", "test")}
    model, files = f"embedding-{seed}", {file: product.models / f"codes-{file}.parquet" for file in source}
    training = {"latent_dim": 32, "epochs": 4, "seed": seed, "overwrite": True}
    product.run(f"SELECT epoch FROM wae_train((SELECT image FROM {source['train']}), model => '{model}'{options(training)})",
                *(f"COPY (SELECT label, wae_encode(image, '{model}') AS code FROM {source[file]}) TO '{files[file]}'" for file in source))
    rows = {}
    for file, path in files.items():
        table = pq.read_table(path)
        rows[file] = np.stack(table["code"].to_numpy()), np.isin(table["label"].to_numpy(), CLOTHES)
    (trained, clothes), (scored, normal) = rows["train"], rows["test"]
    return [(trained[clothes], scored, ~normal)]


def of_product(product, trained, scored, strange, seed):
    def column(values):
        values = values.astype(np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    files = [product.models / f"vectors-{file}.parquet" for file in ("train", "test")]
    pq.write_table(pa.table({"x": column(trained)}), files[0])
    pq.write_table(pa.table({"x": column(scored), "strange": strange}), files[1])
    training = {**(TRAINING_OF_MANY if len(trained) > MANY else TRAINING), "seed": seed, "overwrite": True}
    areas = ", ".join(f"auroc({score}(x, 'vectors'), strange) AS {score}" for score in SCORES)
    return product.run(f"SELECT epoch FROM wae_train((SELECT x FROM '{files[0]}'), model => 'vectors'{options(training)})",
                       f"SELECT {areas} FROM '{files[1]}'")[-1]


def of_scikit_learn(trained, scored, strange, seed):
    deviation = trained.std(0)
    varying = deviation > 0
    trained, scored = (values[:, varying] / deviation[varying] for values in (trained, scored))
    pca = PCA(0.95, svd_solver="full").fit(trained)  # the components that hold 95 % of the variance
    scores = {
        "Mahalanobis": EmpiricalCovariance().fit(trained).mahalanobis(scored),
        "Isolation Forest": -IsolationForest(random_state=seed).fit(trained).score_samples(scored),
        "PCA": ((scored - pca.inverse_transform(pca.transform(scored))) ** 2).sum(1),
    }
    return {name: auroc(values, strange) for name, values in scores.items()}


def main():
    sets = {"digits": digits, "cancer": cancer, "codes": codes}
    parser = arguments("vectors", __doc__, "target/data/fashion", [0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(sets), choices=sets)
    args = parser.parse_args()
    product, results = Product(args.models, args.shell), Results(args.results)
    for name in args.sets:
        for seed in args.seeds:
            if results.find({"set": name, "seed": seed}):
                continue
            areas = [of_product(product, *part, seed) | of_scikit_learn(*part, seed) for part in sets[name](product, args, seed)]
            results.add({"set": name, "seed": seed}, {method: np.mean([part[method] for part in areas]) for method in areas[0]})
    methods = [*SCORES, "Mahalanobis", "Isolation Forest", "PCA"]
    print(f"\n| | {' | '.join(args.sets)} |\n|---|" + "---|" * len(args.sets))
    for method in methods:
        rows = [[results.find({"set": name, "seed": seed})[method] for seed in args.seeds] for name in args.sets]
        print(f"| {method} | {' | '.join(f'{np.mean(areas):.3f} ± {np.std(areas):.3f}' for areas in rows)} |")


if __name__ == "__main__":
    main()
