"""The files of `infra/`, read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent


def terraform(*words: str, asked: str = "", folder: Path = INFRA) -> str:
    """What Terraform answers; it reads no configuration of its user and asks nobody outside."""
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed")
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1"}
    environment.pop("TF_CLI_CONFIG_FILE", None)
    done = subprocess.run(
        [program, *words], input=asked, env=environment, cwd=folder,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def text_of(path: str) -> str:
    return (INFRA / path).read_text(encoding="utf-8")


def documents(path: Path) -> list[dict[str, Any]]:
    """Every document of a YAML file."""
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]


def compose() -> dict[str, Any]:
    found = documents(INFRA / "compose/compose.yaml")[0]
    assert isinstance(found, dict)
    return found


def variables_in_env_file(path: str) -> dict[str, str]:
    """`NAME=value` lines, those that are commented out too."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text_of(path), re.MULTILINE))


def locked(package: str) -> str:
    """The version in constraints.txt."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==(\S+)$", constraints, re.MULTILINE)
    assert found, f"constraints.txt has no {package}"
    return found[1]


@dataclass(frozen=True)
class Unit:
    """A systemd unit with the drop-ins that apply to it, in the order systemd reads them."""

    name: str
    settings: tuple[tuple[str, str, str], ...]

    def all(self, key: str) -> list[str]:
        return [value for _, name, value in self.settings if name == key]

    def last(self, key: str) -> str | None:
        return (self.all(key) or [None])[-1]


def units() -> Iterator[Unit]:
    folder = INFRA / "systemd"
    for path in sorted(folder.glob("mosaic*.*")):
        if path.suffix not in (".service", ".timer", ".target"):
            continue
        drop_ins = list((folder / f"{path.name}.d").glob("*.conf"))
        if path.suffix == ".service":
            drop_ins += (folder / "mosaic-.service.d").glob("*.conf")
        files = [path, *sorted(drop_ins, key=lambda p: p.name)]
        yield Unit(path.name, tuple(s for file in files for s in _settings(file)))


def _settings(path: Path) -> Iterator[tuple[str, str, str]]:
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            yield section, key, value


@dataclass(frozen=True)
class Instruction:
    stage: str
    word: str
    rest: str


def dockerfile() -> list[Instruction]:
    """The instructions of the Dockerfile; those before the first stage have stage ''."""
    joined = re.sub(r"\\\n\s*", " ", text_of("images/Dockerfile"))
    stage, found = "", []
    for line in joined.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        found.append(Instruction(stage, word, rest.strip()))
    return found


def ancestry(stage: str) -> list[str]:
    """A stage and those it is built on, the first first."""
    parents = {i.stage: i.rest.split()[0] for i in dockerfile() if i.word == "FROM"}
    chain = [stage]
    while parents[chain[0]] in parents:
        chain.insert(0, parents[chain[0]])
    return chain


def instructions_of(image: str, word: str) -> list[str]:
    """What an instruction says in an image and all that it is built on, in order."""
    return [
        i.rest
        for stage in ancestry(image)
        for i in dockerfile()
        if (i.stage, i.word) == (stage, word)
    ]
