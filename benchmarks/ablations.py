"""The paper's ablations in small: each trained alike on the simulation, then verified alike.

    python -m benchmarks.ablations --archive archive [--folder ablations] [--only dense]

Trainings are kept in the folder and gone on with; `--only` trains one of them and records nothing.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks import demo_skill
from benchmarks.record import record
from mosaic_core.model import checkpoint
from mosaic_core.model.config import ModelConfig
from mosaic_core.settings import read_config
from mosaic_core.training.recipe import Recipe
from mosaic_core.training.trainer import MODEL, Listener, Trainer, Update, World

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "ablations.png"
VARIANTS = ("full", "deterministic", "compress_first", "dense", "latlon_blocks")
SHOWN = ("z500", "t850", "u850", "msl")


def model_of(variant: str, folder: Path) -> Path:
    """A model file of the demo configuration with one ablation."""
    content, _ = read_config("models", "demo")
    content["name"] = f"demo-{variant}"
    content["ablations"] = [] if variant == "full" else [variant]
    path = folder / f"{variant}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def recipe_of(variant: str, model: Path, given: argparse.Namespace) -> Recipe:
    recipe = Recipe.load(given.recipe, {"model": str(model)})
    data = replace(
        recipe.data,
        inputs=f"{given.archive}/analyses.zarr",
        targets=f"{given.archive}/truth.zarr",
    )
    # Without noise all members are equal: one says as much as two, for half the cost.
    members = 1 if variant == "deterministic" else recipe.members
    return replace(recipe, data=data, members=members)


def train(variant: str, given: argparse.Namespace) -> Path:
    """Train one variant to the end of the recipe; returns its model file."""
    model = model_of(variant, given.folder)

    def tell(update: Update) -> None:
        if update.update % 50 == 0:
            text = f"{variant}: update {update.update} of {update.updates}, loss {update.loss:.3f}"
            print(text, file=sys.stderr, flush=True)

    recipe = recipe_of(variant, model, given)
    folder = given.folder / variant
    trainer = Trainer(recipe, folder, World(), go_on=True, listener=Listener(tell))
    if trainer.update < recipe.updates or not (folder / MODEL).exists():
        trainer.run()
    return folder / MODEL


def step_seconds(path: Path, model: Path) -> float:
    """Least time of five steps of four members."""
    config = ModelConfig.load(str(model))
    file = checkpoint.read_model(path)
    version = checkpoint.version_of(config, file, path)
    network = checkpoint.load_model(config, file, version, torch.device("cpu")).network
    states = torch.randn(4, config.history, *config.lat_lon.shape, len(config.channel_set))
    z = torch.randn(4, config.noise_dim) if config.perturbed else None
    times = []
    with torch.no_grad():
        for _ in range(6):
            began = time.perf_counter()
            network(states, torch.zeros(4, 2), z)
            times.append(time.perf_counter() - began)
    return min(times[1:])


def verify(variant: str, weights: Path, given: argparse.Namespace) -> dict[str, Any]:
    model = given.folder / f"{variant}.yaml"
    options = argparse.Namespace(
        profile="demo", set=[], model=str(model), weights=str(weights), climatology=None,
        cycles=given.cycles, members=1 if variant == "deterministic" else given.members,
        spacing_hours=126, start=None, truncation=31, device="cpu", precision="float32",
        threads=given.threads,
    )  # fmt: skip
    experiment = demo_skill.Experiment(options)
    experiment.run()
    result = demo_skill.result_of(experiment)
    result["seconds_a_step_of_four_members"] = round(step_seconds(weights, model), 3)
    return result


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: skill, spread, energy at the end of the spectrum, cost against the full model."""
    head = [
        "variant", "parameters", *(f"{n} RMSE 24 h / 120 h" for n in SHOWN),
        "spread/skill z500 24 h", "energy l 21-31 at 500 hPa, 24 h / 120 h", "time of a step",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    full = results["full"]
    for variant, result in results.items():
        cells = [variant, f"{result['parameters']:,}"]
        for name in SHOWN:
            ours, theirs = result["scores"][name], full["scores"][name]
            cells.append(
                " / ".join(f"{ours[h]['rmse'] / theirs[h]['rmse']:.2f}" for h in ("24", "120"))
            )
        spread = result["scores"]["z500"]["24"].get("spread_skill")
        several = result["members"] > 1 and spread is not None
        cells.append(f"{spread:.2f}" if several else "no spread")
        cells.append(" / ".join(f"{small_scales(result, h):.2f}" for h in ("24", "120")))
        key = "seconds_a_step_of_four_members"
        cells.append(f"{result[key] / full[key]:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def small_scales(result: dict[str, Any], hours: str) -> float:
    """Kinetic energy of members over that of the truth, total wavenumbers 21 to 31."""
    kept = result["kinetic_energy"][hours]["500"]
    return float(np.sum(kept["members"][21:32]) / np.sum(kept["truth"][21:32]))


def draw(results: dict[str, dict[str, Any]]) -> bytes:
    """Members' energy over the truth's by wavenumber, one line a variant."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 4), layout="constrained", dpi=130)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, hours in zip(panels, ("24", "120"), strict=True):
            for colour, (variant, result) in zip(colours, results.items(), strict=False):
                kept = result["kinetic_energy"][hours]["500"]
                ratio = np.array(kept["members"][1:32]) / np.array(kept["truth"][1:32])
                axes.plot(range(1, 32), ratio, label=variant, color=colour, lw=1.4)
            axes.axhline(1, color="black", lw=0.6)
            axes.axhspan(0.9, 1.1, color="0.92", zorder=0)
            axes.set(xscale="log", xlabel="total wavenumber", title=f"{hours} h, 500 hPa")
            axes.set(ylim=(0, 2), xlim=(1, 31))
            axes.set_xticks([1, 2, 5, 10, 20, 31], ["1", "2", "5", "10", "20", "31"])
            axes.minorticks_off()
        panels[0].set_ylabel("kinetic energy, member / truth")
        panels[0].legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", default="archive", help="folder that `mosaic simulate` made")
    parser.add_argument("--folder", type=Path, default=Path("ablations"))
    parser.add_argument("--recipe", default="ablation")
    parser.add_argument("--only", choices=VARIANTS)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.only:
        train(given.only, given)
        return
    results = {variant: verify(variant, train(variant, given), given) for variant in VARIANTS}
    recipe = Recipe.load(given.recipe)
    command = f"python -m benchmarks.ablations {' '.join(sys.argv[1:])}".strip()
    record(
        "ablations",
        command,
        {"recipe": given.recipe, "updates": recipe.updates, "variants": results},
        ("torch", "numpy"),
    )
    FIGURE.write_bytes(draw(results))
    print(table(results))


if __name__ == "__main__":
    main()
