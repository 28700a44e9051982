"""From the start of a process to its first step, kernels compiled anew and from the cache."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Literal, cast

from benchmarks.gpu.measuring import Measures, Result, Scale


def run(scale: Scale) -> Measures:
    importlib.import_module("benchmarks.gpu.networks")  # what the fresh process needs is here
    with tempfile.TemporaryDirectory() as cache:
        for name in scale.pick(("empty_cache", "warm_cache"), ("empty_cache",)):
            yield name, partial(_fresh, scale, cache)


def _fresh(scale: Scale, cache: str) -> Result:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.sections.first_step", scale.name],
        env={**os.environ, "TRITON_CACHE_DIR": cache},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[:-21:-1]))
    return {"seconds": time.perf_counter() - begin, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Seconds of each part; weights are random, so that reading them is not among these."""
    marks = {"begin": time.perf_counter()}
    scale = Scale.named(cast(Literal["tiny", "full"], sys.argv[1]))
    from benchmarks.gpu.networks import inputs, model
    from benchmarks.gpu.sections.step import ours

    marks["imported"] = time.perf_counter()
    loaded = model(scale)
    step = ours(scale, loaded.network, "float16")
    given = inputs(scale, loaded.config, scale.pick(24, 1))
    marks["ready"] = time.perf_counter()
    for name in ("first_step", "second_step"):
        float(step(*given).float().mean())
        marks[name] = time.perf_counter()
    names = list(marks)
    spent = {b: marks[b] - marks[a] for a, b in itertools.pairwise(names)}
    print(json.dumps({f"{name}_seconds": value for name, value in spent.items()}))


if __name__ == "__main__":
    main()
