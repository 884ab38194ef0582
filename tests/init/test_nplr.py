"""Normal plus low rank: the squares, the rotation's coordinates, and one phase everywhere."""

import itertools
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from s4lite.init.hippo import hippo
from s4lite.init.nplr import NPLR, canonical_phase, comb_modes, low_rank_term, nplr, skew_modes
from s4lite.ops.discretize import bilinear
from s4lite.ops.simulate import expm

f64 = torch.float64
GOLDEN = Path(__file__).parent.parent / "golden"
MEASURES = ["legs", "legt", "lagt", "fout"]
RANK = {"legs": 1, "legt": 2, "lagt": 1, "fout": 1}
SIGMA = {"legs": 0.5, "legt": 0.0, "lagt": 0.0, "fout": 0.0}
SIZES = [2, 4, 6, 30, 64, 128]
every_measure = pytest.mark.parametrize("measure", MEASURES)
every_size = pytest.mark.parametrize("N", SIZES)


def both(x):
    return torch.cat([x, x.conj()])


def rebuild(model):
    """A and B with both halves written out: no conjugate pair is taken for granted."""
    W = torch.cat([model.V, model.V.conj()], 1)
    p = both(model.P)
    return W @ (torch.diag(both(model.Lambda)) - p @ p.mH) @ W.mH, W @ both(model.B)


def phases(n, seed):
    alpha = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=f64)
    return torch.exp(2j * math.pi * alpha)


def skew(measure, N):
    A, B = hippo(measure, N)
    return (A - A.mT) / 2, B


# ---------------------------------------------------------------- the squares


@pytest.mark.parametrize("N", [1, 2, 3, 7, 64, 99])
@every_measure
def test_what_is_left_is_a_damped_rotation(measure, N):
    for window in (None,) if measure in ("legs", "lagt") else (None, 1.0, 0.3, 66.0):
        A, _ = hippo(measure, N, window=window)
        P, sigma = low_rank_term(measure, N, window)
        assert P.shape == (N, RANK[measure]) and P.dtype == f64 and sigma == SIGMA[measure]
        left = A + P @ P.mT
        tolerance = 1e-15 * float(A.abs().max()) * 4
        assert (left.diagonal() + sigma).abs().max() < tolerance
        assert (left + left.mT + 2 * sigma * torch.eye(N, dtype=f64)).abs().max() < tolerance


@every_measure
def test_no_square_of_lower_rank_would_do(measure):
    """The rank of A + A^T + 2 sigma I is r, and that is P's."""
    for N in (2, 7, 16):
        A, _ = hippo(measure, N)
        P, sigma = low_rank_term(measure, N)
        symmetric = A + A.mT + 2 * sigma * torch.eye(N, dtype=f64)
        assert int(torch.linalg.matrix_rank(symmetric)) == RANK[measure]
        assert int(torch.linalg.matrix_rank(P)) == RANK[measure]


def test_formulas():
    n = torch.arange(6, dtype=f64)
    r = (2 * n + 1).sqrt()
    assert torch.allclose(low_rank_term("legs", 6)[0][:, 0], (n + 0.5).sqrt(), rtol=1e-15, atol=0)
    assert torch.allclose(low_rank_term("lagt", 6)[0], torch.full((6, 1), 0.5, dtype=f64).sqrt())
    even, odd = low_rank_term("legt", 6, 1.0)[0].T
    assert torch.allclose(even, r * (n % 2 == 0)) and torch.allclose(odd, r * (n % 2))
    assert torch.equal(low_rank_term("fout", 6)[0][:, 0], hippo("fout", 6)[1])


# ---------------------------------------------------------------- the model


@every_size
@every_measure
def test_rebuilds_the_matrix(measure, N):
    model, (A, B) = nplr(measure, N), hippo(measure, N)
    n, r = N // 2, RANK[measure]
    assert isinstance(model, NPLR)
    shapes = [(n,), (n, r), (n,), (N, n)]
    assert [tuple(x.shape) for x in model] == shapes
    assert all(x.dtype == torch.complex128 for x in model)
    A_back, B_back = rebuild(model)
    assert (A_back - A).abs().max() < 1e-12 * max(1.0, N / 64)  # frequencies reach N^2/pi
    assert (B_back - B).abs().max() < 1e-12


@every_size
@every_measure
def test_halves_are_conjugate_and_orthogonal(measure, N):
    """A small error of the rebuilt A can hide mispaired halves; this cannot."""
    model = nplr(measure, N)
    one = torch.eye(N // 2, dtype=f64)
    assert (model.V.mH @ model.V - one).abs().max() < 1e-13
    assert (model.V.mH @ model.V.conj()).abs().max() < 1e-13
    S, _ = skew(measure, N)
    off = (S + 0j) @ model.V - model.V * (1j * model.Lambda.imag)
    assert off.abs().max() < 1e-14 * N * max(1.0, float(model.Lambda.imag.max()))
    real = low_rank_term(measure, N)[0]
    assert (2 * (model.V @ model.P).real - real).abs().max() < 1e-12


@every_size
@every_measure
def test_spectrum_stands_on_a_line_and_ascends(measure, N):
    Lambda = nplr(measure, N).Lambda
    assert bool((Lambda.real == -SIGMA[measure]).all())
    assert bool((Lambda.imag >= 0).all()) and bool((Lambda.imag.diff() > 0).all())
    assert (Lambda.imag[0] == 0) == (measure == "fout")


@every_size
@every_measure
def test_input_vector_is_real_and_positive(measure, N):
    model, (_, B) = nplr(measure, N), hippo(measure, N)
    assert bool((model.B.imag == 0).all()) and model.B.real.min() > 0.05
    assert (model.V.mH @ (B + 0j) - model.B).abs().max() < 1e-12


@pytest.mark.parametrize("window", [0.3, 1.0, 66.0])
@pytest.mark.parametrize("measure", ["legt", "fout"])
def test_window_scales_the_model(measure, window):
    two, model = nplr(measure, 30), nplr(measure, 30, window=window)
    A_back, B_back = rebuild(model)
    A, B = hippo(measure, 30, window=window)
    assert (A_back - A).abs().max() < 1e-14 * 30 * A.abs().max()
    assert (B_back - B).abs().max() < 1e-13 * max(1.0, B.abs().max())
    assert torch.allclose(model.Lambda * window, two.Lambda * 2, rtol=1e-12, atol=0)
    assert torch.allclose(model.V, two.V, rtol=0, atol=1e-12)


@every_measure
def test_single_precision_is_the_rounded_double(measure):
    exact, single = nplr(measure, 64), nplr(measure, 64, dtype=torch.complex64)
    for x, y in zip(exact, single, strict=True):
        assert y.dtype == torch.complex64 and torch.equal(y, x.to(torch.complex64))


@every_measure
def test_impulse_response_of_the_half(measure):
    """[z, conj z]' with P* z = 2 Re of the half, against the real system."""
    N, C = 16, torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=f64)
    model, (A, B) = nplr(measure, N), hippo(measure, N)
    own = torch.cat([torch.diag(model.Lambda) - model.P @ model.P.mH, -model.P @ model.P.mT], 1)
    full = torch.cat([own, own.conj().roll(N // 2, 1)])
    for t in (0.03, 0.7, 4.0):
        z = (expm(t * full) @ both(model.B))[: N // 2]
        y = 2 * ((C + 0j) @ model.V @ z).real
        assert abs(y - C @ expm(t * A) @ B) < 1e-12


@pytest.mark.parametrize("N", [4, 8, 64])
@every_measure
def test_golden(measure, N):
    """The published code: other phases, the other half, its zero pair of FouT to 3e-8 only."""
    golden, model = np.load(GOLDEN / "nplr.npz"), nplr(measure, N)
    w, P, B = (golden[f"{x}_{measure}_{N}"] for x in "wPB")
    P = P[::-1] if measure == "legt" else P  # their squares: first the odd one
    order = np.argsort(-w.imag)
    tolerance = 1e-7 if measure == "fout" else 1e-11
    largest = float(model.Lambda.imag.max())
    assert np.abs(w[order].conj() - model.Lambda.numpy()).max() < tolerance * largest
    assert np.abs(np.abs(P.T[order]) - model.P.abs().numpy()).max() < tolerance * 10
    assert np.abs(np.abs(B[order]) - model.B.abs().numpy()).max() < tolerance * 10
    theirs = (B[None] * P.conj())[:, order].T.conj()  # no phase, but that of the half
    assert np.abs(theirs - (model.B[:, None] * model.P.conj()).numpy()).max() < tolerance * 100
    A = np.load(GOLDEN / "hippo_transition.npz")[f"A_{measure}_{N}"]
    assert np.abs(rebuild(model)[0].numpy() - A).max() < 1e-12
    if N < 64:
        V = golden[f"V_{measure}_{N}"][:, order].conj()
        planes = [np.outer(v, v.conj()) for v in V.T]
        ours = [np.outer(v, v.conj()) for v in model.V.numpy().T]
        assert np.abs(np.array(planes) - np.array(ours)).max() < tolerance * 10


# ---------------------------------------------------------------- contraction


@pytest.mark.parametrize("N", [2, 7, 64])
@every_measure
def test_a_step_never_amplifies(measure, N):
    A, B = hippo(measure, N)
    steps = bilinear(A, B[:, None], torch.logspace(-6, 6, 49, dtype=f64))[0]
    assert torch.linalg.matrix_norm(steps, 2).max() < 1 + 1e-12


@every_measure
def test_a_step_never_amplifies_in_the_rotation_s_coordinates(measure):
    model = nplr(measure, 64)
    full = torch.diag(both(model.Lambda)) - both(model.P) @ both(model.P).mH
    one = torch.eye(64, dtype=f64)
    for dt in torch.logspace(-5, 3, 17, dtype=f64):
        step = torch.linalg.solve(one - dt / 2 * full, one + dt / 2 * full)
        assert torch.linalg.matrix_norm(step, 2) < 1 + 1e-10  # the solve is worth cond(I - X) eps


def test_tied_factors_stay_stable_and_free_ones_do_not():
    model, gen = nplr("legs", 64), torch.Generator().manual_seed(0)
    bad = 0
    for _ in range(40):
        xi = 0.5 * torch.randn(2, 32, generator=gen, dtype=torch.complex128)
        P, Q = (both(model.P[:, 0] * (1 + x)) for x in xi)
        free = torch.diag(both(model.Lambda)) - torch.outer(P, Q.conj())
        tied = torch.diag(both(model.Lambda)) - torch.outer(P, P.conj())
        assert torch.linalg.eigvals(tied).real.max() < -0.5 + 1e-9
        bad += int(torch.linalg.eigvals(free).real.max() > 0)
    assert bad > 4


# ---------------------------------------------------------------- one phase everywhere


@every_measure
def test_canonical_phase_undoes_any_rephasing(measure):
    for N, seed in itertools.product((2, 6, 64), range(3)):
        model, (_, B) = nplr(measure, N), hippo(measure, N)
        spun = model.V * phases(N // 2, seed)
        assert N == 2 or (spun - model.V).abs().max() > 0.1
        back = canonical_phase(spun, B)
        assert (back - model.V).abs().max() < 1e-12
        assert (canonical_phase(back, B) - back).abs().max() < 1e-14
        assert (back.abs() - spun.abs()).abs().max() < 1e-15


def test_canonical_phase_of_a_vector_that_does_not_see_the_input():
    V = torch.tensor([[0.6, 0.0], [0.0, 0.6], [0.8j, 0.8], [-0.0, 0.0]], dtype=torch.complex128)
    B = torch.tensor([1.0, 0.0, 0.0, 3.0], dtype=f64)
    turned = canonical_phase(V * torch.tensor([1j, -1]), B)
    assert torch.allclose(turned[:, 0], V[:, 0])  # seen through the entry 0.6
    assert torch.allclose(turned[:, 1], V[:, 1])  # blind: its largest entry, 0.8, made positive
    twins = torch.tensor([[0.0], [1j], [-1.0]], dtype=torch.complex128)
    blind = canonical_phase(twins, torch.tensor([1.0, 0.0, 0.0], dtype=f64))
    assert torch.allclose(blind[:, 0], torch.tensor([0, 1, 1j], dtype=torch.complex128))  # first
    zero = canonical_phase(torch.zeros(3, 1, dtype=torch.complex128), B[:3])
    assert torch.equal(zero, torch.zeros(3, 1, dtype=torch.complex128))


@pytest.mark.parametrize("habit", ["upper", "spun", "negated"])
@pytest.mark.parametrize("measure", ["legs", "legt", "lagt"])
def test_does_not_depend_on_the_eigenvalue_routine(measure, habit, monkeypatch):
    S, B = skew(measure, 64)
    omega, V = skew_modes(S, B)
    model, eigh = nplr(measure, 64), torch.linalg.eigh

    def other(X, UPLO="L"):
        if habit == "upper":
            return eigh(X, UPLO="U")
        values, vectors = eigh(X)
        return values, vectors * (phases(64, 5) if habit == "spun" else -1)

    monkeypatch.setattr(torch.linalg, "eigh", other)
    again, V_again = skew_modes(S, B)
    assert (again - omega).abs().max() < 1e-14 * 64 * omega.max()
    assert (V_again - V).abs().max() < 1e-11
    for x, y in zip(model, nplr(measure, 64), strict=True):
        assert (x - y).abs().max() < 1e-14 * 64 * max(1.0, float(x.abs().max()))


@pytest.mark.parametrize("measure", ["legs", "lagt", "fout"])
def test_rank_one_needs_no_eigenvalue_routine(measure, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("called")

    for name in ("eigh", "eig", "eigvals", "eigvalsh", "svd"):
        monkeypatch.setattr(torch.linalg, name, refuse)
    assert nplr(measure, 64).V.shape == (64, 32)
    with pytest.raises(AssertionError, match="called"):
        nplr("legt", 64)


def test_the_kept_half_is_the_upper_one():
    S = torch.tensor([[0.0, -3.0], [3.0, 0.0]], dtype=f64)
    omega, V = skew_modes(S, torch.tensor([1.0, 0.0], dtype=f64))
    assert abs(float(omega) - 3) < 1e-15
    assert torch.allclose(V[:, 0], torch.tensor([1, -1j], dtype=V.dtype) / math.sqrt(2))


# ---------------------------------------------------------------- the comb


@every_size
@pytest.mark.parametrize("measure", ["legs", "lagt"])
def test_comb_is_the_eigenvalue_routine_s(measure, N):
    S, B = skew(measure, N)
    (omega, V), (naive, V_naive) = comb_modes(B), skew_modes(S, B)
    assert (omega - naive).abs().max() < 1e-14 * N * naive.max()
    assert (V - V_naive).abs().max() < 1e-11


@pytest.mark.parametrize("N", [2, 14, 128, 512])
def test_comb_of_lagt_is_a_cotangent(N):
    omega, V = comb_modes(torch.ones(N, dtype=f64))
    j = torch.arange(N // 2 - 1, -1, -1, dtype=f64)
    assert (omega * 2 * torch.tan((2 * j + 1) * math.pi / (2 * N)) - 1).abs().max() < 1e-12
    waves = torch.exp(1j * math.pi * torch.outer(torch.arange(N, dtype=f64), 2 * j + 1) / N)
    assert ((V.mH @ waves).diagonal().abs() / math.sqrt(N) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("N", [2, 8, 64, 256])
def test_comb_of_legs_to_forty_digits(N):
    """Each frequency is a root of the scalar equation, to some 1e-15 of itself."""
    omega, _ = comb_modes(hippo("legs", N)[1])
    picks = sorted({0, N // 8, N // 4, N // 2 - 1})
    with mpmath.workdps(40):
        for i in picks:
            w = mpmath.mpf(float(omega[i]))
            psi = sum(mpmath.atan(2 * w / (2 * m + 1)) for m in range(N))
            slope = sum(2 * mpmath.mpf(2 * m + 1) / ((2 * m + 1) ** 2 + 4 * w**2) for m in range(N))
            miss = (psi - (2 * i + 1) * mpmath.pi / 2) / slope / w
            assert abs(miss) < 5e-15
    assert abs(float(omega[-1]) * math.pi / N**2 - 1) < 2 / N


def test_comb_of_any_weights():
    r = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=f64) * 4 - 2
    omega, V = comb_modes(r)
    K = (torch.ones(12, 12).triu(1) - torch.ones(12, 12).tril(-1)).double() / 2
    S = r[:, None] * K * r
    assert ((S + 0j) @ V - V * (1j * omega)).abs().max() < 1e-13
    assert (V.mH @ (r + 0j)).imag.abs().max() < 1e-13 < (V.mH @ (r + 0j)).real.min()
    assert torch.equal(comb_modes(r.float())[0], comb_modes(r.float().double())[0])


@pytest.mark.parametrize("r", [[1e-3, 1e3], [1e-3, 1, 1, 1e3], [1e-4, 1e4, 1, 1e4], [1e-6] * 8])
def test_comb_of_weights_of_many_sizes(r):
    """Newton starts at about 1/max(a) and has to double its way up, however far that is."""
    r = torch.tensor(r, dtype=f64)
    omega, V = comb_modes(r)
    K = (torch.ones(len(r), len(r)).triu(1) - torch.ones(len(r), len(r)).tril(-1)).double() / 2
    S = r[:, None] * K * r
    assert ((S + 0j) @ V - V * (1j * omega)).abs().max() < 1e-9 * S.abs().max()
    assert (V.mH @ V - torch.eye(len(r) // 2)).abs().max() < 1e-9
    assert (omega - torch.linalg.eigvalsh(-1j * S)[len(r) // 2 :]).abs().max() < 1e-9 * omega.max()


def test_modes_are_not_differentiated():
    S, B = skew("legs", 4)
    assert not any(x.requires_grad for x in comb_modes(B.clone().requires_grad_()))
    assert not any(x.requires_grad for x in skew_modes(S.clone().requires_grad_(), B))


def test_legs_trace_rule():
    """Both halves of |B|^2 sum to |B|^2 of the real system: N^2."""
    for N in (2, 30, 128):
        assert abs(float(2 * (nplr("legs", N).B.abs() ** 2).sum()) / N**2 - 1) < 1e-13


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("lmu", 8), ValueError, "got 'lmu'.*take 'legt'"),
        (("legz", 8), ValueError, "want measure among legs, legt"),
        ((3, 8), ValueError, "want measure among legs, legt"),
        (("legs", 7), ValueError, "want N even .*got 7"),
        (("fout", 1), ValueError, "want N even .*got 1"),
        (("legs", 0), ValueError, "want N >= 1, got 0"),
        (("legs", -2), ValueError, "want N >= 1, got -2"),
        (("legs", 8.0), TypeError, "want N as an int, got float"),
        (("legs", True), TypeError, "want N as an int, got bool"),
        (("legs", None), TypeError, "want N as an int, got NoneType"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        nplr(*arguments)


@pytest.mark.parametrize("function", [nplr, low_rank_term])
@pytest.mark.parametrize(
    ("measure", "window", "error", "message"),
    [
        ("legs", 1.0, ValueError, "want no window for legs"),
        ("lagt", 2.0, ValueError, "want no window for lagt"),
        ("legt", 0.0, ValueError, "want window finite and > 0, got 0.0"),
        ("fout", -1.0, ValueError, "want window finite and > 0, got -1.0"),
        ("legt", math.nan, ValueError, "want window finite and > 0, got nan"),
        ("fout", math.inf, ValueError, "want window finite and > 0, got inf"),
        ("legt", "2", TypeError, "want window as a number"),
        ("legt", torch.tensor(1.0), TypeError, "want window as a number, got a Tensor"),
        ("lmu", 1.0, ValueError, "take 'legt'"),
    ],
)
def test_bad_windows(function, measure, window, error, message):
    with pytest.raises(error, match=message):
        function(measure, 8, window=window)


@pytest.mark.parametrize("dtype", [f64, torch.float32, torch.int64, torch.complex32, "c", None])
def test_bad_dtypes(dtype):
    with pytest.raises(TypeError, match="want dtype complex64 or complex128, got"):
        nplr("legs", 8, dtype=dtype)


def test_bad_matrices():
    S, B = skew("legs", 4)
    with pytest.raises(ValueError, match="want S skew"):
        skew_modes(S + torch.eye(4, dtype=f64), B)
    with pytest.raises(ValueError, match="want S skew"):
        skew_modes(S * math.nan, B)
    want = r"want S \(N, N\) real, B \(N,\) real; got \(4, 4\)"
    for vector in (B[:3], B + 0j, B[:, None], B[0]):
        with pytest.raises(ValueError, match=want):
            skew_modes(S, vector)
    for matrix, vector in ((S, B * math.nan), (S * math.inf, B), (S, B / 0)):
        with pytest.raises(ValueError, match=r"want S skew, .* and B finite"):
            skew_modes(matrix, vector)
    with pytest.raises(ValueError, match="want N >= 1"):
        skew_modes(S[:0, :0], B[:0])
    with pytest.raises(ValueError, match=r"want S \(N, N\) real"):
        skew_modes(S + 0j, B)
    with pytest.raises(ValueError, match="want N even"):
        skew_modes(S[:3, :3], B[:3])
    with pytest.raises(TypeError, match=r"want S as a torch\.Tensor, got list"):
        skew_modes(S.tolist(), B)


@pytest.mark.parametrize("S", [skew("fout", 8)[0], torch.zeros(4, 4, dtype=f64)])
def test_double_frequencies_are_refused(S):
    """Of a plane of eigenvectors any basis may come: the halves need not be conjugate."""
    with pytest.raises(ValueError, match="want the eigenvalues of S distinct, got one twice"):
        skew_modes(S, torch.ones(len(S), dtype=f64))


def test_bad_phases_and_combs():
    V, B = nplr("legs", 4).V, hippo("legs", 4)[1]
    with pytest.raises(ValueError, match=r"want V \(N, n\) complex, B \(N,\); got V \(4, 2\)"):
        canonical_phase(V.real, B)
    with pytest.raises(ValueError, match=r"want V \(N, n\) complex"):
        canonical_phase(V, B[:3])
    with pytest.raises(TypeError, match=r"want B as a torch\.Tensor, got list"):
        canonical_phase(V, [1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"want V \(N, n\) complex"):
        canonical_phase(V[:0], B[:0])
    tiny, ones = torch.full((4,), 1e-200, dtype=f64), torch.ones(4)
    for r in (torch.zeros(4), torch.ones(4, 1), ones * math.nan, ones + 0j, tiny):
        with pytest.raises(ValueError, match=r"want r \(N,\) real, finite, without zeros"):
            comb_modes(r)
    with pytest.raises(ValueError, match="want N even"):
        comb_modes(torch.ones(3))
    with pytest.raises(TypeError, match="want r of a floating or complex dtype"):
        comb_modes(torch.ones(4, dtype=torch.int64))


def test_default_dtype_and_grad_mode_do_not_matter():
    exact = nplr("legt", 8)
    old = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, f64):
            torch.set_default_dtype(dtype)
            for measure in MEASURES:
                assert all(x.dtype == torch.complex128 for x in nplr(measure, 8))
            assert all(torch.equal(x, y) for x, y in zip(exact, nplr("legt", 8), strict=True))
    finally:
        torch.set_default_dtype(old)
    assert not any(x.requires_grad for x in exact)


@every_measure
def test_default_device_does_not_matter(measure):
    exact = nplr(measure, 8)
    with torch.device("meta"):
        model = nplr(measure, 8)
    assert all(torch.equal(x, y) for x, y in zip(exact, model, strict=True))
