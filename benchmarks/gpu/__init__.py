"""The protocol of one GPU run: what is right, how fast, and how near the chip's limits.

    python -m benchmarks.gpu [--out FILE] [--sections a,b] [--minutes 9]

Each module of `sections` is one part of it, in a process of its own.
"""
