"""Spoken words, sample by sample: Speech Commands and the Free Spoken Digit Dataset.

Home: chapter 19, "Speech" (chapters/19_speech.ipynb).
"""

import errno
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from s4lite.data.clips import ClipTask, advice_on
from s4lite.data.files import DamagedData, MissingData, Source, atomic_write, fetch
from s4lite.data.recordings import content_digest, survey, walk

__all__ = [
    "FSDD",
    "CommandFiles",
    "SpeechCommands",
    "fetch_digits",
    "official_part",
    "speech_commands",
]


def official_part(speaker: str) -> int:
    """The part of Speech Commands that all clips of a speaker belong to.

    Args:
        speaker  str  as in the names of the files, before "_nohash_"
    Returns:
        int  0 training, 1 validation, 2 test

    Source: Warden 2018; our eq-speech-hash.
    """
    digest = hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest()
    percent = 100 * (int(digest, 16) % 2**27) / (2**27 - 1)
    return 1 if percent < 10 else 2 if percent < 20 else 0


_TEN = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
_MORE = (
    "backward",
    "bed",
    "bird",
    "cat",
    "dog",
    "eight",
    "five",
    "follow",
    "forward",
    "four",
    "happy",
    "house",
    "learn",
    "marvin",
    "nine",
    "one",
    "seven",
    "sheila",
    "six",
    "three",
    "tree",
    "two",
    "visual",
    "wow",
    "zero",
)
_WORDS = {10: _TEN, 35: tuple(sorted([*_TEN, *_MORE]))}
# Real files were at hand of the ten words' test part only (4,074 clips, 239 speakers, all of them
# in part 2 by `official_part`). The other numbers are as published; 105,829 in all.
_CLIPS = {10: (30_769, 3_703, 4_074), 35: (84_843, 9_981, 11_005)}
_FOLDERS = ("speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02", "SpeechCommands")
_LISTS = {1: "validation_list.txt", 2: "testing_list.txt"}


def speech_commands() -> Source:
    """The archive of Speech Commands, version 0.02, as published."""
    file = "speech_commands_v0.02.tar.gz"
    return Source(
        file,
        f"https://storage.googleapis.com/download.tensorflow.org/data/{file}",
        "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        licence="CC BY 4.0",
        note="or unpack it into the folder speech_commands_v0.02; 2.4 GB, and 3.4 more as arrays",
        also=(f"SpeechCommands/{file}", "SpeechCommands/speech_commands.tar.gz"),
    )


def _listed(place: Path) -> dict[str, int]:
    """The clips on the two lists: name -> 1 validation, 2 test."""
    texts = dict(walk(place, r"((?:validation|testing)_list\.txt)"))
    if missing := set(_LISTS.values()) - set(texts):
        raise DamagedData(f"want {min(missing)} in {place}, which is not there")
    lists = {part: texts[list_].decode(errors="replace") for part, list_ in _LISTS.items()}
    return {name: part for part, text in lists.items() for name in text.split()}


class CommandFiles(ClipTask):
    """The clips of Speech Commands: where they are, what they say, which part they belong to.

    Args:
        data_dir  path | None  as for `ClipTask`, and so the other options
    """

    recorded, longest, fixed = 16_000, 16_000, True

    def sources(self) -> tuple[Source, ...]:
        """The archive, which needs not be there if it is unpacked."""
        return (speech_commands(),)

    def place(self) -> Path:
        """The unpacked folder, or the archive."""
        for folder in (self.data_dir / name for name in _FOLDERS):
            if any((folder / name).is_file() for name in _LISTS.values()):
                return folder
        return fetch(*self.sources(), self.data_dir, download=self.download)

    @property
    def origin(self) -> str:
        """Address and digest of the archive."""
        return f"{speech_commands().url} ({speech_commands().digest})"

    def label(self, name: str) -> int:
        """Which word a clip says."""
        return self.words.index(name.split("/")[0])

    def parts(self, place: Path, found: dict[str, tuple[int, str]]) -> list[int]:
        """The part of each clip, by the lists; 3 more if it is shorter than a second."""
        listed = _listed(place)
        return [listed.get(name, 0) + 3 * (found[name][0] < self.longest) for name in sorted(found)]

    def check(self, place: Path, found: dict[str, tuple[int, str]], parts: np.ndarray) -> None:
        """Raise DamagedData unless there are as many clips as were published."""
        if (got := np.bincount(parts % 3, minlength=3).tolist()) != list(self.published):
            raise DamagedData(
                f"want {list(self.published)} clips of {len(self.words)} words in {place}, got "
                f"{got}. {advice_on(self)}"
            )


class SpeechCommands(CommandFiles):
    """Speech Commands, version 0.02: which word is it? One second, 16,000 samples.

    Args:
        data_dir   path | None  as for `ClipTask`, and so the other options
        classes    int          35: all words (SC35); 10: the commands yes, no, ..., go (SC10)
        partition  str          "official": by the lists, no speaker in two parts; "published", of
            ten words: clips of a full second, parted at random 70 : 15 : 15
    Raises:
        TypeError, ValueError: if an option is not as said.

    Source: Warden 2018; our eq-speech-hash, eq-speech-twice.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        classes: int = 35,
        partition: str = "official",
        **options: Any,
    ) -> None:
        if classes not in _WORDS:
            raise ValueError(f"want classes one of {sorted(_WORDS)}, got {classes!r}")
        self.partitions = ("official", "published") if classes == 10 else ("official",)
        if partition not in self.partitions:
            raise ValueError(f"want partition one of {list(self.partitions)}, got {partition!r}")
        self.words, self.published = _WORDS[classes], _CLIPS[classes]
        self.pattern = rf"((?:{'|'.join(self.words)})/[0-9a-f]+_nohash_\d+\.wav)"
        self.name = f"sc{classes}" + f"-{partition}" * (partition != "official")
        super().__init__(data_dir, **options)
        self.partition = partition


_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"


class FSDD(ClipTask):
    """The Free Spoken Digit Dataset: which digit is it? As many samples as the word lasts.

    Args:
        data_dir  path | None  as for `ClipTask`, and so the other options

    Source: Jackson et al. 2016; our eq-speech-sums.
    """

    name, recorded, longest = "fsdd", 8000, 18_262  # as found in the 3,000 published files
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    pattern = r"(?:(?:[^/]+/)?recordings/)?(\d_[a-z]+_\d+\.wav)"
    url = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_COMMIT}.tar.gz"
    published = "sha256:c53232442586856f1bd46fc65f91847c625d52b8c0a63715d655e646b38b51a8"

    def place(self) -> Path:
        """The folder of recordings, or the archive; downloads that if need be."""
        folder = "free-spoken-digit-dataset"
        for name in (folder, f"{folder}-master", "FSDD", "fsdd", "."):
            if (path := self.data_dir / name / "recordings").is_dir():
                return path
        path = self.data_dir / f"{folder}.tar.gz"
        return path if path.is_file() else fetch_digits(self, path)

    @property
    def origin(self) -> str:
        """Address of the archive, and the digest of the clips."""
        return f"{self.url} (the clips: {self.published})"

    def label(self, name: str) -> int:
        """Which digit a clip says."""
        return int(name[0])

    def parts(self, place: Path, found: dict[str, tuple[int, str]]) -> list[int]:
        """The part of each clip, by its take: 0 to 4 test, 5 to 9 validation."""
        takes = [int(name[:-4].split("_")[2]) for name in sorted(found)]
        return [2 if take < 5 else 1 if take < 10 else 0 for take in takes]

    def check(self, place: Path, found: dict[str, tuple[int, str]], parts: object = None) -> None:
        """Raise DamagedData unless the clips are those that were published, sample for sample."""
        if (got := content_digest(found)) != self.published:
            raise DamagedData(
                f"want 3,000 clips with {self.published} (names and samples) in {place}, got "
                f"{len(found):,} with {got}. {advice_on(self)}"
            )


def _no_digits(task: FSDD, why: str) -> MissingData:
    """What there is to say of digits that are not there."""
    return MissingData(
        f"want the folder free-spoken-digit-dataset, which is not there, and {why}\n"
        f"  folder   {task.data_dir}\n  address  {task.url}\n  digest   {task.published}, of "
        "the clips\nClone or unpack it there, or name the folder that has it: data_dir, "
        "--data-dir, or S4LITE_DATA."
    )


def _check_download(task: FSDD, path: Path) -> None:
    """Raise DamagedData unless a file that has just arrived holds the published clips."""
    try:
        found = survey(path, task.pattern, task.recorded, task.longest)
        got = f"{len(found):,} with {content_digest(found)}"
    except DamagedData as error:
        got = str(error).replace(str(path), task.url)
    if not got.endswith(task.published):
        want = f"want 3,000 clips with {task.published} from {task.url}"
        raise DamagedData(f"{want}, got {got}. Nothing of it was kept; try again, or clone it.")


def fetch_digits(task: FSDD, path: Path) -> Path:
    """Download the archive of FSDD: checked and whole, or not at all.

    Raises:
        MissingData: if it cannot be had, or the folder may not be written.
        DamagedData: if it holds other clips.
        OSError: if it cannot be written for another reason, such as a full disk.
    """
    if not task.download:
        raise _no_digits(task, "downloading is switched off")
    try:
        import pooch
        import requests
    except ModuleNotFoundError as error:
        why = f'to download it takes pip install "s4lite[train]" ({error.name})'
        raise _no_digits(task, why) from error

    def fill(file: BinaryIO) -> None:
        bar = importlib.util.find_spec("tqdm") is not None
        pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 18)(task.url, file, None)
        file.flush()
        _check_download(task, Path(file.name))

    try:
        atomic_write(path, fill)
    except requests.RequestException as error:
        offline = isinstance(error, requests.ConnectionError)
        why = f"downloading it failed: {'no connection' if offline else error}"
        raise _no_digits(task, why) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise _no_digits(task, f"the folder may not be written ({error.strerror})") from error
    return path
