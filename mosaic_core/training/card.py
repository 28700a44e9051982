"""The model card: what a file of weights is, made from what stands in the file itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mosaic_core import __version__
from mosaic_core.errors import CheckpointError, ConfigurationError
from mosaic_core.model.checkpoint import ModelFile
from mosaic_core.model.config import ModelConfig
from mosaic_core.settings import build
from mosaic_core.training.recipe import Recipe

KEY = "training"
"""Name of the record in the metadata of a model file."""
_OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
_NAMED = 12
"""Left-out windows that the card names one by one."""


@dataclass(frozen=True)
class Record:
    """How weights were made, as it goes into their file.

    Attributes:
        updates: optimiser updates that were made.
        windows: initial times of the training period.
        skipped: windows that were left out, time -> reason.
        beginning: how `start_from` was adapted.
        validation: the last entry of the log's validations.
    """

    recipe: Recipe
    updates: int
    windows: int
    skipped: Mapping[str, str]
    beginning: tuple[str, ...]
    validation: Mapping[str, Any] | None
    code_version: str = __version__

    def json(self) -> str:
        return json.dumps({**asdict(self), "seen": self.recipe.position(self.updates)})


def read_record(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The record of a model file; None for weights that were not trained here."""
    return json.loads(metadata[KEY]) if KEY in metadata else None


def summary(metadata: Mapping[str, str]) -> dict[str, str]:
    """The record in a few words, for `mosaic model inspect`."""
    record = read_record(metadata)
    if record is None:
        return {}
    data = record["recipe"]["data"]
    validation = record["validation"]
    return {
        "recipe": f"{record['recipe']['name']}, {record['updates']} updates",
        "data": f"{data['inputs']}, {data['train']['start']} to {data['train']['end']}",
        "left out": f"{len(record['skipped'])} windows",
        "validation": "none" if validation is None else _crps(validation),
        "code_version": record["code_version"],
    }


def config_of(file: ModelFile) -> ModelConfig:
    """The configuration that stands in a model file.

    Raises:
        CheckpointError: there is none, or not one of this version.
    """
    try:
        return build(ModelConfig, json.loads(file.metadata["config"]), "the weights' configuration")
    except (KeyError, ValueError, ConfigurationError) as error:
        raise CheckpointError(
            f"the weights do not say which variant they are of: {error}",
            "a file made by `mosaic train` or `mosaic model convert`",
            "convert the published checkpoint again",
        ) from error


def card(file: ModelFile) -> str:
    """Markdown; of weights that were not trained here, what is known of them.

    Raises:
        CheckpointError: the file does not say which variant it is of.
    """
    config = config_of(file)
    record = read_record(file.metadata)
    parts = [_head(config, file)]
    if record is None:
        parts.append(
            f"## Origin\n\n{file.metadata.get('source', 'unknown')}. How these weights were "
            "trained does not stand in the file."
        )
    else:
        parts += [_data(record), _training(record), _scores(config, record)]
    parts += [_statistics(config, file), _limits(config, file, record), _use(config)]
    return "\n\n".join(parts) + "\n"


def _head(config: ModelConfig, file: ModelFile) -> str:
    count = sum(value.numel() for value in file.weights.values())
    licence = file.metadata.get("licence", "unknown")
    attribution = file.metadata.get("attribution", "")
    kind = "" if file.metadata.get("trained") == "true" else " The weights are UNTRAINED."
    return (
        f"# Mosaic, variant {config.name}\n\n{config.description or 'A Mosaic model.'}{kind}\n\n"
        f"{count:,} parameters; {len(config.channel_set)} channels on {config.lat_lon} points; "
        f"steps of {config.step_hours} h from {config.history} states; predicts the "
        f"{config.predicts}. Licence: {licence}." + (f" {attribution}" if attribution else "")
    )


def _data(record: Mapping[str, Any]) -> str:
    data = record["recipe"]["data"]
    lines = [
        "## Data",
        "",
        f"- inputs: {data['inputs']}",
        f"- targets: {data['targets'] or data['inputs']}",
        f"- training: {data['train']['start']} to {data['train']['end']} (end not included), "
        f"{record['windows']} initial times; {record['seen']} windows drawn",
        f"- validation: {data['validation']['start']} to {data['validation']['end']}",
    ]
    skipped = record["skipped"]
    if not skipped:
        lines.append("- left out: nothing")
    else:
        lines.append(f"- left out: {len(skipped)} windows")
        lines += [f"  - {time}: {reason}" for time, reason in list(skipped.items())[:_NAMED]]
        if len(skipped) > _NAMED:
            lines.append(f"  - and {len(skipped) - _NAMED} more, named in the file's metadata")
    return "\n".join(lines)


def _training(record: Mapping[str, Any]) -> str:
    recipe = record["recipe"]
    lines = [
        "## Training",
        "",
        f"Recipe {recipe['name']}, {record['updates']} updates, seed {recipe['seed']}, "
        f"{recipe['precision']}, mosaic-forecast {record['code_version']}. Fair CRPS (of one "
        f"member, without noise: absolute error), channels weighted {recipe['channel_weights']}"
        + "".join(f", {name} x {factor:g}" for name, factor in recipe["variable_weights"].items())
        + f"; {_OPTIMIZERS[recipe.get('optimizer', 'adamw')]}, clipping at {recipe['clip']:g}, "
        f"running mean of {recipe['ema']:g}, noise x {recipe.get('noise', 1):g}.",
        "",
    ]
    if recipe["start_from"] is None:
        lines.append("From random weights.")
    else:
        lines.append(f"From {recipe['start_from']}:")
        lines += ["", *(f"- {note}" for note in record["beginning"])]
    lines += [
        "",
        "| updates | steps of the rollout | members | windows an update | "
        "weight of the spectral loss | learning rate |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p['updates']} | {p['rollout']} | {p['members'] or recipe['members']} | {p['batch']} | "
        f"{p.get('spectral', 0):g} | {p['learning_rate']:g}, falling to "
        f"{p['final'] * p['learning_rate']:.2g} |"
        for p in recipe["phases"]
    ]
    planned = sum(phase["updates"] for phase in recipe["phases"])
    if record["updates"] < planned:
        lines += ["", f"NOT FINISHED: {record['updates']} of {planned} updates."]
    return "\n".join(lines)


def _scores(config: ModelConfig, record: Mapping[str, Any]) -> str:
    found = record["validation"]
    if found is None:
        return "## Validation\n\nNone was made yet."
    recipe, hours = record["recipe"], config.step_hours
    lines = [
        "## Validation",
        "",
        f"After update {found['update']}: {recipe['validation_members']} members from "
        f"{recipe['validation_windows']} initial times of the validation period. RMSE of the "
        "ensemble mean over that of persistence, and spread over RMSE (one is right).",
        "",
        "| lead time | CRPS | "
        + " | ".join(f"{name}: RMSE/persistence, spread/RMSE" for name in found["rmse"])
        + " |",
        "|---|---|" + "---|" * len(found["rmse"]),
    ]
    for i, crps in enumerate(found["crps"]):
        cells = [f"{(i + 1) * hours} h", f"{crps:.3f}"]
        for name, values in found["rmse"].items():
            against, spread = found["persistence"][name][i], found["spread"][name][i]
            cells.append(f"{_ratio(values[i], against)}, {_ratio(spread, values[i])}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "CRPS is in standard deviations of a step's change, weighted as the loss is."]
    return "\n".join(lines)


def _statistics(config: ModelConfig, file: ModelFile) -> str:
    lines = [
        "## Statistics",
        "",
        "Area-weighted, in the channel's units; they stand in the file.",
        "",
        "| channel | mean | standard deviation | of a step's change |",
        "|---|---|---|---|",
    ]
    for i, channel in enumerate(config.channel_set):
        change = "" if file.change is None else f"{float(file.change[i]):.4g}"
        lines.append(
            f"| {channel} | {float(file.mean[i]):.4g} | {float(file.std[i]):.4g} | {change} |"
        )
    return "\n".join(lines)


def _limits(config: ModelConfig, file: ModelFile, record: Mapping[str, Any] | None) -> str:
    lines = [
        "## Limits",
        "",
        f"- Only for the grid, channels and steps named above, from {config.history} states "
        f"{config.step_hours} h apart.",
        "- Validation here is a few initial times; verify before use (`mosaic verify`).",
        "- Extremes outside the training period are extrapolations.",
    ]
    if record is not None and "simulat" in json.dumps(record["recipe"]).lower():
        lines.append("- Learned from a simulated atmosphere: it knows nothing of the real one.")
    if file.metadata.get("trained") != "true":
        lines.append("- Untrained: its forecasts mean nothing.")
    if not config.perturbed:
        lines.append("- Deterministic: all members of an ensemble would be the same.")
    return "\n".join(lines)


def _use(config: ModelConfig) -> str:
    return (
        "## Use\n\n```\n"
        f"mosaic model inspect FILE.safetensors --variant {config.name}\n"
        f"mosaic run --set model={config.name} --set weights=FILE.safetensors\n```"
    )


def _crps(validation: Mapping[str, Any]) -> str:
    values = ", ".join(f"{value:.3f}" for value in validation["crps"][:4])
    return f"CRPS by step {values} after update {validation['update']}"


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference else "-"
