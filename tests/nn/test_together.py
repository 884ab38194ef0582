"""The parameter work of many layers in one call: the same numbers, fewer calls."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from s4lite.nn.baselines import GRU
from s4lite.nn.dplr import DPLRKernel
from s4lite.nn.kernel import DiagKernel
from s4lite.nn.layer import S4, S4D, SSMLayer
from s4lite.nn.model import S4Block, SequenceModel, Stack
from s4lite.nn.together import merged, prepare

F64 = torch.float64
KERNELS = {
    "diagonal": (DiagKernel, {}),
    "bilinear, softplus": (DiagKernel, {"disc": "bilinear", "clock": "softplus", "init": "legs"}),
    "DPLR": (DPLRKernel, {"init": "legt"}),
}


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.count += 1
        return call(*args, **(kwargs or {}))


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def close(got, want, tol=1e-11):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tol * want.abs().max()


def stack_of(kind=S4D, n=3, **options):
    torch.manual_seed(0)
    return Stack(4, n, layer=kind, d_state=8, dtype=F64, **options)


def shake(module):
    """Make every parameter differ from layer to layer."""
    for p in module.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return module


# ------------------------------------------------------------------ one bank of many


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("n_ssm", [1, 2, 6])
@pytest.mark.parametrize("n", [1, 3])
def test_a_merged_bank_is_its_banks(kind, n_ssm, n):
    torch.manual_seed(0)
    cls, options = KERNELS[kind]
    kernels = [shake(cls(6, 8, n_ssm=n_ssm, channels=2, dtype=F64, **options)) for _ in range(n)]
    one = merged(kernels)
    K = one(33, 1.5).unflatten(1, (6, n))
    for i, kernel in enumerate(kernels):
        close(K[:, :, i], kernel(33, 1.5))
    if cls is DiagKernel:
        for got, *want in zip(one.system(), *(k.system() for k in kernels), strict=True):
            close(got.unflatten(-2, (6, n)), torch.stack(want, -2), 1e-15)
    assert one.d_model == 6 * n and kernels[0].d_model == 6 and len(kernels[0]._parameters) > 3


# ------------------------------------------------------------------ a stack


CASES = {
    "plain": {},
    "rate": {"rate": 2.0},
    "lengths": {"lengths": [40, 7]},
    "states": {"return_state": True, "rate": 0.5},
}


@pytest.mark.parametrize("kind", [S4D, S4])
@pytest.mark.parametrize("case", [*CASES, "both ways"])
def test_outputs_states_and_gradients(kind, case):
    stack = shake(stack_of(kind, bidirectional=case == "both ways"))
    u, found, calls = draw(2, 40, 4), [], []
    for stack.together in (False, True):
        with Calls() as counted:
            out = stack(u, **CASES.get(case, {}))
        y, states = out if isinstance(out, tuple) else (out, ())
        grads = torch.autograd.grad(y.pow(3).sum(), list(stack.parameters()))
        found.append([y, *states, *grads])
        calls.append(counted.count)
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-9)
    if case != "states" or kind is S4D:  # an S4 layer with states takes chunks
        assert calls[1] < calls[0]


def test_calls_do_not_grow_with_layers():
    """Beyond a stack's own work, a layer more costs its slice and no parameter work."""
    u, counts = draw(1, 40, 4), {}
    for together in (False, True):
        for n in (2, 6):
            stack = stack_of(n=n)
            stack.together = together
            with Calls() as counted, torch.no_grad():
                stack(u)
            counts[together, n] = counted.count
    alone, shared = (counts[t, 6] - counts[t, 2] for t in (False, True))
    assert shared < 0.7 * alone


def test_only_on_an_accelerator_by_default():
    stack, u = stack_of(), draw(1, 40, 4)
    assert stack.together is None and "together" not in stack.state_dict()
    assert stack.made(stack.blocks, u, None, {}) == [{}] * 3
    stack.together = True
    assert all("ready" in made for made in stack.made(stack.blocks, u, None, {}))
    gaps = {"dt": torch.ones(40, dtype=F64)}
    assert stack.made(stack.blocks, u, None, gaps) == [{}] * 3
    close(stack(u, **gaps), stack(u))


def test_unlike_layers_fall_into_groups():
    torch.manual_seed(0)
    options = [{"d_state": 8}, {"d_state": 4}, {"d_state": 8}, {"layer": S4, "d_state": 8}]
    options += [{"d_state": 8, "disc": "bilinear"}, {"layer": GRU}, {"layer": S4, "d_state": 8}]
    stack = stack_of()
    stack.blocks = nn.ModuleList(S4Block(4, dtype=F64, **o) for o in options)
    u, want = draw(2, 40, 4), stack(draw(2, 40, 4))
    stack.together = True
    assert [bool(m) for m in stack.made(stack.blocks, u, None, {})] == [True] * 5 + [False, True]
    close(stack(u), want)


def test_hooks_and_parametrizations_are_respected():
    stack, u = shake(stack_of()), draw(1, 40, 4)
    stack.blocks[0].layer.kernel.register_forward_hook(lambda module, args, K: 2 * K)
    nn.utils.parametrizations.weight_norm(stack.blocks[1].layer.kernel, "C")
    want = stack(u)
    stack.together = True
    made = prepare([b.layer for b in stack.blocks], u)
    assert [bool(m) for m in made] == [False, False, True]
    close(stack(u), want)


class Louder(DiagKernel):
    """A kernel with a knob that is no parameter."""

    knob = 1.0

    def system(self, rate=1.0, gaps=None):
        nu, Bb, C = super().system(rate, gaps)
        return nu, self.knob * Bb, C


def test_kernels_with_ideas_of_their_own_make_their_own():
    layers = [SSMLayer(Louder(4, 8, dtype=F64), nn.Identity()) for _ in range(2)]
    layers += [S4D(4, 8, dtype=F64) for _ in range(4)]
    layers[0].kernel.knob = 3.0
    nu, Bb, C = layers[2].kernel.system()
    layers[2].kernel.system = lambda rate=1.0, gaps=None: (nu, 2 * Bb, C)
    layers[3].kernel.register_full_backward_hook(lambda *args: None)
    layers[4].kernel.register_full_backward_pre_hook(lambda *args: None)
    assert [bool(made) for made in prepare(layers, draw(1, 40, 4))] == [False] * 5 + [True]


def test_functional_call_and_shared_layers():
    stack, u = stack_of(), draw(1, 40, 4)
    stack.blocks[2] = stack.blocks[0]
    params = {name: p.detach() + 0.1 for name, p in stack.named_parameters()}
    want = torch.func.functional_call(stack, params, (u,))
    stack.together = True
    close(torch.func.functional_call(stack, params, (u,)), want)


def test_an_optimizer_s_step_is_seen_at_once():
    stack, u = stack_of(), draw(1, 40, 4)
    stack.together = True
    before = stack(u)
    shake(stack)
    after = stack(u)
    stack.together = False
    close(after, stack(u))
    assert (before - after).abs().max() > 1e-3


def test_compiled():
    torch.compiler.reset()
    stack, u = stack_of(n=2), draw(2, 40, 4)
    stack.together = True
    close(torch.compile(stack, backend="eager", fullgraph=True)(u), stack(u))


@pytest.mark.parametrize(
    "bad", [torch.ones(2, 4), torch.ones(2, 0, 4), torch.ones(2, 9, 5), "u", torch.ones(2, 9, 4)]
)
def test_bad_input_is_refused_in_the_same_words(bad):
    stack, said = stack_of(), []
    for stack.together in (False, True):
        with pytest.raises((TypeError, ValueError)) as error:
            stack(bad)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_model_hands_its_options_on():
    torch.manual_seed(0)
    model, u = SequenceModel(2, 3, 4, 2, d_state=8, dtype=F64), draw(2, 30, 2)
    want = model(u, rate=2.0, lengths=[30, 11])
    model.stack.together = True
    close(model(u, rate=2.0, lengths=[30, 11]), want)
