"""The state of a run as a folder: weights, optimizer, trainer; whole or refused.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import io
import os
import pickle
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from s4lite.nn.folders import BadFolder, Folder, write_folder
from s4lite.nn.shards import read_tensors, tensor_files

__all__ = [
    "StateIO",
    "discard",
    "newest",
    "put_back",
    "read_weights",
    "state_path",
    "states",
    "take_out",
]


_KIND = "s4lite-state"
_SLOT = "s4lite tensor"


def take_out(tree: Any, at: str = "") -> tuple[Any, dict[str, Tensor]]:
    """Part a checkpoint into what tells of it and its tensors.

    Args:
        tree  any  dicts, lists and tuples of anything
        at    str  where in the whole it is
    Returns:
        tree     any   the same with a mark for each tensor that has axes
        tensors  dict  where it was, parted by "/" -> tensor
    Raises:
        ValueError: if two of them would have the same name, as {"a/b"} and {"a": {"b"}}.
    """
    if isinstance(tree, Tensor):
        if tree.ndim or at.startswith("state_dict/"):
            return {_SLOT: at}, {at: tree}
        return tree.detach().cpu().clone(), {}
    if isinstance(tree, Mapping):
        parts = {
            key: take_out(each, f"{at}/{key}" if at else str(key)) for key, each in tree.items()
        }
        bare = {key: part[0] for key, part in parts.items()}
    elif isinstance(tree, (list, tuple)):
        parts = {i: take_out(each, f"{at}/{i}") for i, each in enumerate(tree)}
        bare = type(tree)(part[0] for part in parts.values())
    else:
        return tree, {}
    return bare, _together(at, [part[1] for part in parts.values()])


def _together(at: str, parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of several places in one dict; two of one name would be one."""
    found: dict[str, Tensor] = {}
    for part in parts:
        if same := found.keys() & part.keys():
            raise ValueError(f"want names that differ, got {sorted(same)[0]!r} twice in {at!r}")
        found |= part
    return found


def put_back(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `take_out`.

    Args:
        tree, tensors  any, dict  as it gave them
    Returns:
        tree  any
    Raises:
        KeyError: if a tensor is missing.
    """
    if isinstance(tree, Mapping):
        if tree.keys() == {_SLOT}:
            return tensors[tree[_SLOT]]
        return {key: put_back(each, tensors) for key, each in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(put_back(each, tensors) for each in tree)
    return tree


def _files(
    bare: Any, tensors: dict[str, Tensor], limit: float | None
) -> Iterator[tuple[str, bytes]]:
    """The files of a checkpoint."""
    mark = "state_dict/"
    weights = {k.removeprefix(mark): x for k, x in tensors.items() if k.startswith(mark)}
    yield from tensor_files("model", weights, limit)
    rest = {name: x for name, x in tensors.items() if not name.startswith(mark)}
    yield from tensor_files("optimizer", rest, limit)
    buffer = io.BytesIO()
    torch.save(bare, buffer)
    yield "trainer.pt", buffer.getvalue()


class StateIO(CheckpointIO):
    """Checkpoints as folders, for Lightning's Trainer(plugins=[StateIO()]).

    Args:
        shard_mib  float | None  largest file of weights or of the optimizer, in MiB
    Raises:
        ValueError: if shard_mib is not > 0.

    model.safetensors, optimizer.safetensors, trainer.pt (loaded with weights_only) and
    manifest.json with the sizes and digests of all three. Whole or not there; and what is cut
    short, mixed or foreign is refused with what came.
    """

    def __init__(self, shard_mib: float | None = None) -> None:
        if shard_mib is not None and not shard_mib > 0:
            raise ValueError(f"want shard_mib > 0 or None, got {shard_mib}")
        self.limit = None if shard_mib is None else shard_mib * 2**20

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; OSError if it cannot be, and then the older one stands."""
        bare, tensors = take_out(checkpoint)
        facts = {"step": checkpoint.get("global_step"), "epoch": checkpoint.get("epoch")}
        write_folder(path, _KIND, _files(bare, tensors, self.limit), facts)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint, all of it checked, to the CPU (or to the device `map_location`)."""
        folder = Folder(path, _KIND)
        tensors = read_weights(folder)
        tensors = {f"state_dict/{name}": x for name, x in tensors.items()}
        tensors |= read_tensors(folder, "optimizer")
        if isinstance(map_location, (str, torch.device)):
            tensors = {name: x.to(map_location) for name, x in tensors.items()}
        try:
            bare = torch.load(io.BytesIO(folder.read("trainer.pt")), "cpu", weights_only=True)
            return put_back(bare, tensors)
        except (KeyError, RuntimeError, pickle.UnpicklingError) as error:
            plain = not isinstance(error, pickle.UnpicklingError)  # whose advice is to trust it
            why = error if plain else "a trainer.pt that holds more than plain data"
            raise BadFolder(f"want a run's state, got {folder.path} with {why}") from error

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint: first its name, at once, then its files."""
        discard(path)


def read_weights(folder: Folder | str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights of a checkpoint, as a learner's state dict.

    Args:
        folder  Folder | path  the checkpoint
    Returns:
        weights  dict  name -> tensor, on the CPU
    Raises:
        FileNotFoundError, BadFolder: if there is none, or it is not as it was written.
    """
    folder = folder if isinstance(folder, Folder) else Folder(folder, _KIND)
    return read_tensors(folder, "model")


def state_path(folder: str | os.PathLike[str], step: int) -> Path:
    """Where a run keeps its state behind a step.

    Args:
        folder  path  the run's
        step    int   optimizer steps taken
    Returns:
        path  Path
    """
    return Path(folder) / "states" / f"step-{step:09d}"


def states(folder: str | os.PathLike[str]) -> list[Path]:
    """All states that stand in a run's folder, the newest first.

    Args:
        folder  path  the run's; need not be there
    Returns:
        paths  list of Path
    """
    found = (Path(folder) / "states").glob("step-*")
    return sorted((path for path in found if path.is_dir()), reverse=True)


def discard(path: str | os.PathLike[str]) -> None:
    """Remove a folder so that it is never seen in part.

    Args:
        path  path  need not be there
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, part)
        shutil.rmtree(part, ignore_errors=True)


def newest(folder: str | os.PathLike[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the newest state of a run that is sound.

    Args:
        folder  path  the run's
    Returns:
        state  dict | None  as `StateIO` reads it; None if there is no state at all
        said   list of str  why newer ones were refused
    Raises:
        BadFolder: if there are states, and none is sound.
    """
    said = []
    for path in states(folder):
        try:
            return StateIO().load_checkpoint(path) | {"path": str(path)}, said
        except (BadFolder, FileNotFoundError) as error:
            said.append(str(error))
    if said:
        raise BadFolder("want a sound state to go on from, got none:\n  " + "\n  ".join(said))
    return None, []
