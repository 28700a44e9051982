"""`infra/prefect.yaml`: what of a site a Prefect server is to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mosaic_core.errors import ConfigurationError
from mosaic_core.settings import build


@dataclass(frozen=True)
class Pool:
    """A work pool; `queues` has how many runs of each go at once, None for any number."""

    name: str
    type: Literal["process"]
    queues: dict[str, int | None]
    description: str = ""


@dataclass(frozen=True)
class Place:
    name: str
    work_queue_name: str = "default"
    job_variables: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cron:
    cron: str
    timezone: str
    slug: str


@dataclass(frozen=True)
class Deployed:
    """One entry of `deployments`; its name is that of the site."""

    name: str
    entrypoint: str
    description: str
    tags: tuple[str, ...]
    work_pool: Place
    parameters: dict[str, Any] = field(default_factory=dict)
    schedules: tuple[Cron, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All of `infra/prefect.yaml`."""

    name: str
    work_pools: tuple[Pool, ...]
    deployments: tuple[Deployed, ...]
    automations: tuple[dict[str, Any], ...] = ()
    definitions: dict[str, Any] = field(default_factory=dict)
    pull: tuple[dict[str, Any], ...] = ()


def plan_file() -> Path:
    """The deployments' file: that of the checkout, or the copy in an installed package."""
    installed = Path(__file__).parent / "prefect.yaml"
    return installed if installed.is_file() else Path(__file__).parent.parent / "infra/prefect.yaml"


def read_plan(path: Path) -> Plan:
    """Read the deployments' file.

    Raises:
        ConfigurationError: no such file, not YAML, or an unknown key in it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: {error}", "a file like infra/prefect.yaml") from error
    if isinstance(content, dict):
        content.pop("prefect-version", None)
    return build(Plan, content, str(path))
