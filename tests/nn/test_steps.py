"""Steps and short blocks with coefficients that are kept: equal, never stale, never in the way."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, jvp, vmap
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from walking import close, draw, walk

from s4lite.init.nplr import nplr
from s4lite.nn import kept as kept_module
from s4lite.nn.kept import _records, _size, kept
from s4lite.nn.kernel import DiagKernel
from s4lite.nn.layer import S4, S4D, SSMLayer
from s4lite.nn.model import SequenceModel
from s4lite.nn.steps import Fold, diag_fold, dplr_fold, kept_block, kept_step, take_step
from s4lite.ops.diag_state import diag_step
from s4lite.ops.dplr import dplr_step

F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16
CASES = [(S4, {"init": init}) for init in ("legs", "legt", "lagt", "fout")]
CASES += [
    (S4D, {"init": init, "disc": disc})
    for init in ("lin", "inv", "real", "random", "legs")
    for disc in ("zoh", "bilinear")
]
BOTH = [(S4, {}), (S4D, {}), (S4D, {"disc": "bilinear"})]


def named(case) -> str:
    return "-".join([case[0].__name__, *map(str, case[1].values())])


every = pytest.mark.parametrize("case", CASES, ids=named)
both = pytest.mark.parametrize("case", BOTH, ids=named)


def make(case, d_model: int = 4, d_state: int = 8, *, dtype=F32, **options):
    kind, chosen = case
    torch.manual_seed(5)
    return kind(d_model, d_state, dtype=dtype, **{**chosen, **options}).eval()


def start(layer: nn.Module, batch: int = 3, seed: int = 7) -> Tensor:
    shape = layer.initial_state(batch).shape
    x = torch.complex(draw(*shape, seed=seed), draw(*shape, seed=seed + 1))
    return x.to(layer.kernel.state_dtype)


def plain(kernel: nn.Module, u_t: Tensor, x: Tensor, rate: float = 1.0) -> tuple[Tensor, Tensor]:
    """The step that keeps nothing: the naive twins."""
    if hasattr(kernel, "system"):
        nu, Bb, C = kernel.system(rate)
        return diag_step(nu, Bb, C[0], u_t, x)
    Lambda, P, B, C = kernel.modes()
    return dplr_step(Lambda, P, B, C[0], kernel.steps(rate), u_t, x)


def is_kept(layer: nn.Module) -> bool:
    return bool(_records().get(layer.kernel))


def fresh(layer: nn.Module) -> nn.Module:
    """A copy with the same numbers that has never kept anything."""
    new = copy.deepcopy(layer)
    assert not is_kept(new)
    return new


# ------------------------------------------------------------------ the folded step


@pytest.mark.parametrize(("init", "N"), [("legs", 2), ("legt", 6), ("fout", 14), ("lagt", 4)])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_a_folded_step_is_the_long_one(init, N, batch):
    Lambda, P, B, _ = nplr(init, N)
    Lambda, P, B = (z.expand(3, *z.shape) for z in (Lambda, P, B))
    dt = torch.tensor([1e-4, 0.1, 5.0], dtype=F64)
    C, x = (
        torch.complex(draw(*s, seed=i), draw(*s, seed=i + 9))
        for i, s in enumerate([(3, N // 2), (*batch, 3, N // 2)])
    )
    u = draw(*batch, 3, seed=4)
    fold = dplr_fold(Lambda, P, B, dt)
    assert isinstance(fold, Fold) and len(fold.loops) == P.shape[-1]
    before = x.clone()
    got = take_step(fold, torch.view_as_real(C), u, x)
    assert torch.equal(x, before)  # nothing is written into the state that came
    for g, w in zip(got, dplr_step(Lambda, P, B, C, dt, u, x), strict=True):
        close(g, w, 1e-12)
    nu = dt[:, None] * Lambda
    for g, w in zip(
        take_step(diag_fold(nu, B), torch.view_as_real(C), u, x),
        diag_step(nu, B, C, u, x),
        strict=True,
    ):
        close(g, w, 1e-14)


def test_rank_three():
    Lambda = torch.complex(-draw(2, 5).abs() - 0.1, 3 * draw(2, 5, seed=2))
    P = torch.complex(draw(2, 5, 3, seed=3), draw(2, 5, 3, seed=4))
    B, C, x = (torch.complex(draw(2, 5, seed=i), draw(2, 5, seed=i + 9)) for i in (5, 6, 7))
    dt, u = torch.tensor([0.01, 0.3], dtype=F64), draw(2, seed=8)
    got = take_step(dplr_fold(Lambda, P, B, dt), torch.view_as_real(C), u, x)
    for g, w in zip(got, dplr_step(Lambda, P, B, C, dt, u, x), strict=True):
        close(g, w, 1e-13)


@every
@pytest.mark.parametrize("dtype", [F64, F32, BF16])
@pytest.mark.parametrize("batch", [1, 3])
def test_kept_steps_are_the_plain_ones(case, dtype, batch):
    for options in ({}, {"n_ssm": 2}, {"n_ssm": 4, "clock": "softplus"}):
        layer = make(case, dtype=dtype, **options)
        x, kernel = start(layer, batch), layer.kernel
        tol = 1e-12 if dtype == F64 else 3e-7
        for k, rate in enumerate((1.0, 2, 0.5, 1.0)):
            u = draw(batch, 4, seed=k).to(kernel.real_dtype)
            with torch.no_grad():
                got = kept_step(kernel, u, x, rate)
                want = plain(kernel, u, x, rate)
                assert all(
                    torch.equal(a, b) for a, b in zip(got, kernel.step(u, x, rate), strict=True)
                )
            for g, w in zip(got, want, strict=True):
                assert g.dtype == w.dtype
                close(g, w, tol)
            x = got[1]
        assert len(_records()[kernel]) == 3  # three rates


@both
def test_many_steps_stay_with_the_plain_ones(case):
    layer = make(case, dtype=F64, d_state=16)
    x = z = start(layer)
    with torch.no_grad():
        for k in range(200):
            u = draw(3, 4, seed=k)
            (y, x), (want, z) = layer.kernel.step(u, x), plain(layer.kernel, u, z)
            close(y, want, 1e-10)


@both
def test_the_layer_walks_as_it_convolves(case):
    layer, u = make(case, dtype=F64), draw(2, 30, 4)
    x = start(layer, 2)
    with torch.no_grad():
        close(walk(layer, u, x)[0], layer(u, x), 1e-11)


# ------------------------------------------------------------------ never stale


def swap(layer):
    layer.kernel.Lambda_im = nn.Parameter(layer.kernel.Lambda_im.detach() * 1.5)


def swap_to_data(layer):
    layer.kernel.log_dt.data = layer.kernel.log_dt.data + 0.1


def train(layer):
    adam = torch.optim.Adam(layer.parameters(), lr=0.05)
    layer(torch.ones(1, 5, layer.d_model, dtype=layer.D.dtype)).square().sum().backward()
    adam.step()


def load(layer, assign=False):
    layer.load_state_dict({k: v * 0.9 for k, v in layer.state_dict().items()}, assign=assign)


def numpy_write(layer):
    view = layer.kernel.B.detach().numpy()
    view += 0.5


def in_thread(layer):
    thread = threading.Thread(target=lambda: layer.kernel.Lambda_log_re.data.add_(0.3))
    thread.start()
    thread.join()


def half_way(layer):
    """float16 and bfloat16 have the same size: equal bits are other numbers."""
    layer.kernel.log_dt.data = layer.kernel.log_dt.data.to(BF16).view(F16).to(F32)


ATTACKS = {
    "in place": lambda layer: [p.data.mul_(1.01) for p in layer.parameters()],
    "one number": lambda layer: layer.kernel.log_dt.data[1:2].add_(0.01),
    "C": lambda layer: layer.kernel.C.data.neg_(),
    "D": lambda layer: layer.D.data.neg_(),
    "swap": swap,
    "data": swap_to_data,
    "train": train,
    "load": load,
    "assign": lambda layer: load(layer, assign=True),
    "numpy": numpy_write,
    "thread": in_thread,
    "half": half_way,
    "bits": lambda layer: layer.kernel.log_dt.data.copy_(
        torch.nextafter(layer.kernel.log_dt.data, torch.tensor(9.0))
    ),
    "double": lambda layer: layer.double(),
    "bfloat16": lambda layer: layer.bfloat16(),
    "slow": lambda layer: setattr(layer.kernel, "slow", ()),
    "nothing": lambda layer: None,
}


@both
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_makes_it_stale(case, attack):
    layer = make(case)
    x, u = start(layer, 2), draw(2, 6, 4, dtype=F32)
    walk(layer, u, x), walk(layer, u, x, rate=2.0)
    with torch.no_grad():
        layer(u, x, return_state=True)
    assert is_kept(layer)
    ATTACKS[attack](layer)
    if attack == "slow":
        layer.kernel.log_dt.data.add_(0.5)
    u, x, new = u.to(layer.D.dtype), x.to(layer.kernel.state_dtype), fresh(layer)
    for rate in (1.0, 2.0):
        for got, want in zip(walk(layer, u, x, rate=rate), walk(new, u, x, rate=rate), strict=True):
            assert torch.equal(got, want)
        with torch.no_grad():
            y, end = layer(u, x, rate=rate, return_state=True)
            want, last = fresh(layer)(u, x, rate=rate, return_state=True)
        assert torch.equal(y, want) and torch.equal(end, last)


def test_options_count_too():
    layer = make((S4D, {"disc": "zoh"}), dtype=F64)
    x, u = start(layer, 2), draw(2, 3, 4)
    before = walk(layer, u, x)[0]
    layer.kernel.disc = "bilinear"
    after = walk(layer, u, x)[0]
    assert torch.equal(after, walk(fresh(layer), u, x)[0]) and not torch.equal(after, before)


def test_nan_comes_through_and_goes_away():
    layer = make((S4, {}))
    x, u = start(layer, 2), draw(2, 4, dtype=F32)
    with torch.no_grad():
        good = layer.step(u, x)[0]
        kept_value = layer.kernel.B[0, 0, 0].clone()
        layer.kernel.B[0, 0, 0] = torch.nan
        assert layer.step(u, x)[0].isnan().any()
        layer.kernel.B[0, 0, 0] = kept_value
        assert torch.equal(layer.step(u, x)[0], good)


def test_a_patched_kernel_is_asked():
    layer, u = make((S4D, {}), dtype=F64), draw(2, 3, 4)
    before = walk(layer, u)[0]
    nu, Bb, C = layer.kernel.system()
    layer.kernel.system = lambda rate=1.0, gaps=None: (nu, 2 * Bb, C)
    layer_y = walk(layer, u)[0]
    assert not torch.equal(layer_y, before)


class Doubled(DiagKernel):
    """A kernel with other ideas, and a knob that is no parameter."""

    knob = 1.0

    def system(self, rate=1.0, gaps=None):
        nu, Bb, C = super().system(rate, gaps)
        return nu, self.knob * Bb, C


def test_a_subclass_does_not_inherit_the_claim():
    torch.manual_seed(0)
    layer, u = SSMLayer(Doubled(4, 8), nn.Identity()).eval(), draw(2, 3, 4, dtype=F32)
    one = walk(layer, u)[0]
    layer.kernel.knob = 2.0
    assert not torch.equal(walk(layer, u)[0], one) and not is_kept(layer)


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


def test_parametrized_kernels_are_asked():
    layer, u = make((S4, {})), draw(2, 3, 4, dtype=F32)
    parametrize.register_parametrization(layer.kernel, "Lambda_im", Twice())
    walk(layer, u)
    with torch.no_grad():
        layer.kernel.parametrizations.Lambda_im.original.mul_(1.1)
    y = walk(layer, u)[0]
    parametrize.remove_parametrizations(layer.kernel, "Lambda_im")
    close(walk(layer, u)[0], y, 1e-6)


def test_functional_call():
    layer, u, x = make((S4, {})), draw(3, 4, dtype=F32), start(make((S4, {})))
    with torch.no_grad():
        old, _ = layer.step(u, x)

        class Step(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = layer

            def forward(self, u, x):
                return self.layer.step(u, x)

        other = {f"layer.{k}": 1.1 * v for k, v in layer.state_dict().items()}
        new, _ = functional_call(Step(), other, (u, x))
        assert not torch.equal(new, old) and torch.equal(layer.step(u, x)[0], old)


# ------------------------------------------------------------------ where nothing is kept


@both
def test_gradients_are_those_of_the_plain_step(case):
    layer = make(case, dtype=F64, activation=None, mixer=None)
    u, x = draw(3, 4).requires_grad_(), start(layer).requires_grad_()
    walk(layer, draw(3, 2, 4))
    leaves = [u, x, *layer.kernel.parameters()]
    y, end = layer.kernel.step(u, x)
    got = torch.autograd.grad(y.sin().sum() + end.abs().sum(), leaves)
    y, end = plain(layer.kernel, u, x)
    want = torch.autograd.grad(y.sin().sum() + end.abs().sum(), leaves)
    for g, w in zip(got, want, strict=True):
        assert torch.equal(g, w)
    layer.requires_grad_(False)  # frozen, but the input asks
    (du,) = torch.autograd.grad(layer.kernel.step(u, x)[0].sin().sum(), u)
    assert du.abs().max() > 0
    assert kept_step(layer.kernel, u, x, 1.0) is None
    assert kept_step(layer.kernel, u.detach(), x.detach(), 1.0) is not None  # frozen, nobody asks


def test_only_c_or_the_head_is_trained():
    layer = make((S4D, {}), dtype=F64).requires_grad_(False)
    layer.kernel.C.requires_grad_()
    layer.step(draw(3, 4), start(layer))[0].sum().backward()
    assert layer.kernel.C.grad.abs().max() > 0
    layer.requires_grad_(False)
    layer.head.requires_grad_()
    layer.step(draw(3, 4), start(layer))[0].sum().backward()
    assert layer.head[2].weight.grad.abs().max() > 0 and is_kept(layer)


@both
def test_transforms_and_tangents(case):
    layer = make(case, dtype=F64)
    x, u = start(layer), draw(3, 4)
    with torch.no_grad():
        want, _ = layer.step(u, x)
        _, slope = jvp(lambda z: layer.step(z, x)[0], (u,), (torch.ones_like(u),))
        _, again = jvp(lambda z: plain_layer(layer, z, x), (u,), (torch.ones_like(u),))
        close(slope, again, 1e-12)
        close(vmap(lambda z, s: layer.step(z[None], s[None])[0][0])(u, x), want, 1e-12)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(u, torch.ones_like(u))
            close(forward_ad.unpack_dual(layer.step(dual, x)[0]).tangent, again, 1e-12)


def plain_layer(layer, u, x):
    y, _ = plain(layer.kernel, u, x)
    return layer.head((y + layer.D * u)[:, None])[:, 0]


def test_a_tangent_of_a_parameter_is_not_lost():
    layer = make((S4D, {}), dtype=F64).requires_grad_(False)
    x, u, kernel = start(layer), draw(3, 4), layer.kernel
    with torch.no_grad(), forward_ad.dual_level():
        kernel.step(u, x)
        log_dt = kernel._parameters.pop("log_dt")
        kernel.log_dt = forward_ad.make_dual(log_dt.data, torch.ones_like(log_dt))
        assert forward_ad.unpack_dual(kernel.step(u, x)[0]).tangent.abs().max() > 0


@both
def test_compile(case):
    torch._dynamo.reset()
    layer = make(case)
    x, u = start(layer), draw(3, 4, dtype=F32)
    with torch.no_grad():
        want = layer.step(u, x)
        run = torch.compile(layer.step, fullgraph=True, backend="eager")
        for g, w in zip(run(u, x), want, strict=True):
            close(g, w, 1e-5)
        layer.kernel.log_dt.add_(0.5)
        for g, w in zip(run(u, x), layer.step(u, x), strict=True):
            close(g, w, 1e-5)


def test_meta_and_fake():
    layer = make((S4, {})).to("meta")
    y, x = layer.step(torch.empty(2, 4, device="meta"), layer.initial_state(2))
    assert y.is_meta and x.is_meta and not is_kept(layer)
    layer = make((S4D, {}))
    walk(layer, draw(2, 3, 4, dtype=F32))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        y, _ = layer.step(torch.empty(2, 4), mode.from_tensor(layer.initial_state(2)))
        assert y.shape == (2, 4)


def test_traced_steps_see_new_parameters():
    layer = make((S4, {})).requires_grad_(False)
    x, u = start(layer), draw(3, 4, dtype=F32)
    layer.step(u, x)
    with torch.no_grad():
        graph = torch.fx.experimental.proxy_tensor.make_fx(lambda u, x: layer.step(u, x)[0])(u, x)
        layer.kernel.B.mul_(2.0)
        close(graph(u, x), layer.step(u, x)[0], 1e-5)


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@both
def test_a_step_is_few_operations(case):
    layer = make(case)
    x, u = start(layer), draw(3, 4, dtype=F32)
    with torch.no_grad():
        layer.step(u, x)
        with Counting() as seen:
            layer.step(u, x)
    assert len(seen.names) < 60
    assert not {"exp", "expm1", "linalg_solve_ex", "_linalg_solve_ex"} & set(seen.names)
    assert not {"_local_scalar_dense", "nonzero"} & set(seen.names)  # no value reaches the host


# ------------------------------------------------------------------ modes, copies, threads


@both
def test_inference_mode_and_back(case):
    layer = make(case)
    x, u = start(layer), draw(3, 4, dtype=F32)
    with torch.inference_mode():
        want = layer.step(u, x)
    with torch.no_grad():
        got = layer.step(u, x)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
    layer.requires_grad_(False)
    z = x.clone().requires_grad_()
    layer.step(u, z)[0].sum().backward()  # what was made in inference mode does not spoil training
    assert z.grad is not None
    layer.requires_grad_()
    layer.step(u, x)[0].sum().backward()


@both
def test_autocast(case):
    layer = make(case)
    x, u = start(layer), draw(3, 4, dtype=F32)
    with torch.no_grad():
        want = layer.kernel.step(u, x)
        with torch.autocast("cpu", dtype=BF16):
            got = layer.kernel.step(u, x)
            y, end = layer.step(u.to(BF16), x)
            fresh_y, fresh_end = fresh(layer).step(u.to(BF16), x)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
    assert torch.equal(y, fresh_y) and torch.equal(end, fresh_end)


@both
def test_copies_start_empty_and_nothing_is_stored(case):
    layer, u = make(case), draw(2, 5, 4, dtype=F32)
    names, want = set(layer.state_dict()), walk(layer, u)[0]
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)]
    assert set(layer.state_dict()) == names and "_kept" not in vars(layer.kernel)
    for twin in twins[:2]:
        assert not is_kept(twin)
        assert torch.equal(walk(twin, u)[0], want)
        twin.kernel.log_dt.data.add_(1.0)
        assert not torch.equal(walk(twin, u)[0], want) and torch.equal(walk(layer, u)[0], want)


def test_records_die_with_their_kernel():
    layer = make((S4, {}))
    walk(layer, draw(1, 2, 4, dtype=F32))
    before = len(_records())
    del layer
    assert len(_records()) == before - 1


def test_only_a_few_answers_are_kept():
    layer = make((S4D, {}))
    for rate in range(1, 10):
        walk(layer, draw(1, 2, 4, dtype=F32), rate=float(rate))
    assert len(_records()[layer.kernel]) == 4


def test_only_so_many_bytes_are_kept(monkeypatch):
    layer, u = make((S4, {})), draw(1, 2, 4, dtype=F32)
    want = walk(layer, u)[0]
    size = _size(_records()[layer.kernel][0].answer)
    assert size == sum(z.nbytes for z in layer.kernel.folded()[:3]) + 4 * 4 * 2 * 8 * 2
    monkeypatch.setattr(kept_module, "_ROOM", 2 * size)
    for rate in (2.0, 3.0, 4.0):
        walk(layer, u, rate=rate)
    assert [record.key[1] for record in _records()[layer.kernel]] == [4.0, 3.0]
    monkeypatch.setattr(kept_module, "_ROOM", size - 1)  # nothing fits: made anew, still right
    assert torch.equal(walk(layer, u)[0], want) and not is_kept(layer)


class Meddling(TorchDispatchMode):
    """Not all modes only look on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return 2 * out if func.overloadpacket.__name__ == "exp" else out


@both
def test_what_a_mode_has_changed_is_not_kept(case):
    layer, u = make(case), draw(2, 16, 4, dtype=F32)
    with Meddling():
        walk(layer, u)
        with torch.no_grad():
            layer(u, return_state=True)
    assert not is_kept(layer) and torch.equal(walk(layer, u)[0], walk(fresh(layer), u)[0])


@both
def test_threads(case):
    layers = [make(case), make(case)]
    layers[1].kernel.log_dt.data.add_(0.5)
    values = [{k: v.clone() for k, v in layer.state_dict().items()} for layer in layers]
    u, x, shared = draw(1, 4, dtype=F32), start(layers[0], 1), make(case)
    with torch.no_grad():
        wanted = {layer.kernel.step(u, x)[1].numpy().tobytes() for layer in layers}
    seen, stop = [], threading.Event()

    def read():
        with torch.no_grad():
            while not stop.is_set():
                seen.append(shared.kernel.step(u, x)[1].numpy().tobytes())

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for k in range(60):  # one tensor is written in one go: every reader meets old or new numbers
        shared.kernel.log_dt.data = values[k % 2]["kernel.log_dt"]
    stop.set()
    for reader in readers:
        reader.join()
    assert set(seen) <= wanted
    shared.load_state_dict(values[0])
    with torch.no_grad():
        assert torch.equal(shared.kernel.step(u, x)[1], layers[0].kernel.step(u, x)[1])


def test_the_answer_belongs_to_the_copy():
    """A writer between the copying and the computing cannot make a wrong pair."""
    layer = make((S4, {}))
    kernel, u, x = layer.kernel, draw(3, 4, dtype=F32), start(layer)

    def interrupted(twin):
        kernel.log_dt.data.add_(1.0)  # somebody writes just now
        return twin.folded()

    with torch.no_grad():
        old = kernel.folded()
        got = kept(kernel, ("mine",), interrupted, ("C",))
        assert torch.equal(got.E, old.E)
        again = kept(kernel, ("mine",), lambda twin: twin.folded(), ("C",))
        assert torch.equal(again.E, kernel.folded().E) and not torch.equal(again.E, old.E)
        assert torch.equal(kernel.step(u, x)[1], fresh(layer).kernel.step(u, x)[1])


# ------------------------------------------------------------------ short blocks


@every
@pytest.mark.parametrize("dtype", [F64, F32])
def test_blocks_are_steps(case, dtype):
    layer = make(case, 3, 12, dtype=dtype, n_ssm=3)
    u, x = draw(2, 130, 3, dtype=dtype), start(layer, 2)
    want, last = walk(layer, u, x)
    for length in (1, 7, 64, 65, 130):
        state, y = x, []
        with torch.no_grad():
            for block in u.split(length, 1):
                out, state = layer(block, state, return_state=True)
                y.append(out)
        tol = 1e-10 if dtype == F64 else 2e-5
        close(torch.cat(y, 1), want, tol)
        close(state, last, tol)


@both
def test_blocks_from_rest_other_rates_and_refused_lengths(case):
    layer = make(case, dtype=F64)
    u = draw(2, 80, 4)
    with torch.no_grad():
        v = u.mT
        for rate in (1.0, 2.0):
            y, end = kept_block(layer.kernel, v, None, rate)
            want, last = walk(layer, u, rate=rate)
            got = layer.head((y + layer.D[:, None] * v).mT)
            close(got, want, 1e-11)
            close(end, last, 1e-11)
        for length in (67, 2 * 257, 8192):
            assert kept_block(layer.kernel, v.new_zeros(1, 4, length), None, 1.0) is None
        y, end = layer(u, return_state=True, lengths=[80, 33])
        close(y[1:, :33], layer(u[1:, :33]), 1e-11)
    y, end = layer(u, return_state=True)  # gradients
    y.sum().backward()
    assert layer.kernel.C.grad.abs().max() > 0


# ------------------------------------------------------------------ what is refused as before


@both
def test_bad_input_is_still_refused(case):
    layer = make(case)
    x, u = start(layer), draw(3, 4, dtype=F32)
    with torch.no_grad():
        layer.step(u, x)
        for rate, error in [
            (0, ValueError),
            (-1.0, ValueError),
            (float("nan"), ValueError),
            (True, TypeError),
            ("2", TypeError),
        ]:
            with pytest.raises(error, match="rate"):
                layer.step(u, x, rate=rate)
        with pytest.raises(ValueError, match=r"\(batch, d_model\)"):
            layer.step(u[0], x)
        with pytest.raises(TypeError, match="dtype"):
            layer.step(u.double(), x)
        with pytest.raises(ValueError, match="state"):
            layer.step(u, x[:2])
        with pytest.raises(ValueError, match="state"):
            layer.step(u, x.to(torch.complex128))
        with pytest.raises(TypeError, match="state"):
            layer.step(u, x.tolist())
        y = layer.step(u, x, rate=torch.tensor(2.0))[0]
        close(y, layer.step(u, x, rate=2.0)[0], 1e-5)


def test_two_directions_refuse():
    for kind in (S4, S4D):
        layer = kind(4, 8, bidirectional=True).eval()
        with torch.no_grad(), pytest.raises(ValueError, match="bidirectional"):
            layer.step(torch.ones(2, 4), torch.zeros(2, 4, 4, dtype=torch.complex64))


@both
def test_odd_states(case):
    """Not contiguous, or lazily conjugated: the same numbers give the same step."""
    layer = make(case, dtype=F64)
    x, u = start(layer), draw(3, 4)
    with torch.no_grad():
        want = layer.step(u, x)
        for odd in (x.conj().resolve_conj().conj(), x.mT.contiguous().mT):
            for g, w in zip(layer.step(u, odd), want, strict=True):
                close(g, w, 1e-13)
        wide = torch.stack([u, u], -1)[..., 0]
        close(layer.step(wide, x)[0], want[0], 1e-13)


def test_a_model_keeps_in_every_layer():
    torch.manual_seed(0)
    for kind in (S4, S4D):
        model = SequenceModel(3, 2, 8, 3, layer=kind, pool=None, dtype=F64).eval()
        u, state, y = draw(2, 12, 3), model.initial_state(2), []
        with torch.no_grad():
            for u_t in u.unbind(1):
                out, state = model.step(u_t, state)
                y.append(out)
            close(torch.stack(y, 1), model(u), 1e-11)
        assert all(is_kept(block.layer) for block in model.stack.blocks)


def test_numpy_rate_is_a_number():
    layer = make((S4, {}))
    x, u = start(layer), draw(3, 4, dtype=F32)
    with torch.no_grad():
        close(layer.step(u, x, rate=np.float64(2.0))[0], layer.step(u, x, rate=2.0)[0], 1e-6)
