"""Layers with backend "triton": run with TRITON_INTERPRET=1, or on a GPU (S4LITE_TEST_DEVICE)."""

import copy
import os

import pytest
import torch

from s4lite.nn.layer import S4D
from s4lite.nn.model import SequenceModel

DEVICE = os.environ.get("S4LITE_TEST_DEVICE", "cpu")
BF16 = torch.bfloat16


def pair(**options):
    """The same layer twice, by Triton and by torch."""
    torch.manual_seed(0)
    layer = S4D(3, 8, backend="triton", device=DEVICE, **options)
    twin = copy.deepcopy(layer)
    twin.backend = "torch"
    return layer, twin


def signal(batch=2, L=150, d=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, L, d, generator=g).to(DEVICE)


def close(a, b, tol=1e-5):
    assert a.shape == b.shape and a.dtype == b.dtype
    assert (a - b).abs().max() <= tol * b.abs().max(), (a - b).abs().max() / b.abs().max()


@pytest.mark.parametrize("options", [{}, {"disc": "bilinear", "n_ssm": 3}, {"bidirectional": True}])
@pytest.mark.parametrize("L", [1, 65, 150])
def test_outputs_and_gradients(options, L):
    layer, twin = pair(**options)
    u, v = (signal(L=L).requires_grad_() for _ in range(2))
    y, z = layer(u, rate=1.5), twin(v, rate=1.5)
    close(y, z)
    y.square().sum().backward()
    z.square().sum().backward()
    close(u.grad, v.grad)
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        close(p.grad, q.grad, 1e-4)


@pytest.mark.parametrize("lengths", [None, [150, 70]])
def test_states(lengths):
    layer, twin = pair()
    u = signal()
    x = torch.randn_like(layer.initial_state(2))
    (y, end), (z, last) = (k(u, x, lengths=lengths, return_state=True) for k in (layer, twin))
    close(y, z)
    close(end, last)
    first, state = layer(u[:, :67], x, return_state=True)
    rest = layer(u[:, 67:], state)
    if lengths is None:
        close(torch.cat([first, rest], 1), z)
    close(layer.step(u[:, 0], x)[0], twin.step(u[:, 0], x)[0])


def test_gradient_through_a_state():
    layer, twin = pair()
    u, found = signal(), []
    for one in (layer, twin):
        x = torch.ones(2, 3, 4, dtype=torch.complex64, device=DEVICE).requires_grad_()
        y, end = one(u, x, return_state=True)
        found.append(torch.autograd.grad(y.square().sum() + end.abs().sum(), x)[0])
    close(*found)


def test_bfloat16_under_autocast():
    layer, twin = pair(activation=None, mixer=None)
    u = signal()
    exact = twin(u.to(BF16).float())
    with torch.autocast(DEVICE, dtype=BF16):
        y, x = layer(u.to(BF16), return_state=True)
    assert y.dtype == BF16 and x.dtype == torch.complex64
    rounding = (exact.to(BF16).float() - exact).square().mean().sqrt()
    assert (y.float() - exact).square().mean().sqrt() <= 2.5 * rounding


def test_a_model_with_its_parameters_together():
    torch.manual_seed(0)
    model = SequenceModel(2, 3, 4, 3, d_state=8, backend="triton", device=DEVICE)
    u, found = signal(d=2), []
    for together in (False, True):
        model.stack.together = together
        y = model(u)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), model.parameters())])
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-5)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda m: m(signal(), dt=torch.ones(150, device=DEVICE)), "dt"),
        (lambda m: m.double()(signal().double()), "float64"),
        (lambda m: torch.func.vmap(lambda u: m(u[None]))(signal()), "torch.func|BatchedTensor"),
        (lambda m: S4D(2, 300, backend="triton", device=DEVICE)(signal(d=2)), "150 modes"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(call, why):
    layer, _ = pair()
    with pytest.raises(ValueError, match=f'backend "triton" cannot serve this call.*({why})'):
        call(layer)


def test_auto_serves_all_of_that():
    layer, twin = pair()
    layer.backend = "auto"
    gaps = torch.full((150,), 0.5, device=DEVICE)
    close(layer(signal(), dt=gaps), twin(signal(), dt=gaps))
    close(layer.double()(signal().double()), twin.double()(signal().double()), 1e-12)
