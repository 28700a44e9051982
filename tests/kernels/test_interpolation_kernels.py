"""Attention to neighbours by tiles: the plan, the kernels and their gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.errors import ConfigurationError, DeviceError
from mosaic_core.kernels import dispatch
from mosaic_core.kernels.interpolation.neighbours import neighbour_attention
from mosaic_core.kernels.interpolation.tiles import (
    CHUNK,
    NOT_ONE,
    TILE,
    Plan,
    Tiles,
    compact_order,
    plan,
)
from mosaic_core.model.interpolation import Interpolation
from tests.closeness import max_rel

TOLERANCE = {torch.float32: 3e-6, torch.float16: 3e-3}


def entries(tiles: Tiles) -> list[tuple[int, int, int]]:
    """(point, other point, slot) of all that the tables hold, read one by one."""
    found = []
    for tile, points in enumerate(tiles.rows.tolist()):
        for chunk in range(int(tiles.first[tile]), int(tiles.first[tile + 1])):
            for place, other in enumerate(tiles.union[chunk].tolist()):
                for inside, slot in enumerate(tiles.slots[chunk, :, place].tolist()):
                    if slot != NOT_ONE:
                        found.append((points[inside], other, slot))
    return found


@st.composite
def relations(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours with repetitions, sources that nobody uses, any number of points."""
    targets, sources = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    neighbours = random.integers(0, sources, (targets, draw(st.integers(1, 5))))
    return neighbours, random.normal(size=(sources, 3)), random.normal(size=(targets, 3))


@settings(max_examples=30, deadline=None)
@given(relations())
def test_tiles_hold_every_neighbour_once_and_nothing_else(
    relation: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    neighbours, sources, targets = relation
    found = plan(*relation)
    expected = sorted((t, s, j) for t, row in enumerate(neighbours) for j, s in enumerate(row))
    assert sorted(entries(found.targets)) == expected
    assert sorted((t, s, j) for s, t, j in entries(found.sources)) == expected
    for tiles, points in ((found.targets, targets), (found.sources, sources)):
        rows = tiles.rows.flatten()
        assert sorted(rows[rows >= 0].tolist()) == list(range(len(points)))
        assert rows.shape == (-(-len(points) // TILE) * TILE,)
        for tile in range(len(tiles.rows)):
            listed = tiles.union[tiles.first[tile] : tiles.first[tile + 1]].flatten()
            used = listed[listed >= 0]
            assert (used.diff() >= 0).all()
            assert (listed[len(used) :] == -1).all()
            assert len(listed) - len(used) < CHUNK


def test_points_of_a_tile_lie_together() -> None:
    longitude, height = (a.ravel() for a in np.meshgrid(np.arange(32.0), np.arange(32.0)))
    points = np.stack((longitude, height, np.zeros_like(height)), axis=1)
    tiles = points[compact_order(points)].reshape(-1, TILE, 3)
    assert (np.ptp(tiles, axis=1).max(axis=1) <= 7).all()


def test_a_target_of_too_many_neighbours_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="256 neighbours"):
        plan(np.zeros((1, 256), np.int64), np.zeros((1, 3)), np.zeros((1, 3)))


class Case:
    """Random numbers on points of a sphere, some neighbours named twice."""

    def __init__(
        self, batch: int, heads: int, width: int, k: int, dtype: torch.dtype,
        sources: int = 70, targets: int = 68,
    ) -> None:  # fmt: skip
        torch.manual_seed(batch + heads)
        positions = [
            torch.nn.functional.normalize(torch.randn(n, 3), dim=1) for n in (sources, targets)
        ]
        near = torch.cdist(positions[1], positions[0]).argsort(1)[:, :k]
        near[::5, -1] = near[::5, 0]
        self.neighbours, self.directions = near, torch.randn(targets, k, 3)
        self.plan: Plan = plan(near.numpy(), *(x.numpy() for x in positions))
        self.kappa = torch.randn(batch, sources, heads, 3).to(dtype)
        self.values = torch.randn(batch, sources, heads, width).to(dtype)
        self.slope = torch.randn(batch, targets, heads, width).to(dtype)

    def run(self, backend: dispatch.Backend | None) -> list[torch.Tensor]:
        """The output and the gradients by kappa and values; of the twin in float64."""
        exact = backend == "reference"
        kappa, values, slope, directions = (
            x.double() if exact else x
            for x in (self.kappa, self.values, self.slope, self.directions)
        )
        inputs = (kappa.detach().requires_grad_(), values.detach().requires_grad_())
        out = neighbour_attention(*inputs, self.neighbours, directions, self.plan, backend=backend)
        return [out.detach(), *torch.autograd.grad(out, inputs, slope)]


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written to is NaN."""

    def empty(*shape: Any, **options: Any) -> torch.Tensor:
        size = shape[0] if len(shape) == 1 else shape
        return torch.full(size, torch.nan, **options)

    monkeypatch.setattr(torch, "empty", empty)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("batch", "heads", "width", "k"), [(3, 1, 16, 3), (1, 3, 32, 6)])
def test_triton_kernels_and_their_gradients_agree_with_the_twin(
    batch: int, heads: int, width: int, k: int, dtype: torch.dtype
) -> None:
    pytest.importorskip("triton")
    case = Case(batch, heads, width, k, dtype)
    pairs = zip(case.run("triton"), case.run("reference"), strict=True)
    for name, (found, expected) in zip(("out", "kappa", "values"), pairs, strict=True):
        assert found.dtype == dtype, name
        assert max_rel(found.float(), expected) <= TOLERANCE[dtype], name


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_neighbour_is_copied_whatever_its_score(dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    case = Case(1, 1, 16, 1, dtype)
    out, kappa, values = case.run("triton")
    assert torch.equal(out, case.values[:, case.neighbours[:, 0]])
    assert kappa.abs().max() <= 10 * TOLERANCE[dtype]
    assert max_rel(values.float(), case.run("reference")[2]) <= TOLERANCE[dtype]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_triton_kernels_take_the_heads_of_the_published_model(dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    case = Case(1, 12, 64, 20, dtype, sources=40, targets=30)
    with torch.no_grad():
        found, expected = (
            neighbour_attention(
                case.kappa.to(kind), case.values.to(kind), case.neighbours,
                case.directions.to(kind), case.plan, backend=backend,
            )
            for backend, kind in (("triton", dtype), ("reference", torch.float64))
        )  # fmt: skip
    assert max_rel(found.float(), expected) <= TOLERANCE[dtype]


def test_triton_kernels_read_strided_inputs() -> None:
    pytest.importorskip("triton")
    case = Case(2, 2, 16, 4, torch.float32, sources=30, targets=20)
    joined = torch.cat((case.values, case.kappa, case.values.flip(1)), dim=-1)
    values, kappa, _ = joined.split((16, 3, 16), dim=-1)
    turned = case.directions.transpose(0, 1).contiguous().transpose(0, 1)
    found, transposed, expected = (
        neighbour_attention(*given, case.plan, backend=backend)
        for backend, given in (
            ("triton", (kappa, values, case.neighbours, turned)),
            ("triton", (kappa, values.mT.contiguous().mT, case.neighbours, turned)),
            ("reference", (case.kappa, case.values, case.neighbours, case.directions)),
        )
    )
    assert max_rel(found, expected) <= 3e-6
    assert torch.equal(found, transposed)


def test_gradients_are_the_same_bits_every_time() -> None:
    pytest.importorskip("triton")
    case = Case(1, 1, 16, 5, torch.float16)
    for first, second in zip(case.run("triton"), case.run("triton"), strict=True):
        assert torch.equal(first, second)


def test_a_source_that_nobody_uses_has_no_gradient() -> None:
    pytest.importorskip("triton")
    case = Case(1, 1, 16, 3, torch.float32)
    unused = torch.ones(70, dtype=torch.bool)
    unused[case.neighbours.flatten()] = False
    assert unused.any()
    for slope in case.run("triton")[1:]:
        assert (slope[:, unused] == 0).all()


@pytest.mark.parametrize("way", ["to_hp", "to_ll"])
def test_interpolation_by_triton_is_the_published_one(golden: Path, way: str) -> None:
    pytest.importorskip("triton")
    with np.load(golden / "ops/interpolation.npz") as arrays:
        known = {n.removeprefix(f"{way}/"): v for n, v in arrays.items() if n.startswith(way)}
    heads = int(known["num_heads"])
    chosen = slice(0, 72)  # of the targets, to be quick under the interpreter
    neighbours, chords = known["neighbors"][chosen].astype(np.int64), known["rel_pos"][chosen]
    module = module_at(neighbours, known["x"].shape[0], heads)
    module.rel_pos.copy_(torch.from_numpy(chords))
    module.load_state_dict(
        {f"{n}.weight": torch.from_numpy(known[n]) for n in ("to_q", "to_kv", "to_o")}
    )
    with torch.no_grad(), dispatch.forced_backend("triton"):
        found = module(torch.from_numpy(known["x"]).transpose(0, 1))
    assert max_rel(found, known["y"][chosen].swapaxes(0, 1)) <= 3e-6


def module_at(neighbours: np.ndarray, sources: int, heads: int, dim: int = 32) -> Interpolation:
    random = np.random.default_rng(0)
    positions = (random.normal(size=(n, 3)).astype(np.float32) for n in (sources, len(neighbours)))
    return Interpolation(dim, heads, neighbours, *positions)


def test_tiles_follow_neighbours_that_are_adopted() -> None:
    random = np.random.default_rng(1)
    module = module_at(random.integers(0, 50, (80, 4)), 50, 2)
    adopted = random.integers(0, 50, (80, 4))
    module.neighbors.copy_(torch.from_numpy(adopted))
    chords = torch.from_numpy(random.normal(size=(80, 4, 3)).astype(np.float32))
    module.point_at_neighbours(chords)
    assert torch.equal(module.rel_pos, chords)
    expected = sorted((t, s, j) for t, row in enumerate(adopted) for j, s in enumerate(row))
    assert sorted(entries(module.plan().targets)) == expected
    assert not [name for name in module.state_dict() if not name.endswith("weight")]
    moved = module.to("meta").plan()
    assert all(table.is_meta for tiles in moved for table in tiles)


def test_what_the_kernels_do_not_take_is_refused_with_its_reason() -> None:
    case = Case(1, 1, 16, 2, torch.float32, sources=5, targets=5)
    given = (case.kappa, case.values, case.neighbours, case.directions)
    with pytest.raises(DeviceError, match="no plan of tiles"):
        neighbour_attention(*given, backend="triton")
    with pytest.raises(DeviceError, match="12 is not a power of two"):
        neighbour_attention(
            case.kappa, case.values[..., :12], *given[2:], case.plan, backend="triton"
        )
    assert torch.equal(
        neighbour_attention(*given, case.plan), neighbour_attention(*given, backend="blocked")
    )
