"""Weights: published checkpoints, our own files, and untrained ones."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core import __version__
from mosaic_core.errors import CheckpointError, DeviceError
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.network import Mosaic

FORMAT = "mosaic-forecast/1"
_TABLE_ENDINGS = (
    "static_vars", ".neighbors", ".rel_pos", "_rope.cos_freqs", "_rope.sin_freqs",
)  # fmt: skip


@dataclass(frozen=True)
class ModelVersion:
    """Which weights made a forecast.

    `sha256` is that of the weights file; of untrained weights, that of what they are made from.
    """

    variant: str
    sha256: str
    trained: bool
    licence: str
    attribution: str
    code_version: str = __version__

    @property
    def text(self) -> str:
        kind = "" if self.trained else ", UNTRAINED weights"
        return f"{self.variant} {self.sha256[:12]}{kind}"


@dataclass(frozen=True)
class ModelFile:
    """What a weights file holds, on the CPU.

    Attributes:
        weights: every parameter by its published name (without the prefix `model.`).
        tables: published tables that take precedence over computed ones; may be empty.
        mean, std: normalisation of each channel, float32, (channel,), physical units.
        static: static fields (longitude, latitude, field), float32, raw units.
        change: standard deviation of a step's change, (channel,), physical units; only models that
            predict changes have one.
    """

    weights: dict[str, Tensor]
    tables: dict[str, Tensor]
    mean: Tensor
    std: Tensor
    static: Tensor
    metadata: dict[str, str]
    change: Tensor | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A network on its device, with the normalisation it was trained with."""

    config: ModelConfig
    network: Mosaic
    mean: Tensor
    std: Tensor
    version: ModelVersion
    change: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.mean.device


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first CUDA device, else the CPU.

    Raises:
        DeviceError: the device asked for is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"device {name!r}: {reason}", "auto, cpu or cuda:N", "`mosaic doctor` lists devices"
        ) from error
    return device


def load_model(
    config: ModelConfig, file: ModelFile, version: ModelVersion, device: torch.device
) -> LoadedModel:
    """Build the network and put every weight in its place.

    Raises:
        CheckpointError: the file is not of this configuration; every tensor is named.
    """
    require_fit(config, file)
    network = _outline(config, file.static)
    network.load_state_dict(file.weights, strict=True, assign=True)
    network.adopt_tables(file.tables)
    network = network.eval().requires_grad_(False).to(device)
    change = None if file.change is None else file.change.to(device)
    return LoadedModel(config, network, file.mean.to(device), file.std.to(device), version, change)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, without allocating them."""
    static = torch.zeros((*config.lat_lon.shape, len(config.static)))
    return {name: tuple(p.shape) for name, p in _outline(config, static).named_parameters()}


def _outline(config: ModelConfig, static: Tensor) -> Mosaic:
    """A network whose tables are real and whose parameters have a shape but no memory."""
    with torch.device("meta"):
        return Mosaic(config, static)


def require_fit(config: ModelConfig, file: ModelFile) -> None:
    """Refuse a file of another variant, naming each tensor that is wrong."""
    problems = _misfits(config, file.weights)
    channels = len(config.channel_set)
    statistics = {"state_mean": file.mean, "state_std": file.std}
    if config.predicts == "change":
        statistics["change_std"] = torch.empty(0) if file.change is None else file.change
    for label, values in statistics.items():
        if tuple(values.shape) != (channels,):
            problems.append(f"{label} is {tuple(values.shape)}, expected ({channels},)")
        elif not torch.isfinite(values).all() or (label != "state_mean" and (values <= 0).any()):
            problems.append(f"{label} holds values that are not finite or not positive")
    wanted = (*config.lat_lon.shape, len(config.static))
    if tuple(file.static.shape) != wanted:
        problems.append(f"static is {tuple(file.static.shape)}, expected {wanted}")
    _refuse(config, problems)


def require_names(config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuse the weights of another variant, without statistics and static fields."""
    _refuse(config, _misfits(config, weights))


def _misfits(config: ModelConfig, weights: Mapping[str, Tensor]) -> list[str]:
    expected = parameter_shapes(config)
    problems = [
        f"missing {name} {shape}" for name, shape in expected.items() if name not in weights
    ]
    for name, tensor in weights.items():
        if name not in expected:
            problems.append(f"unexpected {name} {tuple(tensor.shape)}")
        elif tuple(tensor.shape) != expected[name]:
            problems.append(f"{name} is {tuple(tensor.shape)}, expected {expected[name]}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name} holds values that are not finite")
    return problems


def _refuse(config: ModelConfig, problems: list[str]) -> None:
    if problems:
        raise CheckpointError(
            f"{len(problems)} tensors do not fit variant {config.name!r}: " + "; ".join(problems),
            f"the parameters and statistics of {config.name!r}",
            "use the checkpoint of this variant, or the configuration of that checkpoint",
        )


def read_published(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and tables of a published `.pt` file, names without the prefix `model.`.

    Only tensors and plain containers are read (`weights_only`): nothing in the file is executed.

    Raises:
        CheckpointError: not such a file, or nothing in it that looks like weights.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no file {path}", "a published checkpoint (.pt)") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as weights: {str(error).splitlines()[0]}",
            "a torch checkpoint of tensors only",
            "fetch it again and compare its sha256; code inside a checkpoint is never run",
        ) from error
    if isinstance(content, Mapping):
        content = content.get("model_state_dict", content)
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no tensors", "a state dict under `model_state_dict`")
    weights: dict[str, Tensor] = {}
    tables: dict[str, Tensor] = {}
    for key, tensor in content.items():
        name = str(key).removeprefix("model.")
        (tables if name.endswith(_TABLE_ENDINGS) else weights)[name] = tensor
    return weights, tables


def read_normalisation(path: Path) -> tuple[Tensor, Tensor]:
    """`state_mean` and `state_std` of a published statistics file, float32, (channel,)."""
    arrays = _read_npz(path, ("state_mean", "state_std"))
    mean, std = (torch.from_numpy(a.astype(np.float32)) for a in arrays)
    return mean, std


def read_static(path: Path, config: ModelConfig) -> Tensor:
    """Static fields of a published file, (longitude, latitude, field), float32.

    Raises:
        CheckpointError: the file's grid is not that of the model.
    """
    data, latitude, longitude = _read_npz(path, ("data", "latitude", "longitude"))
    grid = config.lat_lon
    if data.shape[:2] != grid.shape or not (
        np.allclose(longitude, grid.longitudes, atol=1e-4)
        and np.allclose(latitude, grid.latitudes, atol=1e-4)
    ):
        raise CheckpointError(
            f"{path} is on a grid of {longitude.size} x {latitude.size} points "
            f"({longitude[0]:g}.., {latitude[0]:g}..)",
            f"the model's {grid}, longitude from {grid.longitudes[0]:g}, latitude ascending",
        )
    return torch.from_numpy(np.ascontiguousarray(data, np.float32))


def _read_npz(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    try:
        with path.open("rb") as stream:
            arrays = np.load(stream, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise CheckpointError(f"{path} holds one array", f"arrays {', '.join(names)}")
            absent = [name for name in names if name not in arrays]
            if absent:
                raise CheckpointError(
                    f"{path} has no {', '.join(absent)}", f"arrays {', '.join(names)}"
                )
            return [arrays[name] for name in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "a numpy .npz file") from error


def convert(
    config: ModelConfig, checkpoint: Path, normalisation: Path, static: Path, target: Path
) -> Path:
    """Turn a published checkpoint with its statistics and static file into one safetensors file.

    Raises:
        CheckpointError: any part is missing or does not fit the variant.
    """
    weights, tables = read_published(checkpoint)
    tables = {name: value for name, value in tables.items() if name.endswith(".neighbors")}
    mean, std = read_normalisation(normalisation)
    published = config.published
    metadata = {
        "source": checkpoint.name,
        "source_sha256": file_sha256(checkpoint),
        "licence": published.licence if published else "unknown",
        "attribution": published.attribution if published else "",
        "trained": "true",
    }
    file = ModelFile(weights, tables, mean, std, read_static(static, config), metadata)
    require_fit(config, file)
    write_model(config, file, target)
    return target


def write_model(config: ModelConfig, file: ModelFile, target: Path) -> None:
    """Write one safetensors file; it appears whole or not at all."""
    from safetensors.torch import save_file

    tensors = {
        f"weights.{name}": value.contiguous().float() for name, value in file.weights.items()
    }
    tensors |= {f"tables.{name}": value.contiguous() for name, value in file.tables.items()}
    tensors |= {"state_mean": file.mean, "state_std": file.std, "static": file.static.contiguous()}
    if file.change is not None:
        tensors["change_std"] = file.change
    metadata = {**file.metadata, "format": FORMAT, "config": json.dumps(asdict(config))}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        save_file(tensors, partial, metadata)
        partial.chmod(0o644)  # the writer leaves it readable by its owner alone
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def read_model(path: Path) -> ModelFile:
    """Read a file made by `write_model`.

    Raises:
        CheckpointError: not there, truncated, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(
            f"no model file {path}", "a converted model", "run `mosaic model fetch` and `convert`"
        )
    try:
        with safe_open(path, framework="pt") as content:
            metadata = dict(content.metadata() or {})
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", "a whole safetensors file", "convert it again"
        ) from error
    if metadata.get("format") != FORMAT or not {"state_mean", "state_std", "static"} <= set(
        tensors
    ):
        raise CheckpointError(
            f"{path} has format {metadata.get('format')!r}",
            FORMAT,
            "`mosaic model convert` makes such a file from a published checkpoint",
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    return ModelFile(
        part("weights."), part("tables."), tensors["state_mean"], tensors["state_std"],
        tensors["static"], metadata, tensors.get("change_std"),
    )  # fmt: skip


def untrained(
    config: ModelConfig, mean: Tensor, std: Tensor, static: Tensor, seed: int = 0
) -> ModelFile:
    """Random weights, the same on every machine: they show that the machinery runs, no more.

    The last layer is scaled down, so that a step lands near the climatological mean.
    """
    weights = {}
    for name, shape in parameter_shapes(config).items():
        key = hashlib.sha256(f"mosaic-untrained-1|{seed}|{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
        gain = 0.3 if name == "postprocess.3.weight" else 1.0
        scale = gain / math.sqrt(shape[1])
        weights[name] = torch.randn(shape, generator=generator) * scale
    metadata = {
        "source": f"untrained, seed {seed}", "licence": "Apache-2.0", "attribution": "",
        "trained": "false",
    }  # fmt: skip
    change = 0.1 * std if config.predicts == "change" else None
    return ModelFile(weights, {}, mean, std, static, metadata, change)


def version_of(config: ModelConfig, file: ModelFile, path: Path | None = None) -> ModelVersion:
    """Version of a file on disk, or of weights that only exist in memory."""
    if path is not None:
        digest = file_sha256(path)
    else:
        made_of = hashlib.sha256(json.dumps([asdict(config), file.metadata]).encode())
        for table in (file.mean, file.std, file.static):
            made_of.update(np.ascontiguousarray(table.numpy(), "<f4").tobytes())
        digest = made_of.hexdigest()
    return ModelVersion(
        variant=config.name,
        sha256=digest,
        trained=file.metadata.get("trained") == "true",
        licence=file.metadata.get("licence", "unknown"),
        attribution=file.metadata.get("attribution", ""),
    )


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
