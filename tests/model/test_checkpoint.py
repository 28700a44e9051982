from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mosaic_core.errors import CheckpointError, ConfigurationError, DeviceError
from mosaic_core.model import checkpoint
from mosaic_core.model.checkpoint import (
    ModelFile,
    convert,
    load_model,
    pick_device,
    read_model,
    read_published,
    untrained,
    version_of,
    write_model,
)
from mosaic_core.model.config import ModelConfig
from tests.model import golden_model

CPU = torch.device("cpu")


@pytest.fixture
def config(golden: Path) -> ModelConfig:
    return golden_model.config(golden, "era5mini")


@pytest.fixture
def file(golden: Path) -> ModelFile:
    return golden_model.model_file(golden, "era5mini", tables=False)


def published(folder: Path, file: ModelFile, config: ModelConfig, **extra: object) -> list[Path]:
    """A checkpoint, statistics and static file in the published form."""
    state = {f"model.{k}": v for k, v in {**file.weights, **file.tables}.items()}
    torch.save({"model_state_dict": state, "epoch": 7, **extra}, folder / "mini.pt")
    np.savez(
        folder / "norm.npz",
        state_mean=file.mean.double().numpy(),
        state_std=file.std.double().numpy(),
    )
    np.savez(
        folder / "static.npz",
        data=file.static.numpy(),
        latitude=np.array(config.lat_lon.latitudes),
        longitude=np.array(config.lat_lon.longitudes),
    )
    return [folder / "mini.pt", folder / "norm.npz", folder / "static.npz"]


def test_a_published_checkpoint_converts_once_and_gives_the_same_output(
    tmp_path: Path, golden: Path, config: ModelConfig, file: ModelFile
) -> None:
    target = convert(config, *published(tmp_path, file, config), tmp_path / "mini.safetensors")
    converted = read_model(target)
    model = load_model(config, converted, version_of(config, converted, target), CPU)
    given = golden_model.arrays(golden / "era5mini/forward.npz")
    with torch.no_grad():
        found = model.network(given["x"][:, 0], given["day_year_time"][:, 0], given["z"])
    torch.testing.assert_close(found, given["output"].view(found.shape), atol=2e-5, rtol=0)
    assert model.version.trained
    assert len(model.version.sha256) == 64
    assert converted.metadata["source_sha256"] == checkpoint.file_sha256(tmp_path / "mini.pt")


def test_every_wrong_tensor_is_named(config: ModelConfig, file: ModelFile) -> None:
    weights = dict(file.weights)
    del weights["bottleneck.blocks.0.ffn.w2.weight"]
    weights["stray.weight"] = torch.zeros(2)
    weights["preprocess.0.weight"] = weights["preprocess.0.weight"][:, 1:]
    weights["postprocess.1.weight"] = torch.full_like(weights["postprocess.1.weight"], torch.nan)
    broken = replace(file, weights=weights)
    with pytest.raises(CheckpointError) as caught:
        load_model(config, broken, version_of(config, broken), CPU)
    text = str(caught.value)
    assert "4 tensors" in text
    assert "missing bottleneck.blocks.0.ffn.w2.weight" in text
    assert "unexpected stray.weight (2,)" in text
    assert "preprocess.0.weight is (64, 29), expected (64, 30)" in text
    assert "postprocess.1.weight holds values that are not finite" in text
    assert caught.value.exit_code == 4


def test_a_checkpoint_of_another_variant_is_refused(golden: Path, config: ModelConfig) -> None:
    other = golden_model.model_file(golden, "hresmini", tables=False)
    with pytest.raises(CheckpointError, match="do not fit variant 'era5mini'"):
        load_model(config, other, version_of(config, other), CPU)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_code_inside_a_checkpoint_is_never_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model_state_dict": {"model.x": torch.zeros(1)}, "trap": Trap()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(CheckpointError, match="never run"):
            read_published(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"rubbish" * 100, b"PK\x03\x04rubbish"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_published(tmp_path / "x.pt")


def test_a_truncated_model_file_is_refused(
    tmp_path: Path, config: ModelConfig, file: ModelFile
) -> None:
    path = tmp_path / "m.safetensors"
    write_model(config, file, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_model(path)


def test_static_fields_of_another_grid_are_refused(
    tmp_path: Path, config: ModelConfig, file: ModelFile
) -> None:
    paths = published(tmp_path, file, config)
    np.savez(
        paths[2],
        data=file.static.numpy(),
        latitude=np.array(config.lat_lon.latitudes)[::-1],
        longitude=np.array(config.lat_lon.longitudes),
    )
    with pytest.raises(CheckpointError, match="latitude ascending"):
        convert(config, *paths, tmp_path / "m.safetensors")


def test_untrained_weights_are_the_same_each_time_and_say_so(file: ModelFile) -> None:
    config = ModelConfig.load("demo")
    channels = len(config.channel_set)
    static = torch.randn(*config.lat_lon.shape, 3)
    made = [untrained(config, torch.zeros(channels), torch.ones(channels), static) for _ in "ab"]
    for name, tensor in made[0].weights.items():
        assert torch.equal(tensor, made[1].weights[name])
    version = version_of(config, made[0])
    assert not version.trained
    assert "UNTRAINED" in version.text


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="cuda:7"):
        pick_device("cuda:7")
    with pytest.raises(DeviceError, match="expected: auto, cpu"):
        pick_device("abacus")


def test_unknown_configuration_keys_name_the_nearest_one() -> None:
    from mosaic_core.settings import build, read_config

    content, path = read_config("models", "demo")
    with pytest.raises(ConfigurationError, match="did you mean 'neighbours'"):
        build(ModelConfig, {**content, "neighbors": 3}, str(path))
    with pytest.raises(ConfigurationError, match="did you mean 'hres'"):
        ModelConfig.load("hress")


def test_untrained_weights_on_other_fields_are_another_version() -> None:
    config = ModelConfig.load("demo")
    channels = len(config.channel_set)
    mean, std = torch.zeros(channels), torch.ones(channels)
    static = torch.randn(*config.lat_lon.shape, 3)
    versions = {
        version_of(config, untrained(config, *given)).sha256
        for given in ((mean, std, static), (mean + 1, std, static), (mean, std, static + 1))
    }
    assert len(versions) == 3


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut short", b"", b"\x93NUMPY"])
def test_damaged_statistics_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "norm.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"norm\.npz"):
        checkpoint.read_normalisation(path)


def test_a_single_array_is_no_statistics_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "norm.npz")
    with pytest.raises(CheckpointError, match="one array"):
        checkpoint.read_normalisation(tmp_path / "norm.npz")


@pytest.mark.parametrize("key", ["heads", "kv_heads", "local", "block", "dim"])
def test_zeros_in_a_stage_are_refused_by_name(key: str) -> None:
    from dataclasses import asdict

    from mosaic_core.model.config import StageConfig

    stage = asdict(ModelConfig.load("demo").stages[0])
    with pytest.raises(ConfigurationError, match=f"{key} 0; expected: 1 or more"):
        StageConfig(**{**stage, key: 0})
