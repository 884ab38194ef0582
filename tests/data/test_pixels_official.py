"""The official files of MNIST and CIFAR-10, where S4LITE_DATA_DIR names a folder that has them."""

import os
from pathlib import Path

import pytest
import torch

from s4lite.data.files import find
from s4lite.data.pixels import LRAImage, SequentialCIFAR, SequentialMNIST
from s4lite.data.task import split_at

FOLDER = os.environ.get("S4LITE_DATA_DIR")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="wants S4LITE_DATA_DIR, a folder with official files"),
]


def have(task):
    """The task, or a skip if its files are not in the folder."""
    parts = task.batches() if hasattr(task, "batches") else task.sources()
    if not all(find(s, FOLDER) for s in parts):
        pytest.skip(f"no {parts[0].name} in {Path(FOLDER).name}")
    return task


@pytest.mark.parametrize("permute", [None, "bit-reversal", "seeded"])
def test_mnist(permute):
    task = have(SequentialMNIST(FOLDER, permute, download=False))
    train, val, test = task.splits()
    assert [len(x) for x in (train, val, test)] == [54_000, 6_000, 10_000]
    batch = task.collate(train.__getitems__(range(64)))
    assert batch.u.shape == (64, 784, 1) and batch.u.dtype == torch.float32
    assert batch.lengths is None and batch.u.min() == 0 and batch.u.max() == 1
    every = train.pixels[..., 0].double() / 255
    assert abs(every.mean() - 0.1307) < 5e-5 and abs(every.std() - 0.3081) < 5e-5
    assert torch.bincount(test.labels).tolist() == MNIST_TEST
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    rows = torch.empty_like(train.pixels[:9])
    rows[:, task.order()] = train.pixels[:9]
    assert rows[:, :28].max() == 0 and rows[0].sum() == 27525  # the first five, whatever the order


MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def foretold(S, window):
    """eq-pixels-foretold: the share of the variance that the last `window` samples foretell."""
    S, n = S + torch.eye(len(S), dtype=S.dtype) / 12 / 255**2, len(S)
    if window >= n - 1:  # the whole past: the pivots of Cholesky's S = L L'
        missed = torch.linalg.cholesky(S).diagonal().square()
    else:
        pasts = [slice(max(0, k - window), k) for k in range(n)]
        fits = (torch.linalg.solve(S[past, past], S[past, k]) for k, past in enumerate(pasts))
        missed = torch.stack([S[k, k] - S[k, pasts[k]] @ g for k, g in enumerate(fits)])
    return 1 - missed.sum() / S.trace()


def test_one_row_is_enough_and_four_are_not():
    """What chapter 17 says of its small digits, in full size."""
    task = have(SequentialMNIST(FOLDER, download=False))
    v = task.splits().train.pixels[..., 0].double() / 255
    v = v - v.mean(0)
    S = v.T @ v / len(v)
    assert abs(foretold(S[:40, :40], 38) - foretold(S[:40, :40], 39)) < 1e-6  # two ways, one truth
    assert foretold(S, 30) > 0.9 * foretold(S, 784)
    assert foretold(S, 26) < 0.9 * foretold(S, 784) < foretold(S, 27)
    for name in ("bit-reversal", "seeded"):
        order = SequentialMNIST(FOLDER, name).order()
        shuffled = S[order][:, order]
        assert foretold(shuffled, 4 * 28) < 0.9 * foretold(shuffled, 784)
        if name == "bit-reversal":
            assert foretold(shuffled, 196) < 0.9 * foretold(shuffled, 784) < foretold(shuffled, 224)
    halves = SequentialMNIST(FOLDER, "bit-reversal").order().view(2, -1)
    assert torch.equal(halves[1], halves[0] + 1)


def test_splits_are_those_of_the_published_pipeline():
    """random_split with a generator seeded 42, as the S4 code does it."""
    for n, held in ((60_000, 6_000), (50_000, 5_000)):
        rng = torch.Generator().manual_seed(42)
        theirs = torch.utils.data.random_split(range(n), (n - held, held), rng)
        assert split_at(n, 0.1, 42)[1].tolist() == list(theirs[1].indices)


def test_cifar():
    task = have(SequentialCIFAR(FOLDER, download=False))
    train, val, test = task.splits()
    assert [len(x) for x in (train, val, test)] == [45_000, 5_000, 10_000]
    assert train.__getitems__([0, 1]).u.shape == (2, 1024, 3)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    means, inside, square = [], [], torch.zeros(3, dtype=torch.float64)
    for part in train.pixels.split(10_000):
        x = part.double() / 255
        means.append(x.mean(1))
        inside.append(x.std(1))
        square += x.square().sum((0, 1)) / (50_000 * 1024)
    mean = torch.cat(means).mean(0)
    std = (square - mean.square()).sqrt()
    for got, published in (
        (mean, (0.4914, 0.4822, 0.4465)),
        (std, (0.2470, 0.2435, 0.2616)),  # printed as .247, .243, .261
        (torch.cat(inside).mean(0), (0.2023, 0.1994, 0.2010)),  # the other published triple
    ):
        assert (got - torch.tensor(published, dtype=torch.float64)).abs().max() < 6e-5


@pytest.mark.parametrize("tokens", [False, True])
def test_lra_image(tokens):
    task = have(LRAImage(FOLDER, tokens=tokens, download=False))
    train, val, test = task.splits()
    assert [len(x) for x in (train, val, test)] == [45_000, 5_000, 10_000]
    u = train.__getitems__(range(16)).u
    assert u.shape == ((16, 1024) if tokens else (16, 1024, 1))
    assert u.dtype == (torch.int64 if tokens else torch.float32)
    grey = train.pixels.double()
    assert abs(grey.mean() - 122.6) < 0.05 and abs(grey.std() - 61.0) < 0.05


def test_grey_is_pillows():
    image = pytest.importorskip("PIL.Image")
    colour, grey = (have(kind(FOLDER, download=False)) for kind in (SequentialCIFAR, LRAImage))
    (pixels, _), (gray, _) = colour.read()[1:][0], grey.read()[1:][0]
    for i in range(0, 10_000, 97):
        want = image.fromarray(pixels[i].view(32, 32, 3).numpy()).convert("L")
        assert torch.equal(gray[i].view(32, 32), torch.tensor(list(want.tobytes())).view(32, 32))
