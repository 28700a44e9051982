"""Triton kernels around the linear maps of attention."""
