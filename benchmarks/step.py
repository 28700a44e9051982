"""One member, one 6 h step of the full published configuration on the CPU.

The blocked kernels against the straightforward formulation, which materialises every gathered
neighbour, score and hidden layer; each in a process of its own, alternating, same weights.

    python -m benchmarks.step [--threads 2] [--repeat 1]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.record import peak_gb, record


def measure(formulation: str, threads: int) -> dict[str, float]:
    from mosaic_core.kernels.dispatch import forced_backend
    from mosaic_core.model.checkpoint import load_model, untrained, version_of
    from mosaic_core.model.config import ModelConfig

    torch.set_num_threads(threads)
    config = ModelConfig.load("hres")
    channels = len(config.channel_set)
    generator = torch.Generator().manual_seed(0)
    static = torch.randn(*config.lat_lon.shape, 3, generator=generator)
    file = untrained(config, torch.zeros(channels), torch.ones(channels), static)
    model = load_model(config, file, version_of(config, file), torch.device("cpu"))
    del file
    states = torch.randn(1, config.history, *config.lat_lon.shape, channels, generator=generator)
    z = torch.randn(1, config.noise_dim, generator=generator)
    backend = "reference" if formulation == "straightforward" else None
    wall, used = time.perf_counter(), time.process_time()
    with torch.no_grad(), forced_backend(backend):  # type: ignore[arg-type]
        out = model.network(states, torch.zeros(1, 2), z)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - used,
        "peak_gb": peak_gb(),
        "checksum": float(out.double().abs().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--one", choices=["blocked", "straightforward"])
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.threads)))
        return
    runs: dict[str, list[dict[str, float]]] = {"blocked": [], "straightforward": []}
    for _ in range(given.repeat):
        for formulation, results in runs.items():
            command = [sys.executable, "-m", "benchmarks.step", "--one", formulation]
            done = subprocess.run(
                [*command, "--threads", str(given.threads)],
                capture_output=True,
                text=True,
                check=True,
            )
            results.append(json.loads(done.stdout))
            print(formulation, done.stdout.strip(), flush=True)
    medians = {
        name: {key: statistics.median(r[key] for r in results) for key in results[0]}
        for name, results in runs.items()
    }
    ours, plain = medians["blocked"], medians["straightforward"]
    record(
        "step",
        f"python -m benchmarks.step --threads {given.threads} --repeat {given.repeat}",
        {
            "configuration": "hres, 214 M parameters, one member, one step, float32",
            "threads": given.threads,
            **medians,
            "ratios": {k: ours[k] / plain[k] for k in ("seconds", "cpu_seconds", "peak_gb")},
            "relative_difference_of_mean": abs(ours["checksum"] / plain["checksum"] - 1),
        },
        ("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
