"""Spoken words: FSDD and Speech Commands, on small made files of the published form.

What needs the published clips themselves is in test_speech_official.py.
"""

import errno
import hashlib
import math
import multiprocessing
import os
import sys
import tarfile
import tempfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from s4lite.data.clips import divide
from s4lite.data.files import DamagedData, MissingData, digest_of
from s4lite.data.recordings import content_digest, survey
from s4lite.data.shards import open_shard, verify
from s4lite.data.speech import FSDD, SpeechCommands, official_part, speech_commands
from s4lite.data.waves import decimate, write_wav

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def sound(*key, n):
    rng = np.random.default_rng(key)
    return (rng.normal(0, 1000 * (1 + key[0]), n) + 50).clip(-32768, 32767).astype(np.int16)


# ------------------------------------------------------------------ digits

TAKES, PEOPLE = 12, ("ada", "bob")


def digit(d, person, take):
    return sound(d, person, take, n=200 + 30 * d + 7 * take)


def recordings_in(folder: Path) -> Path:
    for d in range(10):
        for i, person in enumerate(PEOPLE):
            for take in range(TAKES):
                path = folder / "recordings" / f"{d}_{person}_{take}.wav"
                write_wav(path, digit(d, i, take), 8000)
    (folder / "README.md").write_text("not a clip")
    return folder


class Digits(FSDD):
    """FSDD with clips of ours, which are all there is of it."""

    longest = 600
    published = ""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        type(self).published = self.published or content_digest(made())


def made():
    if not MADE:
        with tempfile.TemporaryDirectory() as folder:
            MADE.update(survey(recordings_in(Path(folder)), FSDD.pattern, 8000, 600))
    return MADE


MADE: dict = {}


@pytest.fixture
def digits(tmp_path):
    recordings_in(tmp_path / "free-spoken-digit-dataset")
    return tmp_path


def packed(folder: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "free-spoken-digit-dataset-26eb9aaf")
    return path


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_digits(digits):
    task = Digits(digits, download=False)
    assert (task.name, task.d_input, task.d_output, task.metric) == ("fsdd", 1, 10, "accuracy")
    assert (task.length, task.tokens, task.pairs, task.rate) == (600, False, False, 1.0)
    splits = task.splits()
    assert [len(part) for part in splits] == [40, 100, 100]
    names = [name.decode() for name in open_shard(task.shards, "names.npy")]
    takes = [{int(names[row][:-4].split("_")[2]) for row in part.rows} for part in splits]
    assert takes == [{10, 11}, set(range(5, 10)), set(range(5))]
    mean, std = (x.item() for x in splits.train.scale)
    every = np.concatenate([digit(d, i, t) for d in range(10) for i in (0, 1) for t in (10, 11)])
    assert abs(mean - every.mean() / 2**15) < 1e-8 and abs(std / (every.std() / 2**15) - 1) < 1e-6
    for part in splits:
        for i in range(0, len(part), 17):
            u, y = part[i]
            d, person, take = names[part.rows[i]][:-4].split("_")
            want = digit(int(d), PEOPLE.index(person), int(take)) / 2**15
            assert y == int(d) and u.shape == (len(want), 1) and u.dtype == torch.float32
            assert (u[:, 0] * std + mean - torch.from_numpy(want)).abs().max() < 1e-6
    verify(task.shards)


def test_all_options_read_one_cache(digits):
    full = Digits(digits)
    u = full.splits().test.__getitems__(range(100))
    before = {path: path.stat().st_mtime_ns for path in (digits / "speech").rglob("*")}
    unit = Digits(digits, scale="unit").splits().test
    mean, std = full.splits().test.scale
    assert (unit[3][0] - (full.splits().test[3][0] * std + mean)).abs().max() < 1e-6
    for how in ("filter", "mean", "plain"):
        half = Digits(digits, sample_rate=4000, resample=how)
        assert (half.name, half.rate, half.length) == ("fsdd-4000", 2.0, 300)
        part = half.splits().test
        assert part.scale == full.splits().test.scale  # the numbers of the full rate
        got = part.__getitems__(range(100))
        raw = unit.__getitems__(range(100)).u[..., 0].double()
        for i in (0, 31, 99):
            want = (decimate(raw[i, : u.lengths[i]], 2, how) - mean) / std
            assert got.lengths[i] == len(want) == -(-int(u.lengths[i]) // 2)
            assert (got.u[i, : len(want), 0] - want).abs().max() < 1e-5
    assert before == {path: path.stat().st_mtime_ns for path in (digits / "speech").rglob("*")}


@pytest.mark.parametrize("layout", ["free-spoken-digit-dataset-master", "fsdd", ".", "archive"])
def test_where_digits_may_be(digits, layout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    here = digits / "free-spoken-digit-dataset"
    if layout == "archive":
        packed(here, folder / "free-spoken-digit-dataset.tar.gz")
    else:
        (folder / layout).mkdir(exist_ok=True)
        (here / "recordings").rename(folder / layout / "recordings")
        recordings_in(here)
    got, want = (Digits(place, download=False) for place in (folder, digits))
    assert torch.equal(
        got.splits().test.__getitems__([7]).u, want.splits().test.__getitems__([7]).u
    )
    assert got.shards.folder.name == want.shards.folder.name
    for name in ("waves.npy", "contents.json"):
        assert (got.shards.folder / name).read_bytes() == (want.shards.folder / name).read_bytes()


def test_missing_digits(tmp_path):
    with pytest.raises(MissingData) as refusal:
        FSDD(tmp_path, download=False).prepare()
    for part in (FSDD.url, FSDD.published, str(tmp_path), "switched off", "data_dir"):
        assert part in str(refusal.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["fewer", "more", "other", "cut"])
def test_damaged_digits(digits, damage):
    Digits(digits)  # learns what is published
    folder = digits / "free-spoken-digit-dataset" / "recordings"
    if damage == "fewer":
        (folder / "3_ada_7.wav").unlink()
    elif damage == "more":
        write_wav(folder / "3_ada_99.wav", digit(3, 0, 9), 8000)
    elif damage == "other":
        write_wav(folder / "3_ada_7.wav", digit(3, 0, 7)[::-1], 8000)
    else:
        path = folder / "3_ada_7.wav"
        path.write_bytes(path.read_bytes()[:-1])
    before = files_in(digits)
    with pytest.raises(DamagedData) as refusal:
        Digits(digits).prepare()
    said = (Digits.published, FSDD.url, "partial=True", str(folder))
    said += ("3_ada_7.wav",) * (damage == "cut")
    assert all(part in str(refusal.value) for part in said)
    assert files_in(digits) == before


def test_a_part_says_so(digits):
    folder = digits / "free-spoken-digit-dataset" / "recordings"
    (folder / "3_ada_7.wav").unlink()
    task = Digits(digits, partial=True, sample_rate=2000)
    assert task.name == "fsdd-2000-partial" and "fsdd-2000-partial" in repr(task)
    assert [len(part) for part in task.splits()] == [40, 99, 100]
    write_wav(folder / "3_ada_7.wav", digit(3, 0, 7), 8000)
    assert [len(part) for part in Digits(digits, partial=True).splits()] == [40, 100, 100]
    for path in folder.glob("*_1[01].wav"):
        path.unlink()
    with pytest.raises(DamagedData, match=r"want clips for training, .* got \[0, 100, 100\]"):
        Digits(digits, partial=True).prepare()


def test_a_part_never_passes_for_the_whole(digits, tmp_path_factory):
    """Not from an archive either, in whatever order; and what was changed is seen."""
    here, folder = digits / "free-spoken-digit-dataset", tmp_path_factory.mktemp("data")
    archive = folder / "free-spoken-digit-dataset.tar.gz"
    Digits(digits).prepare()
    packed(here, digits / "whole.tar.gz")
    (here / "recordings" / "3_ada_7.wav").unlink()
    packed(here, archive)
    part = Digits(folder, partial=True)
    assert [len(each) for each in part.splits()] == [40, 99, 100]
    with pytest.raises(DamagedData, match="got 239 with"):
        Digits(folder).splits()
    assert Digits(folder, partial=True).shards.folder == part.shards.folder
    archive.write_bytes((digits / "whole.tar.gz").read_bytes())
    assert [len(each) for each in Digits(folder).splits()] == [40, 100, 100]
    again = Digits(folder, partial=True)
    assert [len(each) for each in again.splits()] == [40, 100, 100]
    assert len({task.shards.folder for task in (part, again, Digits(folder))}) == 3


def test_a_clip_of_a_part_that_was_changed(digits):
    path = digits / "free-spoken-digit-dataset" / "recordings" / "3_ada_7.wav"
    row = sorted(made()).index("3_ada_7.wav")

    def heard():
        shards = (task := Digits(digits, partial=True, scale="unit")).shards
        u = task.splits().val.__getitems__(range(100)).u
        return u[np.flatnonzero(np.flatnonzero(open_shard(shards, "parts.npy") == 1) == row)[0]]

    before = heard()
    write_wav(path, digit(3, 0, 7)[::-1], 8000)  # as long as it was
    os.utime(path, ns=(1, 1))  # and as old as you like
    n = len(digit(3, 0, 7))
    assert torch.equal(heard()[:n].flip(0), before[:n]) and not torch.equal(heard(), before)


@posix
def test_names_of_any_kind(digits, tmp_path_factory):
    """The path of the data, and of what lies about there."""
    place = tmp_path_factory.mktemp("Daten") / "für Übungen, 数据"
    (digits / "free-spoken-digit-dataset").rename(place.parent / "x")
    place.mkdir()
    (place.parent / "x").rename(place / "fsdd")
    stray = os.path.join(os.fsencode(place / "fsdd" / "recordings"), b"\xff\xfe.wav")
    try:
        open(stray, "wb").close()
    except OSError:
        pytest.skip("the file system wants UTF-8")
    for partial in (False, True):
        splits = Digits(place, partial=partial).splits()
        assert [len(part) for part in splits] == [40, 100, 100]


def test_read_only_folder(digits, monkeypatch, tmp_path_factory):
    """Then the arrays go to the user's cache; but those that are there are used."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("S4LITE_DATA", str(cache))
    real = os.access

    def locked(path, mode):
        return real(path, mode) and not Path(path).is_relative_to(digits)

    with monkeypatch.context() as patch:  # to the super-user every folder may be written
        patch.setattr(os, "access", locked)
        before = files_in(digits)
        task = Digits(digits)
        assert [len(part) for part in task.splits()] == [40, 100, 100]
        assert files_in(digits) == before and task.shards.folder.is_relative_to(cache)
        Digits(digits, partial=True).prepare()
        assert files_in(digits) == before
    Digits(digits).prepare()
    monkeypatch.setattr(os, "access", locked)
    assert Digits(digits).shards.folder.is_relative_to(digits)


# ------------------------------------------------------------------ writing at the worst moment


def test_full_disk(digits, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    task = Digits(digits)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no part of the file was kept"):
            task.prepare()
    assert files_in(digits / "speech") == []
    assert len(Digits(digits).splits().train) == 40


def test_killed_in_between(digits, monkeypatch):
    """What an earlier process has left does no harm: other sums, half of the arrays."""
    whole = Digits(digits)
    whole.prepare()
    folder = whole.shards.folder
    want = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "contents.json").unlink()
    (folder / "labels.npy").unlink()
    np.save(folder / "starts.npy", np.zeros(3, np.int64))
    Digits(digits).prepare()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == want


def _prepare(place, gate):
    gate.wait()
    Digits(place).prepare()


@posix
def test_two_processes_at_once(digits):
    Digits(digits)
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(2)
    both = [context.Process(target=_prepare, args=(digits, gate)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    task = Digits(digits)
    verify(task.shards)
    assert [len(part) for part in task.splits()] == [40, 100, 100]
    assert not [name for name in files_in(digits) if ".part" in name]


def test_truncated_cache(digits):
    task = Digits(digits)
    task.prepare()
    path = task.shards.folder / "waves.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DamagedData, match=r"waves\.npy"):
        task.splits().train[0]


# ------------------------------------------------------------------ download


class Mirror(BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(self.path)
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror():
    pytest.importorskip("pooch")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.files = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_download(digits, mirror, tmp_path_factory):
    Digits(digits)
    folder, at = tmp_path_factory.mktemp("empty"), f"http://127.0.0.1:{mirror.server_port}"
    good = packed(digits / "free-spoken-digit-dataset", digits / "good.tar.gz").read_bytes()
    (digits / "free-spoken-digit-dataset" / "recordings" / "3_ada_7.wav").unlink()
    other = packed(digits / "free-spoken-digit-dataset", digits / "other.tar.gz").read_bytes()
    mirror.files.update({"/good": good, "/other": other, "/cut": good[: len(good) // 2]})

    def task(what):
        task = Digits(folder)
        task.url = f"{at}/{what}"
        return task

    for what, why in (("other", "want 3,000 clips"), ("cut", "as a whole archive")):
        with pytest.raises(DamagedData, match=why) as refusal:
            task(what).prepare()
        said = str(refusal.value)
        assert f"{at}/{what}" in said and Digits.published in said and "Nothing of it was" in said
        assert ".part" not in said and files_in(folder) == []
    with pytest.raises(MissingData, match="404"):
        task("gone").prepare()
    with pytest.raises(MissingData, match="downloading it failed: no connection"):
        nobody = task("good")
        nobody.url = "http://127.0.0.1:9/good"
        nobody.prepare()
    assert files_in(folder) == []
    assert [len(part) for part in task("good").splits()] == [40, 100, 100]
    assert "free-spoken-digit-dataset.tar.gz" in files_in(folder)
    mirror.files.clear()
    assert len(task("good").splits().train) == 40  # never asks again


def test_download_where_nothing_may_be_written(digits, mirror, tmp_path_factory, monkeypatch):
    Digits(digits)

    def locked(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("s4lite.data.speech.atomic_write", locked)
    with pytest.raises(MissingData, match=r"may not be written \(Permission denied\)") as refusal:
        Digits(tmp_path_factory.mktemp("empty")).prepare()
    assert Digits.published in str(refusal.value) and Digits.url in str(refusal.value)


def test_without_pooch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingData, match=r"pip install \"s4lite\[train\]\" \(pooch\)"):
        FSDD(tmp_path).prepare()
    assert not any(tmp_path.iterdir())


# ------------------------------------------------------------------ commands

SPEAKERS = [f"{i:08x}" for i in range(40)]


def command(word, i):
    clip = sound(word, i, n=16_000 if i % 4 else 9000)
    return clip // (1 + word)


def commands_in(data_dir: Path, words, place="speech_commands_v0.02") -> Path:
    folder = data_dir / place
    lists = {1: [], 2: []}
    for w, word in enumerate(words):
        for i, speaker in enumerate(SPEAKERS):
            name = f"{word}/{speaker}_nohash_{i % 3}.wav"
            write_wav(folder / name, command(w, i), 16_000)
            if part := official_part(speaker):
                lists[part].append(name)
    for part, name in ((1, "validation_list.txt"), (2, "testing_list.txt")):
        (folder / name).write_text("\n".join(lists[part]) + "\n")
    write_wav(folder / "_background_noise_" / "tap.wav", sound(0, n=40_000), 16_000)
    return data_dir


PARTS = [sum(official_part(s) == part for s in SPEAKERS) for part in range(3)]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return commands_in(tmp_path_factory.mktemp("commands"), SpeechCommands(classes=10).words)


class Commands(SpeechCommands):
    """Speech Commands with as many clips as we made."""

    def __init__(self, *args, classes=10, **options):
        super().__init__(*args, classes=classes, **options)
        self.published = tuple(n * classes for n in PARTS)


def test_words():
    ten, all_ = (SpeechCommands(classes=n).words for n in (10, 35))
    assert ten == ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
    assert len(set(all_)) == 35 and set(ten) < set(all_) and list(all_) == sorted(all_)
    assert SpeechCommands().published == (84_843, 9_981, 11_005)
    assert sum(SpeechCommands().published) == 105_829
    assert sum(SpeechCommands(classes=10).published) == 38_546


def test_commands(commands):
    task = Commands(commands, download=False)
    assert (task.name, task.length, task.d_output, task.rate) == ("sc10", 16_000, 10, 1.0)
    splits = task.splits()
    assert [len(part) for part in splits] == [10 * n for n in PARTS] and min(PARTS) > 0
    names = [name.decode() for name in open_shard(task.shards, "names.npy")]
    for part, rows in enumerate(part.rows for part in splits):
        assert {official_part(names[row].split("/")[1][:8]) for row in rows} == {part}
    mean, std = (x.item() for x in splits.train.scale)
    batch = task.collate(splits.test.__getitems__(range(len(splits.test))))
    assert batch.u.shape == (len(splits.test), 16_000, 1) and batch.lengths is None
    for row, u, y in zip(splits.test.rows, batch.u[..., 0], batch.y, strict=True):
        word, file = names[row].split("/")
        clip = command(task.words.index(word), SPEAKERS.index(file[:8]))
        want = np.zeros(16_000)
        want[: len(clip)] = clip / 2**15
        assert task.words[y] == word
        assert (u * std + mean - torch.from_numpy(want)).abs().max() < 1e-6
    train = splits.train.__getitems__(range(len(splits.train))).u.double()
    assert abs(train.mean()) < 1e-5 and abs(train.std(correction=0) - 1) < 1e-5


def test_published_scale(commands):
    """Word for word what the published pipeline does, on the training clips."""
    raw = Commands(commands, scale="unit").splits()
    x = {name: getattr(raw, name) for name in ("train", "val")}
    x = {name: part.__getitems__(range(len(part))).u[..., 0].double() for name, part in x.items()}
    audio = {name: part / 2**15 for name, part in x.items()}  # divided once more
    for sample_rate, every in ((16_000, 1), (8000, 2)):
        options = {"scale": "published", "sample_rate": sample_rate, "resample": "plain"}
        splits = Commands(commands, **options).splits()
        for name, part in (("train", splits.train), ("val", splits.val)):
            got = part.__getitems__(range(len(part))).u[..., 0]
            for k in range(0, 16_000, 500):
                mean, std = audio["train"][:, k].mean(), audio["train"][:, k].std()
                want = (audio[name][:, k] - mean) / (std + 1e-5)
                if k % every == 0:
                    assert (got[:, k // every] - want).abs().max() < 1e-5


def test_published_parts(commands):
    task = Commands(commands, partition="published")
    assert task.name == "sc10-published"
    splits = task.splits()
    names = [name.decode() for name in open_shard(task.shards, "names.npy")]
    sizes = open_shard(task.shards, "sizes.npy")
    rows = np.concatenate([part.rows for part in splits])
    assert len(set(rows.tolist())) == len(rows) == 300 and (sizes[rows] == 16_000).all()
    for part, share in zip(splits, (22, 4, 4), strict=True):  # of each word: 30, .15 * 30 = 4.5
        words = [names[row].split("/")[0] for row in part.rows]
        assert {words.count(word) for word in task.words} == {share}
    again = Commands(commands, partition="published").splits()
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(splits, again, strict=True))
    speakers = [{names[row].split("/")[1][:8] for row in part.rows} for part in splits]
    assert speakers[2] & speakers[0]  # the quirk
    official = Commands(commands).splits().train.scale
    assert splits.train.scale != official  # from its own training clips


def test_division_does_not_depend_on_other_words():
    labels = np.repeat(np.arange(3), 20)
    parts = np.zeros(60, np.uint8)
    train, val, test = divide("published", labels, parts)
    assert (len(train), len(val), len(test)) == (42, 9, 9)
    fewer = divide("published", labels[:40], parts[:40])
    assert all(np.array_equal(a, b[b < 40]) for a, b in zip(fewer, (train, val, test), strict=True))


@pytest.mark.parametrize(
    "place", ["SpeechCommands/speech_commands_v0.02", "SpeechCommands", "archive"]
)
def test_where_commands_may_be(commands, place, tmp_path, monkeypatch):
    if place == "archive":
        path = tmp_path / "speech_commands_v0.02.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for member in sorted((commands / "speech_commands_v0.02").iterdir()):
                archive.add(member, f"./{member.name}")
        monkeypatch.setattr(Commands, "sources", lambda self: (renewed(path),))
    else:
        commands_in(tmp_path, SpeechCommands(classes=10).words, place)
    got, want = (Commands(folder, download=False) for folder in (tmp_path, commands))
    got.prepare(), want.prepare()
    for name in ("waves.npy", "parts.npy", "contents.json"):
        assert (got.shards.folder / name).read_bytes() == (want.shards.folder / name).read_bytes()


def renewed(path):
    return replace(speech_commands(), digest=digest_of(path))


def test_missing_commands(tmp_path):
    with pytest.raises(MissingData) as refusal:
        SpeechCommands(tmp_path, download=False).prepare()
    source = speech_commands()
    for part in (source.url, source.digest, str(tmp_path), "2.4 GB"):
        assert part in str(refusal.value)
    assert not any(tmp_path.iterdir())


def test_damaged_archive_is_not_used(tmp_path):
    (tmp_path / "speech_commands_v0.02.tar.gz").write_bytes(bytes(1000))
    with pytest.raises(DamagedData, match="af14739e"):
        SpeechCommands(tmp_path, download=False).prepare()
    assert files_in(tmp_path) == ["speech_commands_v0.02.tar.gz"]


@pytest.mark.parametrize("damage", ["clip", "list", "long", "entry", "bytes"])
def test_damaged_folder(tmp_path, damage):
    words = ("yes", "no")
    folder = commands_in(tmp_path, words) / "speech_commands_v0.02"
    task = Commands(tmp_path, download=False)
    path = folder / "no" / f"{SPEAKERS[1]}_nohash_1.wav"
    if damage == "clip":
        path.unlink()
    elif damage == "list":
        (folder / "testing_list.txt").unlink()
    elif damage == "long":
        write_wav(path, sound(1, n=16_001), 16_000)
    elif damage == "bytes":
        (folder / "testing_list.txt").write_bytes(b"\xff\xfe\x00")
    else:
        lines = (folder / "testing_list.txt").read_text().split()
        (folder / "testing_list.txt").write_text("\n".join(lines[1:]))
    task.words, task.d_output = words, 2
    task.published = tuple(2 * n for n in PARTS)
    why = {"list": "want testing_list.txt", "long": "want at most 16,000 samples"}
    with pytest.raises(DamagedData, match=why.get(damage, "clips of 2 words")) as refusal:
        task.prepare()
    for said in (speech_commands().url, speech_commands().digest, str(folder), "partial=True"):
        assert said in str(refusal.value)
    assert not (tmp_path / "speech").exists()


def test_a_part_of_the_commands(commands):
    with pytest.raises(DamagedData, match=r"want \[30769, 3703, 4074\] clips of 10 words"):
        SpeechCommands(commands, classes=10, download=False).prepare()
    task = SpeechCommands(commands, classes=10, partial=True, sample_rate=8000)
    assert task.name == "sc10-8000-partial" and task.rate == 2.0
    assert [len(part) for part in task.splits()] == [10 * n for n in PARTS]
    assert task.splits().train[0][0].shape == (8000, 1)


def test_35_words(tmp_path):
    words = SpeechCommands().words
    commands_in(tmp_path, words[:3])  # three of them
    task = SpeechCommands(tmp_path, partial=True)
    assert task.name == "sc35-partial" and task.d_output == 35
    assert sorted({int(y) for _, y in task.splits().train}) == [0, 1, 2]


# ------------------------------------------------------------------ options


@pytest.mark.parametrize("kind", [FSDD, SpeechCommands])
def test_bad_options(kind, tmp_path):
    for options, why in (
        ({"sample_rate": 3000}, "want a whole part of (8|16)000 a second, got 3000"),
        ({"sample_rate": 0}, "want sample_rate >= 1"),
        ({"sample_rate": 16_000 * 2}, "want a whole part"),
        ({"resample": "linear"}, "want one of .*'plain'.* got 'linear'"),
        ({"scale": "clip"}, "want one of .*'set'.* got 'clip'"),
    ):
        with pytest.raises(ValueError, match=why):
            kind(tmp_path, **options)
    with pytest.raises(TypeError, match="want sample_rate as an int"):
        kind(tmp_path, sample_rate=4000.0)
    assert not any(tmp_path.iterdir())


def test_options_of_one_task():
    with pytest.raises(ValueError, match=r"want one of .*'unit'.* got 'published'"):
        FSDD(scale="published")  # its clips have no common moments
    with pytest.raises(ValueError, match=r"want classes one of \[10, 35\], got 12"):
        SpeechCommands(classes=12)
    with pytest.raises(ValueError, match=r"want partition one of \['official'\], got 'published'"):
        SpeechCommands(partition="published")


# ------------------------------------------------------------------ speakers


def test_part_of_a_speaker():
    """Speakers of the published test set (their clips are in it), and the hash by hand."""
    for speaker in ("2005ca25", "210f3aa9", "37dca74f", "022cd682", "3b4f8f24", "0c40e715"):
        assert official_part(speaker) == 2
    for i in range(200):
        speaker = f"{i * 7919:08x}"
        number = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 134_217_728
        percent = number * (100.0 / 134_217_727)
        assert official_part(speaker) == (1 if percent < 10 else 2 if percent < 20 else 0)


def test_shares_of_speakers():
    parts = np.bincount([official_part(f"{i:08x}") for i in range(5000)], minlength=3) / 5000
    assert np.abs(parts - [0.8, 0.1, 0.1]).max() < 4 * math.sqrt(0.16 / 5000)
