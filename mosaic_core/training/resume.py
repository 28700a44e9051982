"""Checkpoints of training: everything that the next update depends on."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mosaic_core.errors import TrainingError
from mosaic_core.training.recipe import Recipe

CHECKPOINT: Final = "checkpoint.pt"
PREVIOUS: Final = "checkpoint-previous.pt"
_FORMAT: Final = "mosaic-training/1"
_FREE: Final = (
    "description", "licence", "attribution", "checkpoint_every", "validate_every",
    "validation_windows", "validation_members", "validation_steps",
)  # fmt: skip


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


def save(folder: Path, recipe: Recipe, state: TrainingState) -> None:
    """Write a checkpoint whole or not at all, and keep the one before.

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
        if path.exists():
            path.replace(folder / PREVIOUS)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"no checkpoint of update {state.update} in {folder}: {error}",
            "room for two checkpoints",
            "make room; `mosaic train --resume` goes on from the last whole one",
        ) from error


def load(folder: Path, recipe: Recipe) -> TrainingState | None:
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
            document = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
            problems.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if document.pop("format", None) != _FORMAT:
            problems.append(f"{name} is of another format")
            continue
        _require_same(recipe, json.loads(document.pop("recipe")), path)
        return TrainingState(**document)
    if problems:
        raise TrainingError(
            f"no checkpoint in {folder} can be read: {'; '.join(problems)}",
            "a whole checkpoint",
            "start again in another folder",
        )
    return None


def _require_same(recipe: Recipe, theirs: dict[str, Any], path: Path) -> None:
    ours = json.loads(json.dumps(asdict(recipe)))
    differing = [
        name for name in ours if name not in _FREE and ours[name] != theirs.get(name)
    ]  # fmt: skip
    if "phases" in differing and _continues(ours["phases"], theirs.get("phases", [])):
        differing.remove("phases")
    if differing:
        raise TrainingError(
            f"{path} was made by another recipe: {', '.join(differing)} differ",
            "the same recipe (phases may be added at the end)",
            "start in another folder, with `start_from` if its weights are wanted",
        )


def _continues(ours: list[Any], theirs: list[Any]) -> bool:
    return len(ours) > len(theirs) and ours[: len(theirs)] == theirs
