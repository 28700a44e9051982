"""The feed-forward layer: its Triton kernels by the interpreter, its pieces, its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mosaic_core.errors import DeviceError
from mosaic_core.kernels.feed_forward import blocked, reference
from mosaic_core.kernels.feed_forward.swiglu import feed_forward, swiglu
from tests.closeness import max_rel

TOLERANCE = {torch.float32: 3e-6, torch.float16: 3e-3}
Inputs = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


def inputs(
    shape: tuple[int, int, int, int], dtype: torch.dtype, scaled: bool = True, shifted: bool = True
) -> Inputs:
    """x, scale, w13 and shift of (batch, token, dim, hidden)."""
    batch, tokens, dim, hidden = shape
    torch.manual_seed(sum(shape))
    x, w13 = torch.randn(batch, tokens, dim), torch.randn(2 * hidden, dim) / dim**0.5
    scale, shift = 0.5 + torch.rand(batch, tokens), torch.randn(batch, hidden)
    return (
        x.to(dtype),
        scale if scaled else None,
        w13.to(dtype),
        shift.to(dtype) if shifted else None,
    )


def exact(given: Inputs) -> Inputs:
    """The same in double precision, to be differentiated."""
    x, scale, w13, shift = (
        None if a is None else a.detach().double().requires_grad_() for a in given
    )
    assert x is not None
    assert w13 is not None
    return x, scale, w13, shift


# Members whose last tile is not full, more tiles than programs, features that fill no tile.
SHAPES = [(3, 70, 24, 40), (1, 64, 64, 64), (2, 150, 8, 136)]


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["pointers", "descriptors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_triton_kernel_agrees_with_its_twin(
    shape: tuple[int, int, int, int], dtype: torch.dtype, capability: tuple[int, int]
) -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.feed_forward.triton import forward

    given = inputs(shape, dtype, scaled=shape[0] > 1, shifted=shape[0] > 1)
    launch = forward.launch_of(dtype, capability)
    poisoned = torch.full((*shape[:2], shape[3]), torch.nan, dtype=dtype)
    found = forward.swiglu(*given, out=poisoned, launch=launch)
    assert max_rel(found, reference.swiglu(*exact(given)).detach()) <= TOLERANCE[dtype]


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["pointers", "descriptors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_slopes_of_both_products_agree_with_their_twin(
    dtype: torch.dtype, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.feed_forward.triton import backward

    x, scale, w13, shift = given = inputs((3, 70, 24, 40), dtype)
    slope = torch.randn(3, 70, 40).to(dtype)
    monkeypatch.setattr(torch, "empty", poisoned_empty)
    du, total = backward.gradient(slope, *given, launch=backward.launch_of(dtype, capability))
    monkeypatch.undo()
    assert scale is not None
    assert shift is not None
    u = (x.double() @ w13.double().T) * scale.double()[..., None]
    u = torch.cat((u[..., :40] + shift.double()[:, None], u[..., 40:]), -1).requires_grad_()
    (torch.nn.functional.silu(u[..., :40]) * u[..., 40:]).backward(slope.double())
    assert u.grad is not None
    assert max_rel(du, u.grad) <= TOLERANCE[dtype]
    assert max_rel(total, u.grad[..., :40].sum(1)) <= 3e-6


def poisoned_empty(*shape: int, **options: object) -> Tensor:
    return torch.full(shape, torch.nan, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("scaled", "shifted"), [(True, True), (False, True), (True, False)])
def test_gradient_is_that_of_the_twin_in_double_precision(
    dtype: torch.dtype, scaled: bool, shifted: bool
) -> None:
    pytest.importorskip("triton")
    given = inputs((3, 50, 16, 24), dtype, scaled, shifted)
    for tensor in given:
        if tensor is not None:
            tensor.requires_grad_()
    slope = torch.randn(3, 50, 24).to(dtype)
    swiglu(*given, backend="triton").backward(slope)
    twins = exact(given)
    reference.swiglu(*twins).backward(slope.double())
    for tensor, twin in zip(given, twins, strict=True):
        if tensor is not None:
            assert twin is not None
            assert max_rel(tensor.grad, twin.grad) <= TOLERANCE[dtype]


def test_under_autocast_the_kernel_multiplies_in_its_type() -> None:
    pytest.importorskip("triton")
    x, scale, w13, shift = inputs((1, 40, 16, 24), torch.float32)
    w13.requires_grad_()
    with torch.autocast("cpu", torch.float16):
        found = swiglu(x, scale, w13, shift, backend="triton")
        twin = swiglu(x, scale, w13, shift, backend="reference")
    assert found.dtype == twin.dtype == torch.float16
    assert max_rel(found.detach(), twin.detach()) <= 3e-3
    (slope,) = torch.autograd.grad(found.sum(), w13)
    assert slope.dtype == torch.float32


def test_input_that_is_not_contiguous_is_read_as_it_is() -> None:
    pytest.importorskip("triton")
    x, scale, w13, shift = inputs((2, 40, 16, 24), torch.float32)
    spread = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not spread.is_contiguous()
    found = swiglu(spread, scale, w13, shift, backend="triton")
    assert torch.equal(found, swiglu(x, scale, w13, shift, backend="triton"))


@pytest.mark.parametrize("scaled", [True, False])
def test_runs_of_tokens_agree_with_all_at_once(
    scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs((3, 50, 16, 24), torch.float32, scaled)
    w2 = torch.randn(16, 24)
    monkeypatch.setattr(blocked, "_HIDDEN_BYTES", {"cpu": 7 * 2 * 3 * 2 * 24 * 4})
    with torch.no_grad():
        found = swiglu(*given, backend="blocked")
        out = feed_forward(*given, w2, backend="blocked")
        expected = swiglu(*given, backend="reference")
        whole = feed_forward(*given, w2, backend="reference")
    assert max_rel(found, expected) <= 1e-6
    assert max_rel(out, whole) <= 1e-6


@pytest.mark.parametrize(("dim", "hidden"), [(20, 24), (16, 20)])
def test_features_that_break_the_alignment_are_declined(dim: int, hidden: int) -> None:
    pytest.importorskip("triton")
    with pytest.raises(DeviceError, match=r"20 .* features are no multiple"):
        swiglu(*inputs((1, 8, dim, hidden), torch.float32), backend="triton")


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, scale, w13, shift = inputs((2, 8, 16, 24), torch.float32)
    assert scale is not None
    assert shift is not None
    with pytest.raises(ValueError, match="weights"):
        swiglu(x[..., :8], scale, w13, shift)
    with pytest.raises(ValueError, match="scale"):
        swiglu(x, scale[:1], w13, shift)
    with pytest.raises(ValueError, match="shift"):
        swiglu(x, scale, w13, shift[:, :8])
