"""How a network makes a step on its device: fused kernels where they run, its modules elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mosaic_core.errors import DeviceError
from mosaic_core.kernels import dispatch
from mosaic_core.kernels.projections.int8 import declined_by_chip
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.fused import FusedNetwork, Precision, unsupported
from mosaic_core.model.fused.graph import RecordedNetwork
from mosaic_core.model.network import Mosaic

Forward = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""States, phases and noise to the next state, as `Mosaic.forward`."""

_log = logging.getLogger(__name__)


def not_fused(config: ModelConfig, device: torch.device, precision: Precision) -> str | None:
    """Why steps of a variant do not go through the fused kernels; None if they do."""
    if precision == "float32":
        return "float32 runs module by module"
    if dispatch.forced() not in (None, "triton"):
        return f"the kernels are {dispatch.forced()!r} by name"
    if device.type != "cuda":
        return f"the fused network needs a CUDA device, this one is on {device.type}"
    if reason := dispatch.declined("triton", torch.zeros(1, dtype=torch.float16, device=device)):
        return reason
    if precision == "int8" and (reason := declined_by_chip(device)):
        return reason
    return unsupported(config)


def forward_of(network: Mosaic, precision: Precision, recorded: bool = False) -> Forward:
    """The way in which `network` makes its steps; weights are packed here, once.

    Args:
        recorded: replay a CUDA graph instead of launching kernels; only for the fused network.

    Raises:
        DeviceError: `int8` where the fused network does not run.
    """
    device = network.static_vars.device
    reason = not_fused(network.config, device, precision)
    if reason is None:
        fused = FusedNetwork(network, precision)
        return RecordedNetwork(fused) if recorded else fused
    if precision == "int8":
        raise DeviceError(
            f"linear maps in 8 bits: {reason}",
            "a host on which the fused network runs",
            "set `precision: float16` or `float32`",
        )
    _log.info("module by module in %s: %s", precision, reason)
    if precision == "float32":
        return network
    cast = torch.autocast(device.type, getattr(torch, precision))

    def forward(states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        with cast:
            out: Tensor = network(states, day_year, z)
        return out.float()

    return forward
