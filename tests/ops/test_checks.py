"""The checks say what was wanted and what came, and look at values only where looking is free."""

import math
import re

import pytest
import torch

from s4lite.ops.checks import (
    can_look,
    check_length,
    check_positive,
    check_stable,
    check_tensors,
)

META = torch.device("meta")  # a device whose values nobody can read


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_tensors_of_numbers_pass(dtype):
    assert check_tensors(A=torch.zeros(2, 2, dtype=dtype), u=torch.zeros(0)) is None


def test_no_tensor_is_named():
    with pytest.raises(TypeError, match=r"want u as a torch.Tensor, got list"):
        check_tensors(A=torch.zeros(2), u=[0.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_whole_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=rf"want dt of a floating or complex dtype, got {dtype}"):
        check_tensors(dt=torch.ones(3, dtype=dtype))


def test_mixed_devices_are_named():
    with pytest.raises(
        ValueError, match=r"want all tensors on one device, got A on cpu, u on meta"
    ):
        check_tensors(A=torch.zeros(2), u=torch.zeros(2, device=META))


@pytest.mark.parametrize("L", [1, 2, 99, 10**9])
def test_lengths_pass(L):
    assert check_length(L) is None


@pytest.mark.parametrize("L", [0, -1])
def test_empty_lengths_are_refused(L):
    with pytest.raises(ValueError, match=rf"want L >= 1, got {L}"):
        check_length(L)


@pytest.mark.parametrize("L", [1.0, "1", None, True, torch.tensor(3)])
def test_lengths_are_ints(L):
    with pytest.raises(TypeError, match=rf"want len as an int, got {type(L).__name__}"):
        check_length(L, "len")


@pytest.mark.parametrize("dt", [1e-300, 0.1, 1, torch.tensor([1e-3, 7.0]), torch.tensor(2)])
def test_positive_values_pass(dt):
    assert check_positive(dt=dt) is None


@pytest.mark.parametrize("dt", [0.0, -0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", [float, torch.tensor, lambda v: torch.tensor([0.1, v, 0.2])])
def test_other_values_are_refused(dt, form):
    with pytest.raises(ValueError, match=r"want dt finite and > 0, got "):
        check_positive(dt=form(dt))


@pytest.mark.parametrize("bad", [-0.5, 0.0, math.nan, math.inf])
def test_the_bad_value_is_shown(bad):
    with pytest.raises(ValueError, match=rf"> 0, got {bad:g} among 6 values$"):
        check_positive(dt=torch.tensor([[2.0, 1e9, 3.0], [bad, 1.0, 4.0]]))
    with pytest.raises(ValueError, match=rf"> 0, got {bad:g} among 1 values$"):
        check_positive(dt=torch.tensor(bad))


@pytest.mark.parametrize("bad", [0.5 - 2j, complex(-1, math.nan), complex(math.nan, 0)])
def test_the_bad_pole_is_shown(bad):
    got = re.escape(f"got {bad:g} among 3 poles")
    with pytest.raises(ValueError, match=rf"Re Lambda <= 0, {got}$"):
        check_stable(torch.tensor([-1 + 2j, bad, -3 + 1j]))
    with pytest.raises(ValueError, match=r"got 0.25 among 2 poles$"):
        check_stable(torch.tensor([-1.0, 0.25]))


def test_stable_poles_pass():
    assert check_stable(torch.tensor([-1 + 2j, 0 + 3j, -1e-9 - 1j])) is None
    assert check_stable(torch.tensor([-1.0, 0.0])) is None


@pytest.mark.parametrize("pole", [0.5, 1e-6, math.nan, math.inf])
def test_unstable_poles_are_refused(pole):
    with pytest.raises(
        ValueError, match=r"want finite poles with Re Lambda <= 0, got .* among 2 poles"
    ):
        check_stable(torch.tensor([complex(-1, 2), complex(pole, 1)]))


def test_poles_at_infinity_are_refused():
    for pole in (complex(-math.inf, 0), complex(-1, math.nan)):
        with pytest.raises(ValueError, match="finite poles"):
            check_stable(torch.tensor([pole]))


def test_looking_is_free_on_the_cpu_only():
    assert can_look(torch.zeros(2))
    assert not can_look(torch.zeros(2, device=META))


def test_values_elsewhere_are_not_looked_at():
    check_positive(dt=torch.zeros(2, device=META))
    check_stable(torch.ones(2, device=META))


def test_values_are_not_looked_at_inside_vmap():
    def halved(dt):
        check_positive(dt=dt)
        return dt / 2

    assert torch.equal(torch.vmap(halved)(torch.tensor([-1.0, 2.0])), torch.tensor([-0.5, 1.0]))


def test_values_are_not_looked_at_behind_several_transforms():
    """A gradient inside torch.vmap wraps the batched tensor once more: still no value to see."""
    looked = []

    def squared(dt):
        looked.append(can_look(dt))
        check_positive(dt=dt)
        check_stable(-dt)
        return dt.square()

    dt = torch.tensor([-1.0, 2.0])
    gradient = torch.vmap(torch.func.grad(squared))(dt)
    assert torch.equal(gradient, torch.tensor([-2.0, 4.0]))
    torch.func.grad(lambda v: torch.vmap(squared)(v).sum())(dt)
    torch.vmap(torch.vmap(squared))(dt[None])
    torch.vmap(torch.func.grad(torch.func.grad(squared)))(dt)
    assert looked == [False] * 4


def test_values_are_looked_at_behind_a_gradient():
    """torch.func.grad alone hides nothing."""
    for transform in (torch.func.grad, lambda f: torch.func.grad(torch.func.grad(f))):
        with pytest.raises(ValueError, match="want dt finite and > 0, got -1"):
            transform(lambda dt: (check_positive(dt=dt), dt**3)[1])(torch.tensor(-1.0))


def test_values_are_not_looked_at_under_compilation():
    @torch.compile(fullgraph=True, backend="eager")  # fullgraph: a look would be an error
    def checked(dt):
        check_positive(dt=dt)
        check_stable(dt)
        return dt + 1

    assert torch.equal(checked(torch.tensor([-1.0])), torch.tensor([0.0]))


def test_checks_leave_gradients_alone():
    dt = torch.tensor([0.1], requires_grad=True)
    check_positive(dt=dt)
    check_stable(-dt)
    dt.square().sum().backward()
    assert torch.equal(dt.grad, torch.tensor([0.2]))


@pytest.mark.parametrize("value", ["0.1", None, 1j, [0.1], True])
def test_a_step_is_a_number(value):
    with pytest.raises(TypeError, match=r"want dt as a number or a tensor, got \w+ "):
        check_positive(dt=value)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool])
def test_a_step_is_real(dtype):
    with pytest.raises(TypeError, match=rf"want dt real, got {dtype}"):
        check_positive(dt=torch.ones(2, dtype=dtype))


def test_a_number_may_change_under_compilation():
    @torch.compile(fullgraph=True, backend="eager")
    def twice(x, dt):
        check_positive(dt=dt)
        return x * dt * 2

    for dt in (0.5, 0.25, 2):
        assert twice(torch.ones(2), dt).tolist() == [2 * dt, 2 * dt]


def test_a_fake_tensor_is_not_looked_at():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.full((2,), -1.0)
        assert not can_look(x)
        check_positive(dt=x)
