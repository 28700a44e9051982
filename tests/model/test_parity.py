"""Every array of the golden data, within the tolerance that its README states."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mosaic_core.grid import LatLonGrid
from mosaic_core.kernels.dispatch import forced_backend
from mosaic_core.mesh.healpix import HealpixMesh, unit_vectors
from mosaic_core.mesh.neighbours import grid_radians
from mosaic_core.model import rollout as rollout_module
from mosaic_core.model.attention import BlockSparseAttention, selection_scores
from mosaic_core.model.config import GridConfig, ModelConfig, StageConfig
from mosaic_core.model.interpolation import Interpolation
from mosaic_core.model.layers import FeedForward, rotary_table, rotate
from mosaic_core.model.network import static_features
from mosaic_core.model.resample import Downsample, Upsample
from mosaic_core.model.rollout import phases, rollout
from tests.closeness import max_rel, rms_rel
from tests.model import golden_model
from tests.model.golden_model import VARIANTS, arrays

OPERATION = 3e-6


def seconds_to_datetime(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tables", [True, False], ids=["stored tables", "own tables"])
@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_forward_pass(golden: Path, variant: str, tables: bool, backend: str) -> None:
    model = golden_model.load(golden, variant, tables)
    given = arrays(golden / variant / "forward.npz")
    with torch.no_grad(), forced_backend(backend):  # type: ignore[arg-type]
        found = model.network(given["x"][:, 0], given["day_year_time"][:, 0], given["z"])
    expected = given["output"].view(found.shape)
    assert max_rel(found, expected) <= 1e-5
    assert rms_rel(found, expected) <= 3e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_pass_of_an_ensemble(golden: Path, variant: str) -> None:
    model = golden_model.load(golden, variant)
    given = arrays(golden / variant / "forward.npz")
    states = given["x"][:, 0].repeat_interleave(2, 0)
    times = given["day_year_time"][:, 0].repeat_interleave(2, 0)
    with torch.no_grad():
        found = model.network(states, times, given["z_ens"])
    assert max_rel(found, given["output_ens"].view(found.shape)) <= 1e-5
    assert rms_rel(found, given["output_ens"].view(found.shape)) <= 3e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_pass_in_double_precision(golden: Path, variant: str) -> None:
    network = golden_model.load(golden, variant).network.double()
    given = arrays(golden / variant / "forward.npz")
    with torch.no_grad():
        found = network(
            given["x"][:, 0].double(), given["day_year_time"][:, 0].double(), given["z"].double()
        )
    assert max_rel(found, given["output_f64"].view(found.shape)) <= 4e-15


@pytest.mark.parametrize("variant", VARIANTS)
def test_activations_and_selected_blocks(golden: Path, variant: str) -> None:
    model = golden_model.load(golden, variant)
    given = arrays(golden / variant / "forward.npz")
    settings = json.loads((golden / variant / "config.json").read_text())
    element, stride = settings["intermediate_batch_element"], settings["intermediate_token_stride"]
    seen: dict[str, Tensor] = {}
    lists: dict[str, Tensor] = {}

    def remember(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[name] = output[element, ::stride]

        return hook

    for name, module in model.network.named_modules():
        if f"act/{name}" in given:
            module.register_forward_hook(remember(name))  # type: ignore[arg-type]
        if isinstance(module, BlockSparseAttention):
            plain, key = module.select, name.removesuffix(".attention")

            def select(*blocks: Tensor, plain=plain, key=key) -> Tensor:  # type: ignore[no-untyped-def]
                lists[key] = plain(*blocks)
                return lists[key]

            module.select = select  # type: ignore[method-assign]
    with torch.no_grad():
        model.network(given["x"][:, 0], given["day_year_time"][:, 0], given["z"])
    activations = [name for name in given if name.startswith("act/")]
    chosen = [name for name in given if name.startswith("topk/")]
    assert len(activations) >= 8
    assert len(chosen) >= 7
    for name in activations:
        found = seen[name.removeprefix("act/")]
        assert max_rel(found, given[name]) <= 1e-5, name
        assert rms_rel(found, given[name]) <= 3e-6, name
    for name in chosen:
        found = lists[name.removeprefix("topk/")]
        expected = given[name].long()
        assert torch.equal(found.sort(-1).values.view(expected.shape), expected.sort(-1).values), (
            name
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_rollout_of_three_members(
    golden: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = golden_model.load(golden, variant)
    given = arrays(golden / variant / "rollout.npz")
    day, year = given["day_year_time0"].view(2).tolist()
    monkeypatch.setattr(rollout_module, "phases", lambda time: (day, year))
    history = given["x0"].expand(3, -1, -1, -1, -1)
    steps = rollout(
        model, history, datetime(2020, 1, 1, tzinfo=UTC), lambda i: given["z"][i - 1], range(1, 4)
    )
    found = torch.stack(list(steps), dim=1)
    error = (found - given["forecast"]).abs() / given["state_std"].float()
    assert error.max() <= 5e-5
    advance = rollout_module.phase_advance(model.config)
    np.testing.assert_allclose(advance, given["day_year_delta"], rtol=1e-6)


def test_phases_of_day_and_year(golden: Path) -> None:
    rows = json.loads((golden / "ops/calendar.json").read_text())["rows"]
    for text, day, year in rows:
        assert phases(seconds_to_datetime(text)) == pytest.approx((day, year), abs=1e-12)


@pytest.mark.parametrize("case", ["r1", "r2", "r4", "r4b"])
def test_selection_mixes_heads_as_published(golden: Path, case: str) -> None:
    given = arrays(golden / "ops/topk.npz")
    scores = selection_scores(given[f"{case}/q_cmp"], given[f"{case}/k_cmp"])
    assert max_rel(scores, given[f"{case}/scores"]) <= OPERATION
    expected = given[f"{case}/indices"].long()
    assert torch.equal(scores.topk(expected.shape[-1], dim=-1).indices, expected)


def gated(golden: Path, case: str, branches: tuple[str, ...], count: int | None = None):  # type: ignore[no-untyped-def]
    given = {
        name.removeprefix(f"{case}/"): value
        for name, value in arrays(golden / "ops/gated_attention.npz").items()
        if name.startswith(f"{case}/")
    }
    heads, group = int(given["num_heads"]), int(given["gqa_ratio"])
    stage = StageConfig(
        nside=2, dim=given["x"].shape[-1], heads=heads, kv_heads=heads // group,
        local=int(given["block_attn_size"]), block=int(given["sparse_block_size"]),
        selected=int(given["sparse_block_count"]) if count is None else count, encoder_depth=1,
    )  # fmt: skip
    module = BlockSparseAttention(stage, branches)
    weights = {k.removeprefix("weights/"): v for k, v in given.items() if k.startswith("weights/")}
    table = torch.stack((weights.pop("q_rope.cos_freqs"), weights.pop("q_rope.sin_freqs")), -1)
    if len(branches) == 1:
        weights.pop("to_strategy_combine_mlp.weight")
    module.load_state_dict(weights)
    return module, given, table


@pytest.mark.parametrize("case", ["r2", "r4"])
def test_gated_attention_and_its_branches(golden: Path, case: str) -> None:
    module, given, table = gated(golden, case, ("local", "compressed", "selected"))
    x = given["x"].transpose(0, 1)
    with torch.no_grad():
        found = module(x, table)
        gates = module.gates(x)
        q = rotate(module.to_q(x).unflatten(-1, (module.stage.heads, -1)), table)
        outputs = module.attend(given["q"], given["k"], given["v"])
        lists = module.select(module.block_means(given["q"]), module.block_means(given["k"]))
    assert max_rel(found, given["y"].transpose(0, 1)) <= OPERATION
    assert max_rel(gates, given["gates"].permute(1, 2, 3, 0)) <= OPERATION
    assert max_rel(q, given["q"]) <= OPERATION
    assert max_rel(outputs["local"], given["o_local"]) <= OPERATION
    assert max_rel(outputs["compressed"], given["o_cmp_blocks"]) <= OPERATION
    assert max_rel(outputs["selected"], given["o_slc"]) <= OPERATION
    assert torch.equal(lists.sort(-1).values, given["indices"].long().sort(-1).values)


@pytest.mark.parametrize(
    ("branches", "count", "name"),
    [
        (("local",), None, "y_local_only"),
        (("local", "selected"), None, "y_no_compression"),
        (("local", "compressed", "selected"), 0, "y_count0"),
    ],
)
def test_gated_attention_with_fewer_branches(
    golden: Path, branches: tuple[str, ...], count: int | None, name: str
) -> None:
    module, given, table = gated(golden, "r2", branches, count)
    with torch.no_grad():
        found = module(given["x"].transpose(0, 1), table)
    assert max_rel(found, given[name].transpose(0, 1)) <= OPERATION


@pytest.mark.parametrize(("nside", "width"), [(2, 16), (2, 64), (4, 8)])
def test_rotary_code(golden: Path, nside: int, width: int) -> None:
    given = arrays(golden / "ops/rope_and_grid.npz")
    key = f"nside{nside}_d{width}"
    mesh = HealpixMesh(nside)
    table = rotary_table(mesh.radians, width, 10000.0)
    assert max_rel(table[..., 0], given[f"{key}/cos"]) <= OPERATION
    assert max_rel(table[..., 1], given[f"{key}/sin"]) <= OPERATION
    assert max_rel(rotate(given[f"{key}/x"], table), given[f"{key}/y"]) <= OPERATION
    np.testing.assert_array_equal(mesh.degrees, given[f"healpix_lonlat_deg_nside{nside}"])


def test_rotary_code_of_the_full_mesh(golden: Path) -> None:
    given = arrays(golden / "ops/rope_and_grid.npz")
    table = rotary_table(HealpixMesh(64).radians, 64, 10000.0)[given["nside64_d64/rows"].long()]
    assert max_rel(table[..., 0], given["nside64_d64/cos_rows"]) <= OPERATION
    assert max_rel(table[..., 1], given["nside64_d64/sin_rows"]) <= OPERATION


@pytest.mark.parametrize("way", ["to_hp", "to_ll"])
@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_interpolation(golden: Path, way: str, backend: str) -> None:
    given = arrays(golden / "ops/interpolation.npz")
    heads = int(given[f"{way}/num_heads"])
    points = grid_radians(LatLonGrid.with_poles(24, 13))
    grid, mesh = unit_vectors(points[:, 0], points[:, 1]), HealpixMesh(8).xyz
    ends = (grid, mesh) if way == "to_hp" else (mesh, grid)
    module = Interpolation(32, heads, given[f"{way}/neighbors"].long().numpy(), *ends)
    module.rel_pos.copy_(given[f"{way}/rel_pos"])
    module.load_state_dict({f"{n}.weight": given[f"{way}/{n}"] for n in ("to_q", "to_kv", "to_o")})
    with torch.no_grad(), forced_backend(backend):  # type: ignore[arg-type]
        found = module(given[f"{way}/x"].transpose(0, 1))
    assert max_rel(found, given[f"{way}/y"].transpose(0, 1)) <= OPERATION


@pytest.mark.parametrize("case", ["f4", "f16"])
def test_down_and_upsampling(golden: Path, case: str) -> None:
    given = arrays(golden / "ops/healpix_resample.npz")
    fine, coarse = sorted((int(n) for n in given[f"{case}/nside"]), reverse=True)
    x, y = given[f"{case}/down/x"].transpose(0, 1), given[f"{case}/down/y"].transpose(0, 1)
    down = Downsample(HealpixMesh(fine), HealpixMesh(coarse), x.shape[-1], y.shape[-1])
    skip, out = given[f"{case}/up/shortcut"], given[f"{case}/up/y"].transpose(0, 1)
    up = Upsample(HealpixMesh(coarse), HealpixMesh(fine), y.shape[-1], out.shape[-1])
    for module, side in ((down, "down"), (up, "up")):
        module.load_state_dict(
            {f"{n}.weight": given[f"{case}/{side}/{n}"] for n in ("proj_x", "proj_pos")}
        )
        assert max_rel(module.rel_pos, given[f"{case}/{side}/rel_pos"]) <= OPERATION
    with torch.no_grad():
        assert max_rel(down(x), y) <= OPERATION
        found = up(given[f"{case}/up/x"].transpose(0, 1), skip.transpose(0, 1))
    assert max_rel(found, out) <= OPERATION


def test_feed_forward_with_and_without_noise(golden: Path) -> None:
    given = arrays(golden / "ops/cswiglu.npz")
    hidden, dim = given["w2"].shape[::-1]
    x = given["x"].transpose(0, 1)
    noisy, plain = FeedForward(dim, hidden, 8), FeedForward(dim, hidden, None)
    weights = {"w13.weight": given["w13"], "w2.weight": given["w2"]}
    noisy.load_state_dict({**weights, "noise_bias.weight": given["noise_bias"]})
    plain.load_state_dict(weights)
    with torch.no_grad():
        assert max_rel(noisy(x, given["z"]), given["y"].transpose(0, 1)) <= OPERATION
        assert max_rel(plain(x, None), given["y_without_noise"].transpose(0, 1)) <= OPERATION
    with torch.enable_grad():
        assert max_rel(noisy(x, given["z"]).detach(), given["y"].transpose(0, 1)) <= OPERATION


def test_static_features_and_time(golden: Path) -> None:
    given = arrays(golden / "ops/static_time.npz")
    points = grid_radians(LatLonGrid.with_poles(24, 13))
    shape = golden_model.config(golden, "era5mini")
    found = static_features(shape, given["static_data"], unit_vectors(points[:, 0], points[:, 1]))
    assert max_rel(found, given["static_vars"]) <= OPERATION
    network = golden_model.load(golden, "era5mini").network
    times = given["day_year_time"]
    states = torch.zeros(len(times), 2, 24, 13, 10)
    features = network.features(states, times)[:, 0, -4:]
    # Phases of some turns lose digits in float32: 1e-5 of a cycle.
    torch.testing.assert_close(features, given["time_embedding"], atol=3e-6, rtol=0)


@pytest.mark.parametrize("variant", ["era5", "hres"])
def test_full_configurations_have_the_published_tensors(golden: Path, variant: str) -> None:
    from mosaic_core.model.checkpoint import parameter_shapes

    listed = json.loads((golden / "state_dict_keys.json").read_text())[variant]
    expected = {
        k.removeprefix("model."): tuple(v["shape"] if isinstance(v, dict) else v)
        for k, v in listed["parameters"].items()
    }
    found = parameter_shapes(ModelConfig.load(variant))
    assert found == expected
    assert sum(int(np.prod(shape)) for shape in found.values()) == listed["num_parameters"]


def test_sixteen_bit_products_stay_within_their_rounding(golden: Path) -> None:
    model = golden_model.load(golden, "era5mini")
    given = arrays(golden / "era5mini/forward.npz")
    lists = {k.removeprefix("topk/"): v.long() for k, v in given.items() if k.startswith("topk/")}
    for name, module in model.network.named_modules():
        if isinstance(module, BlockSparseAttention):
            forced = lists[name.removesuffix(".attention")]
            module.select = lambda *_, forced=forced: forced  # type: ignore[method-assign, misc]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model.network(given["x"][:, 0], given["day_year_time"][:, 0], given["z"]).float()
    assert max_rel(found, given["output"].view(found.shape)) <= 2e-2
    assert rms_rel(found, given["output"].view(found.shape)) <= 1.5e-2


def test_grid_and_channels_come_from_the_configuration() -> None:
    grid = GridConfig(longitudes=(0.0, 90.0, 180.0, 270.0), latitudes=(-60.0, 0.0, 60.0))
    assert grid.resolve().shape == (4, 3)
