"""Signals: what is promised of each draw, and what is refused."""

import math

import pytest
import torch

from s4lite.data.signals import band_limited, delay_task, events

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ band_limited


@pytest.mark.parametrize(("batch", "L"), [(1, 1), (3, 2), (2, 99), (4, 1023)])
def test_mean_square_is_one(batch, L):
    u = band_limited(batch, L, 7.5, rng(), dtype=F64)
    assert u.shape == (batch, L) and u.dtype == F64
    assert (u.square().mean(-1) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("cycles", [3, 40.5, 200])
def test_nothing_above_the_limit(cycles):
    L = 4096
    u = band_limited(8, L, cycles, rng(1), dtype=F64)
    power = torch.fft.rfft(u * torch.signal.windows.blackman(L, dtype=F64)).abs().square()
    total = power.sum(-1)
    assert (power[:, math.ceil(cycles) + 4 :].sum(-1) / total).max() < 1e-6
    assert (power[:, int(cycles / 2) :].sum(-1) / total).max() > 0.1  # and the band is used


def test_rows_and_seeds_differ_and_repeat():
    a, b = band_limited(2, 100, 5, rng(2)), band_limited(2, 100, 5, rng(2))
    assert torch.equal(a, b) and a.dtype == torch.get_default_dtype()
    assert not torch.allclose(a[0], a[1])
    assert not torch.allclose(a, band_limited(2, 100, 5, rng(3)))


def test_global_seed_serves_without_a_generator():
    torch.manual_seed(4)
    a = band_limited(1, 50, 5)
    torch.manual_seed(4)
    assert torch.equal(a, band_limited(1, 50, 5))


@pytest.mark.parametrize("cycles", [0, -1.0, math.nan, math.inf])
def test_bad_cycles(cycles):
    with pytest.raises(ValueError, match="want cycles finite and > 0"):
        band_limited(1, 10, cycles)


def test_bad_counts():
    for args in [(0, 10, 1), (1, 0, 1)]:
        with pytest.raises(ValueError, match=">= 1, got 0"):
            band_limited(*args)
    with pytest.raises(TypeError, match="want L as an int, got float"):
        band_limited(1, 10.0, 1)
    with pytest.raises(TypeError, match="want batch as an int, got bool"):
        band_limited(True, 10, 1)
    with pytest.raises(TypeError, match="want cycles as a number, got str"):
        band_limited(1, 10, "5")


# ------------------------------------------------------------------ events


@pytest.mark.parametrize(("L", "count", "width"), [(1, 1, 1), (9, 3, 3), (99, 7, 8), (1023, 50, 5)])
def test_events_are_whole_and_apart(L, count, width):
    u = events(6, L, count, rng(), width=width, dtype=F64)
    bump = torch.sin(math.pi * (torch.arange(width, dtype=F64) + 0.5) / width).square()
    bump = bump / bump.max()
    assert u.shape == (6, L) and u.max() == 1 and u.min() >= 0
    assert ((u > 0).sum(-1) == count * width).all()  # none on top of another, none cut off
    assert (u.sum(-1) - count * bump.sum()).abs().max() < 1e-12
    for row in u:  # each run of samples above zero is made of whole bumps
        on = row[row > 0].view(count, width)
        assert (on - bump).abs().max() < 1e-12


def test_event_times_cover_the_line():
    u = events(400, 40, 2, rng(1), width=4, dtype=F64)
    often = (u > 0).double().mean(0)
    assert (often > 0).all() and often[10:30].std() < 0.1


def test_events_refuse():
    with pytest.raises(ValueError, match=r"want count \* width <= L, got 3 \* 8 > 20"):
        events(1, 20, 3)
    with pytest.raises(ValueError, match="want count >= 1"):
        events(1, 20, 0)
    with pytest.raises(TypeError, match="want width as an int"):
        events(1, 20, 1, width=2.0)


# ------------------------------------------------------------------ delay_task


@pytest.mark.parametrize(("L", "delay"), [(1, 1), (2, 1), (99, 40), (1023, 1023)])
def test_delay_is_the_definition(L, delay):
    u, y = delay_task(3, L, delay, 5, rng(), dtype=F64)
    assert u.shape == y.shape == (3, L, 1)
    for k in range(L):
        want = u[:, k - delay] if k >= delay else torch.zeros(3, 1, dtype=F64)
        assert torch.equal(y[:, k], want)
    assert (u.square().mean(1) - 1).abs().max() < 1e-12


def test_cycles_count_per_delay():
    L, delay, cycles = 4096, 512, 6
    u, _ = delay_task(8, L, delay, cycles, rng(1), dtype=F64)
    power = torch.fft.rfft(u[..., 0] * torch.signal.windows.blackman(L, dtype=F64)).abs().square()
    limit = cycles * L // delay
    assert (power[:, limit + 4 :].sum(-1) / power.sum(-1)).max() < 1e-6
    assert (power[:, limit // 2 :].sum(-1) / power.sum(-1)).max() > 0.1


def test_delay_refuses():
    with pytest.raises(ValueError, match="want delay <= L = 10, got 11"):
        delay_task(1, 10, 11, 1)
    with pytest.raises(ValueError, match="want delay >= 1, got 0"):
        delay_task(1, 10, 0, 1)
    with pytest.raises(ValueError, match="want cycles finite and > 0"):
        delay_task(1, 10, 5, -1)
    with pytest.raises(TypeError, match="want cycles as a number"):
        delay_task(1, 10, 5, None)
