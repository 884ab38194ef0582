"""The kernel of a discrete state space, and causal convolution with it.

Home: chapter 04, "Three views" (chapters/04_three_views.ipynb), and chapter 12, "The layer"
(chapters/12_layer.ipynb).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops import recurrence
from s4lite.ops.checks import check_length, check_tensors

__all__ = ["causal_conv", "causal_conv_naive", "fft_length", "kernel_naive", "two_sided_conv"]


def kernel_naive(Ab: Tensor, Bb: Tensor, C: Tensor, L: int) -> Tensor:
    """Kernel of a discrete system, by one matrix-vector product a lag: the judge of all others.

    Args:
        Ab  (..., N, N)  discrete state matrix
        Bb  (..., N)     discrete input vector
        C   (..., N)     output vector, not conjugated
        L   int          number of lags, >= 1
    Returns:
        K  (..., L)  K[l] = C Ab^l Bb, in the dtype that can hold all three
    Raises:
        TypeError: if one is no floating or complex tensor, or L no int.
        ValueError: if shapes or devices do not fit, or L < 1.

    Cost:   L (N^2 + N) multiplications, one lag after the other.
    Source: Gu et al. 2022 (S4), eq. (5); our eq-views-kernel.
    """
    batch, dtype = recurrence.check_system(Ab, Bb, C)
    check_length(L)
    Ab, x, K = Ab.to(dtype), Bb.to(dtype).expand(*batch, -1), []
    for _ in range(L):
        K.append((C * x).sum(-1))
        x = (Ab @ x[..., None])[..., 0]
    return torch.stack(K, -1)


def _check_signals(u: Tensor, K: Tensor) -> None:
    """Raise unless u and K are tensors (..., L) and (..., M), and neither is empty."""
    check_tensors(u=u, K=K)
    got = f"u {tuple(u.shape)}, K {tuple(K.shape)}"
    if 0 in u.shape + K.shape or not (u.ndim and K.ndim):
        raise ValueError(f"want u (..., L), K (..., M) with L, M >= 1, no axis empty; got {got}")
    try:
        torch.broadcast_shapes(u.shape[:-1], K.shape[:-1])
    except RuntimeError:
        raise ValueError(f"want leading axes that broadcast; got {got}") from None


def causal_conv_naive(u: Tensor, K: Tensor) -> Tensor:
    """Causal convolution, the sum as written: the judge of `causal_conv`. Any dtype.

    Args:
        u  (..., L)  input signal
        K  (..., M)  kernel, M >= 1; cut after L lags, zero beyond its end
    Returns:
        y  (..., L)  y[k] = sum over l <= k of K[l] u[k - l]
    Raises:
        TypeError: if one is no floating or complex tensor.
        ValueError: if shapes or devices do not fit, or a signal is empty.

    Cost:   L (L + 1) / 2 multiplications.
    Source: Gu et al. 2022 (S4), eq. (4); our eq-views-kernel.
    """
    _check_signals(u, K)
    y = []
    for k in range(u.shape[-1]):
        lags = min(k + 1, K.shape[-1])
        past = u[..., k + 1 - lags : k + 1].flip(-1)
        y.append((K[..., :lags] * past).sum(-1))
    return torch.stack(y, -1)


def fft_length(n: int) -> int:
    """Smallest good FFT length >= n: even, with no prime factors but 2, 3, 5; or 1 if n = 1.

    Args:
        n  int  the length that is needed, >= 1
    Returns:
        best  int  the length to use
    Raises:
        TypeError: if n is no int.
        ValueError: if n < 1.

    Under compilation only 2^a and 3 2^a are used: a graph then serves half an octave of lengths.
    Source: our eq-views-padding, which any length >= 2 L - 1 fulfils.
    """
    check_length(n, "n")
    if n == 1:
        return 1
    if torch.compiler.is_compiling():
        size = 8
        while size < n:
            size *= 2
        return size if size * 3 // 4 < n else size * 3 // 4
    best, five = 2 * n, 1
    while five < best:
        odd = five  # 3^b 5^c
        while odd < best:
            size = 2 * odd
            while size < n:
                size *= 2
            best = min(best, size)
            odd *= 3
        five *= 5
    return best


def causal_conv(u: Tensor, K: Tensor) -> Tensor:
    """Causal convolution through the FFT, zero padded so that nothing wraps round.

    Args:
        u  (..., L)  input signal, real
        K  (..., M)  kernel, real, M >= 1; cut after L lags, zero beyond its end
    Returns:
        y  (..., L)  y[k] = sum over l <= k of K[l] u[k - l], in u's dtype
    Raises:
        TypeError: if one is no floating tensor (complex, integer).
        ValueError: if shapes or devices do not fit, or a signal is empty.

    Error:  every y[k] within c log2(L) eps |K| |u|, however small it is; computed in the
            widest of u's dtype, K's dtype and float32.
    Cost:   three real FFTs of about L + M samples, O(L log L).
    Source: Gu et al. 2022 (S4), eq. (4); our eq-views-cyclic, eq-views-padding,
            eq-views-fft-error.
    """
    _check_signals(u, K)
    if u.is_complex() or K.is_complex():
        raise TypeError(f"want u and K real, got {u.dtype} and {K.dtype}")
    L = u.shape[-1]
    K = K[..., :L]
    n = fft_length(L + K.shape[-1] - 1)
    dtype = torch.promote_types(torch.promote_types(u.dtype, K.dtype), torch.float32)
    y_hat = torch.fft.rfft(u.to(dtype), n) * torch.fft.rfft(K.to(dtype), n)
    return torch.fft.irfft(y_hat, n)[..., :L].to(u.dtype)


def _check_kernels(u: Tensor, K_forward: Tensor, K_backward: Tensor) -> None:
    """Raise unless both kernels are real, fit u, and have the same leading axes."""
    for K in (K_forward, K_backward):
        _check_signals(u, K)
        if u.is_complex() or K.is_complex():
            raise TypeError(f"want u and kernels real, got {u.dtype} and {K.dtype}")
        if K.shape[-1] < u.shape[-1]:
            got = f"{K.shape[-1]} for {u.shape[-1]} samples"
            raise ValueError(f"want kernels as long as u, got {got}")
    if K_forward.shape[:-1] != K_backward.shape[:-1]:
        got = f"{tuple(K_forward.shape)} and {tuple(K_backward.shape)}"
        raise ValueError(f"want kernels with the same leading axes, got {got}")


def two_sided_conv(u: Tensor, K_forward: Tensor, K_backward: Tensor) -> Tensor:
    """Convolve with a past and a future at once, through one zero padded FFT.

    Args:
        u           (..., L)  input signal, real
        K_forward   (..., M)  kernel of the past and the present, real, M >= L
        K_backward  (..., P)  kernel of the future, from the next sample on, real, P >= L; P and M
                              may differ, the leading axes may not
    Returns:
        y  (..., L)  y[k] = sum over j <= k of K_forward[k - j] u[j]
                     + sum over j > k of K_backward[j - k - 1] u[j], in u's dtype
    Raises:
        TypeError: if one is no floating tensor (complex, integer).
        ValueError: if a kernel is shorter than u, u is empty, or leading axes or devices differ.

    Cost:   three real FFTs of about 2 L samples: no more than one direction.
    Source: Goel et al. 2022 (SaShiMi), on bidirectional S4; our eq-layer-two-sided.
    """
    _check_kernels(u, K_forward, K_backward)
    L, n = u.shape[-1], fft_length(2 * u.shape[-1] - 1)
    past = F.pad(K_forward[..., :L], (0, n - 2 * L + 1))
    K = torch.cat([past, K_backward[..., : L - 1].flip(-1)], dim=-1)
    dtype = torch.promote_types(torch.promote_types(u.dtype, K.dtype), torch.float32)
    y_hat = torch.fft.rfft(u.to(dtype), n) * torch.fft.rfft(K.to(dtype), n)
    return torch.fft.irfft(y_hat, n)[..., :L].to(u.dtype)
