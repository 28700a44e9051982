"""Time and memory against the number of tokens: attention, whole steps, and the finer models.

Attention of one narrow layer by ours, FlexAttention and dense attention, lists of the same length
at every resolution; one step of a narrow network; what the configurations of 0.5 and 0.25
degrees take. Each measurement in a process of its own, on a CUDA device if there is one; those
that the log already has are not repeated.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.cases import Case, case, flex, grouped
from benchmarks.gpu.measuring import Result, Scale, peaked, timed
from benchmarks.gpu.networks import Step, inputs, loaded
from benchmarks.gpu.operations import member_step, parameters
from benchmarks.record import peak_gb, record
from mosaic_core.model.config import GridConfig, ModelConfig, StageConfig

ATTENTION = {"ours": (16, 32, 64, 128), "flex": (16, 32, 64), "dense": (8, 16, 32, 64)}
STEP = (16, 32, 64)
MODELS = ("hres", "half_degree", "quarter_degree")
LONGEST = 900.0
"""Seconds after which a measurement is given up."""


def layer(nside: int) -> StageConfig:
    """Every query attends to 256 tokens around it and to 12 listed blocks of 64."""
    return StageConfig(nside, 256, 4, 1, local=256, block=64, selected=12, encoder_depth=1)


def narrow(nside: int) -> ModelConfig:
    """Three stages; grid and meshes grow together."""
    ratios = {"local": 192, "block": 64, "mlp_ratio": 4.0}
    return ModelConfig(
        name=f"narrow{nside}",
        step_hours=6,
        history=2,
        neighbours=8,
        grid=GridConfig(nlon=15 * nside // 4, nlat=15 * nside // 8 + 1),
        channels=("2m_temperature", "mean_sea_level_pressure", "geopotential_500"),
        stages=(
            StageConfig(nside, 64, 4, 2, selected=12, encoder_depth=1, decoder_depth=1, **ratios),
            StageConfig(
                nside // 2, 96, 6, 2, selected=8, encoder_depth=1, decoder_depth=1, **ratios
            ),
            StageConfig(nside // 4, 128, 8, 2, selected=3, encoder_depth=1, **ratios),
        ),
    )  # type: ignore[arg-type]


def attention(contender: str, nside: int) -> Result:
    scale = Scale.named("full")
    dtype = torch.float16 if scale.device.type == "cuda" else torch.float32
    given = case(scale, 1, stage=layer(nside), dtype=dtype)
    result = _measured(scale, _attend(contender, scale, given), warm=contender != "dense")
    return result | {"tokens": given.stage.tokens}


def _attend(contender: str, scale: Scale, given: Case) -> Callable[[], Tensor]:
    if contender == "dense":
        return lambda: grouped(given.q, given.k, given.v)
    if contender == "flex":
        from torch.nn.attention.flex_attention import flex_attention

        return flex(given, scale.compiled(flex_attention))
    from mosaic_core.kernels.attention.gated import gated_attention

    return lambda: gated_attention(
        given.q, given.k, given.v, given.logits, given.compressed, given.lists,
        block_size=given.stage.block, local=given.stage.local,
    )  # fmt: skip


def step(_: str, nside: int) -> Result:
    """The whole network, float32 module by module on a CPU, fused in float16 on a GPU."""
    scale, config = Scale.named("full"), narrow(nside)
    network = loaded(scale, config).network
    forward: Step = network
    if scale.device.type == "cuda":
        from mosaic_core.model.fused import FusedNetwork

        forward = FusedNetwork(network, "float16")
    given = inputs(scale, config, 1)
    return _measured(scale, lambda: forward(*given)) | {"tokens": config.stages[0].tokens}


def _measured(scale: Scale, call: Callable[[], Tensor], warm: bool = True) -> Result:
    """Least time of some calls (after one, if `warm`), and the GB that a call adds at its peak."""
    with torch.no_grad():
        if scale.device.type == "cuda":
            call()
            before = torch.cuda.memory_allocated() / 1e9
            _, peak = peaked(call, scale)
            return {"seconds": timed(call, scale)["ms"] / 1e3, "peak_gb": peak - before}
        if warm:
            call()
        before = _resident("VmRSS", reset=True)
        times = [_seconds(call)]
        peak = _resident("VmHWM") - before
        while len(times) < 5 and sum(times) < 2:
            times.append(_seconds(call))
    return {"seconds": min(times), "calls": len(times), "peak_gb": peak}


def _seconds(call: Callable[[], Tensor]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _resident(name: str, reset: bool = False) -> float:
    """GB of memory of this process now (VmRSS), or at most since the last reset (VmHWM)."""
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier call left is not the next one's
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1e6


def model(name: str, _: int) -> Result:
    """Counts of a configuration, and what making its tables takes."""
    from mosaic_core.mesh.healpix import HealpixMesh
    from mosaic_core.mesh.neighbours import grid_to_mesh, mesh_to_grid
    from mosaic_core.model.network import Mosaic

    config = ModelConfig.load(name)
    begin = time.process_time()
    for table in (grid_to_mesh, mesh_to_grid):
        table(config.lat_lon, HealpixMesh(config.stages[0].nside), config.neighbours)
    neighbours = time.process_time() - begin
    static = torch.zeros((*config.lat_lon.shape, len(config.static)))
    with torch.device("meta"):
        network = Mosaic(config, static)
    outline = time.process_time() - begin
    assert parameters(config) == sum(p.numel() for p in network.parameters())
    operations, tokens = sum(member_step(config).values()), config.stages[0].tokens
    peak = peak_gb()
    return {
        "tokens": tokens,
        "grid_points": config.lat_lon.shape[0] * config.lat_lon.shape[1],
        "parameters": parameters(config),
        "tflop_per_member_step": operations / 1e12,
        "mflop_per_token": operations / tokens / 1e6,
        "neighbour_seconds": neighbours,
        "network_seconds": outline,
        "tables_peak_gb": peak,
    }


KINDS = {"attention": attention, "step": step, "model": model}


def apart(log: Path, kind: str, contender: str, nside: int = 0) -> Result:
    """Measured in a new process unless `log` has it; why not, if it fails or takes too long."""
    name = f"{kind} {contender} {nside} "
    lines = log.read_text().splitlines() if log.is_file() else []
    for line in lines:
        if line.startswith(name):
            return dict(json.loads(line.removeprefix(name)))
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", kind, contender, str(nside)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return {"missing": f"not done after {LONGEST:.0f} s"}
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    with log.open("a") as stream:
        stream.write(name + done.stdout.strip() + "\n")
    return dict(json.loads(done.stdout))


def exponent(series: Mapping[str, Any], quantity: str) -> float | None:
    """Slope of the logarithm against that of the tokens; 1 is linear. None under three points."""
    found = [(r["tokens"], r[quantity]) for r in series.values() if r.get(quantity, 0) > 0]
    if len(found) < 3:
        return None
    tokens, values = np.log(np.array(found)).T
    return float(np.polyfit(tokens, values, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--log", type=Path, help="file of measurements to go on from")
    given = parser.parse_args()
    if given.one:
        kind, contender, nside = given.one
        torch.manual_seed(0)
        print(json.dumps(KINDS[kind](contender, int(nside))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(partial(apart, given.log or Path(folder) / "log"))


def write(measured: Callable[..., Result]) -> None:
    """Every measurement, how they grow, and the record."""
    series: dict[str, dict[str, Result]] = {}
    for contender, nsides in ATTENTION.items():
        series[f"attention, {contender}"] = {
            f"nside {n}": measured("attention", contender, n) for n in nsides
        }
    series["step, ours"] = {f"nside {n}": measured("step", "ours", n) for n in STEP}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record(
        "scaling" if device == "cpu" else "scaling_gpu",
        "OMP_NUM_THREADS=1 python -m benchmarks.scaling",
        {
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread",
            "layer": "4 heads of 64, 1 kv head; 256 local tokens, 12 listed blocks of 64",
            "seconds": "of the device" if device == "cuda" else "of the processor, least of calls",
            "series": series,
            "exponents": {
                name: {q: exponent(points, q) for q in ("seconds", "peak_gb")}
                for name, points in series.items()
            },
            "models": {name: measured("model", name) for name in MODELS},
        },
        ("torch", "numpy", "scipy"),
    )


if __name__ == "__main__":
    main()
