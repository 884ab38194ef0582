"""The published archive of the Long Range Arena, which people fetch and unpack themselves.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s4lite.data.expressions import Expressions, read_listops
from s4lite.data.files import DamagedData, MissingData

__all__ = ["find_listops", "find_release", "published_listops"]


_RELEASE = "https://storage.googleapis.com/long-range-arena/lra_release.gz"


def find_release(
    data_dir: Path, files: dict[str, str], folder: str, other: str, without: str
) -> dict[str, Path]:
    """Find files of the archive: all in one place, in the data folder or in one below it.

    Args:
        data_dir  path
        files     dict  "train", "val", "test" -> name
        folder    str   theirs in the archive, "tsv_data"
        other     str   a folder of theirs elsewhere, "aan"
        without   str   what there is without them, for the message
    Returns:
        dict  "train", "val", "test" -> path
    Raises:
        MissingData: if they are not all in one place.
    """
    places = ("", other, folder, f"lra_release/{folder}", f"lra_release/lra_release/{folder}")
    for place in places:
        paths = {split: data_dir / place / name for split, name in files.items()}
        if all(path.is_file() for path in paths.values()):
            return paths
    raise MissingData(
        f"want {', '.join(files.values())}, which are not there\n  folder   {data_dir} (or in it "
        f"{', '.join(places[1:])})\n  address  {_RELEASE} (7.7 GB, unpack it by hand)\n"
        f"  digest   none is published\n{without}"
    )


def find_listops(data_dir: Path) -> dict[str, Path]:
    """Find the arena's files basic_{train,val,test}.tsv in a folder or its usual places.

    Returns:
        dict  "train", "val", "test" -> path
    Raises:
        MissingData: if they are not all in one place.
    """
    files = {split: f"basic_{split}.tsv" for split in ("train", "val", "test")}
    without = 'Without them there is source="drawn": other lists, by the same rules.'
    return find_release(data_dir, files, "listops-1000", "listops", without)


def published_listops(data_dir: Path, sizes: Sequence[int]) -> Expressions:
    """Read the arena's files, one behind the other.

    Args:
        data_dir  path  see `find_listops`
        sizes     (3,)  expressions that there must be in train, val and test
    Returns:
        Expressions
    Raises:
        MissingData: if the files are not there.
        DamagedData: if one has another number of lines, or a wrong one; see `read_listops`.
    """
    parts = []
    for path, size in zip(find_listops(data_dir).values(), sizes, strict=True):
        parts.append(read_listops(path))
        if (got := len(parts[-1].ends)) != size:
            raise DamagedData(f"want {size:,} expressions in {path}, got {got:,}. Get it again.")
    tokens, values = (np.concatenate(part) for part in list(zip(*parts, strict=True))[::2])
    each = np.concatenate([np.diff(part.ends, prepend=0) for part in parts])
    return Expressions(tokens, np.cumsum(each), values, len(each))
