"""Documents letter by letter: is a review kind or not, and does one paper cite another?

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from s4lite.data.draws import check_whole
from s4lite.data.files import DamagedData, Source, data_folder, fetch
from s4lite.data.shards import Shards, TokenSet, TokenTask, open_shard, shards_in
from s4lite.data.task import Splits, split_at

__all__ = [
    "SPECIAL",
    "Characters",
    "ReviewTask",
    "Text",
    "check_validation",
    "code_points",
    "imdb",
    "read_reviews",
    "write_reviews",
    "write_texts",
]


SPECIAL = 3  # <pad>, <unk>, <eos>; characters follow


def imdb() -> Source:
    """The archive of the IMDB reviews, as published."""
    return Source(
        "aclImdb_v1.tar.gz",
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        "md5:7c2ac02c03563afcf9b574c7e56c153a",
        licence="none stated; Maas et al. 2011 ask to be cited",
        note="or put the folder aclImdb, unpacked, into the data folder",
    )


def code_points(text: str) -> np.ndarray:
    """The Unicode numbers (len(text),) uint32 of a text's characters."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Characters:
    """A vocabulary of characters: those seen often enough, the most frequent first.

    Args:
        texts     iterable of str
        min_freq  int              how often a character must be seen, >= 1
    """

    def __init__(self, texts: Iterable[str], min_freq: int = 1) -> None:
        check_whole(min_freq=min_freq)
        seen: Counter[str] = Counter()
        for text in texts:
            seen.update(text)
        often = [character for character, n in seen.items() if n >= min_freq]
        self.characters = "".join(sorted(often, key=lambda each: (-seen[each], each)))
        self.codes = code_points(self.characters)
        self._place = np.ones(0x110000, np.min_scalar_type(len(self)))  # 1 is <unk>
        self._place[self.codes] = np.arange(SPECIAL, len(self))

    def __len__(self) -> int:
        return SPECIAL + len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """The places (len(text),) of a text's characters; 1 for those that are not in it."""
        return self._place[code_points(text)]


def _from_folder(folder: Path) -> dict[str, list[str]]:
    """The reviews of an unpacked folder: "train/pos" -> texts by their number."""
    texts = {}
    for part in ("train/neg", "train/pos", "test/neg", "test/pos"):
        paths = sorted((folder / part).glob("*_*.txt"), key=lambda p: int(p.stem.split("_")[0]))
        texts[part] = [path.read_text(encoding="utf-8") for path in paths]
    return texts


def _from_archive(path: Path) -> dict[str, list[str]]:
    """The reviews of the published archive, without unpacking it."""
    found: dict[str, dict[int, str]] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if place := re.fullmatch(
                r"aclImdb/((?:train|test)/(?:neg|pos))/(\d+)_\d+\.txt", member.name
            ):
                text = archive.extractfile(member).read().decode()
                found.setdefault(place[1], {})[int(place[2])] = text
    return {part: [each[i] for i in sorted(each)] for part, each in found.items()}


def read_reviews(
    data_dir: str | os.PathLike[str] | None = None, *, each: int = 12_500, download: bool = True
) -> dict[str, list[str]]:
    """Read the IMDB reviews: from the folder aclImdb, or from the archive, or from its address.

    Args:
        data_dir  path | None  where to look; None for the user's cache
        each      int          reviews that there must be of each part
        download  bool         False: never download
    Returns:
        dict  "train/neg", "train/pos", "test/neg", "test/pos" -> list of str, by their numbers
    Raises:
        MissingData: if neither is there and it cannot be had.
        DamagedData: if the folder has not as many reviews, or is no text; or the archive's digest
            is wrong.
    """
    folder = data_folder(data_dir) / "aclImdb"
    if not (folder / "train").is_dir():
        return _from_archive(fetch(imdb(), data_dir, download=download))
    try:
        texts = _from_folder(folder)
        got = ", ".join(f"{len(t):,} in {part}" for part, t in texts.items() if len(t) != each)
    except (UnicodeDecodeError, ValueError) as error:
        got = f"a file that cannot be read ({error})"
    if got:
        raise DamagedData(
            f"want {each:,} reviews in each part of {folder}, got {got}. It was left as it is; "
            f"unpack it again from {imdb().url} ({imdb().digest})."
        )
    return texts


def write_texts(
    shards: Shards,
    split: str,
    texts: Iterable[str],
    y: Sequence[int],
    characters: Characters,
    length: int,
) -> None:
    """Write a split as `TokenSet` reads it: the first length - 1 characters of every text."""
    tokens, sizes = bytearray(), []  # grows in place: the texts of Retrieval fill a gigabyte
    for text in texts:
        row = characters.encode(text[: length - 1])
        tokens += row.tobytes()
        sizes.append(len(row))
    ends, dtype = np.cumsum(sizes, dtype=np.int64), characters.encode("").dtype
    arrays = {"tokens": np.frombuffer(tokens, dtype), "ends": ends, "y": np.asarray(y, np.uint8)}
    for part, array in arrays.items():
        shards.write(f"{split}-{part}.npy", lambda array=array: array)


def write_reviews(shards: Shards, texts: dict[str, list[str]], length: int, min_freq: int) -> None:
    """Write the reviews of `read_reviews`, and the characters of the vocabulary that they make."""
    train, test = ([*texts[f"{s}/neg"], *texts[f"{s}/pos"]] for s in ("train", "test"))
    characters = Characters((text[: length - 1] for text in train), min_freq)
    for split, part in (("train", train), ("test", test)):
        y = [kind for kind in (0, 1) for _ in texts[f"{split}/{('neg', 'pos')[kind]}"]]
        write_texts(shards, split, part, y, characters, length)
    shards.write("characters.npy", lambda: characters.codes)


def check_validation(validation: str) -> None:
    """Raise ValueError unless the choice of the validation set is a known one."""
    if validation not in ("held-out", "test"):
        raise ValueError(f'want validation "held-out" or "test", got {validation!r}')


class ReviewTask(TokenTask):
    """What is made of the reviews, whichever of them are for validation; see `Text`."""

    d_output = 2
    each: int
    min_freq: int

    @property
    def d_input(self) -> int:
        """Width of the vocabulary: 135 as published, though the reviews fill only 134 of it."""
        self.prepare()
        return max(135, SPECIAL + len(open_shard(self.shards, "characters.npy")))

    def _write(self) -> None:
        texts = read_reviews(self.data_dir, each=self.each, download=self.download)
        write_reviews(self.shards, texts, self.length, self.min_freq)


class Text(ReviewTask):
    """The task Text: is a film review kind, 1, or not, 0? Read letter by letter.

    Args:
        data_dir    path | None  with aclImdb or its archive; None for the user's cache
        validation  str          "held-out", a tenth of the training reviews; or as published "test"
        length      int          longest sequence, with <eos>; all that is cut off is lost
        min_freq    int          rarer characters of the training reviews are <unk>
        each        int          reviews that there must be in each of the four parts
        download    bool         False: never download
    Raises:
        TypeError, ValueError: if an argument is not as said.
    """

    name = "text"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        validation: str = "held-out",
        length: int = 4096,
        min_freq: int = 15,
        each: int = 12_500,
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        check_whole(min_freq=min_freq, each=each), check_whole(2, length=length)
        check_validation(validation)
        self.validation, self.length, self.min_freq, self.each = validation, length, min_freq, each
        facts = {"length": length, "min_freq": min_freq, "each": each}
        self.shards = shards_in(self.data_dir / "text", "text", facts)

    def splits(self) -> Splits:
        """Train, val and test: pairs of characters (length,) and label."""
        self.prepare()
        train, test = (TokenSet(self.shards, split) for split in ("train", "test"))
        if self.validation == "test":
            return Splits(train, test, test)
        parts = split_at(len(train), 0.1, 0)
        return Splits(*(TokenSet(self.shards, "train", rows=rows) for rows in parts), test)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.length:,} characters to 2, validation {self.validation}>"
