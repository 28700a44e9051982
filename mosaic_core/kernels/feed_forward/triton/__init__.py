"""Triton kernels of the feed-forward layer."""
