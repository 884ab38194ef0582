"""Pathfinder: what every image promises, what nobody can read off it, and the task on disk."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils.data import DataLoader

from s4lite.data.contours import Ground, Tips, extend, grow_pairs
from s4lite.data.dashes import canvas, dashes, kit, shrink, widen
from s4lite.data.draws import child
from s4lite.data.files import DamagedData
from s4lite.data.pathfinder import _EACH, Images, Pathfinder, generate_pathfinder

SIZES = [32, 64, 128, 256]
MANY = generate_pathfinder(3_000, 0)
FEW = {size: generate_pathfinder(6, 2, size) for size in SIZES[1:]}
FEW[32] = generate_pathfinder(60, 2)


def digest(images: Images) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in images)).hexdigest()


def right(X: np.ndarray, label: np.ndarray) -> float:
    """Share of labels that a linear reader has right on the half that it was not fitted to."""
    X = np.c_[(X - X.mean(0)) / (X.std(0) + 1e-9), np.ones(len(X))]
    half, y = len(X) // 2, 2.0 * label - 1
    gram = X[:half].T @ X[:half] + 1e-3 * half * np.eye(X.shape[1])
    weights = np.linalg.solve(gram, X[:half].T @ y[:half])
    return float(((X[half:] @ weights > 0) == (y[half:] > 0)).mean())


# ------------------------------------------------------------------ pictures of dashes


def test_shrink_keeps_the_middle_and_full_areas():
    fine = np.zeros((1, 41, 41))
    fine[0, 8:33, 8:33] = 1
    half = shrink(fine)
    assert half.shape == (1, 21, 21) and (half[0, 7:14, 7:14] == 255).all() and half[0, 0, 0] == 0
    assert (half == half[:, ::-1]).all() and (half == half.swapaxes(1, 2)).all()
    point = np.zeros((1, 41, 41))
    point[0, 20, 20] = 1
    assert np.unravel_index(shrink(point).argmax(), (1, 21, 21)) == (0, 10, 10)


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_widen_is_dilation_by_a_disc(radius):
    rng = np.random.default_rng(0)
    image = (rng.random((2, 17, 23)) * (rng.random((2, 17, 23)) < 0.05) * 255).astype(np.uint8)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = y * y + x * x <= radius * radius
    want = [ndimage.grey_dilation(one, footprint=disc, mode="constant") for one in image]
    assert np.array_equal(widen(image, radius), want)


@pytest.mark.parametrize("degrees", [0, 30, 90, 201, 340])
def test_a_dash_has_length_width_and_direction(degrees):
    picture = dashes(np.radians([degrees]), 20, 5, 30)[0]
    y, x = np.nonzero(picture)
    along = (x - 30) * math.cos(math.radians(degrees)) + (y - 30) * math.sin(math.radians(degrees))
    aside = (y - 30) * math.cos(math.radians(degrees)) - (x - 30) * math.sin(math.radians(degrees))
    assert abs(np.ptp(along) - 21) < 1.5 and abs(np.ptp(aside) - 5) < 1.5
    assert abs(picture.sum() / (21 * 5) - 1) < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_kit(size):
    for margin in canvas(size).margins:
        k, c = kit(size, margin), canvas(size)
        far = np.hypot(*k.disc.T)
        assert far.min() > c.length + margin - 1.5 and far.max() < c.length + margin + 1.5
        assert len(np.unique(k.disc, axis=0)) == len(k.disc)
        assert (k.mask.astype(int) - k.bar).min() > -20 and k.bar.max(1).min() > 90
        onward = k.weight[360:]
        assert (onward.max(1) == onward.diagonal()).all()  # straight on is likeliest
        back = ((k.disc[:, None] * k.disc).sum(-1) < 0) & (c.continuity >= 1)
        assert (k.weight[360:][back] < 1e-12).all()  # and nobody turns round


@pytest.mark.parametrize("size", [31, 16, 32.0, "32", None, 512])
def test_other_sizes_are_refused(size):
    if size == 32.0 and isinstance(size, float):
        size = 33.0
    with pytest.raises(ValueError, match="want size 32, 64, 128 or 256"):
        canvas(size)


# ------------------------------------------------------------------ growth


def test_no_dash_ends_where_it_may_not():
    c, k = canvas(64), kit(64, 1)
    ground = Ground(200, c, k)
    place = np.full((200, 2), 32)
    for d in range(4):  # a wall of dashes
        ground.occupy(np.arange(200), np.full(200, 45 * d), place + np.array([0, 6 * d - 12]))
    before = ground.layers[1].copy()
    start = Tips(np.full(200, 90), np.full((200, 2), 15), np.full((200, 2), 14))
    new, done = extend(ground, np.arange(200), start, child(0, np.arange(200)))
    at = ground.flat(new.place)[:, None]
    assert done.any() and (np.take_along_axis(before, at, 1)[done] < 255).all()
    assert ((new.place[done] >= c.padding) & (new.place[done] < 64 - c.padding)).all()


def test_turns_follow_their_weights():
    n = 20_000
    c, k = canvas(128), kit(128, 2)
    ground, first = Ground(1, c, k), np.array([0])
    ways = k.weight[0] / k.weight[0].sum()
    place = np.array([[64, 64]])
    pivot = place + k.first[0, 1]
    tips = Tips(first, place, pivot)
    seen = np.zeros(len(k.disc))
    for chunk in range(0, n, 500):
        ground = Ground(500, c, k)
        many = Tips(*(np.repeat(part, 500, axis=0) for part in tips))
        keys = child(child(1, chunk), np.arange(500))
        new, done = extend(ground, np.arange(500), many, keys)
        assert done.all()  # on an empty canvas there is room
        seen += np.bincount(new.dash - 360, minlength=len(seen))
    assert (np.abs(seen / n - ways) < 5 * np.sqrt(ways / n) + 1e-12).all()


def test_canvases_do_not_know_of_each_other():
    keys = child(3, np.arange(300))
    kept, grown, _ = grow_pairs(keys, canvas(32), kit(32, 1), 8)
    some = np.arange(0, 300, 7)
    kept_of_some, grown_of_some, _ = grow_pairs(keys[some], canvas(32), kit(32, 1), 8)
    both = np.isin(kept, some)
    assert np.array_equal(kept[both], some[kept_of_some])
    assert np.array_equal(grown.place[both], grown_of_some.place)


# ------------------------------------------------------------------ images


@pytest.mark.parametrize("size", SIZES)
def test_form(size):
    images = FEW[size]
    n = len(images.labels)
    assert images.pixels.shape == (n, size, size) and images.pixels.dtype == np.uint8
    assert images.lines.shape == (n, 2, 14, 2, 2) and set(images.labels.tolist()) <= {0, 1}
    assert (images.pixels.max((1, 2)) == 255).all() and (images.pixels.min((1, 2)) == 0).all()
    border = canvas(size).padding
    inside = images.discs
    assert inside.min() >= border and inside.max() < size - border


@pytest.mark.parametrize("size", SIZES)
def test_contours_hang_together(size):
    """Fourteen dashes of the right length, each beginning within two margins of the last's end."""
    c, lines = canvas(size), FEW[size].lines
    length = np.linalg.norm(lines[..., 1, :] - lines[..., 0, :], axis=-1)
    assert np.abs(length - c.length).max() < 1e-4
    ahead, behind = lines[:, :, 0], lines[:, :, 1:]
    ends = np.concatenate([ahead[:, :, None, 1], behind[:, :, :, 0]], axis=2)  # their far ends
    starts = behind[:, :, :, 1]
    gap = np.linalg.norm(starts - ends[:, :, :-1], axis=-1)
    assert gap.max() <= 2 * max(c.margins) + 3 and gap.min() >= 0


@pytest.mark.parametrize("size", SIZES)
def test_discs_mark_the_ends_that_the_label_says(size):
    images = FEW[size]
    tips = images.lines[:, :, [0, -1], 0]  # (n, contour, start or end, 2)
    for i, label in enumerate(images.labels):
        start = [s for s in range(2) if (images.discs[i, 0] == tips[i, s, 0]).all()]
        end = [s for s in range(2) if (images.discs[i, 1] == tips[i, s, 1]).all()]
        assert any((s == e) == bool(label) for s in start for e in end)


def test_contours_can_be_counted_in_the_pixels():
    """At 256 dashes stand apart: 2 long contours of 14, and 7 of 4, less what touches."""
    for image in FEW[256].pixels:
        _, count = ndimage.label(image > 127, structure=np.ones((3, 3)))
        assert 46 <= count <= 2 * 14 + 7 * 4


def test_discs_can_be_found_in_the_pixels():
    for size in (64, 128, 256):
        c, images = canvas(size), FEW[size]
        y, x = np.mgrid[:size, :size]
        for image, discs in zip(images.pixels, images.discs, strict=True):
            for cy, cx in discs:
                disc = (y - cy) ** 2 + (x - cx) ** 2 <= (c.marker - 1) ** 2
                assert (image[disc] > 240).all()


def test_balance():
    assert abs(MANY.labels.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(MANY.labels))


def test_stupid_readers_are_at_chance():
    n = len(MANY.labels)
    pooled = MANY.pixels.reshape(n, 8, 4, 8, 4).mean((2, 4)).reshape(n, -1)
    apart = np.linalg.norm(np.diff(MANY.discs.astype(float), axis=1)[:, 0], axis=-1)
    boxes = np.digitize(apart, np.quantile(apart, np.linspace(0, 1, 9)[1:-1]))
    sigma = 0.5 / math.sqrt(n / 2)
    for X in (pooled, pooled.mean(1)[:, None], np.sort(pooled, axis=1)):
        assert abs(right(X, MANY.labels) - 0.5) < 4 * sigma
    assert (
        abs(right(np.eye(8)[boxes], MANY.labels) - 0.5) < 0.06
    )  # the distance tells next to nothing
    assert right(MANY.labels[:, None] + 0.0, MANY.labels) == 1  # the reader can read


# ------------------------------------------------------------------ determinism


def test_same_bytes_wherever_one_starts():
    part = generate_pathfinder(700, 0, start=900)
    for whole, piece in zip(MANY, part, strict=True):
        assert np.array_equal(whole[900:1600], piece)


@pytest.mark.parametrize(("size", "count"), [(32, 1_200), (256, 140)])
def test_same_bytes_for_any_number_of_workers(size, count):
    alone = digest(generate_pathfinder(count, 7, size))
    assert digest(generate_pathfinder(count, 7, size, workers=3)) == alone
    assert digest(generate_pathfinder(count, 8, size)) != alone


def test_same_bytes_on_every_machine():
    assert digest(generate_pathfinder(20, 0)).startswith("b92ceb5ae5e21e4f")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"count": 0}, ValueError, "want count >= 1"),
        ({"seed": "1"}, TypeError, "want seed as an int"),
        ({"size": 48}, ValueError, "want size 32, 64, 128 or 256, got 48"),
        ({"contour": 15}, ValueError, "want contour >= 2 and <= 14"),
        ({"start": -1}, ValueError, "want start >= 0"),
        ({"workers": -1}, ValueError, "want workers >= 1"),
    ],
)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        generate_pathfinder(**({"count": 1, "seed": 0} | change))


# ------------------------------------------------------------------ the task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def task_in(folder, **change) -> Pathfinder:
    return Pathfinder(folder, **({"sizes": (70, 20, 10), "workers": 1} | change))


def test_task(folder):
    task = task_in(folder)
    assert (task.name, task.d_input, task.d_output, task.length) == ("pathfinder32", 1, 2, 1024)
    splits = task.splits()
    drawn = generate_pathfinder(100, 0)
    assert [len(part) for part in splits] == [70, 20, 10]
    got = [item for part in splits for item in (part[i] for i in range(len(part)))]
    for (u, y), pixels, label in zip(got, drawn.pixels, drawn.labels, strict=True):
        assert u.shape == (1024, 1) and u.dtype == torch.float32 and y == label
        assert torch.equal(
            ((u + 1) * 127.5).round().to(torch.uint8).view(32, 32), torch.tensor(pixels)
        )
    assert splits.train[-1][1] == splits.train[69][1]
    with pytest.raises(IndexError):
        splits.test[10]


def test_center_is_an_option(folder):
    centred, plain = (task_in(folder, center=c).splits().test for c in (True, False))
    assert task_in(folder).shards.folder == task_in(folder, center=False).shards.folder
    assert plain[0][0].min() == 0 and plain[0][0].max() == 1
    assert torch.allclose(centred[0][0], 2 * plain[0][0] - 1, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader(folder, workers):
    task = task_in(folder)
    loader = DataLoader(task.splits().train, 16, collate_fn=task.collate, num_workers=workers)
    batches = list(loader)
    assert torch.cat([b.y for b in batches]).tolist() == generate_pathfinder(70, 0).labels.tolist()
    assert batches[0].u.shape == (16, 1024, 1) and batches[0].lengths is None


def test_interrupted_work_is_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr("s4lite.data.pathfinder._EACH", {32: 25})
    whole = task_in(tmp_path / "whole")
    whole.prepare()
    broken, real, calls = task_in(tmp_path / "broken"), generate_pathfinder, []

    def stops(count, seed, size, *, start, workers):
        calls.append(start)
        if start == 50 and len(calls) < 4:
            raise KeyboardInterrupt
        return real(count, seed, size, start=start, workers=workers)

    monkeypatch.setattr("s4lite.data.pathfinder.generate_pathfinder", stops)
    with pytest.raises(KeyboardInterrupt):
        broken.prepare()
    assert broken.shards.contents() is None and calls == [0, 25, 50]
    broken.prepare()
    assert calls == [0, 25, 50, 50, 75]  # what was there is not drawn again
    assert broken.shards.contents() == whole.shards.contents()


def test_a_split_takes_few_file_handles():
    """An open array holds one, and a process may have 1,024 of them where nobody asked for more."""
    assert all(math.ceil(200_000 / each) <= 200 for each in _EACH.values())


def test_damage_is_refused(folder, tmp_path):
    task = task_in(tmp_path)
    task.prepare()
    path = task.shards.folder / "pixels-00000.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedData, match=r"pixels-00000\.npy with .* bytes, got .* bytes.*remove"):
        task.splits()
    assert path.exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"size": 100}, ValueError, "want size 32, 64, 128 or 256"),
        ({"center": 1}, TypeError, "want center as True or False"),
        ({"sizes": (1, 2, 3, 4)}, ValueError, "want sizes"),
        ({"seed": -2}, ValueError, "want seed >= 0"),
    ],
)
def test_task_refuses_before_it_writes(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        task_in(tmp_path, **change)
    assert not any(tmp_path.iterdir())
