"""Walking along a signal: the definition, its invariants, its manners."""

import numpy as np
import pytest
import scipy.signal
import torch

from s4lite.ops.recurrence import check_system, recur, step

F64 = torch.float64


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(4)


def draw(rng, *shape, dtype=F64):
    return torch.randn(*shape, generator=rng, dtype=dtype)


def system(rng, *batch, N=4, dtype=F64):
    """A contraction: the Cayley transform of a skew matrix with some damping."""
    G = draw(rng, *batch, N, N, dtype=dtype)
    A = G - G.mH - 0.2 * torch.eye(N, dtype=dtype)
    eye = torch.eye(N, dtype=dtype)
    Ab = torch.linalg.solve(eye - 0.05 * A, eye + 0.05 * A)
    return Ab, draw(rng, *batch, N, dtype=dtype), draw(rng, *batch, N, dtype=dtype)


def test_step_is_the_equation(rng):
    Ab, Bb, C = system(rng)
    x, u_t = draw(rng, 4), torch.tensor(0.7, dtype=F64)
    y_t, x_new = step(Ab, Bb, C, u_t, x)
    expected = Ab.numpy() @ x.numpy() + Bb.numpy() * 0.7
    np.testing.assert_allclose(x_new.numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(y_t.numpy(), C.numpy() @ expected, rtol=1e-14)


@pytest.mark.parametrize("L", [1, 2, 99, 1023])
def test_agrees_with_scipy(rng, L):
    """SciPy's state is one step behind ours: x_{k+1} = A x_k + B u_k, so C Ab and C Bb."""
    Ab, Bb, C = system(rng)
    u = draw(rng, L)
    y, x_last = recur(Ab, Bb, C, u)
    late = (Ab.numpy(), Bb.numpy()[:, None], (C @ Ab).numpy()[None], (C @ Bb).numpy()[None, None])
    _, expected, states = scipy.signal.dlsim((*late, 1.0), u.numpy())
    np.testing.assert_allclose(y.numpy(), expected[:, 0], rtol=0, atol=1e-12)
    final = late[0] @ states[-1] + late[1][:, 0] * u.numpy()[-1]
    np.testing.assert_allclose(x_last.numpy(), final, rtol=0, atol=1e-12)


def test_start_state_has_been_multiplied_once_at_the_first_output(rng):
    Ab, Bb, C = system(rng)
    x0 = draw(rng, 4)
    y, x_last = recur(Ab, Bb, C, torch.zeros(20, dtype=F64), x0)
    expected = [C @ torch.linalg.matrix_power(Ab, k + 1) @ x0 for k in range(20)]
    torch.testing.assert_close(y, torch.stack(expected), rtol=0, atol=1e-13)
    torch.testing.assert_close(x_last, torch.linalg.matrix_power(Ab, 20) @ x0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("cut", [1, 50, 98])
def test_chunks_hand_over_the_state(rng, cut):
    Ab, Bb, C = system(rng, 5)
    u, x0 = draw(rng, 3, 5, 99), draw(rng, 3, 5, 4)
    whole, x_whole = recur(Ab, Bb, C, u, x0)
    first, x = recur(Ab, Bb, C, u[..., :cut], x0)
    second, x = recur(Ab, Bb, C, u[..., cut:], x)
    assert torch.equal(torch.cat([first, second], -1), whole)
    assert torch.equal(x, x_whole)


def test_steps_in_a_row_are_recur(rng):
    Ab, Bb, C = system(rng)
    u = draw(rng, 3, 20)
    y, x_last = recur(Ab, Bb, C, u)
    x = torch.zeros(4, dtype=F64)
    for k in range(20):
        y_t, x = step(Ab, Bb, C, u[:, k], x)
        assert y_t.shape == (3,) and x.shape == (3, 4)
        assert torch.equal(y_t, y[:, k])
    assert torch.equal(x, x_last)


def test_linear_in_input_and_start_together(rng):
    Ab, Bb, C = system(rng)
    u, v, x, w = draw(rng, 30), draw(rng, 30), draw(rng, 4), draw(rng, 4)
    y, x_last = recur(Ab, Bb, C, 2 * u - 3 * v, 2 * x - 3 * w)
    y_u, x_u = recur(Ab, Bb, C, u, x)
    y_v, x_v = recur(Ab, Bb, C, v, w)
    torch.testing.assert_close(y, 2 * y_u - 3 * y_v, rtol=0, atol=1e-12)
    torch.testing.assert_close(x_last, 2 * x_u - 3 * x_v, rtol=0, atol=1e-12)


def test_causal_bit_for_bit(rng):
    Ab, Bb, C = system(rng)
    u = draw(rng, 40)
    other = torch.cat([u[:25], draw(rng, 15)])
    assert torch.equal(recur(Ab, Bb, C, u)[0][:25], recur(Ab, Bb, C, other)[0][:25])
    assert not torch.equal(recur(Ab, Bb, C, u)[0][25:], recur(Ab, Bb, C, other)[0][25:])


def test_time_invariant(rng):
    Ab, Bb, C = system(rng)
    u = draw(rng, 30)
    late = torch.cat([torch.zeros(7, dtype=F64), u])
    y, _ = recur(Ab, Bb, C, u)
    y_late, _ = recur(Ab, Bb, C, late)
    assert (y_late[:7] == 0).all()
    torch.testing.assert_close(y_late[7:], y, rtol=0, atol=1e-13)


def test_leading_axes_broadcast(rng):
    """Systems (5,), sequences (3, 1), starts (2, 1, 1): every combination, each as if alone."""
    Ab, Bb, C = system(rng, 5)
    u, x0 = draw(rng, 3, 1, 6), draw(rng, 2, 1, 1, 4)
    y, x_last = recur(Ab, Bb, C, u, x0)
    assert y.shape == (2, 3, 5, 6) and x_last.shape == (2, 3, 5, 4)
    for s in range(2):
        for b in range(3):
            for h in range(5):
                alone, x = recur(Ab[h], Bb[h], C[h], u[b, 0], x0[s, 0, 0])
                torch.testing.assert_close(y[s, b, h], alone, rtol=0, atol=1e-13)
                torch.testing.assert_close(x_last[s, b, h], x, rtol=0, atol=1e-13)


def test_axes_that_only_C_has_reach_the_state(rng):
    Ab, Bb, _ = system(rng)
    y, x_last = recur(Ab, Bb, draw(rng, 7, 4), draw(rng, 3))
    assert y.shape == (7, 3) and x_last.shape == (7, 4)


def test_complex_system_is_not_conjugated(rng):
    Ab, Bb, C = system(rng, dtype=torch.complex128)
    y, x_last = recur(Ab, Bb, C, draw(rng, 5))
    assert y.dtype == x_last.dtype == torch.complex128
    click = torch.tensor([1.0, 0.0], dtype=F64)
    y, _ = recur(Ab, Bb, C, click)
    np.testing.assert_allclose(y.numpy()[0], (C.numpy() * Bb.numpy()).sum(), rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_keeps_its_dtype(rng, dtype):
    Ab, Bb, C = (t.to(dtype) for t in system(rng))
    u = draw(rng, 50).to(dtype)
    y, x_last = recur(Ab, Bb, C, u)
    truth, _ = recur(Ab.double(), Bb.double(), C.double(), u.double())
    assert y.dtype == x_last.dtype == dtype
    assert (y.double() - truth).abs().max() < 20 * torch.finfo(dtype).eps * truth.abs().max()


def test_mixed_precision_takes_the_wider(rng):
    Ab, Bb, C = system(rng)
    y, x_last = recur(Ab.float(), Bb.float(), C.float(), draw(rng, 5))
    assert y.dtype == x_last.dtype == F64


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_gradients(rng, dtype):
    args = [*system(rng, 2, N=3, dtype=dtype), draw(rng, 2, 4), draw(rng, 2, 3, dtype=dtype)]
    args = [t.clone().requires_grad_() for t in args]
    assert torch.autograd.gradcheck(recur, args)


def test_arguments_are_left_alone(rng):
    args = [*system(rng), draw(rng, 6), draw(rng, 4)]
    copies = [t.clone() for t in args]
    recur(*args)
    assert all(torch.equal(a, b) for a, b in zip(args, copies, strict=True))


def test_compiles_to_one_graph(rng):
    Ab, Bb, C = system(rng, 2)
    u, x = draw(rng, 3, 2, 5), draw(rng, 3, 2, 4)
    for function, args in [(step, (u[..., 0], x)), (recur, (u, x)), (recur, (u,))]:
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(Ab, Bb, C, *args), function(Ab, Bb, C, *args))


def test_check_system_says_axes_and_dtype(rng):
    Ab, Bb, C = system(rng, 5)
    assert check_system(Ab, Bb[0], draw(rng, 3, 1, 4)) == ((3, 5), F64)
    assert check_system(Ab.float(), Bb.float(), C.to(torch.complex64))[1] == torch.complex64
    assert check_system(Ab.float(), Bb.double(), C.to(torch.complex64))[1] == torch.complex128


EYE, ONE = torch.eye(4), torch.ones(4)
BAD = {
    "matrix not square": ((torch.ones(4, 3), ONE, ONE), {}, ValueError, r"N, N.*\(4, 3\)"),
    "matrix a vector": ((ONE, ONE, ONE), {}, ValueError, "N, N"),
    "B too long": ((EYE, torch.ones(5), ONE), {}, ValueError, r"\(5,\)"),
    "B a column": ((EYE, ONE[:, None], ONE), {}, ValueError, r"\(4, 1\)"),
    "C too short": ((EYE, ONE, ONE[:3]), {}, ValueError, r"\(3,\)"),
    "C a number": ((EYE, ONE, torch.tensor(1.0)), {}, ValueError, r"\(\)"),
    "no state": ((torch.ones(0, 0), ONE[:0], ONE[:0]), {}, ValueError, "N >= 1"),
    "axes": ((EYE.expand(2, 4, 4), ONE.expand(3, 4), ONE), {}, ValueError, r"broadcast.*\(3, 4\)"),
    "integers": ((EYE.long(), ONE, ONE), {}, TypeError, "Ab.*int64"),
    "a list": ((EYE, [1.0] * 4, ONE), {}, TypeError, "Bb.*list"),
    "devices": ((EYE, ONE, ONE.to("meta")), {}, ValueError, "C on meta"),
    "u empty": ((EYE, ONE, ONE), {"u": ONE[:0]}, ValueError, "length of u >= 1, got 0"),
    "u a number": ((EYE, ONE, ONE), {"u": torch.tensor(1.0)}, ValueError, "length of u"),
    "u integers": ((EYE, ONE, ONE), {"u": ONE.long()}, TypeError, "u.*int64"),
    "u elsewhere": ((EYE, ONE, ONE), {"u": ONE.to("meta")}, ValueError, "u on meta"),
    "u axes": ((EYE.expand(2, 4, 4), ONE, ONE), {"u": torch.ones(3, 5)}, ValueError, "broadcast"),
    "x0 too long": ((EYE, ONE, ONE), {"x0": torch.ones(5)}, ValueError, r"x \(\.\.\., 4\).*\(5,\)"),
    "x0 a number": ((EYE, ONE, ONE), {"x0": torch.tensor(0.0)}, ValueError, r"x \(\.\.\., 4\)"),
    "x0 integers": ((EYE, ONE, ONE), {"x0": ONE.long()}, TypeError, "int64"),
    "x0 axes": (
        (EYE.expand(2, 4, 4), ONE, ONE),
        {"x0": torch.ones(3, 4)},
        ValueError,
        r"broadcast.*\(3, 4\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(name):
    args, options, error, words = BAD[name]
    with pytest.raises(error, match=words):
        recur(*args, **{"u": torch.ones(5), **options})
