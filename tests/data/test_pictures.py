"""Pictures: greys, the official formats, data sets of pixels."""

import gzip
import io
import pickle
import struct

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


def test_read_cifar_refuses():
    pixels = draw(4, 32, 32, 3)
    sound = as_batch(pixels, [0, 1, 2, 3])
    bad = [b"", sound[:-1], sound[: len(sound) // 2], b"\x80\x02}.", pickle.dumps([1])]
    bad += [as_batch(pixels, [0, 1, 2]), as_batch(pixels, [0, 1, 2, 10]), pickle.dumps("x")]
    bad += [as_batch(pixels.float(), [0, 1, 2, 3]), as_batch(pixels[:, :31], [0, 1, 2, 3])]
    bad += [as_batch(pixels, "abcd"), pickle.dumps({"data": [1], "labels": [0]})]
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
