from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mosaic_core.errors import ConfigurationError
from mosaic_core.profile import Profile
from mosaic_core.settings import build, config_folder, read_config


@dataclass(frozen=True)
class Inner:
    depth: int
    ratio: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    parts: tuple[Inner, ...] = ()
    kind: Literal["fine", "coarse"] = "fine"
    limit: int | None = None
    table: Mapping[str, int] = field(default_factory=dict)


def test_nested_values_are_built_and_checked() -> None:
    made = build(
        Outer,
        {"name": "a", "parts": [{"depth": 2, "ratio": 3}], "limit": 4, "table": {"x": 1}},
        "f.yaml",
    )
    assert made == Outer("a", (Inner(2, 3.0),), "fine", 4, {"x": 1})
    assert isinstance(made.parts[0].ratio, float)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"nmae": "a"}, "did you mean 'name'"),
        ({}, "no value for 'name'"),
        ({"name": 3}, "a value of type str"),
        ({"name": "a", "parts": [{"depth": "deep"}]}, r"parts\[0\]: depth: 'deep'"),
        ({"name": "a", "parts": [{"dept": 1}]}, "did you mean 'depth'"),
        ({"name": "a", "kind": "fin"}, "did you mean 'fine'"),
        ({"name": "a", "limit": True}, "limit: True"),
        ({"name": "a", "table": {"x": "y"}}, "table: x"),
        ("text", "keys and values of Outer"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(content: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(Outer, content, "f.yaml")


def test_files_that_are_not_yaml_mappings_are_refused(tmp_path: Path) -> None:
    for name, text in (("a.yaml", "- 1\n"), ("b.yaml", "{"), ("c.yaml", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError):
            read_config("profiles", str(tmp_path / name))


def test_every_shipped_profile_and_model_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    from mosaic_core.model.config import ModelConfig

    for name in ("MOSAIC_WEIGHTS", "MOSAIC_STORE", "MOSAIC_CATALOG"):
        monkeypatch.setenv(name, "x")
    profiles = sorted((config_folder() / "profiles").glob("*.yaml"))
    models = sorted((config_folder() / "models").glob("*.yaml"))
    assert {p.stem for p in profiles} == {"demo", "production"}
    for path in profiles:
        assert Profile.load(path.stem).name == path.stem
    for path in models:
        assert ModelConfig.load(path.stem).name == path.stem


def test_the_environment_fills_in_and_an_unset_variable_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOSAIC_HOME", "/somewhere")
    assert Profile.load("demo").store == "/somewhere/store"
    monkeypatch.delenv("MOSAIC_STORE", raising=False)
    monkeypatch.setenv("MOSAIC_WEIGHTS", "w")
    monkeypatch.setenv("MOSAIC_CATALOG", "c")
    with pytest.raises(ConfigurationError, match="no MOSAIC_STORE"):
        Profile.load("production")


def test_overrides_are_read_as_yaml() -> None:
    profile = Profile.load("demo", ["members=3", "source.seed=4", "products=[statistics]"])
    assert (profile.members, profile.source["seed"], profile.products) == (3, 4, ("statistics",))
    with pytest.raises(ConfigurationError, match="did you mean 'members'"):
        Profile.load("demo", ["member=3"])
    with pytest.raises(ConfigurationError, match="key=value"):
        Profile.load("demo", ["members"])


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'demo'"):
        Profile.load("dmeo")
