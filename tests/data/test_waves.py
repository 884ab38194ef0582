"""WAV files as numbers, and fewer samples a second."""

import errno
import math
import os
import random
import re
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite.data.waves import Wave, decimate, low_pass, read_wav, write_wav

f64 = torch.float64


def as_wav(data, *, rate=8000, channels=1, bits=16, promised=None, kind=b"WAVE", extra=b"", tag=1):
    """A WAV file by hand, whatever is wrong with it."""
    size = len(data) if promised is None else promised
    form = struct.pack(
        "<HHIIHH", tag, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits
    )
    body = kind + b"fmt " + struct.pack("<I", len(form)) + form + extra
    body += b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


SOUND = np.array([0, 1, -1, 32767, -32768, 258], np.int16)
BYTES = SOUND.astype("<i2").tobytes()


# ------------------------------------------------------------------ files


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1), st.integers(1, 192_000))
def test_what_is_written_is_read(tmp_path_factory, values, rate):
    path = tmp_path_factory.mktemp("wav") / "deep" / "a.wav"
    write_wav(path, np.array(values, np.int16), rate)
    for got in (read_wav(path), read_wav(str(path)), read_wav(path.read_bytes())):
        assert got.samples.tolist() == values and got.samples.dtype == np.int16
        assert got.rate == rate and isinstance(got, Wave)


def test_like_other_readers(tmp_path):
    wavfile = pytest.importorskip("scipy.io.wavfile")
    write_wav(tmp_path / "ours.wav", SOUND, 8000)
    rate, samples = wavfile.read(tmp_path / "ours.wav")
    assert rate == 8000 and samples.tolist() == SOUND.tolist()
    wavfile.write(tmp_path / "theirs.wav", 11_025, SOUND)
    got = read_wav(tmp_path / "theirs.wav")
    assert got.rate == 11_025 and got.samples.tolist() == SOUND.tolist()


def test_header_by_hand(tmp_path):
    """44 bytes, little endian; and a header may be longer than that."""
    write_wav(tmp_path / "a.wav", SOUND, 8000)
    assert (tmp_path / "a.wav").read_bytes() == as_wav(BYTES)
    longer = as_wav(BYTES, extra=b"LIST" + struct.pack("<I", 6) + b"INFOxy")
    assert read_wav(longer).samples.tolist() == SOUND.tolist()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (as_wav(BYTES)[:-2], "want 6 samples .* got 5"),
        (as_wav(BYTES, promised=100), "want 50 samples .* got 6"),
        (as_wav(b""), "want 0 samples .* got 0"),
        (as_wav(BYTES, channels=2), "got 2 of 16"),
        (as_wav(BYTES, bits=8), "got 1 of 8"),
        (as_wav(BYTES, rate=0), "0 a second"),
        (as_wav(BYTES, tag=3), "want a WAV file"),
        (as_wav(BYTES, kind=b"AVI "), "want a WAV file"),
        (as_wav(BYTES)[:40], "want a WAV file"),
        (b"", "want a WAV file"),
        (b"fLaC" + bytes(100), "want a WAV file"),
    ],
)
def test_other_files_are_refused(content, why, tmp_path):
    with pytest.raises(ValueError, match=why):
        read_wav(content)
    (tmp_path / "b.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"b\.wav"):  # and it says which file
        read_wav(tmp_path / "b.wav")


def test_whatever_is_in_a_header():
    """A few wrong bytes, a cut: a recording, or a refusal that says something."""
    rng, good, refused = random.Random(0), as_wav(BYTES, extra=b"LIST\2\0\0\0ab"), 0
    for _ in range(4000):
        content = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(54)] = rng.choice([0, 1, 255, rng.randrange(256)])
        content = content[: rng.choice([len(good), rng.randrange(len(good))])]
        try:
            assert len(read_wav(bytes(content)).samples) > 0
        except ValueError as error:
            refused += 1
            assert re.search(r"want .*\S, got .*\S", str(error)) and not str(error).endswith(": ")
    assert refused > 1000


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "none.wav")


@pytest.mark.parametrize(
    "samples", [np.zeros(3), np.zeros(3, np.int32), np.zeros((2, 3), np.int16), np.int16([])]
)
def test_bad_samples_are_not_written(tmp_path, samples):
    with pytest.raises(ValueError, match="want int16 samples"):
        write_wav(tmp_path / "a.wav", samples, 8000)
    with pytest.raises(ValueError, match="want rate >= 1"):
        write_wav(tmp_path / "a.wav", SOUND, 0)
    with pytest.raises(TypeError, match="want rate as an int"):
        write_wav(tmp_path / "a.wav", SOUND, 8000.0)
    assert not any(tmp_path.iterdir())


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", SOUND, 8000)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no part of the file was kept"):
        write_wav(tmp_path / "a.wav", SOUND[:2], 8000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    assert len(read_wav(tmp_path / "a.wav").samples) == 6


# ------------------------------------------------------------------ the filter


def answer(h, omega):
    """eq-speech-response."""
    t = torch.arange(len(h), dtype=f64) - (len(h) - 1) / 2
    return torch.cos(omega[:, None] * t) @ h


@pytest.mark.parametrize("zeros", [8, 13, 32])
@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8])
def test_low_pass_keeps_its_promise(factor, zeros):
    h, grid = low_pass(factor, zeros), torch.linspace(0, 1, 4001, dtype=f64)
    limit = math.pi / factor
    assert len(h) == 2 * zeros * factor + factor % 2 and h.dtype == f64
    assert torch.equal(h, h.flip(0)) or (h - h.flip(0)).abs().max() < 1e-17
    assert abs(h.sum() - 1) < 1e-15
    assert answer(h, limit + grid * (math.pi - limit)).abs().max() < 1e-3
    assert (answer(h, grid * (1 - 4.5 / zeros) * limit) - 1).abs().max() < 1e-3


def test_low_pass_refuses():
    for bad in ({"factor": 1}, {"factor": 2, "zeros": 7}):
        with pytest.raises(ValueError, match=r"want (factor|zeros) >="):
            low_pass(**bad)
    with pytest.raises(TypeError, match="want factor as an int"):
        low_pass(2.0)


# ------------------------------------------------------------------ fewer samples


def naive(u, factor, how):
    h = low_pass(factor) if how == "filter" else torch.ones(factor, dtype=f64) / factor
    at = [i - (len(h) - 1) / 2 for i in range(len(h))]
    v = []
    for group in range(0, len(u), factor):
        middle, total = group + (factor - 1) / 2, 0.0
        for tap, t in zip(h.tolist(), at, strict=True):
            k = round(middle + t)
            total += tap * u[k].item() if 0 <= k < len(u) else 0
        v.append(total)
    return torch.tensor(v, dtype=f64)


def noise(*shape, seed=0):
    return torch.randn(shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("L", [1, 2, 3, 99, 127, 128, 129, 400])
@pytest.mark.parametrize("factor", [2, 3, 5, 150])
@pytest.mark.parametrize("how", ["filter", "mean"])
def test_decimate_against_naive(L, factor, how):
    u = noise(L)
    got = decimate(u, factor, how)
    assert got.shape == (-(-L // factor),)
    assert (got - naive(u, factor, how)).abs().max() < 1e-14


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
@pytest.mark.parametrize("how", ["filter", "mean"])
def test_centred_on_the_group(factor, how):
    """On a ramp a symmetric filter reads the place where it stands: the middle of the group."""
    u = torch.arange(2000, dtype=f64)
    inside = slice(200 // factor, 1800 // factor)
    middle = torch.arange(0, 2000, factor, dtype=f64) + (factor - 1) / 2
    assert (decimate(u, factor, how) - middle)[inside].abs().max() < 1e-9


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_plain_folds_and_the_filter_does_not(factor):
    k, J = torch.arange(factor * 600, dtype=f64), 600
    u = noise(factor * J, seed=factor)
    U, V = torch.fft.fft(u), torch.fft.fft(decimate(u, factor, "plain"))
    assert (V - U.view(factor, J).mean(0)).abs().max() < 1e-11  # eq-speech-fold
    inside = slice(100, 500)
    for share, keeps in ((0.3, True), (0.8, True), (1.02, False), (1.5, False)):
        tone = torch.cos(share * math.pi / factor * k)
        left = decimate(tone, factor)[inside].abs().max()
        assert (0.8 < left < 1.01) if keeps else left < 1.1e-3
        if not keeps:
            assert decimate(tone, factor, "plain")[inside].abs().max() > 0.5


def test_shapes_kinds_and_gradients():
    u = noise(2, 3, 50)
    for how in ("filter", "mean", "plain"):
        whole = decimate(u, 3, how)
        assert whole.shape == (2, 3, 17)
        assert (whole[1, 2] - decimate(u[1, 2], 3, how)).abs().max() < 1e-15
        single = decimate(u.float(), 3, how)
        assert single.dtype == torch.float32 and (single - whole).abs().max() < 2e-6
        assert decimate(u[:0], 3, how).shape == (0, 3, 17)
        assert torch.equal(decimate(u, 1, how), u)
        short = noise(2, 9, seed=4).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, how=how: decimate(x, 2, how), (short,))
        both = decimate(u[0] + 2 * u[1], 2, how) - decimate(u[0], 2, how)
        assert (both - 2 * decimate(u[1], 2, how)).abs().max() < 1e-13
    assert torch.equal(decimate(u, 3, "plain"), u[..., ::3])  # the published one: number 0


def test_decimate_refuses():
    with pytest.raises(ValueError, match=r"want one of .*'filter'.* got 'linear'"):
        decimate(noise(9), 2, "linear")
    with pytest.raises(TypeError, match=r"want u floating, got torch\.int16"):
        decimate(torch.zeros(9, dtype=torch.int16), 2)
    with pytest.raises(ValueError, match="L >= 1"):
        decimate(noise(3, 0), 2)
    with pytest.raises(ValueError, match="L >= 1"):
        decimate(torch.tensor(1.0), 2)
    with pytest.raises(ValueError, match="want factor >= 1"):
        decimate(noise(9), 0)
    with pytest.raises(TypeError, match="want factor as an int"):
        decimate(noise(9), 2.0)
