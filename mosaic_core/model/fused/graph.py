"""A step recorded once as a CUDA graph: for few members or small models launches are what waits."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaic_core.model.fused.network import FusedNetwork

_WARM_UP = 3
"""Steps before recording: kernels are compiled and cuBLAS takes its workspace."""


class RecordedNetwork:
    """`FusedNetwork` replayed from one graph for each shape of its inputs.

    Each graph keeps its activations, so that only a few shapes should be asked for: those of the
    batches of one forecast.
    """

    def __init__(self, network: FusedNetwork) -> None:
        self.network = network
        self._records: dict[tuple[torch.Size, bool], _Record] = {}

    def __call__(self, states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        """See `Mosaic.forward`."""
        key = states.shape, z is None
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record(self.network, states, day_year, z)
        return record.replay(states, day_year, z)


class _Record:
    def __init__(
        self, network: FusedNetwork, states: Tensor, day_year: Tensor, z: Tensor | None
    ) -> None:
        self.inputs = (states.clone(), day_year.clone(), None if z is None else z.clone())
        self.graph = torch.cuda.CUDAGraph()
        device = states.device
        with torch.cuda.device(device):
            aside = torch.cuda.Stream(device)
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    network(*self.inputs)
            torch.cuda.current_stream(device).wait_stream(aside)
            # Copies of the states before go on in other threads meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.out = network(*self.inputs)

    def replay(self, *given: Tensor | None) -> Tensor:
        for own, new in zip(self.inputs, given, strict=True):
            if own is not None and new is not None:
                own.copy_(new)
        self.graph.replay()
        return self.out.clone()
