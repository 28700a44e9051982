"""Exact counts: floating-point operations of a member-step, 2 a multiply-add, and parameters."""

from __future__ import annotations

from mosaic_core.model.config import ModelConfig, StageConfig


def attention(stage: StageConfig) -> dict[str, int]:
    """Of one block's attention branches, one member."""
    blocks = stage.tokens // stage.block
    return {
        "local": 4 * stage.tokens * stage.local * stage.dim,
        "compressed": 4 * blocks * blocks * stage.dim,
        "scores": 2 * blocks * blocks * stage.dim,
        "selected": 4 * stage.tokens * stage.selected * stage.block * stage.dim,
    }


def block(stage: StageConfig) -> dict[str, int]:
    """Of one block of the trunk, one member."""
    kv_dim = stage.dim // stage.heads * stage.kv_heads
    return {
        "qkvo": 2 * stage.tokens * stage.dim * (2 * stage.dim + 2 * kv_dim),
        "gates": 2 * stage.tokens * stage.dim * 3 * stage.heads,
        "feed_forward": 2 * stage.tokens * 3 * stage.dim * stage.hidden,
        **attention(stage),
    }


def member_step(config: ModelConfig) -> dict[str, int]:
    """Of every part of one step of one member, as the published formulation counts them."""
    fine, k = config.stages[0], config.neighbours
    points, dim = len(config.lat_lon.longitudes) * len(config.lat_lon.latitudes), fine.dim
    parts = {
        "preprocess": 2 * points * dim * (config.features + dim),
        "interpolation_linears": 2 * dim * dim * 3 * (points + fine.tokens),
        "interpolation_queries": 2 * (points + fine.tokens) * k * 3 * dim,
        "interpolation_sums": 4 * (points + fine.tokens) * k * dim,
        "postprocess": 2 * points * dim * (dim + len(config.channel_set)),
        "resampling": 0,
    }
    for stage in config.stages:
        depth = stage.encoder_depth + stage.decoder_depth
        for part, count in block(stage).items():
            parts[part] = parts.get(part, 0) + depth * count
    for upper, lower in zip(config.stages, config.stages[1:], strict=False):
        ratio = upper.tokens // lower.tokens
        fine_width = ratio * upper.dim
        down = 2 * lower.tokens * (fine_width + 3 * ratio) * lower.dim
        up = 2 * lower.tokens * (lower.dim + 3 * ratio) * fine_width
        parts["resampling"] += down + up
    return parts


def parameters(config: ModelConfig) -> int:
    """Weights of the network; they do not depend on the meshes and the grid."""
    fine, noise = config.stages[0], config.noise_dim
    dim, channels = fine.dim, len(config.channel_set)
    count = noise * noise + dim * (config.features + dim) + dim * (dim + channels)
    count += 2 * (3 * dim + 3 * dim * dim)
    for stage in config.stages:
        kv_dim = stage.dim // stage.heads * stage.kv_heads
        attention = 2 * stage.dim * (stage.dim + kv_dim) + 3 * stage.heads * stage.dim
        feed_forward = stage.hidden * (3 * stage.dim + noise)
        count += (stage.encoder_depth + stage.decoder_depth) * (attention + feed_forward)
    for upper, lower in zip(config.stages, config.stages[1:], strict=False):
        ratio = upper.tokens // lower.tokens
        count += (2 * upper.dim * lower.dim + 3 * lower.dim + 3 * ratio * upper.dim) * ratio
    return count
