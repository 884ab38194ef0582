"""Pictures: greys, the official formats, data sets of pixels."""

import gzip
import io
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from s4lite.data.pictures import Pixels, PlainUnpickler, luma, read_cifar, read_idx
from s4lite.data.pixels import SequentialMNIST
from s4lite.data.task import Batch, pad


def draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)


# ------------------------------------------------------------------ grey


def test_luma_against_exact_arithmetic():
    rgb = draw(300_000, 3)
    thousandths = (rgb.long() * torch.tensor([299, 587, 114])).sum(-1)
    exact = (thousandths + 500) // 1000
    off = luma(rgb) != exact
    assert off.double().mean() < 0.002
    assert set((thousandths[off] % 1000).tolist()) <= {499, 500, 501}
    assert (luma(rgb).long() - exact).abs().max() <= 1


def test_luma_is_pillows():
    image = pytest.importorskip("PIL.Image")
    rgb = draw(500, 500, 3)
    assert np.array_equal(np.asarray(image.fromarray(rgb.numpy()).convert("L")), luma(rgb).numpy())


def test_luma_keeps_grey():
    ramp = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(luma(ramp[:, None].expand(-1, 3)), ramp)


def test_luma_refuses():
    with pytest.raises(TypeError, match="want rgb as uint8"):
        luma(torch.zeros(3))
    for shape in ((), (2,), (3, 2)):
        with pytest.raises(ValueError, match=r"want rgb \(\.\.\., 3\)"):
            luma(torch.zeros(shape, dtype=torch.uint8))


# ------------------------------------------------------------------ files of MNIST


def as_idx(array):
    head = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    return gzip.compress(head + array.numpy().tobytes(), mtime=0)


@pytest.mark.parametrize("shape", [(0,), (1,), (7, 3), (5, 28, 28)])
def test_read_idx(tmp_path, shape):
    array = draw(*shape)
    (tmp_path / "a").write_bytes(as_idx(array))
    assert torch.equal(read_idx(tmp_path / "a"), array)


def test_read_idx_refuses(tmp_path):
    sound = as_idx(draw(3, 4))
    body = gzip.decompress(sound)
    bad = [b"", body, sound[:-9], sound[:15], *map(gzip.compress, (b"", body[:3], body[:9]))]
    bad += map(gzip.compress, (body[:-1], body + b"x", b"\0\0\x0d" + body[3:], b"\x89PNG" + body))
    for content in bad:
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match=r"want .*, got"):
            read_idx(tmp_path / "a")


# ------------------------------------------------------------------ files of CIFAR-10


def as_batch(pixels, labels, **more):
    rows = pixels.permute(0, 3, 1, 2).flatten(1).numpy()
    return pickle.dumps({"data": rows, "labels": labels, "batch_label": "x", **more}, protocol=2)


def test_read_cifar():
    pixels, labels = draw(20, 32, 32, 3), [i % 10 for i in range(20)]
    got, names = read_cifar(as_batch(pixels, labels, filenames=["a.png"] * 20))
    assert torch.equal(got, pixels) and names.tolist() == labels and names.dtype == torch.int64


class Evil:
    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_runs_nothing(protocol):
    content = pickle.dumps({"data": Evil(), "labels": []}, protocol=protocol)
    with pytest.raises(ValueError, match="want a file of CIFAR-10"):
        read_cifar(content)
    with pytest.raises(pickle.UnpicklingError, match="want arrays and plain data, got"):
        PlainUnpickler(io.BytesIO(content)).load()
    assert not Evil.ran
    pickle.loads(content)  # the test can fail
    assert Evil.ran
    Evil.ran = False


@pytest.mark.parametrize("name", ["os system", "builtins eval", "numpy load", "numpy fromfile"])
def test_a_pickle_asks_in_vain(name):
    content = b"c" + name.replace(" ", "\n").encode() + b"\n."
    with pytest.raises(pickle.UnpicklingError, match="want arrays and plain data"):
        PlainUnpickler(io.BytesIO(content)).load()


def test_a_forged_array_touches_no_memory():
    """numpy.ndarray takes eight bytes for the address of an object; here it is not called at all.

    In a process of its own: where this fails, it may end it.
    """
    call = b"cnumpy\nndarray\n((I1\nt%scodecs\nencode\n(X\x08\0\0\0%sX\x06\0\0\0latin1tRtR"
    forged = (
        b"\x80\x02" + call % (b"cnumpy\ndtype\n(X\x01\0\0\0OI0\nI1\ntRc_", b"\x01\0" * 4) + b"."
    )
    work = "import pickle, io, sys; from s4lite.data.pictures import PlainUnpickler; "
    work += "got = PlainUnpickler(io.BytesIO(bytes.fromhex(sys.argv[1]))).load(); "
    work += "print(got.name, got.args[1].args, got.args[2].name, repr(got))"
    done = subprocess.run(
        [sys.executable, "-c", work, forged.hex()], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("numpy.ndarray ('O', 0, 1) _codecs.encode <s4lite")
    batch = b"\x80\x02}(X\x04\0\0\0data" + forged[2:-1] + b"X\x06\0\0\0labels]u."
    with pytest.raises(ValueError, match="want a file of CIFAR-10, got TypeError: cannot unpack"):
        read_cifar(batch)


def test_what_a_pickle_sets_is_kept_aside():
    """A state goes into `Pickled` alone, even one that would set attributes of functions."""
    content = b"\x80\x02cnumpy\ndtype\nN}X\x04\0\0\0nameX\x01\0\0\0xs\x86b."
    got = PlainUnpickler(io.BytesIO(content)).load()
    assert (got.name, got.args, got.state) == ("numpy.dtype", (), (None, {"name": "x"}))


@pytest.mark.parametrize("protocol", range(5))
def test_mutilated_files_are_refused_or_read(protocol):
    """Bytes changed at random: pixels and labels of the right form, or a ValueError."""
    rows = draw(3, 3072).numpy()
    sound = pickle.dumps({"data": rows, "labels": [1, 2, 3]}, protocol=protocol)
    rng, seen = np.random.default_rng(protocol), {True: 0, False: 0}
    for _ in range(300):
        content = bytearray(sound)
        for at in rng.integers(-80, 250, size=2):
            content[at] = rng.integers(256)
        try:
            pixels, labels = read_cifar(bytes(content))
        except ValueError:
            seen[False] += 1
            continue
        seen[True] += 1
        assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (32, 32, 3)
        assert labels.dtype == torch.int64 and 0 <= labels.min() <= labels.max() <= 9
    assert seen[False] > 100 and seen[True] > 0


def test_arrays_by_columns():
    """What a Fortran array says of itself has its bytes in another order."""
    rows = np.asfortranarray(draw(4, 3072).numpy())
    content = pickle.dumps({"data": rows, "labels": [0, 1, 2, 3]}, protocol=2)
    got = read_cifar(content)[0]
    assert np.array_equal(got.permute(0, 3, 1, 2).flatten(1).numpy(), rows)


def test_read_cifar_refuses():
    pixels = draw(4, 32, 32, 3)
    sound = as_batch(pixels, [0, 1, 2, 3])
    bad = [b"", sound[:-1], sound[: len(sound) // 2], b"\x80\x02}.", pickle.dumps([1])]
    bad += [as_batch(pixels, [0, 1, 2]), as_batch(pixels, [0, 1, 2, 10]), pickle.dumps("x")]
    bad += [as_batch(pixels.float(), [0, 1, 2, 3]), as_batch(pixels[:, :31], [0, 1, 2, 3])]
    bad += [as_batch(pixels, "abcd"), pickle.dumps({"data": [1], "labels": [0]})]
    bad += [
        as_batch(pixels, x) for x in ([[0]] * 4, [0.0] * 4, [True] * 4, 4, None, {0: 1}, [-1] * 4)
    ]
    array = np.zeros((4, 3072), np.int8)  # of another kind of number, as wide
    bad += [pickle.dumps({"data": array, "labels": [0, 1, 2, 3]}, protocol=2)]
    for content in bad:
        with pytest.raises(ValueError, match="want"):
            read_cifar(content)


# ------------------------------------------------------------------ data sets


@pytest.mark.parametrize("d", [1, 3])
def test_pixels_scale_is_to_tensor_and_normalize(d):
    """Bit for bit what torchvision's two transforms compute, in float32."""
    pixels, labels = draw(9, 33, d), torch.arange(9)
    mean, std = (0.4914, 0.4822, 0.4465)[:d], (0.247, 0.243, 0.261)[:d]
    data = Pixels(pixels, labels, torch.tensor([8, 2, 3]), (mean, std))
    x = pixels[2].float().div(255)  # ToTensor
    want = (x - torch.tensor(mean)) / torch.tensor(std)  # Normalize
    u, y = data[1]
    assert torch.equal(u, want) and y == 2 and y.dtype == torch.int64 and len(data) == 3


def test_pixels_unit_is_exact():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 256, 1)
    u, _ = Pixels(pixels, torch.zeros(1), torch.tensor([0]), (0.0, 1.0))[0]
    assert torch.equal(u[:, 0], torch.arange(256).float() / 255) and u.min() == 0 and u.max() == 1


def test_pixels_as_symbols():
    data = Pixels(draw(5, 7, 1), torch.arange(5), torch.arange(5), None)
    u, _ = data[3]
    assert torch.equal(u, draw(5, 7, 1)[3, :, 0].long())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_at_once_is_the_items(workers):
    data = Pixels(
        draw(50, 9, 3), torch.arange(50), torch.arange(49, -1, -2), ((0.1,) * 3, (2.0,) * 3)
    )
    collate = SequentialMNIST(".").collate
    loader = DataLoader(data, 7, collate_fn=collate, num_workers=workers)
    batches = list(loader)
    assert all(isinstance(b, Batch) and b.lengths is None for b in batches)
    want = pad([data[i] for i in range(len(data))])
    assert torch.equal(torch.cat([b.u for b in batches]), want.u)
    assert torch.equal(torch.cat([b.y for b in batches]), want.y)


def test_asking_changes_nothing():
    pixels = draw(4, 9, 1)
    data = Pixels(pixels, torch.arange(4), torch.arange(4), (0.5, 0.5))
    data.__getitems__([0, 1])[0].zero_()
    assert torch.equal(pixels, draw(4, 9, 1)) and torch.equal(data[0][0], data[0][0])


def test_pixels_refuses():
    for pixels, labels in ((torch.zeros(2, 3, 1), 2), (draw(2, 3), 2), (draw(2, 3, 1), 3)):
        with pytest.raises(ValueError, match="want uint8 pixels"):
            Pixels(pixels, torch.arange(labels), torch.arange(2), None)
    pixels, labels, index = draw(2, 3, 3), torch.arange(2), torch.arange(2)
    with pytest.raises(ValueError, match="want uint8 pixels"):
        Pixels(pixels, torch.zeros(2, 1), index, None)
    for wrong in (torch.zeros(2), torch.tensor([True, False]), torch.tensor(1), index[None]):
        with pytest.raises(TypeError, match=r"want index \(m,\) as int64"):
            Pixels(pixels, labels, wrong, (0.0, 1.0))
    for wrong in ([2], [-1], [0, 1, 7]):
        with pytest.raises(ValueError, match="want places in index from 0 to 1"):
            Pixels(pixels, labels, torch.tensor(wrong), (0.0, 1.0))
    with pytest.raises(ValueError, match="want one symbol a pixel, got 3"):
        Pixels(pixels, labels, index, None)
    for scale in ((0, 0), (0, -1), (0, (1, 1)), ((0, 0), (1, 1)), (0, float("nan"))):
        with pytest.raises(ValueError, match="want mean and std > 0"):
            Pixels(pixels, labels, index, scale)
    with pytest.raises(
        ValueError, match="want mean and std > 0"
    ):  # would make three channels of one
        Pixels(draw(2, 3, 1), labels, index, ((0, 0, 0), (1, 1, 1)))


def test_pixels_of_nothing():
    data = Pixels(draw(2, 3, 1), torch.arange(2), torch.arange(0), (0.0, 1.0))
    assert len(data) == 0 and data.__getitems__([]).u.shape == (0, 3, 1)
    with pytest.raises(IndexError):
        data[0]
