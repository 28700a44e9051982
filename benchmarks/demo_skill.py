"""Skill of the demo model on cycles it never saw: scores, spread and spectra against the truth.

    OMP_NUM_THREADS=2 python -m benchmarks.demo_skill [--weights FILE] [--cycles 60] [--members 16]

The rollout runs in this process, without stores. `--no-record` prints only, for a look at a
checkpoint in training (`--cycles 8`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.record import record
from mosaic_core.analysis.initial_state import stack_values
from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.model import checkpoint
from mosaic_core.model.checkpoint import LoadedModel
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.forward import forward_of
from mosaic_core.model.fused import FusedNetwork
from mosaic_core.model.noise import batch_noise
from mosaic_core.model.rollout import rollout
from mosaic_core.profile import Profile
from mosaic_core.simulation.source import SimulatedSource
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.verification import climatology, figures
from mosaic_core.verification.energy import Energy
from mosaic_core.verification.ranks import rank_histogram
from mosaic_core.verification.regions import Region, Weights
from mosaic_core.verification.statistics import Average, scores, statistics

Array = NDArray[np.float64]
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "demo_skill.png"
HOURS = (24, 48, 72, 96, 120)
JUDGED = {
    "z500": "geopotential_500",
    "t850": "temperature_850",
    "u850": "u_component_of_wind_850",
    "msl": "mean_sea_level_pressure",
}
OTHERS = {
    "q700": "specific_humidity_700",
    "w500": "vertical_velocity_500",
    "v250": "v_component_of_wind_250",
    "t2m": "2m_temperature",
    "u10": "10m_u_component_of_wind",
}
LEVELS = (250, 500, 850)
SPECTRA_AT = (24, 120)
AFTER_RESTART = timedelta(days=30)


class Experiment:
    """One model, one run of the simulated atmosphere, many cycles."""

    def __init__(self, given: argparse.Namespace) -> None:
        profile = Profile.load(given.profile, given.set or ())
        self.given, self.seed = given, profile.seed
        self.config = ModelConfig.load(given.model or profile.model)
        grid = self.config.lat_lon
        self.source = SimulatedSource(
            {"truncation": given.truncation, "seed": 0, "grid": grid.shape}
        )
        self.model = self._model(Path(given.weights) if given.weights else profile.weights_file)
        network = self.model.network
        self.forward = (
            FusedNetwork(network, given.precision)
            if given.fused
            else forward_of(network, given.precision)
        )
        self.channels = self.config.channel_set
        self.harmonics = SphericalHarmonics(grid)
        self.weights = Weights.of(grid, {"global": Region()})
        self.scored = {k: v for k, v in {**JUDGED, **OTHERS}.items() if v in self.channels.names}
        self.order = [self.channels.index(name) for name in self.scored.values()]
        wanted = Channels.parse(self.scored.values())
        found = (
            climatology.Climatology.read(given.climatology)
            if given.climatology
            else climatology.shipped(self.source.provenance, grid)
        )
        self.climatology = found.of(wanted, grid) if found else None
        start = self.source.trajectory.start_time + AFTER_RESTART
        first = Cycle.parse(given.start) if given.start else Cycle(start)
        if first.init_time < start:
            raise SystemExit(f"{first} is less than {AFTER_RESTART.days} days after the restart")
        self.cycles = [first.shift(given.spacing_hours * i) for i in range(given.cycles)]
        self.average = {hours: Average() for hours in HOURS}
        self.ranks = {hours: Average() for hours in HOURS}
        self.energies: dict[tuple[int, int], list[Energy]] = {}

    def _model(self, path: Path | None) -> LoadedModel:
        config = self.config
        if path is None:
            mean, std = self.source.statistics(config.channel_set)
            static = self.source.static_fields(config.lat_lon).astype(np.float32)
            tensors = (torch.from_numpy(np.ascontiguousarray(a)) for a in (mean, std, static))
            file = checkpoint.untrained(config, *tensors)
        else:
            file = checkpoint.read_model(path)
        version = checkpoint.version_of(config, file, path)
        device = checkpoint.pick_device(self.given.device)
        return checkpoint.load_model(config, file, version, device)

    def forecast(self, cycle: Cycle) -> Iterator[tuple[int, Array, Array]]:
        """(hours, members (number, channel, latitude, longitude), first state) at each lead."""
        config, members = self.config, range(1, self.given.members + 1)
        times = cycle.history_times(config.history, config.step_hours)
        start = stack_values(self.source.fetch(self.channels, times), self.channels)
        analysis = start[-1].transpose(2, 1, 0).astype(np.float64)
        history = torch.from_numpy(start).to(self.model.device)
        history = history.expand(len(members), *start.shape)

        def noise(step: int) -> torch.Tensor:
            raw = batch_noise(self.seed, cycle, members, step, config.noise_dim)
            return torch.from_numpy(raw)

        steps = range(1, max(HOURS) // config.step_hours + 1)
        states = rollout(self.model, history, cycle.init_time, noise, steps, self.forward)
        for step, state in zip(steps, states, strict=True):
            if step * config.step_hours in HOURS:
                fields = state.cpu().numpy().transpose(0, 3, 2, 1)
                yield step * config.step_hours, fields, analysis

    def run(self) -> None:
        began = time.monotonic()
        for i, cycle in enumerate(self.cycles):
            for hours, members, analysis in self.forecast(cycle):
                valid = [cycle.init_time + timedelta(hours=hours)]
                truth = stack_values(self.source.truth(self.channels, valid), self.channels)
                self.verify(hours, members, truth[0].transpose(2, 1, 0), analysis)
            left = (time.monotonic() - began) / (i + 1) * (len(self.cycles) - i - 1)
            sys.stderr.write(f"\r{i + 1} of {len(self.cycles)} cycles, {left:.0f} s left   ")
        sys.stderr.write("\n")

    def verify(self, hours: int, members: Array, truth: Array, analysis: Array) -> None:
        mean, deviation = self.climatology or (None, None)
        chosen = members[:, self.order].astype(np.float64)
        actual = truth[self.order].astype(np.float64)
        self.average[hours].add(
            statistics(
                chosen, actual, self.weights, persistence=analysis[self.order],
                climatology=mean, deviation=deviation,
            )
        )  # fmt: skip
        self.ranks[hours].add({"ranks": rank_histogram(chosen, actual, self.weights)})
        for level in LEVELS:
            names = (f"u_component_of_wind_{level}", f"v_component_of_wind_{level}")
            if set(names) <= set(self.channels.names):
                u, v = (self.channels.index(name) for name in names)
                energy = Energy.of(
                    (members[:, u], members[:, v]), (truth[u], truth[v]), self.harmonics
                )
                self.energies.setdefault((hours, level), []).append(energy)


def result_of(experiment: Experiment) -> dict[str, Any]:
    """Everything that is kept, as plain numbers."""
    config, source = experiment.config, experiment.source
    table: dict[str, Any] = {name: {} for name in experiment.scored}
    for hours, average in experiment.average.items():
        means = average.means()
        made = scores(means)
        made["rmse_persistence"] = np.sqrt(means["mse_persistence"])
        if "mse_climatology" in means:
            made["rmse_climatology"] = np.sqrt(means["mse_climatology"])
        ranks = experiment.ranks[hours].means()["ranks"]
        for i, name in enumerate(table):
            table[name][str(hours)] = {k: _round(v[i, 0]) for k, v in made.items()}
            table[name][str(hours)]["ranks"] = [_round(x) for x in ranks[i, 0]]
    spectra: dict[str, Any] = {}
    for (hours, level), each in experiment.energies.items():
        energy = _mean(each)
        ratio, error = ratio_of(each)
        spectra.setdefault(str(hours), {})[str(level)] = {
            **{k: [_round(x) for x in v] for k, v in energy.parts().items()},
            "members_over_truth": [_round(x) for x in ratio],
            "standard_error": [_round(x) for x in error],
        }
    return {
        "model": config.name,
        "weights": experiment.model.version.text,
        "trained": experiment.model.version.trained,
        "parameters": sum(p.numel() for p in experiment.model.network.parameters()),
        "truth": source.provenance,
        "grid": str(config.lat_lon),
        "step_hours": config.step_hours,
        "cycles": [str(experiment.cycles[0]), str(experiment.cycles[-1]), len(experiment.cycles)],
        "members": experiment.given.members,
        "resolved_wavenumber": source.settings.truncation,
        "scores": table,
        "kinetic_energy": spectra,
    }


def ratio_of(energies: list[Energy]) -> tuple[Array, Array]:
    """Members' energy over truth's by wavenumber, and its standard error over the cycles."""
    members = np.array([e.members for e in energies])
    truth = np.array([e.truth for e in energies])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = members.mean(0) / truth.mean(0)
        scatter = (members - ratio * truth).std(0, ddof=1 if len(energies) > 1 else 0)
        error = scatter / truth.mean(0) / np.sqrt(len(energies))
    return np.nan_to_num(ratio), np.nan_to_num(error)


def verdicts(result: dict[str, Any]) -> list[tuple[bool, str]]:
    """The lines that the demo model has to meet; (met, what was found)."""
    found: list[tuple[bool, str]] = []
    table = {name: result["scores"][name] for name in JUDGED if name in result["scores"]}

    def judge(text: str, score: str, hours: tuple[int, ...], low: float, high: float) -> None:
        values = {f"{name} {h} h": table[name][str(h)].get(score) for name in table for h in hours}
        if None in values.values():
            found.append((False, f"{text}: no {score} (is there a climatology?)"))
            return
        wrong = {k: v for k, v in values.items() if not low <= v < high}
        worst = wrong or values
        shown = ", ".join(f"{k} {v:.2f}" for k, v in worst.items())
        found.append((not wrong, f"{text}: {'not so: ' if wrong else ''}{shown}"))

    judge("RMSE at 24 h under half of persistence", "to_persistence", (24,), 0.0, 0.5)
    judge("better than climatology to day 5", "to_climatology", HOURS, 0.0, 1.0)
    judge("spread/skill 0.85 to 1.15", "spread_skill", HOURS, 0.85, 1.15)
    last = result["resolved_wavenumber"]
    for hours in SPECTRA_AT:
        for level, kept in result["kinetic_energy"].get(str(hours), {}).items():
            ratio = np.array(kept["members_over_truth"])[1 : last + 1]
            error = np.array(kept["standard_error"])[1 : last + 1]
            worst = int(np.abs(ratio - 1).argmax())
            outside = [n + 1 for n in np.flatnonzero(np.abs(ratio - 1) > 0.1)]
            text = (
                f"members' energy at {level} hPa, {hours} h within 10 %: worst "
                f"{ratio[worst]:.3f} +- {error[worst]:.3f} at l = {worst + 1}"
            )
            if outside:
                text += f"; outside at l = {_runs(outside)}"
            found.append((not outside, text))
            mean, truth = (np.array(kept[k])[1 : last + 1] for k in ("mean", "truth"))
            above = [n + 1 for n in np.flatnonzero(mean > truth)]
            text = f"mean's energy at {level} hPa, {hours} h below truth's"
            found.append((not above, text + (f"; above at l = {_runs(above)}" if above else "")))
    return found


def draw(result: dict[str, Any]) -> bytes:
    """Curves of the judged channels above, spectra below."""
    table = result["scores"]

    def series(name: str, score: str) -> Array | None:
        values = [table[name][str(h)].get(score) for h in HOURS]
        return None if None in values else np.array(values)

    scale = {"z500": (1 / 9.80665, "m"), "msl": (0.01, "hPa"), "t850": (1, "K"), "u850": (1, "m/s")}
    panels = []
    for name in (n for n in JUDGED if n in table):
        factor, units = scale[name]
        each = [series(name, s) for s in ("rmse", "spread", "rmse_persistence", "rmse_climatology")]
        rmse, *others = [None if values is None else factor * values for values in each]
        assert rmse is not None
        panels.append(figures.Curves(name, units, rmse, *others))
    energies = {
        (f"{hours} h", f"{level} hPa"): Energy(
            *(np.array(result["kinetic_energy"][str(hours)][level][k])
              for k in ("members", "mean", "truth"))
        )
        for hours in SPECTRA_AT
        for level in result["kinetic_energy"].get(str(hours), {})
    }  # fmt: skip
    title = f"{result['weights']}: {result['cycles'][2]} unseen cycles, {result['members']} members"
    return figures.report(panels, HOURS, energies, result["resolved_wavenumber"], title)


def _mean(energies: list[Energy]) -> Energy:
    parts = [np.mean([e.parts()[k] for e in energies], axis=0) for k in energies[0].parts()]
    return Energy(*parts)


def _round(value: Any) -> float:
    return float(f"{float(value):.5g}")


def _runs(numbers: list[int]) -> str:
    """`1, 4-6`"""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="demo", help="whose model, weights and seed")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="of the profile")
    parser.add_argument("--model", help="a configuration instead of the profile's")
    parser.add_argument("--weights", help="a model file instead of the profile's")
    parser.add_argument("--climatology", type=Path, help="instead of the one in the package")
    parser.add_argument("--cycles", type=int, default=60)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--spacing-hours", type=int, default=126, help="between cycles")
    parser.add_argument("--start", help="first cycle; 30 days after the restart by default")
    parser.add_argument("--truncation", type=int, default=31, help="of the simulation")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--fused", action="store_true", help="the fused network on any device")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--no-record", action="store_true", help="print, write nothing")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    experiment = Experiment(given)
    experiment.run()
    result = result_of(experiment)
    judged = verdicts(result)
    result["lines"] = [{"met": met, "found": text} for met, text in judged]
    if not given.no_record:
        command = f"python -m benchmarks.demo_skill {' '.join(sys.argv[1:])}".strip()
        record("demo_skill", command, result, ("torch", "numpy", "scipy"))
        given.figure.parent.mkdir(parents=True, exist_ok=True)
        given.figure.write_bytes(draw(result))
    show(result)
    for met, text in judged:
        print("met    " if met else "NOT MET", text)


def show(result: dict[str, Any]) -> None:
    columns = ("rmse", "to_persistence", "to_climatology", "spread_skill", "fair_crps", "acc")
    print(f"{'':10}" + "".join(f"{name:>16}" for name in columns))
    for name, by_hours in result["scores"].items():
        for hours, values in by_hours.items():
            cells = "".join(f"{values.get(c, float('nan')):16.4g}" for c in columns)
            print(f"{name:5}{hours:>4}h{cells}")


if __name__ == "__main__":
    main()
