"""Finding a published block in a state dict, and looking at every array of it.

Home: chapter 12, "The published S4: settings, learning rates, weights"
(chapters/12c_published.ipynb).
"""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["check_block", "find_block"]


_MARKS = re.compile(
    r"(.*\.|)(?:layer\.kernel\.(?:inv_dt|A_real|B|P|l_kernel)|kernel\.(?:log_dt|log_A_real))"
)
_OLD = re.compile(r"kernel\.kernel\.(?:inv_w_real|log_w_real|w_imag)$")  # version 3
_PORT = "checkpoints/convert_v3_to_v4.py of state-spaces/s4 renames them"


def find_block(state_dict: Mapping[str, Tensor], prefix: str | None = None) -> dict[str, Tensor]:
    """Cut one published block out of a state dict.

    Args:
        state_dict  mapping      from names, possibly of a whole model
        prefix      str or None  what stands before the block's names; None if there is one block
    Returns:
        arrays  dict  all that stands under the prefix, named without it
    Raises:
        TypeError: if state_dict is no mapping from names, or prefix no str.
        ValueError: if no block is there, several are and prefix is None, or names are of version 3.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(k, str) for k in state_dict):
        raise TypeError(f"want state_dict as a mapping from names, got {state_dict!r:.60}")
    if not (prefix is None or isinstance(prefix, str)):
        raise TypeError(f"want prefix as a str or None, got {type(prefix).__name__}")
    if old := [name for name in state_dict if _OLD.search(name)]:
        raise ValueError(f"want the names of version 4, got {old[0]} of an older one; {_PORT}")
    found = sorted({match[1] for match in map(_MARKS.fullmatch, state_dict) if match})
    if prefix is None and len(found) > 1:
        raise ValueError(f"want prefix, one of {found}: there are {len(found)} blocks")
    prefix = (found or [""])[0] if prefix is None else prefix and prefix.rstrip(".") + "."
    if prefix not in found:
        got = f"blocks under {found}" if found else ", ".join(state_dict)[:120] or "nothing"
        raise ValueError(f"want an S4Block or S4D of state-spaces/s4 under {prefix!r}, got {got}")
    return {k[len(prefix) :]: x for k, x in state_dict.items() if k.startswith(prefix)}


_S4BLOCK = {
    "layer.D": "1 H",
    "layer.kernel.inv_dt": "H 1",
    "layer.kernel.A_real": "S n",
    "layer.kernel.A_imag": "S n",
    "layer.kernel.B": "1 S n 2",
    "layer.kernel.C": "c H n 2",
}
_LOW_RANK = {"layer.kernel.P": "r S n 2", "layer.kernel.l_kernel": ""}


_MINIMAL = {
    "D": "H",
    "kernel.log_dt": "H",
    "kernel.log_A_real": "H n",
    "kernel.A_imag": "H n",
    "kernel.C": "H n 2",
}
_GLU = {"output_linear.0.weight": "G H", "output_linear.0.bias": "G"}
_LINEAR = {"output_linear.weight": "H H", "output_linear.bias": "H"}


def _layout(arrays: Mapping[str, Tensor]) -> dict[str, str]:
    """The names and axes that a block should have, going by the names that only one kind has."""
    kernel = dict(_MINIMAL)
    if not {"kernel.log_dt", "kernel.log_A_real"} & arrays.keys():
        kernel = _S4BLOCK | (_LOW_RANK if _LOW_RANK.keys() & arrays.keys() else {})
    if not any(name.startswith("output_linear.") for name in arrays):
        return kernel
    return kernel | (_LINEAR if "output_linear.weight" in arrays else _GLU)


def _misfit(x: object, name: str, axes: str, sizes: dict[str, int]) -> str:
    """Say what is wrong with one array; empty if nothing is. Sizes seen first are kept."""
    whole = name.endswith("l_kernel")
    if not isinstance(x, Tensor) or x.is_complex() or x.is_floating_point() == whole:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        return f"want a {'whole number' if whole else 'real floating tensor'}, got {got}"
    if x.is_meta or not bool(x.isfinite().all()):
        return "want finite values, got " + ("a meta tensor" if x.is_meta else "NaN or inf")
    shape = x.shape[:-1] if name.endswith("weight") and x.shape[2:] == (1,) else x.shape
    words = axes.split()
    fits = len(words) == len(shape) and all(
        size == (int(word) if word.isdigit() else sizes.setdefault(word, size))
        for word, size in zip(words, shape, strict=True)
    )
    known = ", ".join(f"{word} = {sizes[word]}" for word in words if word in sizes)
    want = f"want ({', '.join(words)})" + (f" with {known}" if known else "")
    return "" if fits else f"{want}, got {tuple(x.shape)}"


def check_block(arrays: Mapping[str, Tensor]) -> dict[str, int]:
    """Raise unless these are all arrays of one published block, of one mind about its sizes.

    Args:
        arrays  mapping  as `find_block` gives them
    Returns:
        sizes  dict  H channels, n pairs, c directions, S sets of poles, r rank (0: diagonal), and
                     G rows of a gate if there is one
    Raises:
        ValueError: if a name is missing or unknown, an array is of another shape or kind or not
            finite, dtypes or devices differ, or no layer of ours has such sizes.
    """
    layout, sizes = _layout(arrays), {}
    faults = dict.fromkeys(layout.keys() - arrays.keys(), "is missing")
    faults |= dict.fromkeys(arrays.keys() - layout.keys(), "is unknown")
    both = [name for name in layout if name in arrays]
    faults |= {name: _misfit(arrays[name], name, layout[name], sizes) for name in both}
    sizes = {"c": 1, "r": 0, "S": sizes.get("H", 1)} | sizes
    if not any(faults.values()):
        faults["all together"] = _discord(arrays, sizes)
    said = "; ".join(f"{name}: {fault}" for name, fault in sorted(faults.items()) if fault)
    if said:
        raise ValueError(f"want the arrays of a published S4Block or S4D, got {said}")
    return sizes


def _discord(arrays: Mapping[str, Tensor], sizes: Mapping[str, int]) -> str:
    """Say what is wrong with arrays that are all well formed; empty if nothing is."""
    kinds = {f"{x.dtype} on {x.device}" for x in arrays.values() if x.is_floating_point()}
    H, S, G = sizes["H"], sizes["S"], sizes.get("G", 2 * sizes["H"])
    faults = {
        f"want one dtype and device, got {sorted(kinds)}": len(kinds) > 1,
        f"want no empty axis, got {dict(sizes)}": 0 in (H, S, sizes["n"], sizes["c"]),
        f"want n_ssm to divide the channels, got {S} and {H}": S and H % S,
        f"want 1 or 2 directions, got C with {sizes['c']} rows": sizes["c"] > 2,
        f"want {2 * H} rows of a gated output map, got {G}: final_act is not 'glu'": G != 2 * H,
        "want l_kernel >= 0": arrays.get("layer.kernel.l_kernel", 0) < 0,
        "want a low rank factor of rank >= 1": "layer.kernel.P" in arrays and not sizes["r"],
    }
    return "; ".join(fault for fault, found in faults.items() if found)
