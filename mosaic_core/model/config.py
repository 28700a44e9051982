"""Configuration of a model: every number that its weights depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.settings import build, read_config

Ablation = Literal["compress_first", "deterministic", "dense", "latlon_blocks"]


@dataclass(frozen=True)
class GridConfig:
    """A grid with both poles (`nlon`, `nlat`), or one whose coordinates are listed in degrees."""

    nlon: int | None = None
    nlat: int | None = None
    longitudes: tuple[float, ...] = ()
    latitudes: tuple[float, ...] = ()

    def resolve(self) -> LatLonGrid:
        listed = bool(self.longitudes or self.latitudes)
        counted = self.nlon is not None and self.nlat is not None
        if listed == counted:
            raise ConfigurationError(
                "a grid is given twice or not at all", "nlon and nlat, or longitudes and latitudes"
            )
        if counted:
            assert self.nlon is not None
            assert self.nlat is not None
            return LatLonGrid.with_poles(self.nlon, self.nlat)
        return LatLonGrid(self.longitudes, self.latitudes)


@dataclass(frozen=True)
class StageConfig:
    """Blocks at one mesh resolution.

    Attributes:
        nside: HEALPix resolution.
        dim, heads: width of a token and number of query heads.
        kv_heads: key-value heads; each serves `heads / kv_heads` query heads.
        local: tokens in a local attention group.
        block: tokens in a block of the compressed and selected branches.
        selected: key blocks that a query block selects.
        encoder_depth, decoder_depth: blocks on the way down and up (only the first for the
            coarsest stage).
        mlp_ratio: hidden width of the feed-forward layers over `dim`.
    """

    nside: int
    dim: int
    heads: int
    kv_heads: int
    local: int
    block: int
    selected: int
    encoder_depth: int
    decoder_depth: int = 0
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        where = f"stage of nside {self.nside}"
        for name in ("nside", "dim", "heads", "kv_heads", "local", "block"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{where}: {name} {getattr(self, name)}", "1 or more")
        tokens = 12 * self.nside**2
        if self.dim % self.heads or (self.dim // self.heads) % 4:
            raise ConfigurationError(
                f"{where}: {self.dim} features in {self.heads} heads", "a head width in fours"
            )
        if self.heads % self.kv_heads:
            raise ConfigurationError(
                f"{where}: {self.kv_heads} kv heads for {self.heads} heads", "a divisor"
            )
        for name in ("local", "block"):
            if tokens % getattr(self, name):
                raise ConfigurationError(
                    f"{where}: {name} {getattr(self, name)}", f"a divisor of {tokens} tokens"
                )
        if not 0 <= self.selected <= tokens // self.block:
            raise ConfigurationError(
                f"{where}: {self.selected} selected blocks", f"0 to {tokens // self.block}"
            )

    @property
    def tokens(self) -> int:
        return 12 * self.nside**2

    @property
    def hidden(self) -> int:
        return int(self.dim * self.mlp_ratio)


@dataclass(frozen=True)
class Publication:
    """Where a published checkpoint is fetched from, and under which licence.

    `revision` is a full commit of the repository; where it is not pinned here, `mosaic model
    fetch` asks for it.
    """

    repository: str
    checkpoint: str
    licence: str
    attribution: str
    revision: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelConfig:
    """One model variant.

    Attributes:
        name: the variant, as it stands in keys and manifests.
        step_hours: length of a step.
        history: states that go in, `step_hours` apart, the last at the initial time.
        neighbours: k of both interpolations.
        noise_dim: length of the noise vector of a member and step.
        stages: fine to coarse; the last is the bottleneck.
        channels: names in tensor order, or `era5_82`.
        static: fields of the planet that go in (surface geopotential, land-sea mask, soil type).
        season: how the phase of the year advances in a rollout. `calendar` is right;
            `published` advances four times too fast, as the published rollout does.
        predicts: what the network puts out, normalised: the next `state` (the published models), or
            the `change` to it in units of the standard deviation of a step's change, which small
            models learn sooner; they are shown past states as changes too.
        ablations: named departures, see `docs/model.md`.
        published: where the weights of a published variant come from.
    """

    name: str
    step_hours: int
    history: int
    neighbours: int
    stages: tuple[StageConfig, ...]
    grid: GridConfig
    channels: tuple[str, ...] | Literal["era5_82"] = "era5_82"
    static: tuple[str, ...] = ("geopotential_at_surface", "land_sea_mask", "soil_type")
    noise_dim: int = 32
    rope_theta: float = 10000.0
    season: Literal["calendar", "published"] = "calendar"
    predicts: Literal["state", "change"] = "state"
    ablations: tuple[Ablation, ...] = ()
    published: Publication | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if self.step_hours < 1 or self.step_hours % 6:
            raise ConfigurationError(
                f"{self.name}: steps of {self.step_hours} h", "a multiple of 6"
            )
        if self.history < 1 or self.neighbours < 1 or self.noise_dim < 1:
            raise ConfigurationError(
                f"{self.name}: history {self.history}, neighbours {self.neighbours}, "
                f"noise_dim {self.noise_dim}",
                "one or more of each",
            )
        nsides = [stage.nside for stage in self.stages]
        if not nsides or nsides != sorted(set(nsides), reverse=True):
            raise ConfigurationError(f"{self.name}: stages of nside {nsides}", "fine to coarse")
        if "compress_first" in self.ablations and len(nsides) < 2:
            raise ConfigurationError(
                f"{self.name}: compress_first with one stage", "two stages or more"
            )

    @classmethod
    def load(cls, name: str) -> ModelConfig:
        """Read `config/models/<name>.yaml`, or the file at a path that ends in .yaml."""
        content, path = read_config("models", name)
        return build(cls, content, str(path))

    @classmethod
    def from_published(cls, content: Mapping[str, Any]) -> ModelConfig:
        """Read a configuration in the names of the published release (see the golden data)."""
        model = content["model"]

        def stage(given: Mapping[str, Any]) -> StageConfig:
            return StageConfig(
                nside=given["nside"],
                dim=given["dim"],
                heads=given["num_heads"],
                kv_heads=given["num_heads"] // given["gqa_ratio"],
                local=given["block_attn_size"],
                block=given["sparse_block_size"],
                selected=given["sparse_block_count"],
                encoder_depth=given.get("encoder_depth", given.get("depth")),
                decoder_depth=given.get("decoder_depth", 0),
                mlp_ratio=float(given["mlp_ratio"]),
            )

        return cls(
            name=content["name"],
            step_hours=content["step_hours"],
            history=model["num_history_steps"],
            neighbours=model["k_neighbors"],
            stages=(*map(stage, model["cg_stage_cfgs"]), stage(model["bottleneck_cfg"])),
            grid=GridConfig(nlon=content["num_lon"], nlat=content["num_lat"]),
            channels=tuple(model["variables"]),
            static=tuple(model["static_variables"]),
            noise_dim=model["noise_dim"],
            rope_theta=float(model["rope_theta"]),
            season="published",
        )

    @cached_property
    def channel_set(self) -> Channels:
        return ERA5_82 if self.channels == "era5_82" else Channels.parse(self.channels)

    @cached_property
    def lat_lon(self) -> LatLonGrid:
        return self.grid.resolve()

    @cached_property
    def trunk(self) -> tuple[StageConfig, ...]:
        """Stages that run: `compress_first` starts at the second mesh, with all the depth."""
        if "compress_first" not in self.ablations:
            return self.stages
        first, second, *rest = self.stages
        deeper = replace(
            second,
            encoder_depth=second.encoder_depth
            + first.encoder_depth
            + (0 if rest else first.decoder_depth),
            decoder_depth=second.decoder_depth + first.decoder_depth if rest else 0,
        )
        return (deeper, *rest)

    @property
    def features(self) -> int:
        """Features of a grid point: states, static fields, position, two phases."""
        return len(self.channel_set) * self.history + len(self.static) + 3 + 4

    @property
    def perturbed(self) -> bool:
        """Whether noise enters: without it all members would be the same."""
        return "deterministic" not in self.ablations
