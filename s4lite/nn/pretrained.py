"""A model and how it was made, in a folder.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from s4lite.nn.folders import BadFolder, Folder, write_folder
from s4lite.nn.loading import StrictLoading
from s4lite.nn.shards import read_tensors, tensor_files

__all__ = ["Pretrained", "from_plain", "to_plain"]


_CONFIG = "config.json"


def to_plain(value: Any, name: str = "value") -> Any:
    """Say an argument as JSON can hold it: numbers, texts, lists, tensors, our classes, dtypes.

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
    if isinstance(value, list):
        return [to_plain(each, name) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [to_plain(each, name) for each in value]}
    if isinstance(value, Mapping):
        return {"dict": {str(key): to_plain(each, name) for key, each in value.items()}}
    if isinstance(value, Tensor):
        numbers = torch.view_as_real(value) if value.is_complex() else value
        held = [*map(to_plain, (value.dtype, [*value.shape])), numbers.flatten().tolist()]
        return {"tensor": held}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, type) and value.__module__.split(".")[0] == "s4lite":
        return {"class": f"{value.__module__}:{value.__qualname__}"}
    raise TypeError(f"want {name} as a number, a text or a class of s4lite's, got {value!r:.80}")


def from_plain(plain: Any) -> Any:
    """Undo `to_plain`.

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
    wrong = (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ModuleNotFoundError)
    with contextlib.suppress(*wrong):
        if not more:
            return _read_kind(kind, value)
    raise ValueError(f"want an argument, a dtype or a class of s4lite, got {plain!r:.80}")


def _dtype_of(name: str) -> torch.dtype:
    """A dtype by its name."""
    if not isinstance(found := getattr(torch, name, None), torch.dtype):
        raise ValueError(f"want the name of a dtype, got {name!r}")
    return found


def _tensor_of(held: list[Any]) -> Tensor:
    """A tensor of its dtype, its shape and its numbers, on the CPU; the same bits."""
    kind, shape, numbers = from_plain(held[0]), *held[1:]
    if kind.is_complex:
        parts = torch.tensor(numbers, dtype=kind.to_real(), device="cpu")
        return torch.view_as_complex(parts.reshape(*shape, 2))
    return torch.tensor(numbers, dtype=kind, device="cpu").reshape(shape)


def _class_of(place: str) -> type[nn.Module]:
    """A module's class by its place in s4lite."""
    home, _, name = place.partition(":")
    if home.split(".")[0] != "s4lite":
        raise ValueError(f"want a class of s4lite, got {place!r}")
    found = getattr(importlib.import_module(home), name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"want a class of layers, got {place!r}")
    return found


def _read_kind(kind: str, value: Any) -> Any:
    """What a dict of one entry stands for; KeyError if that is none of what `to_plain` writes."""
    if kind == "dict":
        return {key: from_plain(each) for key, each in value.items()}
    if kind == "tuple":
        return tuple(from_plain(each) for each in value)
    return {"dtype": _dtype_of, "tensor": _tensor_of, "class": _class_of}[kind](value)


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
        is nothing that a file can hold; ValueError if a weight is none that could be loaded again;
        FileExistsError if something else has the name; OSError if the disk is full. `shard_mib`
        splits the weights into files of at most so many MiB.
        """
        weights, given = self.state_dict(), {**self.arguments}
        given.pop("device", None)
        facts = {"class": type(self).__qualname__}
        facts |= {"arguments": {name: to_plain(value, name) for name, value in given.items()}}
        try:
            self._refuse(weights, "", strict=True, assign=True)
        except ValueError as error:
            raise ValueError(f"want weights that can be loaded again; of these {error}") from error
        limit = None if shard_mib is None else shard_mib * 2**20
        files = tensor_files("model", weights, limit)
        write_folder(path, "s4lite-model", files, facts, index=_CONFIG)

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], *, device: torch.device | str | None = None
    ) -> Self:
        """Make the model of a folder again, with the same bits, ready to judge (`eval`).

        FileNotFoundError if there is none, BadFolder if it is another class's, cut short or mixed.
        torch's random state is as before.
        """
        folder = Folder(path, "s4lite-model", _CONFIG)
        if folder.facts.get("class") != cls.__qualname__:
            raise BadFolder(f"want a {cls.__qualname__}, got a {folder.facts.get('class')}: {path}")
        try:
            model = _made(cls, folder)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            told = f"got {path}, by s4lite {folder.versions.get('s4lite')}: {error}"
            raise BadFolder(f"want what makes a {cls.__qualname__}, {told}") from error
        return (model if device is None else model.to(device)).eval()


def _made(cls: type[nn.Module], folder: Folder) -> Any:
    """The model of a folder: what is shared stays shared, dtypes are those of the weights."""
    given = {name: from_plain(value) for name, value in folder.facts["arguments"].items()}
    weights = read_tensors(folder, "model")
    with torch.random.fork_rng(devices=[]):
        model = cls(**given)
    for name, x in model.state_dict(keep_vars=True).items():
        new = weights.get(name, x).dtype
        if new != x.dtype and (new.is_floating_point, new.is_complex) == (
            x.dtype.is_floating_point,
            x.dtype.is_complex,
        ):
            x.data = x.data.to(new)
    model.load_state_dict(weights)
    return model
