"""Weights of one variant as the start of another: other steps, history or neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from mosaic_core.errors import CheckpointError
from mosaic_core.model.checkpoint import ModelFile
from mosaic_core.model.config import ModelConfig
from mosaic_core.training.card import config_of

FIRST: Final = "preprocess.0.weight"
"""The layer whose input columns are states (oldest first), static fields, position and time."""
_SHARED: Final = (
    "stages", "channels", "static", "noise_dim", "rope_theta", "predicts", "ablations", "grid",
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        file: weights, statistics and static fields; `change` is None where it must be measured.
        copied: parameters that are taken as they are.
        notes: what was adapted or begins anew, each by name.
    """

    file: ModelFile
    copied: tuple[str, ...]
    notes: tuple[str, ...]


def adapted(config: ModelConfig, file: ModelFile) -> Start:
    """The weights of `file` for the variant `config`.

    Stages, channels, grid, noise and what is predicted must be the same. Of another history the
    columns of the newest states are copied; those of states that the old variant never saw are
    zero, so that the first output is that of the old variant. Other neighbours need no weights:
    their tables are computed. Of another step the deviation of a step's change is measured anew.

    Raises:
        CheckpointError: another kind of model; what differs is named.
    """
    before = config_of(file)
    differing = [name for name in _SHARED if _of(before, name) != _of(config, name)]
    if differing:
        raise CheckpointError(
            f"the weights are of variant {before.name!r}, with other {', '.join(differing)} than "
            f"{config.name!r}",
            "a variant that differs in step_hours, history, neighbours or season alone",
            "start from weights of the same stages, or train from random weights",
        )
    if FIRST not in file.weights:
        raise CheckpointError(f"the file has no {FIRST}", f"the parameters of {before.name!r}")
    notes = []
    weights, tables, change = dict(file.weights), file.tables, file.change
    if config.history != before.history:
        channels = len(config.channel_set)
        weights[FIRST] = _first_layer(weights[FIRST], channels, before.history, config.history)
        notes.append(_history_note(before.history, config.history))
    if config.neighbours != before.neighbours:
        tables = {}
        notes.append(
            f"neighbours: {before.neighbours} have become {config.neighbours}; the tables of both "
            "interpolations are computed"
        )
    if config.step_hours != before.step_hours:
        change = None
        notes.append(
            f"step_hours: {before.step_hours} has become {config.step_hours}; the deviation of a "
            "step's change is measured anew"
        )
    copied = tuple(name for name, value in weights.items() if value is file.weights[name])
    return Start(replace(file, weights=weights, tables=tables, change=change), copied, tuple(notes))


def _first_layer(weight: Tensor, channels: int, before: int, now: int) -> Tensor:
    """(dim, features) with columns for `now` states instead of `before`."""
    states, rest = weight[:, : before * channels], weight[:, before * channels :]
    if now <= before:
        kept = states[:, (before - now) * channels :]
    else:
        older = torch.zeros(len(weight), (now - before) * channels, dtype=weight.dtype)
        kept = torch.cat((older, states), dim=1)
    return torch.cat((kept, rest), dim=1).contiguous()


def _history_note(before: int, now: int) -> str:
    if now < before:
        return (
            f"{FIRST}: columns of the newest {now} of {before} states are copied, those of "
            f"{before - now} older left out"
        )
    return (
        f"{FIRST}: columns of the newest {before} of {now} states are copied, those of "
        f"{now - before} older begin at zero"
    )


def _of(config: ModelConfig, name: str) -> object:
    if name == "channels":
        return config.channel_set.names
    return config.lat_lon.digest if name == "grid" else getattr(config, name)
