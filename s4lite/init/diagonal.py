"""Where the poles of a diagonal state space start.

Home: chapter 11, "Diagonal" (chapters/11_diagonal.ipynb).
"""

import torch
from torch import Tensor

from s4lite.ops import checks

__all__ = ["s4d_inv", "s4d_lin"]


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
