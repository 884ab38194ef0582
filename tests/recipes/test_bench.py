"""Timing a recipe: every number there, none of them compared with a clock."""

import pytest

from s4lite.recipes.bench import bench
from s4lite.recipes.jobs import job

SMALL = {"task.sizes": (64, 16, 16), "task.max_depth": 3, "task.max_args": 3, "task.min_length": 3}
SMALL |= {"task.max_length": 30, "task.workers": 1, "d_model": 4, "n_layers": 1, "batch_size": 8}


@pytest.mark.parametrize("steps", [1, 100])
def test_bench_counts_and_times(tmp_path, steps):
    made = job("lra-listops", overrides=SMALL, data_dir=tmp_path)
    found = bench(made, steps)
    net = made.build()
    assert found["parameters"] == sum(p.numel() for p in net.parameters())
    assert (found["sequences"], found["steps_per_epoch"]) == (64, 8)
    assert all(found[name] > 0 for name in ("step_ms", "load_ms", "load_times", "minutes"))
    assert found["minutes"] == pytest.approx(found["step_ms"] * 8 * made.epochs / 6e4)


def test_bench_refuses(tmp_path):
    with pytest.raises(ValueError, match="want steps"):
        bench(job("lra-listops", overrides=SMALL, data_dir=tmp_path), 0)
