"""Triton kernels of the attention to neighbours."""
