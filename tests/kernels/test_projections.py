"""What surrounds the linear maps of attention: Triton kernels by the interpreter, and 8 bits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mosaic_core.errors import DeviceError
from mosaic_core.kernels.projections import reference
from mosaic_core.kernels.projections.int8 import int8_linear, int8_swiglu, quantise_rows
from mosaic_core.kernels.projections.rms import inverse_rms
from mosaic_core.kernels.projections.rotary import rotate_and_average
from mosaic_core.model.layers import rotate
from tests.closeness import max_rel

TOLERANCE = {torch.float32: 3e-6, torch.float16: 3e-3}
TYPES = [torch.float32, torch.float16]
CHIPS = pytest.mark.parametrize("chip", [(8, 0), (9, 0)], ids=["pointers", "descriptors"])


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is handed out holds what no result may hold."""

    def full(*shape: int | tuple[int, ...], **options: object) -> Tensor:
        poison = 99 if options.get("dtype") is torch.int8 else math.nan
        return torch.full(torch.Size(shape[0] if len(shape) == 1 else shape), poison, **options)  # type: ignore[call-overload,arg-type]

    monkeypatch.setattr(torch, "empty", full)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(3, 33, 24), (1, 16, 768), (5, 300)])
def test_row_factor_of_the_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    torch.manual_seed(0)
    x = (torch.randn(shape) * torch.logspace(-2, 2, shape[-2])[:, None]).to(dtype)
    x[..., 0, :] = 0
    found = inverse_rms(x, backend="triton")
    assert found.dtype == torch.float32
    assert (found / reference.inverse_rms(x.double()) - 1).abs().max() <= 1e-6


def test_norm_before_a_product_is_a_row_factor_after_it() -> None:
    x, w = torch.randn(3, 7, 32).double(), torch.randn(20, 32).double()
    normed = F.rms_norm(x, (32,), eps=2.0**-23) @ w.T
    assert max_rel(inverse_rms(x)[..., None] * (x @ w.T), normed) <= 1e-14


def projection(
    batch: int, tokens: int, heads: int, kv_heads: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """A joint projection with padded rows, row factors, angles."""
    torch.manual_seed(tokens + heads)
    columns = (heads + 2 * kv_heads) * width + 3 * heads
    p = torch.randn(batch, tokens, columns + 8 - columns % 8).to(dtype)
    angle = torch.rand(tokens, width // 2) * 7
    return p, 0.5 + torch.rand(batch, tokens), torch.stack((angle.cos(), angle.sin()), -1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "kv_heads", "width", "block"),
    [(3, 64, 3, 1, 16, 16), (1, 96, 4, 4, 32, 48), (2, 128, 12, 3, 64, 128)],
)
def test_rotary_code_and_means_agree_with_their_twin(
    batch: int, tokens: int, heads: int, kv_heads: int, width: int, block: int, dtype: torch.dtype
) -> None:
    pytest.importorskip("triton")
    p, scale, rotary = projection(batch, tokens, heads, kv_heads, width, dtype)
    sizes = {"heads": heads, "kv_heads": kv_heads, "block_size": block}
    twin = p.double()
    expected = rotate_and_average(
        twin, scale.double(), rotary.double(), **sizes, backend="reference"
    )
    padding = p[..., (heads + 2 * kv_heads) * width + 3 * heads :].clone()
    found = rotate_and_average(p, scale, rotary, **sizes, backend="triton")
    assert max_rel(p, twin) <= TOLERANCE[dtype]
    assert torch.equal(p[..., -padding.shape[-1] :], padding)
    for mean, mean_of_twin in zip(found, expected, strict=True):
        assert mean.dtype == dtype
        assert max_rel(mean, mean_of_twin) <= TOLERANCE[dtype]


def test_rotary_code_is_that_of_the_model() -> None:
    p, scale, rotary = projection(2, 64, 4, 2, 16, torch.float64)
    straight = p.clone() * scale[..., None]
    means = rotate_and_average(p, scale, rotary, heads=4, kv_heads=2, block_size=16)
    queries_and_keys = rotate(straight[..., :96].unflatten(-1, (6, 16)), rotary.double())
    assert max_rel(p[..., :96], queries_and_keys.flatten(2)) <= 1e-14
    assert max_rel(p[..., 96:140], straight[..., 96:140]) <= 1e-14
    assert max_rel(means.k, queries_and_keys[:, :, 4:].unflatten(1, (4, 16)).mean(2)) <= 1e-14
    values = straight[..., 96:128].unflatten(-1, (2, 16)).unflatten(1, (4, 16))
    assert max_rel(means.v, values.mean(2)) <= 1e-14


def test_projections_that_do_not_fit_are_refused() -> None:
    p, scale, rotary = projection(1, 64, 4, 2, 16, torch.float32)
    sizes = {"heads": 4, "kv_heads": 2, "block_size": 16}
    with pytest.raises(ValueError, match="needed=140"):
        rotate_and_average(p[..., :139], scale, rotary, **sizes)
    with pytest.raises(ValueError, match="scale"):
        rotate_and_average(p, scale[:, :8], rotary, **sizes)
    with pytest.raises(ValueError, match="blocks of 24"):
        rotate_and_average(p, scale, rotary, **{**sizes, "block_size": 24})


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(3, 17, 24), (1, 5, 3072)])
def test_rounding_is_that_of_its_twin_to_the_bit(
    shape: tuple[int, ...], dtype: torch.dtype, norm: bool
) -> None:
    pytest.importorskip("triton")
    torch.manual_seed(1)
    x = (torch.randn(shape) * torch.logspace(-1, 1, shape[1])[:, None]).to(dtype)
    x[0, 0] = 0
    x[0, 1, :4] = torch.tensor([127.0, 0.5, 1.5, -2.5])  # ties
    x[0, 1, 4:] = 0
    x[0, 2] = 1e-36
    q, scale = quantise_rows(x, norm=norm, backend="triton")
    twin, scale_of_twin = quantise_rows(x, norm=norm, backend="reference")
    assert torch.equal(q, twin)
    assert q[0, 1, :4].tolist() == [127, 0, 2, -2]
    assert max_rel(scale, scale_of_twin) <= 1e-6
    normed = x.double() * (reference.inverse_rms(x.double())[..., None] if norm else 1)
    error = (q * scale[..., None].double() - normed).abs().amax(-1)
    assert (error <= 0.5001 * scale + 1e-12).all()


@pytest.mark.parametrize("backend", ["triton", "reference"])
@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_row_that_is_not_finite_shows_in_the_product(lost: float, backend: str) -> None:
    pytest.importorskip("triton")
    x, w = torch.randn(2, 4, 16), torch.randn(8, 16)
    x[1, 2, 3] = lost
    rows = quantise_rows(x, backend=backend)  # type: ignore[arg-type]
    out = int8_linear(*rows, *quantise_rows(w), dtype=torch.float32, backend=backend)  # type: ignore[arg-type]
    assert not out[1, 2].isfinite().any()
    assert out[0].isfinite().all()


@CHIPS
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("shape", [(3, 50, 32, 40), (1, 130, 160, 264)])
def test_8_bit_linear_agrees_with_its_twin(
    shape: tuple[int, int, int, int], add: bool, chip: tuple[int, int]
) -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.projections.triton import int8

    batch, tokens, inputs, outputs = shape
    torch.manual_seed(0)
    rows = quantise_rows(torch.randn(batch, tokens, inputs))
    weights = quantise_rows(torch.randn(outputs, inputs))
    residual = torch.randn(batch, tokens, outputs)
    expected = reference.int8_product(*rows, *weights) + (residual.double() if add else 0)
    out = residual if add else torch.full_like(residual, math.nan)
    int8.int8_linear(*rows, *weights, out, add=add, launch=int8.launch_of(chip))
    assert max_rel(out, expected) <= 1e-6


@CHIPS
@pytest.mark.parametrize("shifted", [True, False])
def test_8_bit_swiglu_agrees_with_its_twin(
    shifted: bool, chip: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.feed_forward.triton import forward

    monkeypatch.setattr(forward, "capability", lambda x, interpreted: chip)
    torch.manual_seed(0)
    rows = quantise_rows(torch.randn(3, 70, 32), norm=True)
    weights = quantise_rows(torch.randn(80, 32) / 32**0.5)
    shift = torch.randn(3, 40) if shifted else None
    found = int8_swiglu(*rows, *weights, shift, dtype=torch.float32, backend="triton")
    expected = int8_swiglu(*rows, *weights, shift, dtype=torch.float64, backend="reference")
    assert max_rel(found, expected) <= 3e-6


def test_8_bits_cost_about_a_hundredth_of_a_product() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 64, 256), torch.randn(96, 256) / 16
    found = int8_linear(*quantise_rows(x), *quantise_rows(w), dtype=torch.float32)
    error = (found - x @ w.T).square().mean().sqrt() / (x @ w.T).square().mean().sqrt()
    assert 0.003 <= error <= 0.02


def test_integers_that_do_not_fit_are_refused() -> None:
    xq, xs = quantise_rows(torch.randn(2, 4, 24))
    wq, ws = quantise_rows(torch.randn(16, 24))
    with pytest.raises(ValueError, match="not of int8"):
        int8_linear(xq.float(), xs, wq, ws)
    with pytest.raises(ValueError, match="weights"):
        int8_linear(xq, xs, wq[:, :16], ws)
    with pytest.raises(ValueError, match="residual"):
        int8_linear(xq, xs, wq, ws, residual=torch.zeros(2, 4, 8))
    with pytest.raises(ValueError, match="shift"):
        int8_swiglu(xq, xs, wq, ws, torch.zeros(2, 16))
    pytest.importorskip("triton")
    with pytest.raises(DeviceError, match="24 integers are no multiple of 16"):
        int8_linear(xq, xs, wq, ws, backend="triton")
    with pytest.raises(DeviceError, match="12 outputs are no multiple of 8"):
        int8_linear(xq[..., :16], xs, wq[:12, :16], ws[:12], backend="triton")
