"""S4: one layer, run at once, by steps, in pieces, padded, over gaps, at other rates."""

import copy
import itertools
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from walking import close, draw, walk

from s4lite.nn.layer import S4
from s4lite.nn.model import S4Block, SequenceModel, Stack
from s4lite.ops.conv import causal_conv_naive
from s4lite.ops.dplr import dplr_kernel_naive

F32, F64, BF16, C64, C128 = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
)
GOLDEN = Path(__file__).parent.parent / "golden"
LINEAR = {"activation": None, "mixer": None}

every_init = pytest.mark.parametrize("init", ["legs", "legt", "lagt", "fout"])
both_ways = pytest.mark.parametrize("bidirectional", [False, True])


def make(d_model: int = 4, d_state: int = 16, *, seed: int = 0, **options) -> S4:
    torch.manual_seed(seed)
    return S4(d_model, d_state, **{"dtype": F64, **options}).eval()


def worn(layer: S4) -> S4:
    """The layer after ten rough optimizer steps."""
    u = draw(2, 30, layer.d_model, seed=9, dtype=layer.D.dtype)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(10):
        optimizer.zero_grad()
        (layer(u) - u.roll(2, 1)).square().mean().backward()
        optimizer.step()
    return layer


def start_of(batch: int, layer: S4, seed: int = 7) -> Tensor:
    shape = layer.initial_state(batch).shape
    x = torch.complex(draw(*shape, seed=seed), draw(*shape, seed=seed + 1))
    return x.to(layer.initial_state(1).dtype)


def snapshot(module: nn.Module) -> dict[str, bytes]:
    return {k: v.view(torch.uint8).numpy().tobytes() for k, v in module.state_dict().items()}


# ------------------------------------------------------------------ what it computes


@every_init
@both_ways
def test_layer_is_its_definition(init, bidirectional):
    """Dense powers of the stored numbers, the sum as written, D, activation and mixer by hand."""
    layer, u = make(init=init, bidirectional=bidirectional, dropout=0.5), draw(2, 23, 4)
    p = {name: x.detach() for name, x in layer.kernel.named_parameters()}
    Lambda = torch.complex(-p["Lambda_log_re"][0].exp(), p["Lambda_im"][0])
    P, B, C = (torch.view_as_complex(p[k]) for k in ("P", "B", "C"))
    K = dplr_kernel_naive(Lambda, P[0], B[0], C, p["log_dt"].exp(), 23)
    v = u.mT
    y = causal_conv_naive(v, K[0]) + layer.D.detach()[:, None] * v
    if bidirectional:
        y[..., :-1] += causal_conv_naive(v.flip(-1), K[1]).flip(-1)[..., 1:]
    linear = layer.head[2]
    a, b = nn.functional.linear(nn.functional.gelu(y.mT), linear.weight, linear.bias).chunk(2, -1)
    close(layer(u), (a * torch.sigmoid(b)).detach(), 1e-11)


def test_defaults_are_those_of_the_contract():
    layer = S4(6)
    kernel = layer.kernel
    assert (kernel.d_state, kernel.P.shape, kernel.B.shape) == (64, (1, 32, 1, 2), (1, 32, 2))
    assert not layer.bidirectional and isinstance(layer.head[0], nn.GELU)
    assert isinstance(layer.head[-1], nn.GLU) and layer.head[1].p == 0
    assert layer.kernel(7).shape == (1, 6, 7) and layer.initial_state().shape == (1, 6, 32)
    assert S4(6, bidirectional=True).kernel(7, rate=0.5).shape == (2, 6, 7)
    assert all(p.dtype == F32 and not p.is_complex() for p in layer.parameters())
    assert (kernel.log_dt.exp() >= 0.99e-3).all() and (kernel.log_dt.exp() <= 0.101).all()
    close(kernel.Lambda_log_re, torch.full((1, 32), math.log(0.5)), 1e-6)


@pytest.mark.parametrize("init", ["legs", "legt", "fout"])
def test_golden_outputs_and_states(init):
    z = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f"s4_{init}_bilinear_L64.npz").items()}
    H, n = z["A"].shape
    layer = make(H, 2 * n, init=init, n_ssm=H, **LINEAR)
    layer.load_state_dict(
        {
            "kernel.Lambda_log_re": (-z["A"].real).log(),
            "kernel.Lambda_im": z["A"].imag,
            "kernel.P": torch.view_as_real(z["P"].movedim(0, -1).contiguous()),
            "kernel.B": torch.view_as_real(z["B"][0]),
            "kernel.C": torch.view_as_real(z["C"]),
            "kernel.log_dt": z["dt"][:, 0].log(),
            "D": z["D"][0],
        }
    )
    u, x0 = z["u"].mT, z["state0"]
    close(layer.kernel(64), z["K_ref"], 1e-11)
    close(layer.kernel(64), z["K"], 1e-11)
    close(layer.kernel(128, rate=0.5), z["K_rate05_ref"], 1e-11)
    close(layer.kernel(32, rate=2.0), z["K_rate2_ref"], 1e-11)
    for run in (layer, lambda u, x=None, **_: walk(layer, u, x)):
        y, x = run(u, return_state=True)
        close(y, z["y"].mT, 1e-11)
        close(x, z["final_state_zero"], 1e-11)
        y, x = run(u, x0, return_state=True)
        close(y, z["y_state0_ref"].mT, 1e-11)
        close(x, z["final_state_ref"], 1e-11)


@pytest.mark.parametrize("L", [1, 2, 99, 1023])
def test_causal_by_gradient(L):
    layer, u = make(), draw(1, L, 4).requires_grad_()
    t = L // 2
    grad = torch.autograd.grad(layer(u)[0, t].sum(), u)[0][0]
    assert grad[: t + 1].abs().amax(-1).min() > 1e-9
    assert t + 1 == L or grad[t + 1 :].abs().max() < 1e-14 * L * grad.abs().max()


def test_two_directions_are_two_causal_layers_and_flip():
    both, u = make(bidirectional=True, **LINEAR), draw(2, 33, 4)
    causal = []
    for row in range(2):
        one = make(**LINEAR)
        state = {k: v for k, v in both.state_dict().items() if k != "kernel.C"}
        one.load_state_dict(state | {"kernel.C": both.kernel.C.detach()[row : row + 1]})
        with torch.no_grad():
            _ = one.D.zero_()
        causal.append(one)
    later = nn.functional.pad(causal[1](u.flip(1)).flip(1)[:, 1:], (0, 0, 0, 1))
    close(both(u), causal[0](u) + later + both.D * u, 1e-11)
    assert (both(u) - both(u.flip(1)).flip(1)).abs().max() > 1e-3  # lopsided: order matters


@every_init
def test_gradcheck_of_everything(init):
    layer, u = make(2, 4, init=init, activation="silu"), draw(2, 6, 2)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(u, x, *values):
        options = {"rate": 0.7, "lengths": [6, 4], "return_state": True}
        return functional_call(layer, dict(zip(names, values, strict=True)), (u, x), options)

    def uneven(u, x, gaps, *values):
        options = {"rate": 0.7, "dt": gaps, "lengths": [6, 4], "return_state": True}
        return functional_call(layer, dict(zip(names, values, strict=True)), (u, x), options)

    def step(u, x, *values):
        named = {f"layer.{k}": v for k, v in zip(names, values, strict=True)}
        return functional_call(Step(layer), named, (u, x))

    x = start_of(2, layer)
    leaves = lambda *v: [x.detach().clone().requires_grad_() for x in v]  # noqa: E731
    assert torch.autograd.gradcheck(run, leaves(u, x, *values), fast_mode=True)
    gaps = draw(2, 6, seed=3).exp()
    assert torch.autograd.gradcheck(uneven, leaves(u, x, gaps, *values), fast_mode=True)
    assert torch.autograd.gradcheck(step, leaves(u[:, 0], x, *values), fast_mode=True)


class Step(nn.Module):
    def __init__(self, layer: S4):
        super().__init__()
        self.layer = layer

    def forward(self, u, x):
        return self.layer.step(u, x, rate=1.3)


# ------------------------------------------------------------------ conv = step = chunks


@every_init
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("trained", [False, True])
def test_convolution_steps_and_chunks(init, dtype, trained):
    layer, tol = make(3, init=init, dtype=dtype), 1e-10 if dtype == F64 else 2e-5
    layer = worn(layer).requires_grad_(False) if trained else layer.requires_grad_(False)
    u, start = draw(2, 70, 3, dtype=dtype), start_of(2, layer)
    for rate in (0.5, 1.0, 2.0):
        y, end = layer(u, start, rate=rate, return_state=True)
        y_walk, x_walk = walk(layer, u, start, rate=rate)
        close(y_walk, y, tol)
        close(x_walk, end, tol)
        for size in (7, 64, 70) if rate < 2 else (1, 7, 64, 70):
            pieces, state = [], start
            for piece in u.split(size, 1):
                y_p, state = layer(piece, state, rate=rate, return_state=True)
                pieces.append(y_p)
            close(torch.cat(pieces, 1), y, tol)
            close(state, end, tol)
    assert (y - layer(u, rate=2.0)).abs().max() > 1e-3  # the start mattered


@every_init
def test_softplus_clocks_and_sets(init):
    layer, u = make(init=init, clock="softplus", n_ssm=2), draw(2, 70, 4)
    (y, x), (y_walk, x_walk) = layer(u, return_state=True), walk(layer, u)
    close(y_walk, y, 1e-10)
    close(x_walk, x, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["legs", "fout"])
def test_float32_steps_over_4096_samples(init):
    layer = make(4, 64, init=init, dtype=F32, **LINEAR)
    u = draw(1, 4096, 4, dtype=F32)
    with torch.no_grad():
        y, x = layer(u, return_state=True)
    y_walk, x_walk = walk(layer, u)
    close(y_walk, y, 2e-5)
    close(x_walk, x, 2e-5)


@every_init
def test_gaps(init):
    """All ones: the regular layer; all r: rate = r; any: a loop of steps; handed over; padded."""
    layer, u, start = make(init=init), draw(3, 40, 4), start_of(3, make())
    gaps, lengths = draw(3, 40, seed=4).exp(), [40, 9, 1]
    for dt, rate in ((torch.ones(40, dtype=F64), 1.0), (torch.full((3, 40), 2.0), 2.0)):
        y, x = layer(u, start, dt=dt, return_state=True)
        want, end = layer(u, start, rate=rate, return_state=True)
        close(y, want, 1e-10)
        close(x, end, 1e-10)
    y, x = layer(u, start, dt=gaps, rate=0.6, return_state=True)
    state, rows = start, []
    for u_t, d in zip(u.unbind(1), gaps.unbind(1), strict=True):
        y_t, state = layer.step(u_t, state, dt=d, rate=0.6)
        rows.append(y_t)
    close(torch.stack(rows, 1), y, 1e-10)
    close(state, x, 1e-10)
    first, middle = layer(u[:, :13], start, dt=gaps[:, :13], rate=0.6, return_state=True)
    rest = layer(u[:, 13:], middle, dt=gaps[:, 13:], rate=0.6)
    close(torch.cat([first, rest], 1), y, 1e-10)
    keep = torch.arange(40) < torch.tensor(lengths)[:, None]
    dirty, holes = u.where(keep[..., None], math.nan), gaps.where(keep, math.nan)
    y, x = layer(dirty, start, dt=holes, lengths=lengths, return_state=True)
    for b, n in enumerate(lengths):
        one = slice(b, b + 1)
        own, end = layer(u[one, :n], start[one], dt=gaps[one, :n], return_state=True)
        close(y[b, :n], own[0], 1e-10)
        close(x[b], end[0], 1e-10)


@both_ways
@pytest.mark.parametrize("garbage", [1e6, math.nan, math.inf])
def test_padding_changes_nothing(garbage, bidirectional):
    layer, u, lengths = (
        make(init="legt", bidirectional=bidirectional),
        draw(4, 33, 4),
        [33, 1, 20, 32],
    )
    keep = torch.arange(33) < torch.tensor(lengths)[:, None]
    padded = u.where(keep[..., None], garbage).requires_grad_()
    y = layer(padded, lengths=lengths)
    for b, n in enumerate(lengths):
        close(y[b, :n], layer(u[b : b + 1, :n])[0], 1e-10)
        assert (y[b, n:] == 0).all()
    grad = torch.autograd.grad(y.square().sum(), padded)[0]
    assert grad.isfinite().all() and (grad[1, 1:] == 0).all() and (grad[1, 0] != 0).all()
    if not bidirectional:
        start = start_of(4, layer)
        _, states = layer(padded, start, lengths=lengths, return_state=True)
        for b, n in enumerate(lengths):
            one = slice(b, b + 1)
            close(states[one], layer(u[one, :n], start[one], return_state=True)[1], 1e-10)


def test_gradients_flow_through_states():
    layer, u = make(init="fout"), draw(2, 40, 4).requires_grad_()
    _, state = layer(u[:, :25], return_state=True)
    parts = [u, *layer.parameters()]
    cut = torch.autograd.grad(layer(u[:, 25:], state)[:, 5:].square().sum(), parts)
    whole = torch.autograd.grad(layer(u)[:, 30:].square().sum(), parts)
    for a, b in zip(cut, whole, strict=True):
        close(a, b, 1e-10)
    assert cut[0][:, :25].abs().max() > 1e-3


@torch.no_grad()
def test_rate_two_on_every_second_sample_is_first_order():
    layer, errors = make(4, 8, dt_min=0.05, dt_max=0.2, **LINEAR), []
    for L in (400, 800, 1600):
        t = torch.linspace(0, 20, L + 1, dtype=F64)[1:, None]
        u = torch.sin(1.3 * t + torch.arange(4))[None]
        fine = layer(u, rate=400 / L)[:, 1::2]
        gap = (layer(u[:, 1::2], rate=800 / L) - fine)[:, L // 8 :]  # behind the sudden start
        errors.append(gap.norm() / fine.norm())
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert errors[-1] < 0.01 and all(0.9 < order < 1.1 for order in orders)


# ------------------------------------------------------------------ what it never does


def test_use_changes_no_byte_and_is_repeatable():
    layer, u = make(dtype=F32, init="legt"), draw(2, 60, 4, dtype=F32)
    before = snapshot(layer)
    y, state = layer(u, rate=0.5, return_state=True)
    _ = layer(u[:, :7], state, lengths=[3, 7])
    _ = layer.step(u[:, 0], state), layer.kernel(99), layer(u, dt=torch.ones(60))
    layer(u).sum().backward()
    assert snapshot(layer) == before
    assert torch.equal(layer(u, rate=0.5, return_state=True)[0], y)
    assert (layer(u, rate=0.5) - y).abs().max() < 2e-6 * y.abs().max()  # by another route
    assert torch.equal(layer(u), copy.deepcopy(layer)(u))


def test_an_optimizer_step_is_seen_at_once():
    layer, u = make(), draw(2, 20, 4)
    y, K, state = layer(u), layer.kernel(20), layer.initial_state(2)
    stepped = layer.step(u[:, 0], state)[0]
    with torch.no_grad():
        _ = layer.kernel.P.mul_(1.5)
    assert not torch.equal(layer(u), y) and not torch.equal(layer.kernel(20), K)
    assert not torch.equal(layer.step(u[:, 0], state)[0], stepped)
    close(walk(layer, u)[0], layer(u), 1e-10)


def test_lengths_never_seen_before():
    """A longer signal is the same model: its beginning does not change, its end is not cut."""
    layer, u = make(dtype=F32), draw(1, 3000, 4, dtype=F32)
    with torch.no_grad():
        y = layer(u)
        for L in (1, 10, 1023, 2999):
            close(layer(u[:, :L]), y[:, :L], 1e-5)
        assert layer(u[:, :64]).shape == (1, 64, 4)


# ------------------------------------------------------------------ living with others


def test_in_blocks_stacks_and_models():
    torch.manual_seed(0)
    like, u = {"layer": S4, "d_state": 4, "init": "legt", "dtype": F64}, draw(2, 15, 6)
    gaps = draw(2, 15, seed=2).exp()
    for net in (S4Block(6, **like), Stack(6, 2, **like)):
        net.eval()
        close(net(u), walk(net, u)[0], 1e-10)
        assert (net(u, dt=gaps) - net(u)).abs().max() > 1e-3
    model, x = SequenceModel(1, 3, 6, 2, **like).eval(), draw(2, 15, 1)
    state = model.initial_state(2)
    for x_t in x.unbind(1):
        y, state = model.step(x_t, state)
    close(y, model(x), 1e-10)


def test_it_learns_a_delay():
    torch.manual_seed(2)
    layer = S4(4, 32, dt_min=0.02)
    optimizer, losses = torch.optim.Adam(layer.parameters(), lr=1e-2), []
    for step in range(60):
        u = draw(8, 40, 4, seed=step, dtype=F32).cumsum(1) / 5
        loss = (layer(u) - u.roll(5, 1))[:, 5:].square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_compile():
    layer, u = make(dtype=F32), draw(2, 12, 4, dtype=F32)
    options = {"fullgraph": True, "backend": "aot_eager"}
    compiled, step = torch.compile(layer, **options), torch.compile(layer.step, **options)
    close(compiled(u), layer(u), 1e-5)
    want, end = layer(u, return_state=True)
    got, state = compiled(u, layer.initial_state(2), return_state=True)
    close(got, want, 1e-5)
    close(state, end, 1e-5)
    close(step(u[:, 0], end)[0], layer.step(u[:, 0], end)[0], 1e-5)
    for L in (1, 30, 31):
        more = draw(2, L, 4, dtype=F32)
        close(compiled(more), layer(more), 1e-5)
    compiled(u).sum().backward()
    assert layer.kernel.P.grad.abs().max() > 0
    assert layer.kernel.Lambda_log_re.grad.abs().max() > 0


def test_compile_gaps():
    torch.compiler.reset()
    layer, u, gaps = make(dtype=F32), draw(2, 12, 4, dtype=F32), draw(2, 12, seed=3).exp()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    close(compiled(u, dt=gaps), layer(u, dt=gaps), 1e-5)


def test_compile_inductor():
    layer, u = make(2, 8, dtype=F32), draw(1, 20, 2, dtype=F32)
    with torch.no_grad():
        close(torch.compile(layer, fullgraph=True)(u), layer(u), 1e-5)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = make(init="legt")

        def forward(self, u, state, lengths):
            return self.layer(u, state, lengths=lengths, return_state=True)

    whole, u, lengths = Whole(), draw(2, 10, 4), torch.tensor([10, 4])
    x, batch = start_of(2, whole.layer), torch.export.Dim("batch", min=2, max=64)
    shapes = {"u": {0: batch}, "state": {0: batch}, "lengths": {0: batch}}
    program = torch.export.export(whole, (u, x, lengths), dynamic_shapes=shapes, strict=strict)
    more = draw(3, 10, 4), start_of(3, whole.layer), torch.tensor([10, 4, 7])
    for got, want in zip(program.module()(*more), whole(*more), strict=True):
        close(got, want, 1e-10)


def test_export_of_a_step():
    """What runs at every length: one sample, any batch."""

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = make().eval()

        def forward(self, u_t, state):
            return self.layer.step(u_t, state)

    one, batch = Step(), {0: torch.export.Dim("batch", min=2, max=64)}
    given = draw(2, 4), start_of(2, one.layer)
    program = torch.export.export(one, given, dynamic_shapes=(batch, batch))
    more = draw(5, 4), start_of(5, one.layer)
    for got, want in zip(program.module()(*more), one(*more), strict=True):
        close(got, want, 1e-12)


def test_functional_call_and_vmap():
    layer, u = make(), draw(3, 20, 4)
    each = torch.func.vmap(lambda v: layer(v[None])[0])(u)
    close(each, layer(u), 1e-10)
    x = start_of(3, layer)
    each = torch.func.vmap(lambda v, s: layer(v[None], s[None], return_state=True)[1][0])(u, x)
    close(each, layer(u, x, return_state=True)[1], 1e-10)


@pytest.mark.parametrize("dtype", [BF16, torch.float16])
def test_autocast_keeps_the_filters_in_float32(dtype):
    layer, u = make(dtype=F32), draw(2, 40, 4, dtype=F32)
    y, state = layer(u, return_state=True)
    K = layer.kernel(40)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(layer.kernel(40), K)
        y_auto, state_auto = layer(u, return_state=True)
        close(y_auto.float(), y, 0.05)
        assert torch.equal(state_auto, state) and y_auto.dtype == dtype
        close(layer.step(u[:, 0], state)[0].float(), layer.step(u[:, 0], state)[0].float(), 0.05)


@pytest.mark.parametrize("dtype", [BF16, torch.float16])
@every_init
def test_half_precision_parameters_round_once(dtype, init):
    half, u = make(init=init, dtype=dtype, **LINEAR), draw(2, 60, 4, dtype=dtype)
    exact = copy.deepcopy(half).float()
    (y, x), (want, end) = half(u, return_state=True), exact(u.float(), return_state=True)
    assert torch.equal(y, want.to(dtype)) and torch.equal(x, end) and x.dtype == C64
    assert half.kernel(9).dtype == F32
    stepped, _ = half.step(u[:, 0], half.initial_state(2))
    close(stepped.float(), y[:, 0].float(), 0.02)
    half(u).float().sum().backward()
    assert half.kernel.P.grad.dtype == dtype and half.kernel.P.grad.isfinite().all()


def test_double_and_half():
    layer = make(dtype=F32)
    wide = copy.deepcopy(layer).double()
    assert all(p.dtype == F64 for p in wide.parameters())
    assert wide.initial_state().dtype == C128 and wide.kernel(5).dtype == F64
    u = draw(2, 30, 4, dtype=F32)
    close(layer(u), wide(u.double()).float(), 1e-5)
    with pytest.raises(TypeError, match="want u of the layer's dtype"):
        wide(u)
    short = copy.deepcopy(layer).half()
    close(short(u.half()).float(), layer(u), 0.05)


def test_copies_and_files(tmp_path):
    layer, u = make(init="legt", clock="softplus"), draw(2, 20, 4)
    y = layer(u)
    assert torch.equal(copy.deepcopy(layer)(u), y)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(u), y)
    torch.save(layer.state_dict(), tmp_path / "a.pt")
    other = make(init="legt", clock="softplus", seed=5)
    assert not torch.equal(other(u), y)
    other.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    assert torch.equal(other(u), y)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    layer, other, u = make(init="legt"), make(init="legt", seed=5), draw(2, 20, 4)
    safetensors.save_model(layer, str(tmp_path / "a.safetensors"))
    safetensors.load_model(other, str(tmp_path / "a.safetensors"))
    assert torch.equal(other(u), layer(u))


def test_meta_device_and_assign():
    meta, real, u = make(device="meta"), make(), draw(2, 20, 4)
    assert all(p.is_meta for p in meta.parameters())
    y, state = meta(u.to("meta"), return_state=True)
    assert y.shape == (2, 20, 4) and state.shape == (2, 4, 8) and y.is_meta
    meta.load_state_dict(real.state_dict(), assign=True)
    assert torch.equal(meta(u), real(u))
    with torch.device("meta"):
        assert all(p.is_meta for p in S4(4, 8).parameters())
    empty = make(device="meta").to_empty(device="cpu")
    empty.load_state_dict(real.state_dict())
    assert torch.equal(empty(u), real(u))


def test_a_failed_load_changes_nothing():
    layer = make()
    before, good = snapshot(layer), {k: v + 1 for k, v in layer.state_dict().items()}
    for name, value in (("kernel.P", torch.zeros(3)), ("kernel.log_dt", torch.full((4,), 800.0))):
        with pytest.raises(ValueError, match="nothing was loaded"):
            layer.load_state_dict(good | {name: value})
        assert snapshot(layer) == before
    layer.load_state_dict(good)


# ------------------------------------------------------------------ bad input

U = draw(2, 10, 4)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda s: s(U[0]), ValueError, r"want u \(batch, L, d_model\)"),
        (lambda s: s(U[..., :2]), ValueError, "none empty, the last 4"),
        (lambda s: s(U[:0]), ValueError, "none empty"),
        (lambda s: s(U[:, :0]), ValueError, "none empty"),
        (lambda s: s(U.float()), TypeError, "want u of the layer's dtype"),
        (lambda s: s(U.long()), TypeError, "want u of a floating"),
        (lambda s: s(U.to("meta")), ValueError, "want all tensors on one device"),
        (lambda s: s(U, rate=-1.0), ValueError, "want rate finite and > 0"),
        (lambda s: s(U, rate=math.nan), ValueError, "want rate finite and > 0"),
        (lambda s: s(U, rate="2"), TypeError, "want rate as a number"),
        (lambda s: s(U, lengths=[3, 11]), ValueError, "want lengths from 1 to L = 10"),
        (lambda s: s(U, lengths=[3]), ValueError, r"want lengths \(2,\)"),
        (lambda s: s(U, dt=torch.zeros(10)), ValueError, "want dt finite and > 0"),
        (lambda s: s(U, dt=torch.ones(9)), ValueError, "want dt"),
        (lambda s: s(U, s.initial_state(3)), ValueError, "want state"),
        (lambda s: s(U, s.initial_state(2).real), ValueError, "want state"),
        (lambda s: s(U, s.initial_state(2).to(C64)), ValueError, "want state torch.complex128"),
        (lambda s: s.step(U[:, 0], None), TypeError, r"want state as a torch\.Tensor"),
        (lambda s: s.step(U, s.initial_state(2)), ValueError, r"want u \(batch, d_model\)"),
        (lambda s: s.initial_state(0), ValueError, "want batch >= 1"),
        (lambda s: s.kernel(0), ValueError, "want L >= 1"),
    ],
)
def test_refused_input(call, error, said):
    layer = make()
    before = snapshot(layer)
    with pytest.raises(error, match=said):
        call(layer)
    assert snapshot(layer) == before


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"init": "lin"}, ValueError, "want init one of"),
        ({"d_state": 7}, ValueError, "want d_state even"),
        ({"n_ssm": 3}, ValueError, "want n_ssm to divide d_model"),
        ({"min_decay": -1.0}, ValueError, "want min_decay finite and > 0"),
        ({"clock": None}, ValueError, 'want clock "log" or "softplus"'),
        ({"dt_min": 0.2}, ValueError, "want dt_min <= dt_max"),
        ({"bidirectional": 1}, TypeError, "want bidirectional as a bool"),
        ({"activation": "tanh"}, ValueError, "want activation one of"),
        ({"mixer": "conv"}, ValueError, "want mixer one of"),
        ({"dropout": 1.5}, ValueError, "want dropout from 0 to 1"),
        ({"dtype": torch.complex64}, TypeError, "want a floating dtype"),
        ({"disc": "zoh"}, TypeError, "disc"),
    ],
)
def test_refused_arguments_use_up_no_seed(options, error, said):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(error, match=said):
        S4(4, **{"d_state": 8, **options})
    assert torch.equal(torch.get_rng_state(), before)


def test_two_directions_have_no_state():
    both = make(bidirectional=True)
    for call in (
        both.initial_state,
        lambda: both(U, return_state=True),
        lambda: both(U, make().initial_state(2)),
        lambda: both.step(U[:, 0], make().initial_state(2)),
        lambda: both(U, dt=torch.ones(10)),
    ):
        with pytest.raises(ValueError, match="want a causal layer"):
            call()
