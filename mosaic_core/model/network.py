"""The Mosaic network (Zhdanov et al. 2026): a U-Net of block-sparse transformers on HEALPix."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mosaic_core.errors import CheckpointError
from mosaic_core.mesh.healpix import HealpixMesh, unit_vectors
from mosaic_core.mesh.neighbours import grid_radians, grid_to_mesh, mesh_to_grid
from mosaic_core.model.attention import BRANCHES, BlockSparseAttention
from mosaic_core.model.config import ModelConfig, StageConfig
from mosaic_core.model.interpolation import Interpolation
from mosaic_core.model.layers import FeedForward, RMSNorm, linear, rotary_table
from mosaic_core.model.resample import Downsample, Upsample, standardised


class Block(nn.Module):
    """x + attention(rms(x)), then x + ffn(rms(x), z)."""

    def __init__(self, stage: StageConfig, noise_dim: int | None, dense: bool) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.attention = BlockSparseAttention(stage, ("local",) if dense else BRANCHES)
        self.ffn = FeedForward(stage.dim, stage.hidden, noise_dim)

    def forward(self, x: Tensor, z: Tensor | None, rotary: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x), rotary)
        out: Tensor = x + self.ffn(self.norm(x), z)
        return out


class Stage(nn.Module):
    """Blocks at one resolution.

    `latlon_blocks` orders the tokens by rows of latitude meanwhile, so that a block of attention
    is a strip instead of a compact patch.
    """

    rotary: Tensor
    order: Tensor

    def __init__(self, stage: StageConfig, depth: int, config: ModelConfig) -> None:
        super().__init__()
        mesh = HealpixMesh(stage.nside)
        dense = "dense" in config.ablations
        if dense:
            stage = StageConfig(**{**vars(stage), "local": stage.tokens})
        self.reordered = "latlon_blocks" in config.ablations
        noise_dim = config.noise_dim if config.perturbed else None
        self.blocks = nn.ModuleList(Block(stage, noise_dim, dense) for _ in range(depth))
        order = mesh.rows if self.reordered else np.arange(0)
        radians = mesh.radians[order] if self.reordered else mesh.radians
        table = rotary_table(radians, stage.dim // stage.heads, config.rope_theta)
        self.register_buffer("rotary", table, persistent=False)
        self.register_buffer("order", torch.from_numpy(order), persistent=False)

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        """x (batch, token, dim), z (batch, noise_dim) -> (batch, token, dim)."""
        if self.reordered:
            x = x[:, self.order]
        for block in self.blocks:
            x = block(x, z, self.rotary)
        if self.reordered:
            x = x[:, torch.argsort(self.order)]
        return x


class NoiseGenerator(nn.Module):
    """One linear map of the raw noise, shared by all layers."""

    def __init__(self, noise_dim: int) -> None:
        super().__init__()
        self.to_noise = linear(noise_dim, noise_dim)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.to_noise(z)
        return out


class Mosaic(nn.Module):
    """One step of the model in normalised units.

    Args:
        config: the variant.
        static: static fields (longitude, latitude, field) in raw units, in the order of
            `config.static`.
    """

    static_vars: Tensor

    def __init__(self, config: ModelConfig, static: Tensor) -> None:
        super().__init__()
        self.config = config
        grid, trunk = config.lat_lon, config.trunk
        meshes = [HealpixMesh(stage.nside) for stage in trunk]
        fine, dim = meshes[0], trunk[0].dim
        radians = grid_radians(grid)
        xyz = unit_vectors(radians[:, 0], radians[:, 1])
        self.register_buffer("static_vars", static_features(config, static, xyz), persistent=False)
        if config.perturbed:
            self.noise_generator = NoiseGenerator(config.noise_dim)
        self.preprocess = nn.Sequential(
            linear(config.features, dim), RMSNorm(), nn.SiLU(), linear(dim, dim), RMSNorm()
        )
        to_mesh = grid_to_mesh(grid, fine, config.neighbours)
        to_grid = mesh_to_grid(grid, fine, config.neighbours)
        self.interp_to_hp = Interpolation(dim, trunk[0].heads, to_mesh, xyz, fine.xyz)
        self.encoder_stages = nn.ModuleList(
            Stage(stage, stage.encoder_depth, config) for stage in trunk[:-1]
        )
        self.downsample_layers = nn.ModuleList(
            Downsample(meshes[i], meshes[i + 1], trunk[i].dim, trunk[i + 1].dim)
            for i in range(len(trunk) - 1)
        )
        self.bottleneck = Stage(trunk[-1], trunk[-1].encoder_depth, config)
        upward = range(len(trunk) - 2, -1, -1)
        self.upsample_layers = nn.ModuleList(
            Upsample(meshes[i + 1], meshes[i], trunk[i + 1].dim, trunk[i].dim) for i in upward
        )
        self.decoder_stages = nn.ModuleList(
            Stage(trunk[i], trunk[i].decoder_depth, config) for i in upward
        )
        self.norm_before_interp_ll = RMSNorm()
        self.interp_to_ll = Interpolation(dim, trunk[0].heads, to_grid, fine.xyz, xyz)
        self.postprocess = nn.Sequential(
            RMSNorm(), linear(dim, dim), nn.SiLU(), linear(dim, len(config.channel_set))
        )

    def forward(self, states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        """The next state.

        Args:
            states: (batch, history, longitude, latitude, channel), normalised, oldest first.
            day_year: phases of the day and of the year at the last state, in cycles, (batch, 2).
            z: raw standard normal noise, (batch, noise_dim); None for a deterministic model.

        Returns:
            (batch, longitude, latitude, channel), normalised.
        """
        shape = states.shape
        x = self.preprocess(self.features(states, day_year))
        if self.config.perturbed:
            z = self.noise_generator(z)
        x = self.interp_to_hp(x).to(states.dtype)  # the residual stream keeps the states' type
        skips = []
        for stage, down in zip(self.encoder_stages, self.downsample_layers, strict=True):
            x = stage(x, z)
            skips.append(x)
            x = down(x)
        x = self.bottleneck(x, z)
        for up, stage in zip(self.upsample_layers, self.decoder_stages, strict=True):
            x = stage(up(x, skips.pop()), z)
        x = self.interp_to_ll(self.norm_before_interp_ll(x))
        out: Tensor = self.postprocess(x)
        return out.view(shape[0], shape[2], shape[3], -1)

    def features(self, states: Tensor, day_year: Tensor) -> Tensor:
        """Inputs: states, static fields and position, time; (batch, point, feature)."""
        batch, history, nlon, nlat, channels = states.shape
        points = nlon * nlat
        state = states.permute(0, 2, 3, 1, 4).reshape(batch, points, history * channels)
        static = self.static_vars.to(states.dtype).transpose(0, 1).expand(batch, -1, -1)
        phase = 2 * torch.pi * day_year
        day, year = phase[:, :1], phase[:, 1:]
        time = torch.cat((day.sin(), day.cos(), year.sin(), year.cos()), dim=1)
        time = time.to(states.dtype)[:, None].expand(-1, points, -1)
        return torch.cat((state, static, time), dim=2)

    def adopt_tables(self, tables: Mapping[str, Tensor]) -> None:
        """Use tables of a published checkpoint in place of computed ones.

        A stored `neighbors` settles which of several equidistant points the weights saw.

        Args:
            tables: published buffer names (without the prefix `model.`) and their tensors.

        Raises:
            CheckpointError: a table that this network does not have, or of another shape.
        """
        own = dict(self.named_buffers())
        for name, value in tables.items():
            stage, _, tail = name.partition(".blocks.")
            if tail.endswith((".k_rope.cos_freqs", ".k_rope.sin_freqs")):
                continue
            if tail.endswith((".q_rope.cos_freqs", ".q_rope.sin_freqs")):
                part = 0 if "cos" in tail else 1
                target = own[f"{stage}.rotary"][..., part]
            elif name in own:
                target = own[name]
            else:
                raise CheckpointError(f"table {name!r}", "a buffer of this network")
            if target.shape != value.shape:
                raise CheckpointError(
                    f"{name} has shape {tuple(value.shape)}",
                    f"{tuple(target.shape)}",
                    "use the configuration of this checkpoint's variant",
                )
            target.copy_(value)
        for name, module in self.named_modules():
            if f"{name}.neighbors" in tables:
                assert isinstance(module, Interpolation)
                module.point_at_neighbours(tables.get(f"{name}.rel_pos"))


def static_features(config: ModelConfig, static: Tensor, xyz: np.ndarray) -> Tensor:
    """Static fields and position, standardised over the grid points: (point, 1, field + 3).

    The mean is over points, not area, and the deviation is unbiased: the trained weights saw it so.
    """
    expected = (*config.lat_lon.shape, len(config.static))
    if tuple(static.shape) != expected:
        raise CheckpointError(
            f"static fields of shape {tuple(static.shape)}",
            f"{expected}: (longitude, latitude, {', '.join(config.static)})",
        )
    raw = static.reshape(-1, len(config.static)).numpy().astype(np.float32)
    return standardised(np.concatenate((raw, xyz), axis=1))[:, None]
