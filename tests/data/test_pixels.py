"""Pixels one by one: the orders, and the tasks on small files of the official form."""

import gzip
import io
import pickle
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite.data.files import DamagedData, MissingData, atomic_write, digest_of
from s4lite.data.pictures import luma
from s4lite.data.pixels import (
    LRAImage,
    SequentialCIFAR,
    SequentialMNIST,
    bit_reversal,
    seeded_order,
)
from s4lite.data.task import split_at


def draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)


def as_idx(array):
    head = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    return gzip.compress(head + array.numpy().tobytes(), mtime=0)


def as_batch(pixels, labels, **more):
    rows = pixels.permute(0, 3, 1, 2).flatten(1).numpy()
    return pickle.dumps({"data": rows, "labels": labels, "batch_label": "x", **more}, protocol=2)


# ------------------------------------------------------------------ orders


@pytest.mark.parametrize("m", range(11))
def test_bit_reversal_is_a_transpose(m):
    """Number i as m axes of size 2: backwards is the other way round."""
    want = torch.arange(2**m).reshape([2] * m).permute(tuple(range(m - 1, -1, -1))).flatten()
    assert torch.equal(bit_reversal(2**m), want)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000))
def test_bit_reversal_leaves_out_the_rest(n):
    got, m = bit_reversal(n), (n - 1).bit_length()
    assert torch.equal(got, torch.tensor([p for p in bit_reversal(2**m).tolist() if p < n]))
    assert torch.equal(got.sort().values, torch.arange(n)) and got.dtype == torch.int64


def test_bit_reversal_of_784():
    want = [0, 512, 256, 768, 128, 640, 384, 64, 576, 320]
    assert bit_reversal(784)[:10].tolist() == want and bit_reversal(784)[-1] == 511


@pytest.mark.parametrize("n", [2, 10, 196, 784, 1024])
def test_bit_reversal_puts_neighbours_half_the_sequence_apart(n):
    first, second = bit_reversal(n).view(2, -1)
    assert torch.equal(second, first + 1)


def theirs(n):
    """How the S4 code makes the order: halves beside each other, again and again."""
    m = (n - 1).bit_length()
    order = np.arange(2**m).reshape(2**m, 1)
    for _ in range(m):
        half = len(order) // 2
        order = np.hstack([order[:half], order[half:]])
    order = order.squeeze(0)
    return np.extract(order < n, order)


@pytest.mark.parametrize("n", [2, 3, 5, 196, 784, 1023, 1024])
def test_bit_reversal_is_that_of_the_s4_code(n):
    assert bit_reversal(n).tolist() == theirs(n).tolist()


@pytest.mark.parametrize("order", [bit_reversal, seeded_order])
def test_orders_refuse(order):
    for n in (0, -1):
        with pytest.raises(ValueError, match="want n >= 1"):
            order(n)
    for n in (4.0, True, "4", [4]):
        with pytest.raises(TypeError, match="want n as an int"):
            order(n)


def test_seeded_order_refuses_seeds():
    for seed in (None, 1.5, "1", True):
        with pytest.raises(TypeError, match="want seed as an int"):
            seeded_order(4, seed)
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="Seed must be between"):
            seeded_order(4, seed)


def test_seeded_order_is_the_one_of_the_papers():
    got = seeded_order(784)
    assert got.tolist() == np.random.RandomState(92916).permutation(784).tolist()
    assert got[:5].tolist() == GOLDEN_SEEDED and not torch.equal(got, seeded_order(784, 1))


GOLDEN_SEEDED = [319, 576, 323, 107, 355]


# ------------------------------------------------------------------ tasks, on small files


def as_they_are(task, sources):
    """The sources with the digests of the files that are there, so that these are the official."""
    there = [(s, task.data_dir / s.name) for s in sources]
    return tuple(
        replace(s, digest=digest_of(path, s.kind)) if path.exists() else s for s, path in there
    )


class SmallMNIST(SequentialMNIST):
    def sources(self):
        return as_they_are(self, super().sources())


class SmallFolder:
    def batches(self):
        return as_they_are(self, super().batches())


class SmallArchive:
    def sources(self):
        return as_they_are(self, super().sources())


class FolderCIFAR(SmallFolder, SequentialCIFAR):
    pass


class FolderLRA(SmallFolder, LRAImage):
    pass


class ArchiveCIFAR(SmallArchive, SequentialCIFAR):
    pass


PICTURES, LABELS = draw(120, 28, 28, seed=1), draw(120, seed=2) % 10


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    parts = (PICTURES[:100], LABELS[:100], PICTURES[100:], LABELS[100:])
    for source, part in zip(SequentialMNIST(folder).sources(), parts, strict=True):
        atomic_write(folder / source.name, lambda file, part=part: file.write(as_idx(part)))
    return folder


PHOTOS, KINDS = draw(60, 32, 32, 3, seed=3), (draw(60, seed=4) % 10).tolist()


@pytest.fixture(scope="module")
def batches():
    parts = [slice(10 * i, 10 * i + 10) for i in range(6)]
    return [as_batch(PHOTOS[part], KINDS[part]) for part in parts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("cifar")
    for source, content in zip(SequentialCIFAR(folder).batches(), batches, strict=True):
        atomic_write(folder / source.name, lambda file, content=content: file.write(content))
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as out:
        for source, content in zip(SequentialCIFAR(folder).batches(), batches, strict=True):
            info = tarfile.TarInfo(source.name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return folder


@pytest.mark.parametrize(
    ("permute", "name"), [(None, "smnist"), ("bit-reversal", "pmnist"), ("seeded", "pmnist-seeded")]
)
def test_mnist(mnist, permute, name):
    task = SmallMNIST(mnist, permute)
    task.prepare()
    train, val, test = task.splits()
    assert (task.name, task.length, task.d_input, task.d_output) == (name, 784, 1, 10)
    assert (len(train), len(val), len(test)) == (90, 10, 20) and not task.tokens
    orders = {None: range(784), "bit-reversal": bit_reversal(784), "seeded": seeded_order(784)}
    order = torch.as_tensor(list(orders[permute]))
    assert torch.equal(task.order(), order)
    u, y = test[5]
    assert torch.equal(u[:, 0], PICTURES[105].flatten()[order].float() / 255) and y == LABELS[105]
    first, second = split_at(100, 0.1, 42)
    for part, index in ((train, first), (val, second)):
        assert torch.equal(part.__getitems__(range(len(part))).y, LABELS[index].long())


def test_mnist_scale(mnist):
    plain, other = (SmallMNIST(mnist, scale=x).splits().test[0][0] for x in ("unit", "standard"))
    assert torch.equal(other, (plain - 0.1307) / 0.3081)


def test_splits_follow_the_seed(mnist):
    a, b, c = (SmallMNIST(mnist, seed=seed, val_share=0.3).splits().val for seed in (1, 1, 2))
    assert torch.equal(a.index, b.index) and not torch.equal(a.index, c.index) and len(a) == 30


@pytest.mark.parametrize("place", ["MNIST/raw", "mnist", "mnist/raw", "raw", "."])
def test_mnist_in_its_usual_places(mnist, tmp_path, place):
    for path in (mnist / "MNIST/raw").iterdir():
        atomic_write(tmp_path / place / path.name, lambda f, p=path: f.write(p.read_bytes()))
    task = SequentialMNIST(tmp_path, download=False)
    sources = SmallMNIST(mnist).sources()  # the digests of these files
    task.sources = lambda: sources
    assert len(task.splits().test) == 20


def test_cifar_folder_and_archive_are_one(folder, archive):
    for a, b in zip(FolderCIFAR(folder).splits(), ArchiveCIFAR(archive).splits(), strict=True):
        every = range(len(a))
        assert torch.equal(a.__getitems__(every).u, b.__getitems__(every).u)
        assert torch.equal(a.__getitems__(every).y, b.__getitems__(every).y)
    assert sorted(p.name for p in archive.iterdir()) == ["cifar-10-python.tar.gz"]  # only read


@pytest.mark.parametrize(
    ("scale", "std"), [("pixels", (0.247, 0.243, 0.261)), ("pictures", (0.2023, 0.1994, 0.201))]
)
def test_cifar(folder, scale, std):
    task = FolderCIFAR(folder, scale=scale)
    task.prepare()
    assert [len(part) for part in task.splits()] == [45, 5, 10]
    assert (task.name, task.length, task.d_input, task.d_output) == ("scifar", 1024, 3, 10)
    u, y = task.splits().test[4]
    x = PHOTOS[54].flatten(0, 1).float() / 255
    assert torch.equal(u, (x - torch.tensor((0.4914, 0.4822, 0.4465))) / torch.tensor(std))
    assert y == KINDS[54]


@pytest.mark.parametrize("tokens", [False, True])
def test_lra_image(folder, tokens):
    task = FolderLRA(folder, tokens=tokens)
    u, y = task.splits().test[4]
    grey = luma(PHOTOS[54]).flatten()
    want = grey.long() if tokens else (grey.float()[:, None] / 255 - 122.6 / 255) / (61 / 255)
    assert torch.equal(u, want) and y == KINDS[54] and task.name == "lra-image"
    assert (task.tokens, task.d_input) == ((True, 256) if tokens else (False, 1))
    if not tokens:
        other = FolderCIFAR(folder, grayscale=True)
        assert torch.equal(other.splits().test[4][0], u) and other.name == "scifar-gray"


def test_a_missing_batch(folder, tmp_path):
    for path in list((folder / "cifar-10-batches-py").iterdir())[:-1]:
        at = tmp_path / "cifar-10-batches-py" / path.name
        atomic_write(at, lambda file, path=path: file.write(path.read_bytes()))
    for ask in (lambda task: task.prepare(), lambda task: task.splits()):
        with pytest.raises(MissingData, match=r"want cifar-10-python\.tar\.gz") as caught:
            ask(FolderCIFAR(tmp_path, download=False))
        assert "c58f30108f718f92721af3b95e74349a" in str(caught.value)
        assert "if its six batches are there" in str(caught.value)


def test_a_damaged_batch_beside_a_sound_archive(archive, tmp_path):
    """A sound copy elsewhere serves, as for any file; the damaged one stays as it is."""
    whole = archive / "cifar-10-python.tar.gz"
    atomic_write(tmp_path / whole.name, lambda file: file.write(whole.read_bytes()))
    damaged = tmp_path / "cifar-10-batches-py/data_batch_1"
    atomic_write(damaged, lambda file: file.write(b"damaged"))
    task = ArchiveCIFAR(tmp_path, download=False)
    task.prepare()
    assert len(task.splits().test) == 10 and damaged.read_bytes() == b"damaged"
    (tmp_path / whole.name).unlink()
    for ask in (task.prepare, task.splits):
        with pytest.raises(DamagedData, match=r"one of the files in https://.*cifar-10-python"):
            ask()


@pytest.mark.parametrize("make", [SequentialMNIST, SequentialCIFAR, LRAImage])
def test_other_bytes_under_the_official_names(make, mnist, folder):
    """The small files are not the official ones, and the real tasks say so."""
    where = mnist if make is SequentialMNIST else folder
    for ask in (lambda task: task.prepare(), lambda task: task.splits()):
        with pytest.raises(DamagedData, match="not used, and is left as it was"):
            ask(make(where, download=False))


@pytest.mark.parametrize("make", [SequentialMNIST, SequentialCIFAR, LRAImage])
def test_nothing_there(make, tmp_path):
    with pytest.raises(MissingData) as caught:
        make(tmp_path, download=False).splits()
    source = make(tmp_path).sources()[0]
    assert all(x in str(caught.value) for x in (source.url, source.digest, str(tmp_path)))
    assert not any(tmp_path.iterdir())


def test_options_are_checked_before_anything(tmp_path):
    folder = tmp_path / "none"
    for make, options, message in (
        (SequentialMNIST, {"permute": "random"}, "want one of .*'bit-reversal'.*got 'random'"),
        (SequentialMNIST, {"scale": "pixels"}, "want one of .*'unit'.*got 'pixels'"),
        (SequentialMNIST, {"val_share": 0}, "want 0 < val_share < 1"),
        (SequentialCIFAR, {"scale": "unit"}, "want scale in"),
        (SequentialCIFAR, {"scale": "pictures", "grayscale": True}, "want scale in"),
        (LRAImage, {"val_share": 1.0}, "want 0 < val_share < 1"),
    ):
        with pytest.raises(ValueError, match=message):
            make(folder, **options)
    for make, options, message in (
        (SequentialMNIST, {"seed": 1.0}, "want seed as an int"),
        (SequentialCIFAR, {"grayscale": "no"}, "want grayscale as True or False"),
        (LRAImage, {"tokens": "no"}, "want tokens as True or False"),
    ):
        with pytest.raises(TypeError, match=message):
            make(folder, **options)
    with pytest.raises(TypeError):
        LRAImage(folder, colour=True)
    assert not folder.exists()
