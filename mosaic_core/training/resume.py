"""Checkpoints of training: everything that the next update depends on."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mosaic_core.errors import ConfigurationError, TrainingError
from mosaic_core.settings import build
from mosaic_core.training.recipe import Recipe

CHECKPOINT: Final = "checkpoint.pt"
PREVIOUS: Final = "checkpoint-previous.pt"
UNSOUND: Final = "checkpoint-unsound.pt"
_FORMAT: Final = "mosaic-training/1"
_FREE: Final = (
    "name", "description", "licence", "attribution", "noise", "recompute", "checkpoint_every",
    "validate_every", "validation_windows", "validation_members", "validation_steps",
    "data.readers",
)  # fmt: skip
_TOLD: Final = ("clip", "precision", "static", "start_from", "data.inputs", "data.targets")
"""What may be changed on the way (a folder that moved, an unstable training), and is told."""


@dataclass
class TrainingState:
    """Where a training stands after `update` updates.

    `ema` is what is published; windows that were left out are named in `skipped`.
    """

    update: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A checkpoint, the name of its file, and what its owner should be told about it."""

    state: TrainingState
    name: str
    notes: tuple[str, ...]


def save(folder: Path, recipe: Recipe, state: TrainingState, keep: bool = True) -> None:
    """Write a checkpoint whole or not at all, and keep the one before.

    Args:
        keep: False where the one before is damaged, so that it does not take the place of the
            good one before it.

    Raises:
        TrainingError: the disk refuses; the checkpoints that are there stay.
    """
    document = {"format": _FORMAT, "recipe": json.dumps(asdict(recipe)), **vars(state)}
    path, partial = folder / CHECKPOINT, folder / f"{CHECKPOINT}.partial"
    try:
        with partial.open("wb") as sink:
            torch.save(document, sink)
            sink.flush()
            os.fsync(sink.fileno())
        if keep and path.exists():
            path.replace(folder / PREVIOUS)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"no checkpoint of update {state.update} in {folder}: {error}",
            "room for two checkpoints",
            "make room; `mosaic train --resume` goes on from the last whole one",
        ) from error


def load(folder: Path, recipe: Recipe) -> Found | None:
    """The newest whole checkpoint in `folder`; None when there is none.

    Raises:
        TrainingError: checkpoints that cannot be read, or of another recipe.
    """
    problems = []
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            document = _read(path)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
            problems.append(f"{name}: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        theirs = json.loads(document.pop("recipe"))
        state = TrainingState(**document)
        notes = _changes(recipe, theirs, state.update, path)
        if problems:
            notes.insert(0, f"{'; '.join(problems)}; going on from {name}, update {state.update}")
        return Found(state, name, tuple(notes))
    if problems:
        raise TrainingError(
            f"no checkpoint in {folder} can be read: {'; '.join(problems)}",
            "a whole checkpoint",
            "start again in another folder",
        )
    return None


def set_aside(folder: Path, name: str) -> str:
    """Take away the checkpoint whose very next update fails; returns what is left, in words."""
    (folder / name).replace(folder / UNSOUND)
    if name == CHECKPOINT and (folder / PREVIOUS).exists():
        return f"it was set aside as {UNSOUND}, the one before it is good"
    return f"it was set aside as {UNSOUND}, and there is none before it: it will begin anew"


def _read(path: Path) -> dict[str, Any]:
    document = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        raise ValueError(f"it is not of the format {_FORMAT}")
    return document


def _changes(recipe: Recipe, stored: Mapping[str, Any], update: int, path: Path) -> list[str]:
    """What the recipe has otherwise than that of the checkpoint, where that is allowed."""
    try:
        # What a later version added has the value that it had before it could be chosen.
        theirs = build(Recipe, stored, str(path))
    except ConfigurationError as error:
        raise TrainingError(
            f"the recipe in {path} is not one of this version: {error.found}",
            error.expected,
            "go on with the version that made it",
        ) from error
    ours_flat, theirs_flat = _flat(asdict(recipe)), _flat(asdict(theirs))
    differing = [name for name in ours_flat if ours_flat[name] != theirs_flat.get(name)]
    if "phases" in differing and _continues(recipe, theirs, update):
        differing.remove("phases")
        told = ["phases: what is still to come has changed"]
    else:
        told = []
    refused = [name for name in differing if name not in (*_FREE, *_TOLD)]
    if refused:
        raise TrainingError(
            f"{path} was made by another recipe: {', '.join(refused)} differ",
            "the same recipe (clip, precision, where the data lies, and phases that are still to "
            "come may change)",
            "start in another folder, with `start_from` if its weights are wanted",
        )
    return told + [
        f"{name}: {theirs_flat.get(name)} has become {ours_flat[name]}"
        for name in differing
        if name in _TOLD
    ]


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    data = {f"data.{name}": value for name, value in recipe["data"].items()}
    return {name: value for name, value in recipe.items() if name != "data"} | data


def _continues(ours: Recipe, theirs: Recipe, update: int) -> bool:
    """Whether phases differ only in what comes after `update`.

    A phase under way may get another learning rate or length, not another batch or rollout.
    """
    for mine, old in zip_longest(ours.phases, theirs.phases):
        if update <= 0:
            return True
        if mine is None or old is None:
            return False
        done = min(update, old.updates)
        if done < old.updates:
            same = replace(
                mine, learning_rate=old.learning_rate, warm_up=0, final=old.final,
                updates=old.updates,
            ) == replace(old, warm_up=0)  # fmt: skip
            if not same or mine.updates < update:
                return False
        elif mine != old:
            return False
        update -= done
    return True
