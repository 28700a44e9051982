from __future__ import annotations

import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mosaic_core.kernels import dispatch


def test_what_is_computed_again_takes_the_backend_that_was_forced() -> None:
    """A backward pass on a GPU runs in a thread that knows no context variables."""
    seen = []

    def square(x: torch.Tensor) -> torch.Tensor:
        seen.append(dispatch.forced())
        return x * x

    x = torch.ones(3, requires_grad=True)
    with dispatch.forced_backend("reference"):
        out = checkpoint(
            square, x, use_reentrant=False, context_fn=dispatch.kept_in_recomputation
        ).sum()
    backward = threading.Thread(target=out.backward)
    backward.start()
    backward.join()
    assert seen == ["reference", "reference"]
    assert torch.equal(x.grad, torch.full((3,), 2.0))  # type: ignore[arg-type]


def test_a_kernel_that_is_slow_here_runs_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "declined", lambda *given: None)
    x = torch.zeros(1, dtype=torch.float32, device="meta")
    slow = dispatch.slow_in_float32(x)
    assert slow is not None
    assert dispatch.choose("products", x, slow=slow) == "blocked"
    assert dispatch.choose("products", x, "triton", slow=slow) == "triton"
    assert dispatch.slow_in_float32(x.half()) is None
