"""A model file of format `wae/2` in PyTorch (pip install torch safetensors), in float64:
codes, reconstructions, maps, scores = Model("m.safetensors")(rows)  # (N, H, W, C): pixels in [0, 1], or features as they are"""
import json, math, pathlib, sys, torch
from safetensors.torch import safe_open
from torch import nn
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "fixtures/golden"))
from reference import Wae

class Convolutions(Wae):
    def decode(self, z):  # without the sigmoid
        x = torch.relu(self.decoder["stem"](z)).view(len(z), self.stem, *self.sizes[0])
        for i in range(self.up): x = self.decoder[str(i)](x, self.sizes[i + 1])
        return self.decoder["out"](x, self.sizes[-1])

class Layer(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs, eps=1e-5)
    def forward(self, x): return torch.relu(self.norm(super().forward(x)))

class Dense(nn.Module):
    def __init__(self, shape, latent, widths):
        super().__init__()
        def stack(sizes, last, outputs):
            layers = {str(i): Layer(a, b) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))}
            return nn.ModuleDict(layers | {last: nn.Linear(sizes[-1], outputs)})
        self.shape = shape  # (C, H, W)
        self.encoder = stack([math.prod(shape), *widths], "head", latent)
        self.decoder = stack([latent, *reversed(widths)], "out", math.prod(shape))
    def encode(self, x): return nn.Sequential(*self.encoder.values())(x.flatten(1))
    def decode(self, z): return nn.Sequential(*self.decoder.values())(z).view(-1, *self.shape)

def smooth(u, sigma):
    """A separable Gaussian over the last two axes; beyond a border the field is mirrored (d c b a | a b c d)."""
    taps = torch.arange(-math.floor(3 * sigma + 0.5), math.floor(3 * sigma + 0.5) + 1)
    weights = torch.softmax(-0.5 * (taps.double() / sigma) ** 2, 0)
    def matrix(n):
        place = (torch.arange(n)[:, None] + taps) % (2 * n)
        return torch.zeros(n, n, dtype=torch.float64).scatter_add(1, torch.minimum(place, 2 * n - 1 - place), weights.expand(n, -1))
    return matrix(u.shape[-2]) @ u @ matrix(u.shape[-1]).T

def dissimilarity(x, y):
    """DSSIM at each value, (N, C, H, W), over 7×7 pixels; there is 0 beyond the border."""
    mean = lambda v: nn.functional.avg_pool2d(v, 7, 1, 3)
    squares, product = mean(x) ** 2 + mean(y) ** 2, mean(x) * mean(y)
    structure = (2 * (mean(x * y) - product) + 9e-4) / ((mean(x * x + y * y) - squares).clamp(min=0) + 9e-4)
    return (1 - (2 * product + 1e-4) / (squares + 1e-4) * structure) / 2

class Model:
    def __init__(self, path):
        with safe_open(path, "pt") as file:
            about, self.tensors = file.metadata(), {name: file.get_tensor(name).double() for name in file.keys()}
        config = self.config = json.loads(about["config"])
        assert (about["format"], config["encoder"], config["prior"]["kind"]) == ("wae/2", "deterministic", "normal"), about
        h, w, c = (config["image"][key] for key in ("height", "width", "channels"))
        layers, latent = list(config["network"].values()), config["latent_dim"]  # of convolutions: encoder, decoder, kernel
        self.net = Dense((c, h, w), latent, *layers) if "dense" in config["network"] else Convolutions(h, w, c, latent, *layers)
        missing = self.net.double().eval().requires_grad_(False).load_state_dict(self.tensors, strict=False).missing_keys
        assert all(key.endswith("num_batches_tracked") for key in missing), missing
        held_out = self.tensors.get("calibration.anomaly_scores", torch.zeros(0))
        p_values = (1 + (held_out >= held_out[:, None]).sum(1)) / (1 + len(held_out))
        self.threshold = held_out[p_values > 0.01].max() if len(held_out) else 0.0
    def __call__(self, rows):
        tensors, features, x = self.tensors, "input" in self.config, rows.double()
        if features: x = (x - tensors["input.mean"]) @ tensors["input.projection"] / tensors["input.deviation"]
        x = x.permute(0, 3, 1, 2)
        codes = self.net.encode(x)
        y = self.net.decode(codes) if features else self.net.decode(codes).sigmoid()
        if features:
            factor = torch.linalg.cholesky(tensors["score.covariance"])
            terms = torch.linalg.solve_triangular(factor, (x - y).flatten(2), upper=False).square().sum(1).view(x[:, 0].shape)
        else: terms = ((x - y) ** 2 + dissimilarity(x, y) / 2).sum(1)
        u, side, fields = terms / tensors["score.usual"], math.sqrt(terms[0].numel()), []
        for scale, (m, q) in zip(self.config["score_scales"], tensors["score.levels"]):
            size, power = smooth(u, side / (32 if isinstance(scale, str) else scale)), {"mean": 1, "whole": 4}.get(scale)
            if power: size = size / size.amax((1, 2), True) * size.pow(power).mean((1, 2), True).pow(1 / power)
            fields.append((size.clamp(min=1e-12).log() - m) / (q - m).clamp(min=1e-3))
        d = torch.stack(fields).amax(0) - self.threshold
        maps = (1 + d / (1 + d.abs())) / 2
        return codes, y.permute(0, 2, 3, 1), maps, maps.amax((1, 2))
