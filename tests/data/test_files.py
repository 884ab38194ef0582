"""Published files: found, checked, downloaded whole; nothing half, nothing damaged."""

import errno
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from disk import CONTENT, folders, in_child, killed_while_writing, names, posix

from s4lite.data.files import (
    DamagedData,
    MissingData,
    Source,
    cache_dir,
    data_folder,
    digest_of,
    fetch,
    find,
)
from s4lite.data.whole import atomic_write

SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
SOURCE = Source("set/a.bin", "https://example.org/a.bin", SHA, also=("a.bin", "old/a.bin"))


# ------------------------------------------------------------------ Source


@pytest.mark.parametrize("digest", ["", SHA[7:], "sha1:" + "0" * 40, SHA.upper(), MD5[:-1], "md5:"])
def test_source_wants_a_digest(digest):
    with pytest.raises(ValueError, match=r"want digest .*, got"):
        Source("a", "", digest)


@pytest.mark.parametrize("place", ["", "/etc/passwd", "../a", "x/../../a", "a\\b", "."])
def test_source_stays_below_the_folder(place):
    for source in ({"name": place}, {"name": "a", "also": (place,)}):
        with pytest.raises(ValueError, match="want a place below the data folder"):
            Source(**{"url": "", "digest": MD5, **source})


def test_source_wants_http():
    with pytest.raises(ValueError, match=r"want an http\(s\) address"):
        Source("a", "file:///etc/passwd", MD5)


def test_source_is_frozen():
    with pytest.raises(AttributeError):
        SOURCE.name = "b"
    assert hash(SOURCE) == hash(replace(SOURCE)) and (SOURCE.kind, replace(SOURCE, digest=MD5).kind)


# ------------------------------------------------------------------ folders


def test_cache_dir_named(monkeypatch, tmp_path):
    monkeypatch.setenv("S4LITE_DATA", str(tmp_path / "x"))
    assert cache_dir() == tmp_path / "x" == data_folder(None)
    assert not (tmp_path / "x").exists()  # looking makes nothing
    monkeypatch.setenv("S4LITE_DATA", "~/x")
    assert cache_dir() == Path.home() / "x"


@pytest.mark.parametrize(
    ("platform", "env", "want"),
    [
        ("linux", {"XDG_CACHE_HOME": "/var/me"}, "/var/me/s4lite"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache/s4lite"),  # as the XDG rules say
        ("linux", {}, "~/.cache/s4lite"),
        ("darwin", {}, "~/Library/Caches/s4lite"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/s4lite"),
        ("win32", {}, "~/AppData/Local/s4lite"),
    ],
)
def test_cache_dir_by_system(monkeypatch, platform, env, want):
    for name in ("S4LITE_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_dir() == Path(want).expanduser()


def test_data_folder_refuses_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    for call in (
        lambda: data_folder(file),
        lambda: find(SOURCE, file),
        lambda: fetch(SOURCE, file),
    ):
        with pytest.raises(NotADirectoryError, match="want a folder for the data, got a file"):
            call()
    assert data_folder("~") == Path.home()
    for call in (data_folder, lambda empty: find(SOURCE, empty)):  # an unset variable of a shell
        with pytest.raises(ValueError, match="got an empty one"):
            call("")


# ------------------------------------------------------------------ digests, find


@pytest.mark.parametrize("size", [0, 1, 1023, 5_000_000])
def test_digest_is_that_of_the_bytes(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    for kind in ("md5", "sha256"):
        want = f"{kind}:{hashlib.new(kind, content).hexdigest()}"
        assert digest_of(tmp_path / "a", kind) == want == digest_of(str(tmp_path / "a"), kind)
        with open(tmp_path / "a", "rb") as file:
            file.seek(size // 2)  # wherever it stands
            assert digest_of(file, kind) == want


def test_other_digests_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    for kind in ("sha1", "shake_128", ""):
        with pytest.raises(ValueError, match="want a digest of one of"):
            digest_of(tmp_path / "a", kind)


@pytest.mark.parametrize("place", ["set/a.bin", "a.bin", "old/a.bin"])
@pytest.mark.parametrize("digest", [SHA, MD5])
def test_find_in_every_usual_place(tmp_path, place, digest):
    source = replace(SOURCE, digest=digest)
    assert find(source, tmp_path) is None
    atomic_write(tmp_path / place, lambda file: file.write(CONTENT))
    assert find(source, tmp_path) == fetch(source, tmp_path) == tmp_path / place


def test_damaged_is_refused_and_left_alone(tmp_path):
    for bad in (CONTENT[:-1], b"", CONTENT[:-1] + b"x"):
        atomic_write(tmp_path / "set/a.bin", lambda file, bad=bad: file.write(bad))
        for look in (find, fetch):
            with pytest.raises(DamagedData) as caught:
                look(SOURCE, tmp_path)
            said = str(caught.value)
            got = f"sha256:{hashlib.sha256(bad).hexdigest()}"
            assert all(x in said for x in (SHA, got, str(tmp_path / "set/a.bin"), SOURCE.url))
        assert (tmp_path / "set/a.bin").read_bytes() == bad and names(tmp_path) == ["set/a.bin"]


def test_a_sound_copy_elsewhere_serves(tmp_path):
    atomic_write(tmp_path / "set/a.bin", lambda file: file.write(b"damaged"))
    atomic_write(tmp_path / "old/a.bin", lambda file: file.write(CONTENT))
    assert fetch(SOURCE, tmp_path) == tmp_path / "old/a.bin"
    assert (tmp_path / "set/a.bin").read_bytes() == b"damaged"


def test_missing_says_all(tmp_path):
    source = replace(SOURCE, note="ask the authors")
    with pytest.raises(MissingData) as caught:
        fetch(source, tmp_path, download=False)
    said = str(caught.value)
    for part in ("set/a.bin", str(tmp_path), SOURCE.url, SHA, "ask the authors", "--data-dir"):
        assert part in said
    assert "switched off" in said and isinstance(caught.value, FileNotFoundError)
    with pytest.raises(MissingData, match="nobody offers it"):
        fetch(replace(SOURCE, url=""), tmp_path / "typo")
    assert folders(tmp_path) == []


@posix
def test_fetch_sweeps_though_the_file_is_there(tmp_path):
    """Whoever was killed may have been the slower one of two."""
    killed_while_writing(tmp_path / "set/a.bin")
    (tmp_path / "set/a.bin").write_bytes(CONTENT)
    assert fetch(SOURCE, tmp_path, download=False) == tmp_path / "set/a.bin"
    assert len(names(tmp_path)) == 2  # only looking removes nothing
    assert fetch(SOURCE, tmp_path) == tmp_path / "set/a.bin"
    assert names(tmp_path) == ["set/a.bin"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, code):
    def refuse(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)  # whoever is root may write anywhere
    with pytest.raises(MissingData, match="the folder may not be written") as caught:
        fetch(SOURCE, tmp_path)
    said = str(caught.value)
    assert all(x in said for x in (SOURCE.url, SHA, str(tmp_path), os.strerror(code)))


def test_missing_without_pooch_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingData, match=r'pip install "s4lite\[train\]"') as caught:
        fetch(SOURCE, tmp_path)
    assert SOURCE.url in str(caught.value) and SHA in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError) and names(tmp_path) == []


# ------------------------------------------------------------------ downloading


class Mirror(BaseHTTPRequestHandler):
    """A server with one good file and several bad ones."""

    def do_GET(self):
        what = self.path.strip("/")
        self.server.asked.append(what)
        if what == "gone":
            return self.send_error(404)
        body = CONTENT[:-1] + b"?" if what == "bad" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:50_000])
        if what == "slow":
            time.sleep(20)
        if what != "cut":
            self.wfile.write(body[50_000:])

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror():
    pytest.importorskip("pooch", reason="downloads go by pooch")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.asked, server.daemon_threads = [], True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.at = lambda what: replace(SOURCE, url=f"http://127.0.0.1:{server.server_port}/{what}")
    yield server
    server.shutdown()


def test_download_once(mirror, tmp_path):
    folder = tmp_path / "not/yet"
    for _ in range(2):
        assert fetch(mirror.at("good"), folder).read_bytes() == CONTENT
    assert mirror.asked == ["good"] and names(folder) == ["set/a.bin"]


def test_corrupted_download_is_not_kept(mirror, tmp_path):
    with pytest.raises(DamagedData) as caught:
        fetch(mirror.at("bad"), tmp_path)
    got = f"sha256:{hashlib.sha256(CONTENT[:-1] + b'?').hexdigest()}"
    assert SHA in str(caught.value) and got in str(caught.value) and names(tmp_path) == []
    assert fetch(mirror.at("good"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(("what", "why"), [("gone", "404"), ("cut", "want set")])
def test_failed_download(mirror, tmp_path, what, why):
    with pytest.raises((MissingData, DamagedData), match=why) as caught:
        fetch(mirror.at(what), tmp_path / "typo")
    assert SHA in str(caught.value) and f"/{what}" in str(caught.value)
    assert folders(tmp_path) == []  # not even that of a mistyped name


def test_nobody_answers(mirror, tmp_path):
    source = mirror.at("good")
    mirror.shutdown()
    mirror.server_close()
    with pytest.raises(MissingData, match="no connection"):
        fetch(source, tmp_path / "typo")
    assert folders(tmp_path) == []


@posix
def test_full_disk_while_downloading_is_no_missing_file(mirror, tmp_path):
    import resource

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            fetch(mirror.at("good"), tmp_path)
        except (MissingData, DamagedData):
            os._exit(6)
        except OSError as error:
            os._exit(7 if error.errno == errno.EFBIG and "no part" in str(error) else 8)
        os._exit(9)

    assert in_child(work) == 7 and names(tmp_path) == []


@posix
def test_two_processes_download_at_once(mirror, tmp_path):
    context = multiprocessing.get_context("fork")
    source = mirror.at("good")
    both = [context.Process(target=fetch, args=(source, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert names(tmp_path) == ["set/a.bin"] and (tmp_path / "set/a.bin").read_bytes() == CONTENT


@posix
def test_killed_while_downloading(mirror, tmp_path):
    child = multiprocessing.get_context("fork").Process(
        target=fetch, args=(mirror.at("slow"), tmp_path)
    )
    child.start()
    until = time.monotonic() + 20
    while not (mirror.asked and [*tmp_path.rglob("*.part")]) and time.monotonic() < until:
        time.sleep(0.01)
    child.kill()
    child.join(10)
    assert child.exitcode == -signal.SIGKILL and not (tmp_path / "set/a.bin").exists()
    assert fetch(mirror.at("good"), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["set/a.bin"]
