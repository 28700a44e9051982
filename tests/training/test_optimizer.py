"""Muon: orthogonal updates for inner matrices, AdamW for the rest."""

from __future__ import annotations

import pytest
import torch

from mosaic_core.training.optimizer import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_every_direction_of_an_update_is_about_as_large(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(shape) * torch.logspace(0, -1, shape[1])
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    sizes = torch.linalg.svdvals(found)
    assert sizes.min() > 0.3
    assert sizes.max() < 1.3
    assert torch.nn.functional.cosine_similarity(found.ravel(), (u @ v).ravel(), 0) > 0.95


def test_muon_finds_the_matrix_that_a_linear_map_hides() -> None:
    torch.manual_seed(2)
    hidden, x = torch.randn(20, 32), torch.randn(200, 32)
    weight = torch.nn.Parameter(torch.zeros(20, 32))
    bias = torch.nn.Parameter(torch.ones(20))
    groups = [{"params": [weight], "orthogonal": True}, {"params": [bias]}]
    muon = Muon(groups, lr=0.05, weight_decay=0.0)
    losses = []
    for i in range(300):
        for group in muon.param_groups:
            group["lr"] = 0.05 * (1 - i / 300)
        muon.zero_grad()
        loss = (x @ weight.T + bias - x @ hidden.T).square().mean()
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-2 * losses[0]


def test_a_group_that_is_not_orthogonal_takes_the_steps_of_adamw() -> None:
    own, theirs = (torch.nn.Parameter(torch.ones(6)) for _ in range(2))
    muon, adamw = Muon([own], lr=0.1), torch.optim.AdamW([theirs], lr=0.1)
    for parameter, each in ((own, muon), (theirs, adamw)):
        for scale in (1.0, -3.0):
            parameter.grad = scale * torch.arange(6.0)
            each.step()
    assert torch.equal(own, theirs)


def test_a_parameter_without_a_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.ones(16, 16))
    Muon([{"params": [weight], "orthogonal": True}], lr=0.1).step()
    assert torch.equal(weight, torch.ones(16, 16))
