"""The network as a GPU runs it: weights packed, norms folded, kernels fused; inference only."""

from mosaic_core.model.fused.network import FusedNetwork, Precision, unsupported

__all__ = ["FusedNetwork", "Precision", "unsupported"]
