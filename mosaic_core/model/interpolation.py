"""Cross-attention between the longitude-latitude grid and the mesh."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mosaic_core.kernels.interpolation.neighbours import neighbour_attention
from mosaic_core.kernels.interpolation.tiles import Plan, Tiles, plan
from mosaic_core.mesh.neighbours import directions
from mosaic_core.model.layers import RMSNorm, linear


class Interpolation(nn.Module):
    """Each target attends to its k nearest sources; its query is the direction they lie in.

    q = Wq r has no bias and r has three components, so q . k = r . (Wq^T k): keys are projected
    to three numbers a head at once.
    """

    neighbors: Tensor
    rel_pos: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        neighbours: NDArray[np.int64],
        sources: NDArray[np.float32],
        targets: NDArray[np.float32],
    ) -> None:
        """neighbours (target, k); sources and targets are unit vectors (point, 3)."""
        super().__init__()
        self.heads = heads
        self.norm = RMSNorm()
        self.to_q = linear(3, dim)
        self.to_kv = linear(dim, 2 * dim)
        self.to_o = linear(dim, dim)
        self._sources, self._targets = sources, targets
        chords = torch.zeros((*neighbours.shape, 3), device="cpu")
        self.register_buffer("neighbors", torch.from_numpy(neighbours.copy()), persistent=False)
        self.register_buffer("rel_pos", chords, persistent=False)
        self.point_at_neighbours()

    def point_at_neighbours(self, chords: Tensor | None = None) -> None:
        """Compute what follows from the neighbours anew, after they have changed.

        Args:
            chords: the directions, where they are given and not computed.
        """
        neighbours = self.neighbors.cpu().numpy()
        if chords is None:
            chords = torch.from_numpy(directions(self._targets, self._sources, neighbours))
        self.rel_pos.copy_(chords)
        for side, tiles in plan(neighbours, self._sources, self._targets)._asdict().items():
            for name, table in tiles._asdict().items():
                table = table.to(self.neighbors.device)
                self.register_buffer(f"{side}_{name}", table, persistent=False)

    def plan(self) -> Plan:
        """Tiles of the targets and of the sources, where the module is."""

        def tiles(side: str) -> Tiles:
            return Tiles(*(getattr(self, f"{side}_{name}") for name in Tiles._fields))

        return Plan(tiles("targets"), tiles("sources"))

    def folded(self) -> tuple[Tensor, Tensor]:
        """The maps to kappa (3 heads, dim) and to values (dim, dim)."""
        to_key, to_value = self.to_kv.weight.chunk(2)
        width = to_key.shape[0] // self.heads
        queries = self.to_q.weight.view(self.heads, width, 3)
        keys = to_key.view(self.heads, width, -1)
        to_kappa = torch.einsum("hdc,hdi->hci", queries, keys) * width**-0.5
        return to_kappa.flatten(0, 1), to_value

    def gather(self, kappa: Tensor, values: Tensor) -> Tensor:
        """kappa (batch, source, head, 3), values (batch, source, head, width), by neighbours."""
        return neighbour_attention(kappa, values, self.neighbors, self.rel_pos, self.plan())

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, source, dim) -> (batch, target, dim)."""
        x = self.norm(x)
        to_kappa, to_value = self.folded()
        kappa = nn.functional.linear(x, to_kappa).unflatten(-1, (self.heads, 3))
        values = nn.functional.linear(x, to_value).unflatten(-1, (self.heads, -1))
        out: Tensor = self.to_o(self.gather(kappa, values).flatten(2))
        return out
