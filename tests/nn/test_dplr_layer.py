"""The bank behind S4: what its numbers mean, where they start, and that no value is dangerous."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from walking import close, draw

from s4lite.init.hippo import hippo
from s4lite.init.nplr import nplr
from s4lite.nn.dplr import DPLRKernel, DPLRParameters, initial_system
from s4lite.ops.conv import kernel_naive
from s4lite.ops.discretize import bilinear
from s4lite.ops.dplr import dplr_discretize, dplr_kernel_naive

F32, F64, BF16, C128 = torch.float32, torch.float64, torch.bfloat16, torch.complex128
GOLDEN = Path(__file__).parent.parent / "golden"
every_init = pytest.mark.parametrize("init", ["legs", "legt", "lagt", "fout"])
every_clock = pytest.mark.parametrize("clock", ["log", "softplus"])


def make(d_model: int = 4, d_state: int = 16, *, seed: int = 0, **options) -> DPLRKernel:
    torch.manual_seed(seed)
    return DPLRKernel(d_model, d_state, **{"dtype": F64, **options})


def dense_kernel(bank: DPLRKernel, L: int, rate: float = 1.0) -> Tensor:
    """C Ab^l Bb from the stored numbers, by dense powers of the doubled spectrum."""
    p = {name: x.detach() for name, x in bank.named_parameters()}
    K = []
    for h in range(bank.d_model):
        s = h % len(p["B"])
        Lambda = torch.complex(-p["Lambda_log_re"][s].exp(), p["Lambda_im"][s])
        P, B, C = (torch.view_as_complex(x) for x in (p["P"][s], p["B"][s], p["C"][:, h]))
        dt = p["log_dt"][h].exp() if "log_dt" in p else nn.functional.softplus(p["inv_dt"][h])
        K.append(dplr_kernel_naive(Lambda, P, B, C, dt * rate, L))
    return torch.stack(K, 1)


def golden(init: str, L: int) -> tuple[DPLRKernel, dict[str, Tensor]]:
    """A bank with the parameters of a golden file, each channel with a system of its own."""
    z = {
        k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f"s4_{init}_bilinear_L{L}.npz").items()
    }
    H, n = z["A"].shape
    bank = make(H, 2 * n, n_ssm=H, init=init)
    values = {
        "Lambda_log_re": (-z["A"].real).log(),
        "Lambda_im": z["A"].imag,
        "P": torch.view_as_real(z["P"].movedim(0, -1).contiguous()),
        "B": torch.view_as_real(z["B"][0]),
        "C": torch.view_as_real(z["C"]),
        "log_dt": z["dt"][:, 0].log(),
    }
    bank.load_state_dict(values)
    return bank, z


# ------------------------------------------------------------------ what it computes


@every_init
@every_clock
@pytest.mark.parametrize("n_ssm", [1, 2, 4])
def test_kernel_is_that_of_the_stored_numbers(init, clock, n_ssm):
    bank = make(init=init, clock=clock, n_ssm=n_ssm, channels=2)
    with torch.no_grad():
        for p in (bank.P, bank.B, bank.Lambda_im, bank.Lambda_log_re):
            _ = p.add_(0.3 * draw(*p.shape))
    for L, rate in ((1, 1.0), (2, 0.5), (99, 2.0)):
        close(bank(L, rate), dense_kernel(bank, L, rate), 1e-11)


@pytest.mark.parametrize("init", ["legs", "legt", "fout"])
@pytest.mark.parametrize("L", [64, 1024])
def test_golden_kernels(init, L):
    bank, z = golden(init, L)
    close(bank(L), z["K_ref"], 1e-11)
    if L == 64:
        close(bank(128, rate=0.5), z["K_rate05_ref"], 1e-11)
        close(bank(32, rate=2.0), z["K_rate2_ref"], 1e-11)
        close(bank(32, rate=torch.tensor(2.0)), z["K_rate2_ref"], 1e-11)


@every_init
def test_starts_as_the_hippo_matrix(init):
    """With min_decay = 1e-12 the kernel is that of dense powers of A itself."""
    bank = make(3, 64, init=init, min_decay=1e-12)
    A, B = hippo(init, 64)
    V = nplr(init, 64).V
    C = 2 * (torch.view_as_complex(bank.C[0]).detach() @ V.mH).real
    Ab, Bb = bilinear(A, B[:, None], bank.steps().detach())
    close(bank(999)[0], kernel_naive(Ab, Bb[..., 0], C, 999), 1e-11)


@every_init
@pytest.mark.parametrize("dt_min", [1e-3, 1e-4])
def test_float32_at_16384(init, dt_min):
    """Every row within 5e-6 of its own largest value, and short kernels too."""
    bank = make(4, 64, init=init, dt_min=dt_min, dtype=F32)
    exact = copy.deepcopy(bank).double()
    for L in (1, 99, 1024, 16384):
        K, want = bank(L), exact(L)
        assert K.dtype == F32 and want.dtype == F64
        for row, right in zip(K[0], want[0], strict=True):
            close(row.double(), right, 5e-6)


def test_sets_made_equal_are_one_set():
    one, many = make(8), make(8, n_ssm=8)
    state = {k: v.expand(many.state_dict()[k].shape) for k, v in one.state_dict().items()}
    many.load_state_dict(state)
    assert torch.equal(one(50), many(50))


def test_channel_h_uses_set_h_mod_n_ssm():
    bank = make(6, n_ssm=3)
    with torch.no_grad():
        _ = bank.P[1].mul_(0)
    K, changed = make(6, n_ssm=3)(40)[0], bank(40)[0]
    same = [torch.equal(a, b) for a, b in zip(K, changed, strict=True)]
    assert same == [True, False, True, True, False, True]


# ------------------------------------------------------------------ safe for every value


@every_clock
@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_every_value_is_a_contraction(clock, spread):
    bank = make(300, 8, init="legt", n_ssm=300, clock=clock)
    generator = torch.Generator().manual_seed(5)
    for p in bank.parameters():
        _ = nn.init.normal_(p, std=spread, generator=generator)
    Lambda, P, B, _ = bank.modes()
    Ab, _ = dplr_discretize(Lambda, P, B, bank.steps())
    assert torch.linalg.matrix_norm(Ab, 2).max() <= 1 + 1e-12
    assert bank(50).isfinite().all()


def test_a_free_q_is_not():
    """The same numbers with P and Q apart do leave the stable side: the test above can fail."""
    Lambda, P, _, _ = nplr("legs", 64)
    gen, worst = torch.Generator().manual_seed(3), -1.0
    for _ in range(20):
        xi = torch.randn(2, 32, generator=gen, dtype=C128)
        p, q = (torch.cat([x, x.conj()]) for x in P[:, 0] * (1 + 0.5 * xi))
        A = torch.diag(torch.cat([Lambda, Lambda.conj()])) - torch.outer(p, q.conj())
        worst = max(worst, torch.linalg.eigvals(A).real.max().item())
    assert worst > 0.01


def test_all_parameters_learn_and_are_named_slow():
    bank = make(2, 4, init="legt")
    names, values = zip(*bank.named_parameters(), strict=True)
    assert set(names) == {"log_dt", "Lambda_log_re", "Lambda_im", "P", "B", "C"}
    assert set(bank.slow) == set(names) - {"C"}
    assert set(make(2, 4, clock="softplus").slow) == {*bank.slow} - {"log_dt"} | {"inv_dt"}
    u, gaps = draw(2, 2, 7), draw(2, 7, seed=3).exp()
    x = torch.complex(draw(2, 2, 2), draw(2, 2, 2, seed=2))

    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.bank = bank

        def forward(self, u, x, gaps):
            kernel, said = self.bank(7, 0.7), self.bank.response(x, 7, 1.3)
            walked = self.bank.scan(u, gaps, x)
            stepped = self.bank.step(u[..., 0], x, 1.0, gaps[:, 0])
            return kernel, said, self.bank.last_state(u, x, lengths=[7, 4]), *walked, *stepped

    def run(u, x, gaps, *values):
        named = {f"bank.{k}": v for k, v in zip(names, values, strict=True)}
        return torch.func.functional_call(Views(), named, (u, x, gaps))

    inputs = [v.detach().clone().requires_grad_() for v in (u, x, gaps, *values)]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


# ------------------------------------------------------------------ how it starts


@every_init
def test_initial_system(init):
    Lambda, P, B = initial_system(init, 32, 1e-4)
    model = nplr(init, 32)
    assert torch.equal(P, model.P) and torch.equal(B, model.B)
    assert torch.equal(Lambda.imag, model.Lambda.imag) and Lambda.dtype == C128
    assert (Lambda.real == (-0.5 if init == "legs" else -1e-4)).all()
    bank = make(4, 32, init=init, n_ssm=2, channels=2)
    got, P_h, B_h, C = bank.modes()
    close(got, Lambda.expand(4, -1), 1e-15)
    assert torch.equal(P_h, P.expand(4, -1, -1)) and torch.equal(B_h, B.expand(4, -1))
    assert C.shape == (2, 4, 16) and bank.P.shape == (2, 16, P.shape[1], 2)
    assert (B.real > 0).all() and B.imag.abs().max() == 0  # nothing to clip


def test_min_decay_is_a_veil():
    """eq-s4-lifted: |K_eps - K| <= eps dt (l + 1/2) |C| |Bb|, and not zero."""
    for init in ("legt", "lagt", "fout"):
        veiled, plain = (make(3, 64, init=init, min_decay=eps) for eps in (1e-3, 1e-14))
        Lambda, P, B, C = plain.modes()
        dt = plain.steps()[:, None]
        Bb = dplr_discretize(Lambda, P, B, dt[:, 0])[1].norm(dim=-1)
        size = (math.sqrt(2) * C[0].abs().square().sum(-1).sqrt() * Bb)[:, None]
        gap = (veiled(2000) - plain(2000))[0].abs()
        assert (gap <= 1.001e-3 * dt * (torch.arange(2000) + 0.5) * size).all()
        assert gap.max() > 1e-6


def test_variance_at_the_start():
    """eq-s4-loud: the sum of E K^2 is dt tr G, N/2 for LegS, N for LagT, (N - 1)/2 for FouT."""
    for init, want in {"legs": 8, "lagt": 16, "fout": 7.5}.items():
        Lambda, P, B = initial_system(init, 16, 1e-12)
        Ab, Bb = dplr_discretize(Lambda, P, B, torch.tensor([0.3, 0.01], dtype=F64))
        total, M = Bb[..., None] * Bb[..., None, :], Ab
        for _ in range(20):
            total, M = total + M @ total @ M.mT, M @ M
        loud = total.diagonal(dim1=-2, dim2=-1).sum(-1) / torch.tensor([0.3, 0.01], dtype=F64)
        close(loud, torch.full_like(loud, want), 1e-7)
    C = make(200, 64).modes()[3]
    assert abs(C.abs().square().mean() - 1) < 0.05 and abs((C**2).mean()) < 0.05


def test_own_system():
    Lambda, P, B, _ = nplr("legt", 16)
    for init in ((Lambda, P, B), nplr("legt", 16), (Lambda.to(torch.complex64), P, B)):
        got = initial_system(init, 16, 1e-3)
        close(got[0], Lambda - 1e-3, 1e-6)
        assert torch.equal(got[1], P) and torch.equal(got[2], B)
    real = initial_system((Lambda, P.real, B.real), 16)
    assert real[1].dtype == C128 and torch.equal(real[1].real, P.real)
    mixed = initial_system((Lambda - torch.arange(8), P, B), 16, 0.5)[0]
    assert torch.equal(mixed.real, -torch.arange(8.0, dtype=F64).clamp(min=0.5))


def test_one_seed_is_one_bank():
    a, b = make(seed=3), make(seed=3, init="fout")
    assert torch.equal(a.log_dt, b.log_dt) and torch.equal(a.C, b.C)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="want init one of"):
        DPLRParameters(4, init="hippo")
    assert torch.equal(torch.get_rng_state(), before)


def test_defaults():
    bank = DPLRKernel(6)
    assert bank.P.shape == (1, 32, 1, 2) and bank.C.shape == (1, 6, 32, 2)
    assert bank(7).shape == (1, 6, 7) and bank(7).dtype == F32
    assert all(p.dtype == F32 for p in bank.parameters())
    assert DPLRKernel(6, 2)(5).shape == (1, 6, 5)


# ------------------------------------------------------------------ refusals

MODEL = nplr("legs", 16)
LAMBDA, P, B = MODEL[:3]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"init": "hippo"}, ValueError, '"legs", "legt", "lagt", "fout", got'),
        ({"init": "lmu"}, ValueError, "want init one of"),
        ({"init": LAMBDA}, ValueError, "or a tuple Lambda, P, B"),
        ({"init": (LAMBDA, P)}, ValueError, "or a tuple Lambda, P, B"),
        ({"init": (LAMBDA, P, None)}, TypeError, "want B as a torch.Tensor"),
        ({"init": (LAMBDA.real, P, B)}, ValueError, r"want init as complex Lambda \(8,\)"),
        ({"init": (LAMBDA, P[:, 0], B)}, ValueError, r"P \(8, r\)"),
        ({"init": (LAMBDA, P[:, :0], B)}, ValueError, r"P \(8, r\)"),
        ({"init": (LAMBDA[:4], P[:4], B[:4])}, ValueError, r"want init as complex Lambda \(8,\)"),
        ({"init": (LAMBDA + 1, P, B)}, ValueError, "with Re Lambda <= 0"),
        ({"init": (LAMBDA, P * math.nan, B)}, ValueError, "want init finite"),
        ({"init": (LAMBDA, P, B * math.inf)}, ValueError, "want init finite"),
        ({"init": tuple(x.to("meta") for x in (LAMBDA, P, B))}, ValueError, "on meta"),
        ({"init": (LAMBDA * 1e6, P, B), "dtype": torch.float16}, ValueError, "can hold"),
        ({"init": (LAMBDA, P * 1e6, B), "dtype": torch.float16}, ValueError, "can hold"),
        ({"min_decay": 0.0}, ValueError, "want min_decay finite and > 0"),
        ({"min_decay": math.nan}, ValueError, "want min_decay finite and > 0"),
        ({"min_decay": "1e-4"}, TypeError, "want min_decay as a number"),
        ({"d_state": 15}, ValueError, "want d_state even"),
        ({"d_state": 0}, ValueError, "want d_state >= 1"),
        ({"d_model": 0}, ValueError, "want d_model >= 1"),
        ({"n_ssm": 3}, ValueError, "want n_ssm to divide d_model"),
        ({"channels": 0}, ValueError, "want channels >= 1"),
        ({"clock": "exp"}, ValueError, 'want clock "log" or "softplus"'),
        ({"dt_min": 0.0}, ValueError, "want dt_min finite and > 0"),
        ({"dtype": torch.int64}, TypeError, "want a floating dtype"),
    ],
)
def test_refused_arguments(options, error, said):
    with pytest.raises(error, match=said):
        make(**options)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda k: k(0), ValueError, "want L >= 1"),
        (lambda k: k(2.5), TypeError, "want L as an int"),
        (lambda k: k(5, 0.0), ValueError, "want rate finite and > 0"),
        (lambda k: k(5, torch.ones(2)), ValueError, "want rate as one number"),
        (lambda k: k.initial_state(0), ValueError, "want batch >= 1"),
        (lambda k: k.check_state(torch.zeros(2, 4, 8), 2), ValueError, "want state"),
        (lambda k: k.response(torch.zeros(2, 4, 8), 5), TypeError, "want x complex"),
    ],
)
def test_refused_use(call, error, said):
    with pytest.raises(error, match=said):
        call(make())


@pytest.mark.parametrize(
    ("name", "value"),
    [("P", math.nan), ("P", math.inf), ("Lambda_log_re", 800.0), ("Lambda_log_re", -800.0)],
)
def test_a_spoilt_state_dict_changes_nothing(name, value):
    bank = make()
    before = {k: v.clone() for k, v in bank.state_dict().items()}
    spoilt = {k: v + 1 for k, v in before.items()} | {name: torch.full_like(before[name], value)}
    with pytest.raises(ValueError, match="nothing was loaded"):
        bank.load_state_dict(spoilt)
    assert all(torch.equal(v, before[k]) for k, v in bank.state_dict().items())
