"""Folders and archives of recordings, and the one file that they become."""

import errno
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from s4lite.data import recordings
from s4lite.data.files import DamagedData
from s4lite.data.recordings import (
    ClipSet,
    content_digest,
    read_batch,
    save_array,
    step_sums,
    survey,
    walk,
    write_clips,
)
from s4lite.data.shards import Shards
from s4lite.data.task import pad
from s4lite.data.waves import decimate, write_wav

PATTERN = r"(?:[^/]+/)?takes/(\d+\.wav)"


def clip(i: int) -> np.ndarray:
    n = 20 + 13 * (i % 5)
    return np.random.default_rng(i).integers(-(2**15), 2**15, n).astype(np.int16)


def folder_of(path, count=12):
    for i in range(count):
        write_wav(path / "takes" / f"{i}.wav", clip(i), 8000)
    (path / "takes" / "notes.txt").write_text("no clip")
    (path / "other").mkdir()
    (path / "other" / "3.wav").write_bytes(b"no clip either")
    return path


def archive_of(folder, path, prefix="set-1/"):
    with tarfile.open(path, "w:gz") as archive:
        for member in sorted(folder.rglob("*.*"), reverse=True):
            archive.add(member, prefix + member.relative_to(folder).as_posix())
    return path


@pytest.fixture
def places(tmp_path):
    folder = folder_of(tmp_path / "folder")
    return folder, archive_of(folder, tmp_path / "a.tar.gz"), tmp_path


def test_folder_and_archive_hold_the_same(places):
    folder, archive, tmp_path = places
    there, packed = dict(walk(folder, PATTERN)), dict(walk(archive, PATTERN))
    assert there == packed and len(there) == 12 and list(there) == sorted(there)
    assert list(packed) != list(there)  # the archive's own order
    dotted = archive_of(folder, tmp_path / "b.tar.gz", "./")
    assert dict(walk(dotted, PATTERN)) == there
    found = survey(folder, PATTERN, 8000, 100)
    assert found == survey(archive, PATTERN, 8000, 100)
    assert {name: n for name, (n, _) in found.items()} == {
        f"{i}.wav": len(clip(i)) for i in range(12)
    }
    for name, place in (("x", folder), ("y", archive)):
        names = write_clips(Shards(tmp_path / name, {}), place, PATTERN, found)
        assert names == sorted(there)
    for file in ("waves.npy", "starts.npy", "sizes.npy"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()
    waves = np.load(tmp_path / "x" / "waves.npy")
    assert waves.dtype == np.int16
    assert waves.tolist() == np.concatenate([clip(int(name[:-4])) for name in names]).tolist()


def test_digest_of_the_contents(places):
    folder, archive, _ = places
    found = survey(folder, PATTERN, 8000, 100)
    digest = content_digest(found)
    assert digest == content_digest(survey(archive, PATTERN, 8000, 100)) and len(digest) == 71
    changed = clip(3)
    changed[5] ^= 1
    write_wav(folder / "takes" / "3.wav", changed, 8000)
    assert content_digest(survey(folder, PATTERN, 8000, 100)) != digest  # one bit
    write_wav(folder / "takes" / "3.wav", clip(3), 8000)
    assert content_digest(survey(folder, PATTERN, 8000, 100)) == digest
    (folder / "takes" / "3.wav").rename(folder / "takes" / "33.wav")
    assert content_digest(survey(folder, PATTERN, 8000, 100)) != digest  # a name


@pytest.mark.parametrize("n", [0, 1, 100, 500])
def test_damaged_archive(places, n):
    _, archive, tmp_path = places
    (tmp_path / "cut.tar.gz").write_bytes(archive.read_bytes()[:n])
    with pytest.raises(DamagedData, match=r"want .*cut\.tar\.gz as a whole archive"):
        survey(tmp_path / "cut.tar.gz", PATTERN, 8000, 100)
    (tmp_path / "cut.tar.gz").write_bytes(os.urandom(1000))
    with pytest.raises(DamagedData, match="as a whole archive"):
        list(walk(tmp_path / "cut.tar.gz", PATTERN))


def test_what_does_not_belong_is_refused(places):
    folder, _, tmp_path = places
    with pytest.raises(DamagedData, match=r"want at most 71 samples, 8,000 a second, got 72"):
        survey(folder, PATTERN, 8000, 71)
    with pytest.raises(DamagedData, match=r"16,000 a second, got .* at 8,000 a second"):
        survey(folder, PATTERN, 16_000, 100)
    path = folder / "takes" / "3.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DamagedData, match=r"want 3\.wav in .* as a recording: want 59 samples"):
        survey(folder, PATTERN, 8000, 100)
    path.write_bytes(whole)
    with tarfile.open(tmp_path / "twice.tar", "w") as twice:
        for prefix in ("a", "b"):
            info = tarfile.TarInfo(f"{prefix}/takes/3.wav")
            info.size = len(whole)
            twice.addfile(info, io.BytesIO(whole))
    with pytest.raises(DamagedData, match=r"got it twice: 3\.wav"):
        survey(tmp_path / "twice.tar", PATTERN, 8000, 100)


def test_clips_that_change_while_they_are_read(places):
    folder, _, tmp_path = places
    found = survey(folder, PATTERN, 8000, 100)
    shards = Shards(tmp_path / "out", {})
    write_wav(folder / "takes" / "4.wav", clip(4)[::-1], 8000)  # the same length
    with pytest.raises(DamagedData, match=r"4\.wav in .* was changed"):
        write_clips(shards, folder, PATTERN, found)
    (folder / "takes" / "4.wav").unlink()
    with pytest.raises(DamagedData, match=r"4\.wav in .* was removed"):
        write_clips(shards, folder, PATTERN, found)
    write_wav(folder / "takes" / "4.wav", clip(4), 8000)
    write_wav(folder / "takes" / "99.wav", clip(4), 8000)
    with pytest.raises(DamagedData, match=r"99\.wav in .* was changed"):
        write_clips(shards, folder, PATTERN, found)
    assert not list((tmp_path / "out").glob("*"))


def test_full_disk(places, monkeypatch):
    folder, _, tmp_path = places
    found = survey(folder, PATTERN, 8000, 100)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no part of the file was kept"):
            write_clips(Shards(tmp_path / "out", {}), folder, PATTERN, found)
    assert not list((tmp_path / "out").glob("*"))


def test_a_really_full_disk_says_so(tmp_path):
    """NumPy's own message would be "3000 requested and 16 written"."""
    resource = pytest.importorskip("resource")
    save_array(tmp_path / "a.npy", np.arange(3))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="no part of the file was kept"):
            save_array(tmp_path / "a.npy", np.arange(3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]


# ------------------------------------------------------------------ reading


@pytest.fixture
def shards(places):
    folder, _, tmp_path = places
    shards = Shards(tmp_path / "out", {"n": 12})
    names = write_clips(shards, folder, PATTERN, survey(folder, PATTERN, 8000, 100))
    shards.write("labels.npy", lambda: np.array([int(x[:-4]) for x in names], np.uint8))
    shards.finish()
    shards.names = names
    return shards


@pytest.mark.parametrize("length", [1, 30, 72, 100])
def test_sums_are_exact(shards, length):
    rows = np.array([7, 0, 3, 11])
    want = np.zeros((2, length), dtype=object)
    for row in rows:
        m = clip(int(shards.names[row][:-4]))[:length].tolist()
        want[0, : len(m)] += np.array(m, dtype=object)
        want[1, : len(m)] += np.array([x * x for x in m], dtype=object)
    got = step_sums(shards, rows, length)
    assert got.dtype == np.int64 and (got == want).all()
    assert (step_sums(shards, rows[::-1], length) == got).all()  # in whatever order


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("way", [(1, "filter"), (2, "filter"), (2, "mean"), (3, "plain")])
def test_items_and_batches(shards, fixed, way):
    factor, how = way
    rows = np.array([5, 1, 8, 2, 11])
    clips = ClipSet(shards, rows, 60, fixed=fixed, factor=factor, how=how, scale=(0.1, 0.5))
    batch = read_batch(clips, [4, 0, 2])
    assert batch.u.dtype == torch.float32 and batch.y.dtype == torch.int64
    ends = []
    for i, row in enumerate(rows[[4, 0, 2]]):
        m = clip(int(shards.names[row][:-4]))[:60]
        u = torch.zeros(60 if fixed else len(m), dtype=torch.float64)
        u[: len(m)] = torch.from_numpy(m / 2**15)
        u = (decimate(u, factor, how) - 0.1) / 0.5
        assert (batch.u[i, : len(u), 0] - u).abs().max() < 1e-5
        assert not batch.u[i, len(u) :].any()
        assert batch.y[i] == int(shards.names[row][:-4])
        ends.append(len(u))
    assert clips.lengths[[4, 0, 2]].tolist() == ends
    assert (batch.lengths is None) == (len(set(ends)) == 1)
    assert batch.lengths is None or batch.lengths.tolist() == ends
    by_one = pad([clips[i] for i in (4, 0, 2)])
    assert (by_one.u - batch.u).abs().max() < 1e-5 and torch.equal(by_one.y, batch.y)


def test_scale_of_every_moment(shards):
    mean, std = np.linspace(0, 1, 60), np.linspace(1, 2, 60)
    plain = ClipSet(shards, np.arange(12), 60, fixed=True)
    scaled = ClipSet(shards, np.arange(12), 60, fixed=True, scale=(mean, std))
    want = (plain.__getitems__(range(12)).u[..., 0].double() - torch.tensor(mean)) / torch.tensor(
        std
    )
    assert (scaled.__getitems__(range(12)).u[..., 0] - want).abs().max() < 1e-6


def test_no_such_items(shards):
    clips = ClipSet(shards, np.arange(12), 60)
    with pytest.raises(ValueError, match="want at least one item, got none"):
        clips.__getitems__([])
    for i in (12, -13):
        with pytest.raises(IndexError):
            clips[i]
    assert len(list(clips)) == 12  # so that a plain loop ends


def test_copies_take_no_data_along(shards):
    clips = ClipSet(shards, np.arange(12), 60, factor=2)
    before = clips.__getitems__(range(12))
    copy = pickle.loads(pickle.dumps(clips))
    assert len(pickle.dumps(clips)) < 4000
    assert torch.equal(copy.__getitems__(range(12)).u, before.u)


def as_it_is(batch):
    return batch


def test_workers_see_the_same(shards):
    clips = ClipSet(shards, np.arange(12), 60, factor=2)
    alone, shared = (list(DataLoader(clips, 4, num_workers=n, collate_fn=as_it_is)) for n in (0, 2))
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a.u, b.u) and torch.equal(a.y, b.y) and torch.equal(a.lengths, b.lengths)


def test_truncated_cache_is_refused(shards):
    path = shards.folder / "waves.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedData, match=r"want .*waves\.npy with .* bytes, got"):
        ClipSet(shards, np.arange(12), 60)[0]


def test_head_of_the_array():
    """The head that is written by hand is one that NumPy reads, of any length of number."""
    for n in (1, 10**6, 10**13):
        head = io.BytesIO(recordings._head(n))
        assert np.lib.format.read_magic(head) == (1, 0)
        assert np.lib.format.read_array_header_1_0(head) == ((n,), False, np.dtype("<i2"))
        assert head.tell() == 128
