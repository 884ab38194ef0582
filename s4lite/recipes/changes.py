"""Changing a recipe in one place: names, types and ranges are checked.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import ast
import contextlib
import math
import types
import typing
from dataclasses import fields, replace
from typing import Any, Union

from s4lite.recipes.catalogue import Network, Size, choose
from s4lite.recipes.models import layers, options_of

__all__ = ["change", "read_value", "settings_of"]


def read_value(name: str, value: Any, hint: Any) -> Any:
    """Make a value of a wanted type, out of a text or of something that is one already.

    Args:
        name   str   of what, for the message
        value  any   ".004", "true", "none", "(8000,1000,1000)", or a Python value
        hint   type  int, float, bool, str, None, tuples and unions of these; Any
    Returns:
        value
    Raises:
        ValueError: if it is not of that type, or a number that is not finite.
    """
    found, plain = value, {"true": True, "false": False, "none": None}
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError):
            found = ast.literal_eval(value.strip())
        found = plain.get(value.strip().lower(), found)
    for candidate in (found, value):  # a text that looks like a number may be wanted as text
        with contextlib.suppress(TypeError):
            return _fitted(candidate, hint)
    kinds = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
    raise ValueError(f"want {name} as {kinds or hint}, got {value!r}")


def _fitted(value: Any, hint: Any) -> Any:
    """The value, whole numbers as floats where floats are wanted; TypeError if it does not fit."""
    parts = typing.get_args(hint)
    if hint is Any:
        return value
    if typing.get_origin(hint) in (Union, types.UnionType):
        for part in parts:
            with contextlib.suppress(TypeError):
                return _fitted(value, part)
    elif typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        if len(parts) == len(value):
            return tuple(_fitted(v, part) for v, part in zip(value, parts, strict=True))
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif (value is None and hint in (None, types.NoneType)) or type(value) is hint:
        return value
    raise TypeError


_FIXED = {"task", "layer", "made_by", "source", "notes"}  # of a Size: not for changing by name
_BASE = {"data_dir", "download", "device", "dtype", "layer", "d_model", "dropout"}


def settings_of(size: Size, model: str, task: type) -> dict[str, Any]:
    """All that may be changed by name: name -> type.

    Args:
        size   Size
        model  str   whose layer may have options of its own
        task   type  class of the task; its options begin with "task."
    Raises:
        ValueError: if model is unknown.
    """
    own = options_of(layers()[choose("model", model, tuple(layers()))])
    deaf = {f.name for f in fields(Network)} - own.keys()
    deaf -= {"d_model", "n_layers", "prenorm", "pool", "dropout"}
    hints = {k: v for k, v in typing.get_type_hints(Size).items() if k not in _FIXED | deaf}
    layer = {k: v for k, v in own.items() if k not in _BASE | hints.keys()}
    drawn = {k: type(v) for k, v in size.task.items()} | options_of(task)
    drawn = {f"task.{k}": v for k, v in drawn.items() if k not in _BASE}
    return hints | layer | drawn


def change(
    size: Size, model: str, task: type, overrides: dict[str, Any]
) -> tuple[Size, dict[str, Any]]:
    """A size with some things changed, and what of the changes is the layer's own.

    Args:
        size, model, task  as for `settings_of`
        overrides          dict  name -> value, or its text
    Returns:
        size     Size
        options  dict  for `build`
    Raises:
        ValueError: if a name is unknown to this model and task, or a value has the wrong type.
    """
    known, options = settings_of(size, model, task), {}
    for name, value in overrides.items():
        if name in typing.get_type_hints(Size) and name not in known:
            raise ValueError(f"want a setting that counts for {model}, got {name!r}")
        value = read_value(name, value, known[choose("setting", name, tuple(known))])
        if name.startswith("task."):
            size = replace(size, task=size.task | {name.removeprefix("task."): value})
        elif name in {f.name for f in fields(Size)}:
            size = replace(size, **{name: value})
        else:
            options[name] = value
    return size, options
