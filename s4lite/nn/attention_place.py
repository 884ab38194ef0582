"""A sequence layer in the place of self-attention: inside a stock Transformer block.

Home: chapter 12, "S4 as a layer" (chapters/12b_s4_layer.ipynb).
"""

from typing import Any

import torch
from torch import Tensor, nn

from s4lite.nn.checks import check_flags, padding_mask
from s4lite.ops.checks import can_look

__all__ = ["AsAttention", "check_mask"]


def check_mask(name: str, mask: Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Raise unless a mask is bool, or of zeros and huge negative numbers, in one of these shapes.

    Args:
        name    str           the mask, as the message shall call it
        mask    tensor        the mask
        shapes  tuple(tuple)  the shapes that will do
    Raises:
        TypeError: if it is no tensor, bool or floating.
        ValueError: if its shape is another, or (where `can_look`) a value neither 0 nor < -1000.
    """
    kind = getattr(mask, "dtype", type(mask).__name__)
    if not isinstance(mask, Tensor) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise TypeError(f"want {name} as a bool or floating tensor, got {kind}")
    if not any(
        len(s) == mask.ndim and all(a == b for a, b in zip(mask.shape, s, strict=True))
        for s in shapes
    ):
        raise ValueError(f"want {name} {' or '.join(map(str, shapes))}, got {tuple(mask.shape)}")
    if (
        mask.dtype != torch.bool
        and can_look(mask)
        and len(bad := mask[~((mask == 0) | (mask < -1e3))])
    ):
        raise ValueError(f"want {name} of 0 and -inf, got {bad[0]:g} among its values")


def _lengths_of(mask: Tensor, u: Tensor) -> Tensor:
    """Lengths (batch,) that a key padding mask (batch, L) means, True or -inf at padding."""
    check_mask("key_padding_mask", mask, (tuple(u.shape[:2]),))
    keep = ~mask if mask.dtype == torch.bool else mask == 0
    lengths = keep.sum(-1)
    if can_look(keep) and not torch.equal(padding_mask(lengths, u)[..., 0], keep):
        raise ValueError("want key_padding_mask to mask the ends of sequences, got other places")
    return lengths


def _check_reach(mask: Tensor | None, is_causal: bool, u: Tensor, bidirectional: bool) -> None:
    """Raise if this mask asks a layer not to hear what it does hear."""
    if mask is None and not is_causal:
        return
    if bidirectional:
        raise ValueError("want a causal layer for a causal mask, got one that hears the future")
    if mask is None:
        return
    batch, L = u.shape[:2]
    heads = mask.shape[0] // batch if isinstance(mask, Tensor) and mask.ndim == 3 else 1
    check_mask("attn_mask", mask, ((L, L), (batch * heads, L, L)))
    seen = ~mask if mask.dtype == torch.bool else mask == 0
    if can_look(seen) and not torch.equal(seen, seen.new_ones(L, L).tril().expand_as(seen)):
        raise ValueError("want attn_mask None or causal, as the layer is, got another")


class _NoWeight:
    """Stands where fast paths look for attention's weights, and so keeps them off."""

    weight = bias = None

    @classmethod
    def __torch_function__(cls, *_: Any) -> Any:
        return NotImplemented


def _in_place_of_attention(
    place: nn.Module, query: Tensor, mask: Tensor | None, attn_mask: Tensor | None, is_causal: bool
) -> Tensor:
    """Run place.layer on query in the layout of attention, masks as lengths."""
    alone, swap = query.ndim == 2, query.ndim == 3 and not place.batch_first
    u = query[None] if alone else query.transpose(0, 1) if swap else query
    bidirectional = any(getattr(part, "bidirectional", False) for part in place.layer.modules())
    _check_reach(attn_mask, is_causal, u, bidirectional)
    if mask is None:
        y = place.layer(u)
    else:
        y = place.layer(u, lengths=_lengths_of(mask[None] if alone else mask, u))
    return y[0] if alone else y.transpose(0, 1) if swap else y


class AsAttention(nn.Module):
    """A sequence layer under the interface of `nn.MultiheadAttention`, for self-attention.

        block = nn.TransformerEncoderLayer(512, 8, batch_first=True)
        block.self_attn = AsAttention(S4(512))  # any block: batch_first=block.self_attn.batch_first

    Args:
        layer        nn.Module  (batch, L, d) to the same shape; takes `lengths`; it, or a part of
                                it, has `bidirectional` True if it hears the future
        batch_first  bool       as the block: (batch, L, d); False for (L, batch, d)
    Raises:
        TypeError: if layer is no module, or batch_first no bool; in a call: if a mask is none.
        ValueError: in a call: if key or value is not query, key_padding_mask marks (where
            `can_look`) anything but ends of sequences, or attn_mask is not None or causal.

    Source: Vaswani et al. 2017, sec. 3.2.3; our eq-layer-bank.
    """

    in_proj_bias = None  # the inference fast path of a block asks for it, and stays off
    _qkv_same_embed_dim, num_heads = True, 1

    def __init__(self, layer: nn.Module, *, batch_first: bool = True) -> None:
        super().__init__()
        check_flags(batch_first=batch_first)
        if not isinstance(layer, nn.Module):
            raise TypeError(f"want layer as an nn.Module, got {type(layer).__name__}")
        self.layer, self.batch_first = layer, batch_first
        self.in_proj_weight = self.out_proj = _NoWeight()  # keeps nested tensors out of encoders

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Filter query (batch, L, d): the outputs, and None where weights would stand."""
        if key is not query or value is not query:
            raise ValueError("want self-attention, key and value query itself, got other tensors")
        return _in_place_of_attention(self, query, key_padding_mask, attn_mask, is_causal), None
