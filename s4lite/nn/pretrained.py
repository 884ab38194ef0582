"""A model and how it was made, in a folder.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Self

import torch

from s4lite.nn.folders import BadFolder, Folder, read_tensors, tensor_files, write_folder
from s4lite.nn.loading import StrictLoading

__all__ = ["Pretrained", "from_plain", "to_plain"]


_CONFIG = "config.json"


def to_plain(value: Any, name: str = "value") -> Any:
    """Say an argument as JSON can hold it: numbers, texts, lists, classes of s4lite, dtypes.

    Args:
        value  any  an argument
        name   str  of it, for the message
    Returns:
        plain  any
    Raises:
        TypeError: if it is something else, such as a function.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [to_plain(each, name) for each in value]
    if isinstance(value, Mapping):
        return {"dict": {str(key): to_plain(each, name) for key, each in value.items()}}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, type) and value.__module__.split(".")[0] == "s4lite":
        return {"class": f"{value.__module__}:{value.__qualname__}"}
    raise TypeError(f"want {name} as a number, a text or a class of s4lite's, got {value!r:.80}")


def from_plain(plain: Any) -> Any:
    """Undo `to_plain`; tuples come back as lists.

    Args:
        plain  any  as JSON holds it
    Returns:
        value  any
    Raises:
        ValueError: if it names what s4lite has not.
    """
    if isinstance(plain, list):
        return [from_plain(each) for each in plain]
    if not isinstance(plain, dict):
        return plain
    (kind, value), *more = plain.items() or [("", None)]
    if kind == "dict" and not more:
        return {key: from_plain(each) for key, each in value.items()}
    if kind == "dtype" and isinstance(getattr(torch, str(value), None), torch.dtype):
        return getattr(torch, value)
    home, _, name = str(value).partition(":")
    if kind == "class" and home.split(".")[0] == "s4lite":
        with contextlib.suppress(ModuleNotFoundError):
            found = getattr(importlib.import_module(home), name, None)
            if isinstance(found, type):
                return found
    raise ValueError(f"want an argument, a dtype or a class of s4lite, got {plain!r:.80}")


class Pretrained(StrictLoading):
    """A module that can be saved with its constructor's arguments, and made again from the file.

    A class that is one keeps these arguments in `arguments`; device is none of them.
    """

    arguments: Mapping[str, Any]

    def save_pretrained(
        self, path: str | os.PathLike[str], *, shard_mib: float | None = None
    ) -> None:
        """Write weights and arguments into a folder, whole or not at all.

        An older model of that name is replaced when the new one stands. TypeError if an argument
        is nothing that a file can hold; FileExistsError if something else has the name; OSError if
        the disk is full. `shard_mib` splits the weights into files of at most so many MiB.
        """
        given = {k: v for k, v in self.arguments.items() if k != "device"}
        facts = {"class": type(self).__qualname__}
        facts |= {"arguments": {name: to_plain(value, name) for name, value in given.items()}}
        limit = None if shard_mib is None else shard_mib * 2**20
        files = tensor_files("model", self.state_dict(), limit)
        write_folder(path, "s4lite-model", files, facts, index=_CONFIG)

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], *, device: torch.device | str | None = None
    ) -> Self:
        """Make the model of a folder again, with the same bits, ready to judge (`eval`).

        FileNotFoundError if there is none, BadFolder if it is another class's, cut short or mixed.
        """
        folder = Folder(path, "s4lite-model", _CONFIG)
        if folder.facts.get("class") != cls.__qualname__:
            raise BadFolder(f"want a {cls.__qualname__}, got a {folder.facts.get('class')}: {path}")
        try:
            given = {k: from_plain(v) for k, v in folder.facts["arguments"].items()}
            model = cls(**given)
            model.load_state_dict(read_tensors(folder, "model"), assign=True)
        except (KeyError, TypeError, ValueError) as error:
            want = f"want what makes a {cls.__qualname__}, got {path}"
            raise BadFolder(
                f"{want}, by s4lite {folder.versions.get('s4lite')}: {error}"
            ) from error
        return (model if device is None else model.to(device)).eval()
