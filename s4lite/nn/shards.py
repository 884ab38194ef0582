"""Tensors in files as small as one likes, with the same bits.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from s4lite.nn.folders import BadFolder, Folder, few_of, refused_of

__all__ = ["read_tensors", "tensor_files"]


def tensor_files(
    stem: str, tensors: Mapping[str, Tensor], limit: float | None = None
) -> Iterator[tuple[str, bytes]]:
    """Tensors as one safetensors file, or as several of at most `limit` bytes.

    Args:
        stem     str           of the names: stem.safetensors, or stem-00001-of-00002.safetensors
        tensors  dict          name -> tensor; of a larger one than a file come pieces, by rows
        limit    float | None  bytes; a single row may be longer
    Returns:
        files  iterator  of (name, content)
    Raises:
        ValueError: if limit is not > 0.
    """
    from safetensors.torch import save

    if limit is not None and not limit > 0:
        raise ValueError(f"want shards of more than nothing, got {limit:g} bytes")
    shards = list(_deal(tensors, math.inf if limit is None else limit))
    for i, shard in enumerate(shards):
        tail = "" if len(shards) == 1 else f"-{i + 1:05d}-of-{len(shards):05d}"
        plain = {
            k: x.detach().cpu().clone(memory_format=torch.contiguous_format)
            for k, x in shard.items()
        }
        yield f"{stem}{tail}.safetensors", save(plain)


def _deal(tensors: Mapping[str, Tensor], limit: float) -> Iterator[dict[str, Tensor]]:
    """Tensors in groups of at most `limit` bytes, with what the file says of each."""
    group, size = {}, 0
    for name, x in tensors.items():
        head = 256 + len(name.encode())
        room = max(1.0, limit - head)
        count = min(math.ceil(x.nbytes / room), len(x)) if x.ndim and x.nbytes > room else 1
        rows = math.ceil(len(x) / count) if count > 1 else 0
        for i, piece in enumerate(x.split(rows) if rows else [x]):
            if group and size + piece.nbytes + head > limit:
                yield group
                group, size = {}, 0
            group[f"{name}#{i:05d}" if rows or "#" in name else name] = piece
            size += piece.nbytes + head
    yield group


def read_tensors(folder: Folder, stem: str) -> dict[str, Tensor]:
    """The tensors that `tensor_files` made files of, on the CPU, with the same bits.

    Args:
        folder  Folder  where the files are
        stem    str     of their names
    Returns:
        tensors  dict  name -> tensor
    Raises:
        BadFolder: if a file is not what was written, or none is there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    names = sorted(
        n for n in folder.files if re.fullmatch(rf"{stem}(-\d+-of-\d+)?\.safetensors", n)
    )
    if not names:
        raise BadFolder(
            f"want {stem}.safetensors, got {few_of(folder.files)}: {refused_of(folder.path)}"
        )
    try:
        found = [item for name in names for item in load(folder.read(name)).items()]
    except SafetensorError as error:
        raise BadFolder(f"want tensors in {few_of(names)}, got {error}: {folder.path}") from error
    return _joined(found)


def _joined(found: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of which some come in pieces, "name#00000" and so on, each whole again."""
    tensors, pieces = {}, {}
    for key, x in found:
        name, mark, number = key.rpartition("#")
        if mark:
            pieces.setdefault(name, {})[int(number)] = x
        else:
            tensors[key] = x
    rows = {name: [of[i] for i in sorted(of)] for name, of in pieces.items()}
    whole = {name: each[0] if len(each) == 1 else torch.cat(each) for name, each in rows.items()}
    return tensors | whole
