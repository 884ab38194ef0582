"""Files written whole or not at all, whoever fails, is killed or writes at once."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from disk import CONTENT, folders, in_child, killed_while_writing, names, posix

from s4lite.data import whole
from s4lite.data.whole import atomic_write, sweep


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a/b/c"
    atomic_write(path, lambda file: file.write(b"one"))
    atomic_write(str(path), lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two" and names(tmp_path) == ["a/b/c"]


@posix
def test_write_respects_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", lambda file: file.write(b"x"))
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), OSError(errno.EIO, "io")])
@pytest.mark.parametrize("older", [False, True])
def test_failure_leaves_what_was_there(tmp_path, error, older):
    path = tmp_path / "a"
    if older:
        path.write_bytes(b"older")

    def write(file):
        file.write(CONTENT)
        raise error

    with pytest.raises(type(error)):
        atomic_write(path, write)
    assert names(tmp_path) == ["a"] * older
    assert not older or path.read_bytes() == b"older"


def test_full_disk(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # the system may notice as late as that
    with pytest.raises(OSError, match="no part of the file was kept") as caught:
        atomic_write(tmp_path / "a", lambda file: file.write(CONTENT))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a")
    assert names(tmp_path) == []


@posix
def test_a_limit_of_the_system(tmp_path):
    """A file that may not grow beyond 10 kB: the same error as a full disk, from the system."""
    import resource

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            atomic_write(tmp_path / "a", lambda file: file.write(CONTENT))
        except OSError as error:
            os._exit(7 if error.errno == errno.EFBIG and "no part" in str(error) else 8)
        os._exit(9)

    assert in_child(work) == 7 and names(tmp_path) == []


@posix
def test_killed_in_the_middle(tmp_path):
    path = tmp_path / "a"
    killed_while_writing(path)
    assert not path.exists() and len(names(tmp_path)) == 1
    atomic_write(path, lambda file: file.write(CONTENT))  # what is left is in nobody's way
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["a"]  # and gone


def unlocked(file, **how) -> bool:
    """As `_hold` finds it on a disk that knows no locks."""
    return False


@pytest.mark.parametrize("locks", [True, False])
def test_old_leftovers_are_swept(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(whole, "_hold", unlocked)
    old, new, other = (tmp_path / x for x in (".a.1-x.part", ".a.2-y.part", ".ab.1-x.part"))
    for part in (old, new, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (time.time() - 90_000,) * 2)
    atomic_write(tmp_path / "a", lambda file: file.write(b"x"))
    stays = [] if locks else [".a.2-y.part"]  # without locks, somebody may be writing it
    assert names(tmp_path) == [*stays, ".ab.1-x.part", "a"]  # only its own
    assert (tmp_path / "a").read_bytes() == b"x"


@posix
def test_what_somebody_is_writing_is_not_swept(tmp_path):
    """Not by another process, and not by another thread of this one."""
    path = tmp_path / "a"

    def write(file):
        file.write(CONTENT)
        file.flush()
        (part,) = names(tmp_path)
        os.utime(tmp_path / part, (time.time() - 10,) * 2)
        sweep(path)
        assert in_child(lambda: sweep(path)) == 0
        assert names(tmp_path) == [part]

    atomic_write(path, write)
    assert names(tmp_path) == ["a"] and path.read_bytes() == CONTENT


@posix
def test_swept_before_it_was_held(tmp_path, monkeypatch):
    """Between opening and holding a file there is a moment; then another one is opened."""
    hold, seen = whole._hold, []

    def late(file, **how):
        if how.get("wait") and not seen:
            seen.append(file.name)
            os.unlink(file.name)  # by somebody's sweep
        return hold(file, **how)

    monkeypatch.setattr(whole, "_hold", late)
    atomic_write(tmp_path / "a", lambda file: file.write(CONTENT))
    assert seen and names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == CONTENT


def test_what_fails_leaves_no_folder(tmp_path):
    (tmp_path / "old").mkdir()

    def fail(file):
        raise ValueError("no")

    for place in ("a", "new/a", "old/a", "old/new/er/a"):
        with pytest.raises(ValueError, match="no"):
            atomic_write(tmp_path / place, fail)
        assert folders(tmp_path) == ["old"]


def test_a_folder_that_others_use_stays(tmp_path):
    def fail(file):
        (tmp_path / "new/b").write_bytes(b"another's")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        atomic_write(tmp_path / "new/er/a", fail)
    assert folders(tmp_path) == ["new", "new/b"]


def test_a_folder_that_another_takes_away_is_made_again(tmp_path, monkeypatch):
    real, left = Path.mkdir, [tmp_path / "new"]

    def mkdir(folder, *args, **options):
        real(folder, *args, **options)
        if left and folder == left[0]:
            left.pop().rmdir()  # whose download failed just then

    monkeypatch.setattr(Path, "mkdir", mkdir)
    atomic_write(tmp_path / "new/a", lambda file: file.write(CONTENT))
    assert not left and folders(tmp_path) == ["new", "new/a"]


def test_a_folder_that_never_stays_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", lambda *args, **options: None)
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "new/a", lambda file: file.write(CONTENT))


@posix
def test_processes_at_once(tmp_path):
    """Three write the same file over and over; whoever looks sees a whole one."""
    path = tmp_path / "a"

    def work(letter):
        for _ in range(20):
            atomic_write(path, lambda file: file.write(letter * 300_000))

    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=work, args=(x,)) for x in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    looked = 0
    while any(writer.is_alive() for writer in writers) or not looked:
        if path.exists():
            content, looked = path.read_bytes(), looked + 1
            assert len(content) == 300_000 and len(set(content)) == 1
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    assert names(tmp_path) == ["a"]
