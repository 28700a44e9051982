"""Triton kernels of the attention over blocks."""
