"""A profile: where analyses come from, which model runs, and where everything goes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from mosaic_core.errors import ConfigurationError
from mosaic_core.settings import build, override, read_config

UNTRAINED: Final = "untrained"
SHIPPED: Final = "shipped"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class Events:
    """Who is told of a publication.

    Attributes:
        webhook: URL that gets CloudEvents 1.0 as JSON.
        secret: shared secret that signs them; give it as `${NAME}`.
        sns_topic: ARN of an SNS topic.
    """

    webhook: str | None = None
    secret: str | None = None
    sns_topic: str | None = None


@dataclass(frozen=True)
class Recovery:
    """How cycles that were not published are made up for.

    Attributes:
        attempts: how often a cycle is tried before it is left to people.
        max_age_hours: a cycle older than this is not made up for, but recorded as skipped.
        quiet_minutes: a run that gave no sign for so long is taken for dead.
        unheard_hours: hours after the initial time at which a cycle that nobody began is due;
            None is the cut-off.
    """

    attempts: int = 5
    max_age_hours: float = 24.0
    quiet_minutes: float = 15.0
    unheard_hours: float | None = None


@dataclass(frozen=True)
class Retention:
    """For how many days what is kept; what is not named is kept for ever.

    Attributes:
        products: by product, `ensemble` among them, from the initial time; `other` is for those
            that are not named. When nothing of a forecast is left, its manifest goes too.
        analyses: stored analyses, from their valid time.
        audit: events in the catalog.
    """

    products: Mapping[str, float] = field(default_factory=dict)
    analyses: float | None = None
    audit: float | None = None

    def of(self, product: str) -> float | None:
        """Days for which a product is kept; None is for ever."""
        return self.products.get(product, self.products.get("other"))


@dataclass(frozen=True)
class Profile:
    """One way to run a cycle. Strings may hold `${NAME}` or `${NAME:-default}` of the environment.

    Attributes:
        model: a configuration in `config/models`, or a path of one.
        cycle: initial time when none is given; None is the newest that can be.
        weights: a model file, `shipped` (the one that the package has of `model`), or `untrained`.
        source: kind and settings of the analyses' source.
        store: folder, or `s3://bucket/prefix`, of analyses and forecasts.
        catalog: SQLAlchemy URL of the catalog.
        device: `auto`, `cpu`, `cuda:N`.
        kernels: attention backend; `auto` takes the best that runs.
        require: backend without which the run is refused, so that a production host never falls
            back in silence.
        precision: type of the matrix products; `int8` takes the linear maps of the blocks to 8 bits
            (only where Triton runs).
        cuda_graph: record a step on a GPU once and replay it: for few members or small models,
            where launching kernels takes longer than running them.
        threads: CPU threads of the model; None leaves it to torch.
        members, steps, seed: the ensemble.
        members_per_run: members that one run of the forecast stage computes; the others run
            apart, at the same time where there are devices. None is all in one.
        patience_seconds: for how long a stage waits for a store or catalog that is away.
        window: steps that are written together.
        keepbits: mantissa bits that are kept, by variable; others are lossless.
        products: ids in `config/products.yaml`.
        history: what to do when a past analysis is missing after the cut-off; before it the run
            stops, to be tried again.
        cut_off_hours: hours after the initial time at which `history` comes into force.
        available_after_hours: hours after which the newest cycle can be expected; the default cycle
            is the newest that old.
        leave_out_checks: checks of analyses that this profile does without; recorded.
        finer_grid: whether analyses coarser than the model grid may be interpolated to it.
        static: file of static fields; None takes the source's own or the shipped ones.
        statistics: file of normalisation statistics for untrained weights; None takes the
            source's own or the shipped climatology.
        events: who is told of a publication.
        recovery: how cycles that were not published are made up for.
        retention: for how long what is kept.
    """

    name: str
    model: str
    source: Mapping[str, Any]
    store: str
    catalog: str
    members: int
    steps: int
    cycle: str | None = None
    weights: str = "untrained"
    seed: int = 0
    device: str = "auto"
    kernels: Literal["auto", "triton", "blocked", "reference"] = "auto"
    require: Literal["triton"] | None = None
    precision: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    cuda_graph: bool = False
    threads: int | None = None
    members_per_run: int | None = None
    patience_seconds: float = 180.0
    window: int = 8
    keepbits: Mapping[str, int] = field(default_factory=dict)
    products: tuple[str, ...] = ("statistics", "spectra", "maps")
    history: Literal["stop", "last_whole_history"] = "stop"
    cut_off_hours: float = 9.0
    available_after_hours: float = 0.0
    leave_out_checks: tuple[str, ...] = ()
    finer_grid: Literal["refuse", "bilinear"] = "refuse"
    static: str | None = None
    statistics: str | None = None
    events: Events = Events()
    recovery: Recovery = Recovery()
    retention: Retention = Retention()
    description: str = ""

    def __post_init__(self) -> None:
        if self.require is not None and self.kernels not in ("auto", self.require):
            raise ConfigurationError(
                f"profile {self.name}: kernels {self.kernels!r}, but {self.require!r} is required",
                f"kernels: auto or {self.require}",
            )

        if self.members_per_run is not None and self.members_per_run < 1:
            raise ConfigurationError(
                f"profile {self.name}: members_per_run {self.members_per_run}",
                "one or more, or nothing for all in one run",
            )

    @property
    def backend(self) -> Literal["triton", "blocked", "reference"] | None:
        """The backend that a forecast is held to; None takes the best that runs."""
        return self.require or (None if self.kernels == "auto" else self.kernels)

    @property
    def weights_file(self) -> Path | None:
        """The model file; None for untrained weights."""
        if self.weights == UNTRAINED:
            return None
        if self.weights == SHIPPED:
            return Path(__file__).parent / "model" / "shipped" / f"{self.model}.safetensors"
        return Path(self.weights)

    @classmethod
    def load(cls, name: str, overrides: Sequence[str] = ()) -> Profile:
        """Read `config/profiles/<name>.yaml`, or the file at a path that ends in .yaml.

        Args:
            overrides: `key=value` or `key.inner=value`, values in YAML.

        Raises:
            ConfigurationError: an unknown key, a wrong value, or an unset variable.
        """
        content, path = read_config("profiles", name)
        for text in overrides:
            override(content, text)
        return build(cls, _expanded(content, str(path)), str(path))


def _expanded(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, f"{where}: {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def of_environment(match: re.Match[str]) -> str:
        found = os.environ.get(match[1]) or match[2]
        if found is None:
            raise ConfigurationError(
                f"{where}: the environment has no {match[1]}", "it to be set", f"export {match[1]}"
            )
        return found

    return _VARIABLE.sub(of_environment, value)
