#!/usr/bin/env python3
"""Runs models of images in PyTorch, by fixtures/golden/reference.py, and makes some.

usage: torch_models.py run DIR IMAGES.parquet NAME...   runs DIR/NAME.safetensors on the PNG images of column `image`
       torch_models.py make DIR                         makes models and images, and runs them
needs: pip install torch safetensors pyarrow pillow numpy

Writes what each model gives as DIR/NAME.values.parquet: `code`, `image` and `cost`, in float64. `make` also writes images as
DIR/ARCHITECTURE.images.parquet. Prints JSON: of each model, what load_state_dict missed and did not expect.
"""
import io
import json
import math
import pathlib
import sys

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "golden"))
from reference import SCALES, Wae, squared_cost

# Odd sizes of three channels, and the paper's four stages down and two up; as the golden networks, but larger.
ARCHITECTURES = {
    "odd": dict(shape=(13, 9, 3), latent=4, down=[8, 16], up=[16, 8], kernel=5),
    "deep": dict(shape=(28, 28, 1), latent=8, down=[4, 6, 8, 10], up=[10, 8, 6], kernel=4),
}
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
ROWS = 40


def module(config):
    """The reference network of a model file's configuration."""
    image, network = config["image"], config["network"]
    return Wae(
        image["height"], image["width"], image["channels"], config["latent_dim"],
        network["encoder_channels"], network["decoder_channels"], network["kernel"],
    )


@torch.no_grad()
def run(path, images):
    """Writes what the model of a file gives for images (N, C, H, W); returns what load_state_dict says."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about["format"] in ("wae/1", "wae/2"), about["format"]
    net = module(json.loads(about["config"]))
    keys = net.load_state_dict(load_file(path), strict=False)
    # In float64, so that any difference is the engine's.
    net, images = net.double().eval(), images.double()
    codes = net.encode(images)
    decoded = net.decode(codes)
    table = {
        "code": pa.array(list(codes.numpy())),
        "image": pa.array(list(decoded.permute(0, 2, 3, 1).flatten(1).numpy())),  # (H, W, C), as SQL gives it
        "cost": pa.array(squared_cost(images, decoded).numpy()),
    }
    pq.write_table(pa.table(table), path.with_suffix(".values.parquet"))
    return {"missing": keys.missing_keys, "unexpected": keys.unexpected_keys}


def decode(source):
    """The grey PNG images of a Parquet file, (N, 1, H, W) in [0, 1]."""
    from PIL import Image

    rows = pq.read_table(source, columns=["image"])["image"].combine_chunks().field("bytes").to_pylist()
    gray = numpy.stack([numpy.asarray(Image.open(io.BytesIO(row))) for row in rows])
    return torch.from_numpy(gray)[:, None].float() / 255


def make(folder, name, shape, latent, down, up, kernel):
    """Writes one network of random weights and running statistics in each type, and images; runs it on them."""
    height, width, channels = shape
    config = {
        "image": {"height": height, "width": width, "channels": channels},
        "latent_dim": latent,
        "network": {"encoder_channels": down, "decoder_channels": up, "kernel": kernel},
        "encoder": "deterministic",
        "prior": {"kind": "normal", "scale": 1.0},
        "cost": "squared",
        "objective": {"kind": "mmd", "kernel": "imq", "scales": list(SCALES), "lambda": 200.0},
    }
    net = module(config)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0, 0.2)
            torch.nn.init.normal_(layer.running_mean, 0, 0.3)
            torch.nn.init.uniform_(layer.running_var, 0.2, 2)
    images = torch.rand(ROWS, channels, height, width)
    tensor = pa.fixed_shape_tensor(pa.float32(), shape)
    values = images.permute(0, 2, 3, 1).flatten().numpy()  # (N, H, W, C)
    column = pa.ExtensionArray.from_storage(tensor, pa.FixedSizeListArray.from_arrays(pa.array(values), math.prod(shape)))
    pq.write_table(pa.table({"image": column}), folder / f"{name}.images.parquet")
    answers = {}
    for type_name, dtype in TYPES.items():
        path = folder / f"{name}_{type_name}.safetensors"
        weights = {k: v.to(dtype) for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
        save_file(weights, path, {"format": "wae/1", "config": json.dumps(config)})
        answers[path.stem] = run(path, images)
    return answers


def main(command, folder, *args):
    torch.set_num_threads(1)  # the work is small, and threads that wait for a busy core slow it down
    folder = pathlib.Path(folder)
    if command == "run":
        images = decode(args[0])
        answers = {name: run(folder / f"{name}.safetensors", images) for name in args[1:]}
    else:
        torch.manual_seed(0)
        answers = {}
        for name, architecture in ARCHITECTURES.items():
            answers |= make(folder, name, **architecture)
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
