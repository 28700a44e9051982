from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mosaic_core.errors import DeviceError
from mosaic_core.kernels.attention import lists
from mosaic_core.kernels.attention.lists import JointLists
from mosaic_core.kernels.dispatch import forced_backend

few = settings(max_examples=25, deadline=None)


@st.composite
def scores_of_lists(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    """Scores with ties, how many to select, blocks of a local group."""
    local = draw(st.integers(1, 4))
    blocks = local * draw(st.integers(1, 5))
    batch, kv_heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    levels = draw(st.sampled_from([1, 2, 7, 1000]))
    shape = (batch, blocks, kv_heads, blocks)
    scores = torch.randint(0, levels, shape, generator=generator).float() - 1
    return scores, draw(st.integers(0, blocks)), local


def best(row: list[float], count: int) -> list[int]:
    return sorted(range(len(row)), key=lambda j: (-row[j], j))[:count]


@few
@given(scores_of_lists())
def test_the_highest_scores_win_and_of_equal_ones_the_lower_block(
    given_scores: tuple[Tensor, int, int],
) -> None:
    scores, count, _ = given_scores
    found = lists.top_blocks(scores, count).flatten(0, 2).tolist()
    assert found == [best(row, count) for row in scores.flatten(0, 2).tolist()]


@few
@given(scores_of_lists())
def test_joint_lists_name_each_attended_block_once_by_class(
    given_scores: tuple[Tensor, int, int],
) -> None:
    scores, count, local = given_scores
    joint = lists.select(scores, count, local, "reference")
    for (b, t, h), row in rows_of(scores).items():
        group = set(range(t // local * local, t // local * local + local))
        chosen = set(best(row, count))
        expected = [sorted(group - chosen), sorted(group & chosen), sorted(chosen - group)]
        ends = joint.ends[b, t, h].tolist()
        listed = joint.blocks[b, t, h].tolist()
        bounds = [0, *ends]
        segments = [listed[bounds[i] : bounds[i + 1]] for i in range(3)]
        assert segments == expected
        assert listed[ends[2] :] == [-1] * (local + count - ends[2])


@few
@given(scores_of_lists())
def test_inverted_lists_hold_the_same_pairs_in_short_pieces(
    given_scores: tuple[Tensor, int, int],
) -> None:
    scores, count, local = given_scores
    joint = lists.select(scores, count, local, "reference")
    check_inverted(joint, scores.shape[3])


def test_long_columns_are_cut_into_pieces_of_equal_length() -> None:
    blocks, local = 70, 1
    scores = torch.zeros(1, blocks, 1, blocks)
    scores[..., :33:32] = 1  # everybody selects blocks 0 and 32
    joint = lists.select(scores, 2, local, "reference")
    check_inverted(joint, blocks)
    found = lists.inverted(joint, blocks)
    of_first = found.pieces[found.pieces[:, 0] == 0]
    assert (of_first[:, 2] - of_first[:, 1]).tolist() == [23, 23, 24]


def test_a_key_block_that_nobody_attends_to_has_one_empty_piece() -> None:
    joint = JointLists(
        torch.tensor([2, 0], dtype=torch.int32).view(1, 2, 1, 1),
        torch.tensor([0, 0, 1], dtype=torch.int32).expand(1, 2, 1, 3),
    )
    found = lists.inverted(joint, 3)
    assert found.offsets.tolist() == [0, 1, 1, 2]
    assert found.pieces[:3].tolist() == [[0, 0, 1], [1, 1, 1], [2, 1, 2]]
    assert found.kinds[:2].tolist() == [2, 2]


def check_inverted(joint: JointLists, key_blocks: int) -> None:
    """Compare with pairs gathered one by one, and the pieces with their promise."""
    batch, blocks, kv_heads, _ = joint.blocks.shape
    expected: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for b in range(batch):
        for t in range(blocks):
            for h in range(kv_heads):
                ends = joint.ends[b, t, h].tolist()
                for n, u in enumerate(joint.blocks[b, t, h, : ends[2]].tolist()):
                    kind = sum(n >= end for end in ends[:2])
                    expected[(b * kv_heads + h) * key_blocks + u].append((t, kind))
    found = lists.inverted(joint, key_blocks)
    pairs = list(zip(found.queries.tolist(), found.kinds.tolist(), strict=True))
    cursor = 0
    rows = found.pieces.tolist()
    for column in range(batch * kv_heads * key_blocks):
        start, end = found.offsets[column : column + 2].tolist()
        assert pairs[start:end] == expected[column]
        first, last = found.piece_offsets[column : column + 2].tolist()
        assert first == cursor < last
        of_column = rows[first:last]
        assert [row[0] for row in of_column] == [column] * len(of_column)
        assert [row[1] for row in of_column] == [start, *(row[2] for row in of_column[:-1])]
        assert of_column[-1][2] == end
        lengths = [row[2] - row[1] for row in of_column]
        assert max(lengths) <= lists.PIECE
        assert max(lengths) - min(lengths) <= 1
        cursor = last
    assert all(row == [-1, 0, 0] for row in rows[cursor:])


def rows_of(scores: Tensor) -> dict[tuple[int, int, int], list[float]]:
    batch, blocks, kv_heads, _ = scores.shape
    return {
        (b, t, h): scores[b, t, h].tolist()
        for b in range(batch)
        for t in range(blocks)
        for h in range(kv_heads)
    }


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers hold what no list may hold, until they are written."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(12345))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("batch", "kv_heads", "blocks", "local", "count", "levels"),
    [
        (1, 3, 6, 2, 3, 3),
        (3, 1, 5, 1, 1, 100),
        (1, 1, 12, 12, 5, 4),
        (1, 2, 4, 2, 4, 2),
        (1, 1, 4, 2, 0, 2),
    ],
)
def test_triton_selects_as_its_twin(
    batch: int, kv_heads: int, blocks: int, local: int, count: int, levels: int, dtype: torch.dtype
) -> None:
    pytest.importorskip("triton")
    torch.manual_seed(blocks)
    scores = (torch.randint(0, levels, (batch, blocks, kv_heads, blocks)) - levels // 2).to(dtype)
    same(scores, count, local)


@pytest.mark.usefixtures("poisoned")
def test_triton_orders_zeros_infinities_and_nans_as_its_twin() -> None:
    pytest.importorskip("triton")
    inf, nan = torch.inf, torch.nan
    rows = [
        [nan, nan, nan, nan],
        [-inf, nan, 1.0, -inf],
        [-0.0, 0.0, -0.0, 0.0],
        [nan, inf, inf, -1e38],
    ]
    scores = torch.tensor(rows)[None, :, None]
    for count in (1, 2, 3):
        same(scores, count, 2)
    assert lists.top_blocks(scores, 2)[0, :, 0].tolist() == [[0, 1], [2, 0], [0, 1], [1, 2]]


@pytest.mark.usefixtures("poisoned")
def test_triton_selects_from_strided_scores() -> None:
    pytest.importorskip("triton")
    torch.manual_seed(3)
    same(torch.randn(1, 6, 8, 2).permute(0, 1, 3, 2)[..., :6], 2, 3)


def same(scores: Tensor, count: int, local: int) -> None:
    found = lists.select(scores, count, local, "triton")
    expected = lists.select(scores, count, local, "reference")
    assert torch.equal(found.blocks, expected.blocks)
    assert torch.equal(found.ends, expected.ends)


def test_selection_gives_its_reason_when_triton_cannot_run() -> None:
    pytest.importorskip("triton")
    scores = torch.zeros(1, 2, 1, 2, dtype=torch.float64)
    with pytest.raises(DeviceError, match="float64"):
        lists.select(scores, 1, 1, "triton")
    with forced_backend("triton"), pytest.raises(DeviceError, match="float64"):
        lists.select(scores, 1, 1)
    assert lists.select(scores, 1, 1).blocks.shape == (1, 2, 1, 2)


@pytest.mark.parametrize(("count", "local"), [(-1, 1), (5, 1), (1, 3)])
def test_lists_that_cannot_be_are_refused(count: int, local: int) -> None:
    with pytest.raises(ValueError, match="blocks"):
        lists.select(torch.zeros(1, 4, 1, 4), count, local)
