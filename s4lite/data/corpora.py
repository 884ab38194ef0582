"""Published texts: which files they are, where to get them, and where their parts lie.

Home: chapter 21, "Language" (chapters/21_language.ipynb).
"""

import os
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from s4lite.data.draws import check_sizes
from s4lite.data.files import DamagedData, Source, fetch, find

__all__ = ["Corpus", "corpus", "cut_parts", "read_corpus"]


@dataclass(frozen=True)
class Corpus:
    """A published text.

    Args:
        name      str              what it is called, and the folder of what is made from it
        members   tuple of str     its files, as named in the archive: one, or train, val and test
        archive   Source | None    the zip file in which they are published
        plain     tuple of Source  the same files unpacked, if their digests are known
        sizes     tuple | None     bytes or characters of train, val and test, if in one file
        alphabet  bytes            the bytes that may occur, in the order of their numbers
    Raises:
        TypeError, ValueError: if the name is no folder's, the files do not match the members, a
            size is below 1, or the alphabet is empty or has a byte twice.
    """

    name: str
    members: tuple[str, ...]
    archive: Source | None = None
    plain: tuple[Source, ...] = ()
    sizes: tuple[int, int, int] | None = None
    alphabet: bytes = bytes(range(256))

    def __post_init__(self) -> None:
        if not self.name or self.name in (".", "..") or {*self.name} & {*"/\\"}:
            raise ValueError(f"want a name that a folder may have, got {self.name!r}")
        if not self.members or len(self.plain) not in (0, len(self.members)):
            got = f"{len(self.members)} members and {len(self.plain)} plain files"
            raise ValueError(f"want members, and as many plain files or none, got {got}")
        if self.sizes is not None:
            check_sizes(self.sizes)
        if not 0 < len(self.alphabet) == len({*self.alphabet}):
            raise ValueError(f"want an alphabet with each byte once, got {self.alphabet!r}")


_MAHONEY = {
    "enwik8": (
        "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        "a1fa5ffddb56f4953e226637dabbb36a",
        bytes(range(256)),
    ),
    "text8": (
        "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        "3bea1919949baf155f99411df5fada7e",
        b" abcdefghijklmnopqrstuvwxyz",
    ),
}
_WIKITEXT = {
    "wikitext2": (
        "542ccefacc6c27f945fb54453812b3cd",
        "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
    "wikitext103": ("9ddaacaf6af0710eda8c456decff7832",),
}
_SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def _mahoney(name: str) -> Corpus:
    """10^8 bytes of Wikipedia: as it is, or of what is left of it in 27 letters."""
    zipped, plain, alphabet = _MAHONEY[name]
    url, licence = f"https://mattmahoney.net/dc/{name}.zip", "Wikipedia's: GFDL and CC BY-SA"
    archive = Source(f"{name}.zip", url, f"sha256:{zipped}", licence, also=(f"{name}/{name}.zip",))
    text = Source(f"{name}/{name}", url, f"md5:{plain}", licence, also=(name,))
    return Corpus(name, (name,), archive, (text,), (90_000_000, 5_000_000, 5_000_000), alphabet)


def _wikitext(name: str) -> Corpus:
    """WikiText in words, at the address of its author."""
    folder, (md5, *digests) = name.replace("wikitext", "wikitext-"), _WIKITEXT[name]
    url, licence = f"https://wikitext.smerity.com/{folder}-v1.zip", "CC BY-SA 3.0"
    members = tuple(f"{folder}/wiki.{part}.tokens" for part in ("train", "valid", "test"))
    unpacked = f"{members[0]} and so on" if digests else "the zip itself, not unpacked"
    note, also = f"in words, not raw: {unpacked}", (f"{folder}/{folder}-v1.zip",)
    archive = Source(f"{folder}-v1.zip", url, f"md5:{md5}", licence, note, also)
    pairs = zip(members, digests, strict=False)  # the longer one's files are known by their zip
    plain = tuple(Source(member, url, f"sha256:{each}", licence) for member, each in pairs)
    return Corpus(name, members, archive, plain)


def _shakespeare(name: str) -> Corpus:
    """The file of the char-rnn code."""
    place, digest = "tinyshakespeare/input.txt", f"sha256:{_SHAKESPEARE}"
    url = f"https://raw.githubusercontent.com/karpathy/char-rnn/master/data/{place}"
    also = ("tiny-shakespeare/input.txt", "tinyshakespeare.txt", "input.txt")
    source = Source(place, url, digest, "public domain", also=also)
    return Corpus(name, ("input.txt",), None, (source,), (1_003_854, 55_770, 55_770))


def corpus(name: str) -> Corpus:
    """Look up a published text.

    Args:
        name  str  "enwik8", "text8", "wikitext2", "wikitext103" or "tiny-shakespeare"
    Returns:
        Corpus
    Raises:
        ValueError: if the name is none of these.
    """
    makers = {**dict.fromkeys(_MAHONEY, _mahoney), **dict.fromkeys(_WIKITEXT, _wikitext)}
    makers["tiny-shakespeare"] = _shakespeare
    if name not in makers:
        raise ValueError(f"want a corpus among {', '.join(makers)}, got {name!r}")
    return makers[name](name)


def read_corpus(
    text: Corpus, data_dir: str | os.PathLike[str] | None = None, *, download: bool = True
) -> tuple[bytes, ...]:
    """Read the files of a text, their digests checked.

    Args:
        text      Corpus
        data_dir  path | None  the folder that has them; None for the user's cache
        download  bool         False: never download
    Returns:
        contents  tuple of bytes  of its members
    Raises:
        MissingData: if they are not there and cannot be had.
        DamagedData: if a file has another digest, or the archive has not the members.
        ValueError: if the text names neither files nor an archive.
    """
    if not text.plain and text.archive is None:
        raise ValueError(f"want a text with files or an archive, got {text.name} with neither")
    paths = [find(source, data_dir) for source in text.plain]
    if paths and all(paths):
        return tuple(path.read_bytes() for path in paths)
    if text.archive is None:
        paths = [fetch(source, data_dir, download=download) for source in text.plain]
        return tuple(path.read_bytes() for path in paths)
    path = fetch(text.archive, data_dir, download=download)
    try:
        with zipfile.ZipFile(path) as opened:
            return tuple(opened.read(member) for member in text.members)
    except (zipfile.BadZipFile, KeyError, zlib.error, EOFError, RuntimeError) as error:
        want = ", ".join(text.members)
        raise DamagedData(f"want {want} in {path}, got a file without ({error})") from error


def cut_parts(content: np.ndarray, text: Corpus) -> list[np.ndarray]:
    """Part the symbols of a text in one file into train, val and test.

    Args:
        content  (n,)    all of them
        text     Corpus  with sizes
    Returns:
        parts  three arrays; val and test begin with the last symbol of the part before, which is
            known when the first of their own is asked for
    Raises:
        DamagedData: if there are more or fewer symbols than sizes says.
    """
    if len(content) != sum(text.sizes):
        raise DamagedData(f"want {sum(text.sizes):,} symbols in {text.name}, got {len(content):,}")
    a, b = text.sizes[0], text.sizes[0] + text.sizes[1]
    return [content[:a], content[a - 1 : b], content[b - 1 :]]
