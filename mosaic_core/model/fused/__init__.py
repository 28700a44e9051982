"""The network as a GPU runs it: weights packed, norms folded, kernels fused; inference only."""

from mosaic_core.model.fused.network import FusedNetwork, unsupported

__all__ = ["FusedNetwork", "unsupported"]
