"""One step of the model through fused kernels (`docs/performance.md` says what is fused)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.attention.dense import grouped_attention
from mosaic_core.kernels.attention.gated import gated_attention
from mosaic_core.kernels.attention.lists import select
from mosaic_core.kernels.projections.rotary import rotate_and_average
from mosaic_core.model.attention import selection_scores
from mosaic_core.model.config import ModelConfig, StageConfig
from mosaic_core.model.fused.linears import Dense, Int8, Linears
from mosaic_core.model.interpolation import Interpolation
from mosaic_core.model.layers import rms_norm, weight_of
from mosaic_core.model.network import Block, Mosaic, Stage
from mosaic_core.model.resample import Downsample, Upsample

Precision = Literal["float32", "float16", "bfloat16", "int8"]
"""Type of the matrix products; `int8`: linear maps of blocks in 8 bits, the rest float16."""

_ALIGNED = 8
"""Rows of the packed projection are multiples of 16 bytes."""


def unsupported(config: ModelConfig) -> str | None:
    """Why a variant does not run through the fused network; None if it does."""
    if set(config.ablations) - {"deterministic", "compress_first"}:
        return f"ablations {', '.join(config.ablations)}"
    for stage in config.trunk:
        where = f"stage of nside {stage.nside}"
        if reason := dispatch.head_width(stage.dim // stage.heads):
            return f"{where}: {reason}"
        if stage.dim % 16 or stage.hidden % 16:
            return f"{where}: {stage.dim} and {stage.hidden} features, not multiples of 16"
        if not 16 <= stage.block <= 128 or stage.local % stage.block:
            return f"{where}: blocks of {stage.block} tokens in groups of {stage.local}"
        if not stage.selected:
            return f"{where}: no selected blocks"
    return None


class FusedNetwork:
    """`Mosaic` for inference, called alike.

    The residual stream is in the type of the activations. Norms have no scale, so they are
    factors of rows, which the kernels after a product apply.

    Args:
        network: the model with its weights, on its device; it stays as it is.
        precision: see `Precision`.

    Raises:
        ValueError: a variant that the kernels do not support.
    """

    @torch.no_grad()
    def __init__(self, network: Mosaic, precision: Precision = "float16") -> None:
        if reason := unsupported(network.config):
            raise ValueError(f"{network.config.name} has no fused form: {reason}")
        self.dtype = torch.float16 if precision == "int8" else getattr(torch, precision)
        self.source = network
        self.features_to_tokens = _Tokens(network.preprocess, self.dtype)
        self.to_mesh = _Interpolation(network.interp_to_hp, self.dtype)
        self.to_grid = _Interpolation(network.interp_to_ll, self.dtype)
        eight_bits = precision == "int8"

        def stage(module: nn.Module) -> list[_Block]:
            assert isinstance(module, Stage)
            return [_Block(block, module.rotary, self.dtype, eight_bits) for block in module.blocks]  # type: ignore[arg-type]

        self.encoder = [stage(module) for module in network.encoder_stages]
        self.decoder = [stage(module) for module in network.decoder_stages]
        self.bottleneck = stage(network.bottleneck)
        self.down = [_Down(module, self.dtype) for module in network.downsample_layers]  # type: ignore[arg-type]
        self.up = [_Up(module, self.dtype) for module in network.upsample_layers]  # type: ignore[arg-type]
        _, first, _, last = network.postprocess
        self.first, self.last = weight_of(first).to(self.dtype), weight_of(last).float()

    @torch.no_grad()
    def __call__(self, states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        """See `Mosaic.forward`; float32."""
        shape = states.shape
        x = self.features_to_tokens(self.source.features(states.to(self.dtype), day_year))
        z = self.source.noise_generator(z) if z is not None else None
        x = self.to_mesh(x)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = _through(blocks, x, z)
            skips.append(x)
            x = down(x)
        x = _through(self.bottleneck, x, z)
        for up, blocks in zip(self.up, self.decoder, strict=True):
            x = _through(blocks, up(x, skips.pop()), z)
        x = rms_norm(self.to_grid(rms_norm(x)))
        out = F.linear(F.silu(F.linear(x, self.first), inplace=True).float(), self.last)
        return out.view(shape[0], shape[2], shape[3], -1)


def _through(blocks: list[_Block], x: Tensor, z: Tensor | None) -> Tensor:
    for block in blocks:
        block(x, z)
    return x


class _Tokens:
    """Features of the grid points to tokens: two linear maps, each normalised."""

    def __init__(self, module: nn.Sequential, dtype: torch.dtype) -> None:
        first, _, _, second, _ = module
        weight = weight_of(first)
        self.pad = -weight.shape[1] % _ALIGNED
        self.first = F.pad(weight, (0, self.pad)).to(dtype)
        self.second = weight_of(second).to(dtype)

    def __call__(self, features: Tensor) -> Tensor:
        x = F.silu(rms_norm(F.linear(F.pad(features, (0, self.pad)), self.first)), inplace=True)
        return rms_norm(F.linear(x, self.second))


class _Interpolation:
    """`Interpolation` with its query folded into its keys once."""

    def __init__(self, module: Interpolation, dtype: torch.dtype) -> None:
        self.module = module
        self.to_kappa, self.to_value = (w.to(dtype) for w in module.folded())
        self.to_out = module.to_o.weight.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        x, heads = rms_norm(x), self.module.heads
        kappa = F.linear(x, self.to_kappa).unflatten(-1, (heads, 3))
        values = F.linear(x, self.to_value).unflatten(-1, (heads, -1))
        return F.linear(self.module.gather(kappa, values).flatten(2), self.to_out)


class _Block:
    """`Block` in place on the residual stream."""

    def __init__(self, block: Block, rotary: Tensor, dtype: torch.dtype, eight_bits: bool) -> None:
        attention, ffn = block.attention, block.ffn
        self.stage: StageConfig = attention.stage
        self.rotary = rotary
        width = self.stage.dim // self.stage.heads
        parts = [attention.to_q, attention.to_k, attention.to_v, attention.to_strategy_combine_mlp]
        packed = torch.cat([part.weight for part in parts])
        packed = F.pad(packed, (0, 0, 0, -len(packed) % _ALIGNED))
        weights = (packed, attention.to_o.weight, ffn.w13.weight, ffn.w2.weight)
        make: type[Dense] | type[Int8] = Int8 if eight_bits else Dense
        self.linears: Linears = make(*(w.to(dtype) for w in weights))
        self.noise = ffn.noise_bias
        self.widths = [width * n for n in (self.stage.heads, *2 * (self.stage.kv_heads,))]
        self.widths.append(3 * self.stage.heads)

    def __call__(self, x: Tensor, z: Tensor | None) -> None:
        """x (batch, token, dim), changed in place."""
        self.linears.add_attention(x, self._attention(x).flatten(2))
        shift = None if self.noise is None or z is None else self.noise(z)
        self.linears.add_hidden(x, self.linears.hidden(x, shift))

    def _attention(self, x: Tensor) -> Tensor:
        stage = self.stage
        projected, scale = self.linears.project(x)
        means = rotate_and_average(
            projected,
            scale,
            self.rotary,
            heads=stage.heads,
            kv_heads=stage.kv_heads,
            block_size=stage.block,
        )
        q, k, v, logits = projected[..., : sum(self.widths)].split(self.widths, dim=-1)
        scores = selection_scores(means.q, means.k)
        return gated_attention(
            q.unflatten(-1, (stage.heads, -1)),
            k.unflatten(-1, (stage.kv_heads, -1)),
            v.unflatten(-1, (stage.kv_heads, -1)),
            logits.unflatten(-1, (stage.heads, 3)),
            grouped_attention(means.q, means.k, means.v),
            select(scores, stage.selected, stage.local // stage.block),
            block_size=stage.block,
            local=stage.local,
        )


class _Resample:
    """What both directions between two meshes need; positions are projected once."""

    def __init__(self, module: Downsample | Upsample, dtype: torch.dtype) -> None:
        self.ratio = module.ratio
        self.weight = module.proj_x.weight.to(dtype)
        self.position = module.proj_pos(module.rel_pos).to(dtype)


class _Down(_Resample):
    def __call__(self, x: Tensor) -> Tensor:
        joined = x.unflatten(1, (-1, self.ratio)).flatten(2)
        return rms_norm(F.linear(joined, self.weight).add_(self.position))


class _Up(_Resample):
    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        out = F.linear(x, self.weight).add_(self.position)
        return rms_norm(out.unflatten(-1, (self.ratio, -1)).flatten(1, 2).add_(skip))
