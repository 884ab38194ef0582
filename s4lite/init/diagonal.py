"""Where the poles of a diagonal state space start.

Home: chapter 11, "Diagonal" (chapters/11_diagonal.ipynb).
"""

import torch
from torch import Tensor

from s4lite.init.nplr import nplr
from s4lite.ops import checks

__all__ = ["s4d_inv", "s4d_legs", "s4d_lin", "s4d_random", "s4d_real"]


def s4d_lin(N: int) -> Tensor:
    """Poles with evenly spaced frequencies, S4D-Lin.

    Args:
        N  int  state size, even, >= 2; N/2 poles are stored
    Returns:
        Lambda  (N/2,)  -1/2 + i pi n, complex128, on the CPU  [1/time]
    Raises:
        TypeError: if N is no int.
        ValueError: if N is odd, or < 2.

    Source: Gu et al. 2022 (S4D), section 4; our eq-diagonal-lin.
    """
    checks.check_state_size(N)
    n = torch.arange(N // 2, dtype=torch.float64, device="cpu")
    return torch.complex(torch.full_like(n, -0.5), torch.pi * n)


def s4d_inv(N: int) -> Tensor:
    """Poles with frequencies like 1 / (2n + 1), S4D-Inv.

    Args:
        N  int  state size, even, >= 2; N/2 poles are stored
    Returns:
        Lambda  (N/2,)  -1/2 + i N/pi (N / (2n + 1) - 1), complex128, on the CPU  [1/time]
    Raises:
        TypeError: if N is no int.
        ValueError: if N is odd, or < 2.

    Source: Gu et al. 2022 (S4D), section 4; our eq-diagonal-inv.
    """
    checks.check_state_size(N)
    n = torch.arange(N // 2, dtype=torch.float64, device="cpu")
    return torch.complex(torch.full_like(n, -0.5), N / torch.pi * (N / (2 * n + 1) - 1))


def s4d_legs(N: int) -> Tensor:
    """Poles of the normal part of HiPPO-LegS, S4D-LegS.

    Args:
        N  int  state size, even, >= 2; N/2 poles are stored
    Returns:
        Lambda  (N/2,)  -1/2 + i omega, omega > 0 ascending, complex128, on the CPU  [1/time]
    Raises:
        TypeError: if N is no int.
        ValueError: if N is odd, or < 2.

    Error:  omega to some 1e-15 of itself; cost N^2 log N. The matching B is nplr("legs", N).B.
    Source: Gu et al. 2022 (S4D), section 4; our eq-diagonal-half-input, eq-lowrank-comb.
    """
    checks.check_state_size(N)
    return nplr("legs", N).Lambda


def s4d_real(N: int) -> Tensor:
    """Real poles, S4D-Real: the slow half of the eigenvalues of HiPPO-LegS itself.

    Args:
        N  int  state size, even, >= 2; N/2 poles are stored
    Returns:
        Lambda  (N/2,)  -(n + 1), complex128, on the CPU  [1/time]
    Raises:
        TypeError: if N is no int.
        ValueError: if N is odd, or < 2.

    Source: Gu et al. 2022 (S4D), section 4; our eq-diagonal-real.
    """
    checks.check_state_size(N)
    n = torch.arange(N // 2, dtype=torch.float64, device="cpu")
    return torch.complex(-(n + 1), torch.zeros_like(n))


def s4d_random(N: int, generator: torch.Generator | None = None) -> Tensor:
    """Poles with frequencies drawn uniformly from the band of S4D-Lin.

    Args:
        N          int        state size, even, >= 2; N/2 poles are stored
        generator  Generator  where the draws come from, on the CPU; None: torch's own
    Returns:
        Lambda  (N/2,)  -1/2 + i omega, omega ascending in [0, pi N/2), complex128, CPU  [1/time]
    Raises:
        TypeError: if N is no int, or generator no torch.Generator.
        ValueError: if N is odd, or < 2, or the generator is on another device.

    Source: our eq-diagonal-random.
    """
    checks.check_state_size(N)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"want generator a torch.Generator or None, got {generator!r:.80}")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"want generator on the cpu, got {generator.device}")
    place = torch.rand(N // 2, generator=generator, dtype=torch.float64, device="cpu")
    omega = torch.pi * N / 2 * place.sort().values
    return torch.complex(torch.full_like(omega, -0.5), omega)
