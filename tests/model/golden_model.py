"""The tiny golden models, loaded as a published checkpoint would be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mosaic_core.model.checkpoint import LoadedModel, ModelFile, load_model, version_of
from mosaic_core.model.config import ModelConfig

VARIANTS = ["era5mini", "hresmini"]
TABLES = ("static_vars", "neighbors", "rel_pos", "cos_freqs", "sin_freqs")


def arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path) as content:
        return {name: torch.from_numpy(np.array(value)) for name, value in content.items()}


def config(golden: Path, variant: str) -> ModelConfig:
    return ModelConfig.from_published(json.loads((golden / variant / "config.json").read_text()))


def model_file(golden: Path, variant: str, tables: bool = True) -> ModelFile:
    stored = {
        name.removeprefix("model."): value
        for name, value in arrays(golden / variant / "weights.npz").items()
    }
    kept = {k: v for k, v in stored.items() if k.endswith(TABLES)}
    rollout = arrays(golden / variant / "rollout.npz")
    return ModelFile(
        weights={k: v for k, v in stored.items() if k not in kept},
        tables=kept if tables else {k: v for k, v in kept.items() if k.endswith("neighbors")},
        mean=rollout["state_mean"].float(),
        std=rollout["state_std"].float(),
        static=arrays(golden / variant / "forward.npz")["static_data"],
        metadata={"trained": "false"},
    )


def load(golden: Path, variant: str, tables: bool = True) -> LoadedModel:
    shape = config(golden, variant)
    file = model_file(golden, variant, tables)
    return load_model(shape, file, version_of(shape, file), torch.device("cpu"))
