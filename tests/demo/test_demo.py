"""`mosaic demo` end to end, small: the simulated atmosphere, a tiny model, two forecasts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mosaic_core.cli import app
from mosaic_core.errors import ConfigurationError
from tests.pipeline.world import tree_digest

CHANNELS = [
    "2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind",
    "mean_sea_level_pressure", "geopotential_500", "geopotential_850", "temperature_500",
    "temperature_850", "u_component_of_wind_500", "u_component_of_wind_850",
    "v_component_of_wind_500", "v_component_of_wind_850",
]  # fmt: skip
STAGE = {"dim": 16, "heads": 2, "kv_heads": 1, "local": 48, "block": 16, "selected": 1}


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of a tiny model on the simulated atmosphere at T31; nothing has run."""
    folder = tmp_path_factory.mktemp("demo")
    model = {
        "name": "tiny",
        "step_hours": 12,
        "history": 2,
        "neighbours": 4,
        "noise_dim": 4,
        "predicts": "change",
        "grid": {"nlon": 24, "nlat": 13},
        "channels": CHANNELS,
        "static": ["geopotential_at_surface", "land_sea_mask", "soil_type"],
        "stages": [
            {**STAGE, "nside": 4, "encoder_depth": 1, "decoder_depth": 1},
            {**STAGE, "nside": 2, "encoder_depth": 1},
        ],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(model))
    profile = {
        "name": "tiny-demo",
        "model": str(folder / "model.yaml"),
        "source": {
            "kind": "simulated", "truncation": 31, "grid": [24, 13],
            "checkpoints": str(folder / "checkpoints"),
        },
        "cycle": "2026-01-02T00Z",
        "store": str(folder / "store"),
        "catalog": f"sqlite:///{folder}/catalog.sqlite",
        "leave_out_checks": [
            "units and plausible values", "global means", "tendency", "humidity and ascent",
            "orientation on the continents",
        ],
        "device": "cpu",
        "threads": 1,
        "members": 2,
        "steps": 4,
        "products": ["statistics"],
    }  # fmt: skip
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile))
    return folder / "profile.yaml"


def demo(profile: Path, *words: str) -> str:
    arguments = ["demo", "-p", str(profile), "--cycles", "2", "--spacing", "24", *words]
    outcome = CliRunner(env={"COLUMNS": "120"}).invoke(app, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


@pytest.mark.slow
def test_the_demo_forecasts_publishes_verifies_and_repeats_nothing(profile: Path) -> None:
    said = demo(profile)
    store = profile.parent / "store"
    for day in ("02", "03"):
        assert (store / f"forecasts/v1/tiny/2026/01/{day}/00Z/manifest.json").is_file()
    for column in ("RMSE", "/ persist.", "spr./skill", "fair CRPS"):
        assert column in said
    for row in ("z500 (m)", "t850 (K)", "u850 (m/s)", "msl (hPa)"):
        assert row in said
    assert len(re.findall(r"│\s+24 h │", said)) >= 5
    assert "kinetic energy at wavenumbers" in said
    assert "These weights are untrained" in said
    assert "run -p production" in said
    pictures = store / "verification/v1/tiny/simulated-terra-t31-s0-truth"
    for name in ("scorecard.png", "spectra.png"):
        assert (pictures / name).read_bytes().startswith(b"\x89PNG")
        assert name in said
    before = tree_digest(store)
    again = demo(profile)
    assert again.count("published before, unchanged") == 2
    assert "verified before, unchanged" in again
    assert tree_digest(store) == before
    table = re.compile(r"^.*│.*$", re.MULTILINE)
    assert table.findall(again) == table.findall(said)


def test_a_source_without_truth_is_refused_before_anything_runs(
    profile: Path, tmp_path: Path
) -> None:
    source = f"source={{kind: zarr, url: {tmp_path}}}"
    with pytest.raises(ConfigurationError):
        demo(profile, "--set", source, "--set", f"store={tmp_path / 'store'}")
    assert not list(tmp_path.glob("store/forecasts"))


def test_initial_times_between_the_cycles_are_refused(profile: Path) -> None:
    with pytest.raises(ConfigurationError, match="6-hourly"):
        demo(profile, "--spacing", "25")
