"""Two processes, each with half of a batch, get the gradients of one process with all of it."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from s4lite.nn.layer import S4, S4D
from s4lite.nn.model import Stack

LAYERS = {
    S4: {"init": "legt", "n_ssm": 2},
    S4D: {"init": "legs", "clock": "softplus", "disc": "bilinear", "bidirectional": True},
    Stack: {"d_state": 8},  # three layers, their parameter work done together
}


def setup(kind: type[torch.nn.Module]) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer = kind(4, 3 if kind is Stack else 8, dtype=torch.float64, **LAYERS[kind])
    layer.together = True
    return layer, torch.randn(6, 50, 4, dtype=torch.float64)


def train_step(model: torch.nn.Module, u: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(u).square().mean().backward()
    optimizer.step()


def work(rank: int, folder: str, kind: type[torch.nn.Module]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    layer, u = setup(kind)
    if rank == 1:  # what DDP starts from is rank 0's
        for p in layer.parameters():
            torch.nn.init.normal_(p)
    train_step(DistributedDataParallel(layer), u.chunk(2)[rank])
    grads = {name: p.grad for name, p in layer.named_parameters()}
    torch.save((grads, layer.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", LAYERS)
def test_ddp_equals_one_process(kind, tmp_path):
    mp.spawn(work, (str(tmp_path), kind), nprocs=2)
    layer, u = setup(kind)
    train_step(layer, u)
    for rank in range(2):
        grads, state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, p in layer.named_parameters():
            assert p.grad.abs().max() > 0
            assert (grads[name] - p.grad).abs().max() < 1e-12 * p.grad.abs().max(), name
            assert (state[name] - p).abs().max() < 1e-12, name
