"""What 16 and 8 bits leave of a step: modules under autocast, and the fused network.

Against float64, on the CPU, by the twins of the kernels; the same input, noise and weights.

    python -m benchmarks.rounding
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.record import record
from mosaic_core.model import checkpoint
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.fused import FusedNetwork
from mosaic_core.model.network import Mosaic
from mosaic_core.profile import Profile
from tests.model import golden_model

GOLDEN = Path("tests/data/parity")
Inputs = tuple[Tensor, Tensor, Tensor]


def golden(variant: str) -> tuple[Mosaic, Inputs]:
    arrays = golden_model.arrays(GOLDEN / variant / "forward.npz")
    inputs = arrays["x"][:, 0], arrays["day_year_time"][:, 0], arrays["z"]
    return golden_model.load(GOLDEN, variant).network, inputs


def demo() -> tuple[Mosaic, Inputs]:
    """The shipped model, on white noise of unit variance: harder than weather."""
    path = Profile.load("demo").weights_file
    assert path is not None
    config, file = ModelConfig.load("demo"), checkpoint.read_model(path)
    version = checkpoint.version_of(config, file, path)
    model = checkpoint.load_model(config, file, version, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    shape = (2, config.history, *config.lat_lon.shape, len(config.channel_set))
    states = torch.randn(shape, generator=generator)
    phases = torch.rand(2, 2, generator=generator)
    return model.network, (states, phases, torch.randn(2, config.noise_dim, generator=generator))


def autocast(network: Mosaic) -> Callable[..., Tensor]:
    def forward(*inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            out: Tensor = network(*inputs)
        return out

    return forward


def errors(found: Tensor, exact: Tensor) -> dict[str, float]:
    """Root mean square over the channels of a point, over that of the whole field."""
    points = (found.double() - exact).square().mean(-1).sqrt() / exact.square().mean().sqrt()
    return {"median": float(points.median()), "largest": float(points.max())}


def main() -> None:
    result = {}
    models = {variant: golden(variant) for variant in golden_model.VARIANTS} | {"demo": demo()}
    for name, (network, inputs) in models.items():
        with torch.no_grad():
            exact = copy.deepcopy(network).double()(*(x.double() for x in inputs))
            result[name] = {
                "modules, autocast float16": errors(autocast(network)(*inputs), exact),
                **{
                    f"fused, {kind}": errors(FusedNetwork(network, kind)(*inputs), exact)
                    for kind in ("float32", "float16", "int8")
                },
            }
    record("rounding", "python -m benchmarks.rounding", result, ("torch", "numpy"))


if __name__ == "__main__":
    main()
