"""Parts of the protocol; each has `run(scale)`, which yields entries to measure."""
