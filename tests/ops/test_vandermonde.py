"""Diagonal systems: the kernel as a matrix product, against dense powers and golden vectors."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.ops import vandermonde as ops
from s4lite.ops.checks import check_disc
from s4lite.ops.conv import causal_conv, kernel_naive
from s4lite.ops.discretize import bilinear, zoh
from s4lite.ops.vandermonde import (
    diag_discretize,
    diag_kernel,
    diag_kernel_naive,
    log_discretize,
    phi1,
    vandermonde,
    vandermonde_transpose,
)

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
DENSE = {"zoh": zoh, "bilinear": bilinear}
INITS = {"lin": s4d_lin, "inv": s4d_inv}
GOLDEN = Path(__file__).parent.parent / "golden"

every_disc = pytest.mark.parametrize("disc", DENSE)
every_init = pytest.mark.parametrize("init", INITS)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_poles(n: int, seed: int = 0) -> Tensor:
    """Stable poles, slow and fast, as training may leave them."""
    re, im = draw(2, n, seed=seed, dtype=F64)
    return torch.complex(-torch.exp(2 * re - 2), 20 * im)


def close(got: Tensor, want: Tensor, tol: float) -> None:
    """Equal up to tol times the largest entry of each row."""
    assert got.shape == want.shape
    gap = ((got - want).abs().amax(-1) / want.abs().amax(-1)).max()
    assert gap < tol, f"off by {gap:.1e}"


def by_hand(Lambda: Tensor, B: Tensor, C: Tensor, dt: Tensor, L: int, disc: str) -> Tensor:
    """The sum as written, in numpy: every exponential, with the powers of Ab by `**`."""
    lam, b, c, z = Lambda.numpy(), B.numpy(), C.numpy(), dt.numpy()[..., None] * Lambda.numpy()
    ab = np.exp(z) if disc == "zoh" else (1 + z / 2) / (1 - z / 2)
    bb = np.expm1(z) / lam * b if disc == "zoh" else dt.numpy()[..., None] / (1 - z / 2) * b
    lags = ab[..., None] ** np.arange(L)
    return torch.from_numpy(2 * ((c * bb)[..., None] * lags).sum(-2).real)


# ---- the kernel: definition, naive twin ----------------------------------------------------------


DTS = torch.tensor([0.001, 0.01, 0.1], dtype=F64)


@functools.cache
def dense_truth(init: str, disc: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """4096 lags from the whole spectrum: matrix powers, 64 by 64, no half, no logarithm."""
    Lambda, B, C = INITS[init](64), draw(32, seed=1), draw(3, 32, seed=2)
    both = lambda x: torch.cat([x, x.conj()], -1)  # noqa: E731
    Ab, Bb = DENSE[disc](torch.diag(both(Lambda)), both(B)[:, None], DTS)
    K = kernel_naive(Ab, Bb[..., 0], both(C), 4096)
    assert float(K.imag.abs().max()) < 1e-12 * float(K.abs().max())
    return Lambda, B, C, K.real


@every_init
@every_disc
@pytest.mark.parametrize("L", [1, 2, 99, 1023, 4096])
def test_kernel_is_dense_matrix_powers(init, disc, L):
    Lambda, B, C, truth = dense_truth(init, disc)
    K = diag_kernel(Lambda, B, C, DTS, L, disc)
    assert K.dtype == F64
    close(K, truth[:, :L], 1e-12)


@every_disc
def test_naive_twin_is_dense_matrix_powers(disc):
    Lambda, B, C, truth = dense_truth("inv", disc)
    close(diag_kernel_naive(Lambda, B, C, DTS, 512, disc), truth[:, :512], 1e-12)


@every_disc
@pytest.mark.parametrize("L", [1, 2, 3, 4, 5, 15, 16, 17, 99, 127, 129, 1000, 1023, 1025])
def test_any_length(disc, L):
    Lambda, B, C, dt = some_poles(7), draw(7, seed=3), draw(2, 7, seed=4), torch.tensor([0.3, 0.02])
    close(
        diag_kernel(Lambda, B, C, dt, L, disc), by_hand(Lambda, B, C, dt.double(), L, disc), 1e-12
    )


@every_disc
def test_a_shorter_kernel_is_the_start_of_a_longer_one(disc):
    args = some_poles(9, seed=1), draw(9, seed=5), draw(9, seed=6), 0.05
    whole = diag_kernel(*args, 1500, disc)
    for L in (1, 37, 1024, 1025):
        close(diag_kernel(*args, L, disc), whole[:L], 1e-12)


def test_only_the_product_of_B_and_C_counts_and_halves_may_be_mirrored():
    Lambda, B, C, s = some_poles(6), draw(6, seed=7), draw(6, seed=8), draw(6, seed=9)
    K = diag_kernel(Lambda, B, C, 0.1, 200)
    close(diag_kernel(Lambda, B * s, C / s, 0.1, 200), K, 1e-12)
    close(diag_kernel(Lambda.conj(), B.conj(), C.conj(), 0.1, 200), K, 1e-13)


def test_tiles_cover_the_lags_with_few_exponentials():
    for L in range(1, 3000):
        Q, R = ops._tile(L)
        assert (Q - 1) * R < L <= Q * R
        assert Q + R <= 2.5 * L**0.5 + 1


# ---- golden vectors ------------------------------------------------------------------------------


def load(init: str, disc: str, L: int) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"s4d_{init}_{disc}_L{L}.npz") as arrays:
        z = {name: torch.from_numpy(arrays[name]) for name in arrays}
    return {**z, "dt": z["dt"][:, 0]}


every_golden = pytest.mark.parametrize("init", ["lin", "inv", "legs"])


@every_golden
@every_disc
@pytest.mark.parametrize("L", [64, 1024])
def test_golden_kernel(init, disc, L):
    z = load(init, disc, L)
    K = diag_kernel(z["A"], z["B"], z["C"], z["dt"], L, disc)
    close(K, z["K"], 1e-11)
    if L == 64:
        close(K, z["K_ref"], 1e-11)


@every_golden
@every_disc
def test_golden_rates_and_discrete_system(init, disc):
    z = load(init, disc, 64)
    system = z["A"], z["B"], z["C"]
    close(diag_kernel(*system, z["dt"] * 0.5, 128, disc), z["K_rate05_ref"], 1e-11)
    close(diag_kernel(*system, z["dt"] * 2.0, 32, disc), z["K_rate2_ref"], 1e-11)
    Ab, Bb = diag_discretize(z["A"], z["B"][0], z["dt"], disc)
    close(Ab, z["dA"], 1e-13)
    close(Bb, z["dB"], 1e-13)


@every_golden
@every_disc
def test_golden_output_and_last_state(init, disc):
    z = load(init, disc, 64)
    K = diag_kernel(z["A"], z["B"], z["C"], z["dt"], 64, disc)[0]
    close(causal_conv(z["u"], K) + z["D"][0, :, None] * z["u"], z["y"], 1e-11)
    nu, phi = log_discretize(z["A"], z["dt"], disc)
    x = phi * z["B"][0] * vandermonde_transpose(z["u"].flip(-1), nu)
    close(x, z["final_state_zero"], 1e-11)


# ---- precision -----------------------------------------------------------------------------------


def four_channels(init: str, slow: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A system with float32 parameters; its poles fresh, or slow and hence ringing for long."""
    Lambda = INITS[init](64)
    Lambda = torch.complex(Lambda.real * (0.02 if slow else 1.0), Lambda.imag).to(C64)
    return (
        Lambda,
        draw(32, seed=10, dtype=C64),
        draw(4, 32, seed=11, dtype=C64),
        torch.logspace(-4, -1, 4),
    )


@every_init
@every_disc
@pytest.mark.parametrize("slow", [False, True], ids=["fresh", "slow"])
def test_float32_at_16384(init, disc, slow):
    args = four_channels(init, slow)
    exact = [x.to(torch.promote_types(x.dtype, F64)) for x in args]
    truth = by_hand(*exact, 16384, disc)
    K = diag_kernel(*args, 16384, disc)
    assert K.dtype == F32
    close(K.double(), truth, 5e-6)
    close(K.double(), truth, 2e-6)  # what we promise ourselves
    twin = diag_kernel_naive(*args, 16384, disc).double()
    ours, theirs = (((x - truth).abs().amax(-1) / truth.abs().amax(-1)).max() for x in (K, twin))
    assert ours <= 2 * theirs


@every_disc
def test_undamped_poles_neither_grow_nor_fade(disc):
    Lambda = torch.complex(
        torch.zeros(5, dtype=F64), torch.tensor([0.0, 1.0, 30.0, 100.0, 999.0], dtype=F64)
    )
    nu, _ = log_discretize(Lambda, 0.07, disc)
    assert float(nu.real.abs().max()) == 0.0
    K = diag_kernel(Lambda[3:4], torch.ones(1), torch.ones(1), 0.07, 100_000, disc)
    assert abs(float(K[-1000:].abs().max() / K[:1000].abs().max()) - 1) < 1e-3


def test_dtype_of_the_kernel():
    one = torch.ones(3)
    for Lambda, B, C, want in [
        (C64, F32, C64, F32),
        (C64, C64, C128, F64),
        (C128, F32, F32, F64),
        (C64, F64, C64, F64),
        (C64, torch.float16, torch.bfloat16, F32),
    ]:
        K = diag_kernel(-one.to(Lambda), one.to(B), one.to(C), 0.1, 5)
        assert K.dtype == want
        close(
            K,
            (2 * (1 - torch.exp(torch.tensor(-0.1))) * 3 * torch.exp(-0.1 * torch.arange(5))).to(
                want
            ),
            1e-6,
        )


def test_autocast_leaves_the_digits_alone():
    args = four_channels("lin", slow=False)
    K, m = (
        diag_kernel(*args, 999),
        vandermonde_transpose(draw(999, dtype=F32), log_discretize(args[0], 0.1)[0]),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(diag_kernel(*args, 999), K)
        again = vandermonde_transpose(draw(999, dtype=F32), log_discretize(args[0], 0.1)[0])
    assert torch.equal(again, m)


# ---- discretization ------------------------------------------------------------------------------


@every_disc
def test_discretize_is_the_dense_rule(disc):
    Lambda, B = some_poles(8, seed=2), draw(3, 8, seed=12)
    Lambda[0], Lambda[1] = 0, -2 / 0.05
    dt = torch.tensor([0.05, 0.5, 2.0], dtype=F64)
    Ab, Bb = DENSE[disc](torch.diag(Lambda), B[..., None], dt)
    ours = diag_discretize(Lambda, B, dt, disc)
    close(ours[0], torch.diagonal(Ab, dim1=-2, dim2=-1), 1e-13)
    close(ours[1], Bb[..., 0], 1e-13)
    assert [x.dtype for x in diag_discretize(Lambda.to(C64), B.real.float(), 0.1, disc)] == [
        C64,
        C64,
    ]


@every_disc
def test_logarithm_is_of_the_discrete_poles_and_wide(disc):
    Lambda = some_poles(50, seed=3).to(C64)
    nu, phi = log_discretize(Lambda, torch.tensor(0.1), disc)
    assert nu.dtype == phi.dtype == C128
    Ab, Bb = diag_discretize(Lambda.to(C128), torch.ones(50), float(torch.tensor(0.1)), disc)
    close(nu.exp(), Ab, 1e-14)
    close(phi, Bb, 1e-14)
    assert bool((nu.real <= 0).all())


def test_phi1_is_the_mean_of_the_exponential():
    nodes, weights = np.polynomial.legendre.leggauss(40)
    size = torch.logspace(-14, 1.3, 80, dtype=F64)[:, None]
    z = size * torch.exp(1j * torch.linspace(-3.1, 3.1, 15, dtype=F64))
    s = torch.from_numpy((nodes + 1) / 2)
    want = (torch.exp(z[..., None] * s) * torch.from_numpy(weights / 2)).sum(-1)
    got = phi1(z)
    gap = (got - want).abs() / torch.exp(z.real.clamp(min=0))
    assert float(gap.max()) < 5e-15  # the quadrature itself strays by as much, for large z
    around = torch.tensor([0.01 - 1e-9, 0.01, 0.01 + 1e-9], dtype=C128)  # the two branches meet
    assert float((phi1(around) - phi1(around[1:2])).abs().max()) < 1e-9
    assert phi1(torch.zeros(2, dtype=F64)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("z", [0.0, 1e-12, 0.009 + 0.003j, 0.01, 0.011, -2.0, 3j])
def test_phi1_gradients(z):
    z = torch.tensor(z, dtype=C128, requires_grad=True)
    assert gradcheck(phi1, z) and gradgradcheck(phi1, z)


# ---- gradients -----------------------------------------------------------------------------------


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


@every_disc
@pytest.mark.parametrize("L", [1, 6, 11])
def test_gradcheck(disc, L):
    Lambda = torch.tensor([-0.1, -0.3 + 2j, -1.0 + 40j], dtype=C128)
    args = leaves(
        Lambda, draw(3, seed=13), draw(2, 1, 3, seed=14), torch.tensor([0.02, 0.3], dtype=F64)
    )
    kernel = functools.partial(diag_kernel, L=L, disc=disc)
    assert gradcheck(kernel, args)
    assert gradgradcheck(kernel, args, atol=1e-4)


@every_disc
@pytest.mark.parametrize("special", ["zero", "minus two", "fresh"])
def test_gradients_are_those_of_the_naive_twin(disc, special):
    Lambda = {
        "zero": torch.tensor([0.0, -0.3 + 2j]),
        "minus two": torch.tensor([-2 / 0.125, -0.3 + 2j]),  # bilinear: Ab = 0
        "fresh": s4d_inv(64),
    }[special].to(C128)
    n = len(Lambda)
    args = leaves(Lambda, draw(n, seed=15), draw(n, seed=16), torch.tensor(0.125, dtype=F64))
    pull = draw(99, seed=17, dtype=F64)
    for ours, naive in zip(
        torch.autograd.grad(diag_kernel(*args, 99, disc), args, pull),
        torch.autograd.grad(diag_kernel_naive(*args, 99, disc), args, pull),
        strict=True,
    ):
        close(ours.reshape(-1), naive.reshape(-1), 1e-11)


def test_backward_keeps_nothing_of_the_size_of_the_table():
    H, n, L = 4, 32, 16384
    C = draw(H, n, seed=18, dtype=C64)
    args = leaves(s4d_lin(64).to(C64), torch.ones(n), C, torch.logspace(-3, -1, H))
    sizes = []
    keep = lambda x: sizes.append(x.numel()) or x  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        diag_kernel(*args, L)
    assert sizes and max(sizes) <= H * n * L // 32


# ---- axes ----------------------------------------------------------------------------------------


@every_disc
def test_axes_broadcast(disc):
    Lambda, B = some_poles(5), draw(6, 5, seed=19)
    C, dt = draw(2, 6, 5, seed=20), torch.logspace(-2, -1, 6, dtype=F64)
    K = diag_kernel(Lambda, B, C, dt, 40, disc)
    assert K.shape == (2, 6, 40)
    for c in range(2):
        for h in range(6):
            alone = diag_kernel(Lambda, B[h], C[c, h], float(dt[h]), 40, disc)
            close(K[c, h], alone, 1e-13)
    assert diag_kernel(Lambda.expand(3, 1, 5), B, C[0], dt, 7, disc).shape == (3, 6, 7)
    assert diag_kernel(Lambda, B[0], C[0, 0], dt, 7, disc).shape == (6, 7)
    assert diag_kernel_naive(Lambda, B, C, dt, 7, disc).shape == (2, 6, 7)


def test_number_and_tensor_steps_agree():
    args = some_poles(5), draw(5, seed=21), draw(5, seed=22)
    K = diag_kernel(*args, 0.25, 30)
    assert torch.equal(K, diag_kernel(*args, torch.tensor(0.25), 30))
    assert torch.equal(diag_kernel(*args, 1, 30), diag_kernel(*args, 1.0, 30))


def test_arguments_stay_as_they_were():
    args = [some_poles(5), draw(5, seed=23), draw(5, seed=24), torch.tensor(0.1)]
    before = [x.clone() for x in args]
    diag_kernel(*args, 30, "bilinear")
    assert all(map(torch.equal, args, before))


# ---- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("L", [1, 2, 3, 99, 1023, 1025])
def test_moments_as_written(L):
    nu, _ = log_discretize(some_poles(6), torch.tensor([0.1, 0.01], dtype=F64))
    u = draw(3, 2, L, seed=25, dtype=F64)
    m = vandermonde_transpose(u, nu)
    assert m.shape == (3, 2, 6) and m.dtype == C128
    table = torch.exp(nu[..., None] * torch.arange(L))
    close(m, (u[..., None, :] * table).sum(-1), 1e-12)
    close(
        vandermonde_transpose(u.float(), nu),
        (u.float().double()[..., None, :] * table).sum(-1),
        2e-5,
    )


@every_disc
def test_moments_are_the_transpose(disc):
    nu, _ = log_discretize(s4d_inv(64), DTS, disc)
    for L in (1, 99, 2048):
        w, u = draw(3, 32, seed=26), draw(3, L, seed=27, dtype=F64)
        K = vandermonde(w, nu, L)
        left, right = (K * u).sum(-1), 2 * (w * vandermonde_transpose(u, nu)).sum(-1).real
        assert float(((left - right).abs() / (K.norm(dim=-1) * u.norm(dim=-1))).max()) < 1e-13


def test_moments_gradcheck():
    nu, _ = log_discretize(torch.tensor([-0.4 + 1j, -1.0], dtype=C128), 0.5)
    args = leaves(draw(2, 11, seed=28, dtype=F64), nu)
    assert gradcheck(vandermonde_transpose, args) and gradgradcheck(vandermonde_transpose, args)


# ---- compiled, mapped ----------------------------------------------------------------------------


@every_disc
def test_compiles_to_one_graph_at_every_length(disc):
    args = leaves(
        some_poles(6).to(C64), draw(6, dtype=C64), draw(2, 6, dtype=C64), torch.tensor([0.1, 0.2])
    )
    compiled = torch.compile(diag_kernel, fullgraph=True, backend="aot_eager")
    for L in (99, 130, 1023):
        got, want = compiled(*args, L, disc), diag_kernel(*args, L, disc)
        close(got.detach(), want.detach(), 1e-5)
        pairs = zip(
            *(torch.autograd.grad(K.square().sum(), args) for K in (got, want)), strict=True
        )
        for ours, eager in pairs:
            close(ours.reshape(-1), eager.reshape(-1), 1e-4)


def test_moments_compile():
    nu, u = log_discretize(some_poles(6), 0.1)[0], draw(2, 1, 300, dtype=F64)
    compiled = torch.compile(vandermonde_transpose, fullgraph=True, backend="aot_eager")
    for L in (300, 177):
        close(compiled(u[..., :L], nu), vandermonde_transpose(u[..., :L], nu), 1e-13)


@every_disc
def test_vmap_is_the_batch(disc):
    Lambda, B, C, dt = (
        some_poles(5),
        draw(4, 5, seed=29),
        draw(4, 5, seed=30),
        torch.logspace(-2, 0, 4),
    )
    mapped = torch.vmap(lambda B, C, dt: diag_kernel(Lambda, B, C, dt, 33, disc))(B, C, dt)
    close(mapped, diag_kernel(Lambda, B, C, dt, 33, disc), 1e-13)


def test_meta_tensors_give_a_shape():
    meta = [x.to("meta") for x in (some_poles(5), draw(5), draw(2, 5))]
    assert diag_kernel(*meta, 0.1, 33).shape == (2, 33)


# ---- bad input -----------------------------------------------------------------------------------

LAM, ONE = -torch.ones(3, dtype=C128), torch.ones(3, dtype=F64)
NAN = float("nan")
BAD = {  # overrides, error, message
    "widths": (
        {"B": ONE[:2]},
        ValueError,
        r"want Lambda, B, C \(\.\.\., n\) of one width.*B \(2,\)",
    ),
    "width of C": ({"C": ONE[:1]}, ValueError, r"of one width n >= 1.*C \(1,\)"),
    "no poles": (
        {"Lambda": LAM[:0], "B": ONE[:0], "C": ONE[:0]},
        ValueError,
        "of one width n >= 1",
    ),
    "scalar": ({"C": ONE[0]}, ValueError, r"of one width n >= 1.*C \(\)"),
    "axes": (
        {"B": ONE.expand(2, 3), "C": ONE.expand(4, 3)},
        ValueError,
        "leading axes that broadcast.*C \\(4, 3\\)",
    ),
    "axes of dt": (
        {"C": ONE.expand(4, 3), "dt": torch.ones(5)},
        ValueError,
        r"that broadcast.*dt \(5,\)",
    ),
    "real poles": ({"Lambda": LAM.real}, TypeError, "want Lambda complex.*float64"),
    "integers": ({"B": torch.ones(3, dtype=torch.long)}, TypeError, "want B of a floating.*int64"),
    "integer dt": (
        {"dt": torch.ones((), dtype=torch.long)},
        TypeError,
        "want dt of a floating.*int64",
    ),
    "complex dt": (
        {"dt": torch.ones((), dtype=C64)},
        TypeError,
        "want dt real, got torch.complex64",
    ),
    "a list": ({"C": [1.0, 1.0, 1.0]}, TypeError, "want C as a torch.Tensor, got list"),
    "unstable": ({"Lambda": LAM + 1.5}, ValueError, "want finite poles with Re Lambda <= 0.*0.5"),
    "NaN pole": ({"Lambda": LAM * NAN}, ValueError, "want finite poles"),
    "NaN dt": ({"dt": NAN}, ValueError, "want dt finite and > 0, got nan"),
    "zero dt": ({"dt": 0.0}, ValueError, "want dt finite and > 0, got 0"),
    "negative dt": (
        {"dt": torch.tensor([0.1, -0.1])[:, None]},
        ValueError,
        "want dt finite and > 0.*-0.1",
    ),
    "infinite dt": ({"dt": float("inf")}, ValueError, "want dt finite and > 0, got inf"),
    "disc": ({"disc": "euler"}, ValueError, 'want disc "zoh" or "bilinear", got \'euler\''),
    "no disc": ({"disc": None}, ValueError, "want disc .*None"),
    "L = 0": ({"L": 0}, ValueError, "want L >= 1, got 0"),
    "L float": ({"L": 8.0}, TypeError, "want L as an int, got float"),
    "L bool": ({"L": True}, TypeError, "want L as an int, got bool"),
    "devices": ({"C": ONE.to("meta")}, ValueError, "one device.*C on meta"),
    "device of dt": ({"dt": torch.ones((), device="meta")}, ValueError, "one device.*dt on meta"),
}
GOOD = {"Lambda": LAM, "B": ONE, "C": ONE, "dt": 0.1, "L": 4, "disc": "zoh"}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kernel", [diag_kernel, diag_kernel_naive])
def test_bad_input(kernel, case):
    change, error, message = BAD[case]
    with pytest.raises(error, match=message):
        kernel(**{**GOOD, **change})
    kernel(**GOOD)


@pytest.mark.parametrize("case", [c for c in BAD if not {"C", "L"} & set(BAD[c][0])])
def test_bad_input_to_discretize(case):
    change, error, message = BAD[case]
    args = {k: v for k, v in {**GOOD, **change}.items() if k not in ("C", "L")}
    with pytest.raises(error, match=message.replace("B, C", "B")):
        diag_discretize(**args)
    if "B" not in change:
        del args["B"]
        with pytest.raises(error, match=message):
            log_discretize(**args)


def test_bad_input_to_the_product_and_its_transpose():
    nu, u = LAM, torch.ones(5, dtype=F64)
    for error, message, call in [
        (
            ValueError,
            r"want w, nu \(\.\.\., n\) of one width n >= 1, got w \(2,\), nu \(3,\)",
            lambda: vandermonde(ONE[:2], nu, 4),
        ),
        (ValueError, "want L >= 1, got -1", lambda: vandermonde(ONE, nu, -1)),
        (TypeError, "want nu as a torch.Tensor", lambda: vandermonde(ONE, 1j, 4)),
        (ValueError, "nu on meta", lambda: vandermonde(ONE, nu.to("meta"), 4)),
        (TypeError, "want u real, got torch.complex128", lambda: vandermonde_transpose(u + 0j, nu)),
        (TypeError, "want u of a floating", lambda: vandermonde_transpose(u.long(), nu)),
        (ValueError, "want the length of u >= 1, got 0", lambda: vandermonde_transpose(u[:0], nu)),
        (ValueError, "want the length of u >= 1, got 0", lambda: vandermonde_transpose(u[0], nu)),
        (ValueError, "nu on meta", lambda: vandermonde_transpose(u, nu.to("meta"))),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_check_disc():
    check_disc("zoh")
    check_disc("bilinear")
    with pytest.raises(ValueError, match="got 'ZOH'"):
        check_disc("ZOH")


BAD_EXPONENTS = {
    "growing": (lambda nu: nu + 1.5, ValueError, r"Re nu <= 0, got 0\.5"),
    "NaN": (lambda nu: nu * NAN, ValueError, "Re nu <= 0, got nan"),
    "huge": (lambda nu: nu * 1e300, ValueError, "Re nu <= 0, got -1e\\+300"),
    "real": (lambda nu: nu.real, TypeError, r"want nu complex, .*got torch\.float64"),
    "a scalar": (lambda nu: nu[0], ValueError, r"of one width n >= 1, got .*nu \(\)"),
    "axes": (lambda nu: nu.expand(4, 3), ValueError, r"axes that broadcast, got .*nu \(4, 3\)"),
    "a number": (lambda nu: -1.0, TypeError, "want nu as a torch.Tensor, got float"),
}


@pytest.mark.parametrize("case", BAD_EXPONENTS)
def test_bad_exponents(case):
    spoil, error, message = BAD_EXPONENTS[case]
    w, u = ONE.expand(2, 3), torch.ones(2, 5, dtype=F64)
    for call in (lambda nu: vandermonde(w, nu, 4), lambda nu: vandermonde_transpose(u, nu)):
        call(LAM)
        with pytest.raises(error, match=message):
            call(spoil(LAM))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, C64, "float", None])
def test_a_kernel_has_a_real_dtype(dtype):
    with pytest.raises(TypeError, match="want dtype real and floating, got"):
        vandermonde(ONE, LAM, 4, dtype)


@pytest.mark.parametrize("z", [0.5, [0.5], np.zeros(2), torch.ones(2, dtype=torch.long)])
def test_phi1_wants_a_tensor(z):
    with pytest.raises(TypeError, match="want z "):
        phi1(z)
