"""Optimisers of training: AdamW, and Muon for the matrices within the network."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from mosaic_core.model.network import Mosaic
from mosaic_core.training.recipe import Recipe

_MOMENTUM: Final = 0.95
_ADAMW_RMS: Final = 0.2
"""Root mean square of an element of AdamW's update, to which Muon's is scaled."""
_POLYNOMIAL: Final = (3.4445, -4.7750, 2.0315)
_NARROWEST: Final = 16


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for groups with `orthogonal: True`, AdamW for the others.

    The momentum of a weight matrix is replaced by its nearest orthogonal matrix, scaled so that
    learning rates and weight decay mean what they mean for AdamW (Liu et al. 2025). That of torch
    works in bfloat16, which a CPU without it emulates at five times the cost of a small model's
    whole update; this one works in float32.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            if group.get("orthogonal"):
                for parameter in group["params"]:
                    self._turn(parameter, group["lr"], group["weight_decay"])
        return super().step(closure)

    def _turn(self, parameter: Tensor, rate: float, weight_decay: float) -> None:
        gradient, parameter.grad = parameter.grad, None  # none is left for AdamW
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:  # AdamW looks for a count of steps when it loads a state
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
        momentum = state["momentum"]
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        update = orthogonalised(gradient.lerp(momentum, _MOMENTUM))
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(update, alpha=-rate * _ADAMW_RMS * max(parameter.shape) ** 0.5)


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V' of the singular value decomposition U S V', with singular values of about 0.7 to 1.2.

    Five steps of the quintic Newton-Schulz iteration with the coefficients of Jordan et al. (2024).
    """
    a, b, c = _POLYNOMIAL
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-12)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    out: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return out


def optimizer(network: Mosaic, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser, its learning rate still zero."""
    shared: dict[str, Any] = {"betas": recipe.betas, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=0.0, **shared)
    inner = {id(p) for p in inner_matrices(network)}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if id(p) in inner], "orthogonal": True},
        {"params": [p for p in network.parameters() if id(p) not in inner]},
    ]
    return Muon(groups, lr=0.0, **shared)


def inner_matrices(network: Mosaic) -> list[nn.Parameter]:
    """Weight matrices but those of the first and last layer, and of very narrow ones."""
    ends = {id(network.preprocess[0].weight), id(network.postprocess[-1].weight)}
    return [
        p
        for p in network.parameters()
        if p.ndim == 2 and min(p.shape) >= _NARROWEST and id(p) not in ends
    ]
