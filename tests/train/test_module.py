"""The Lightning module: resumed is uninterrupted, averages share nothing, scores are exact."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny import Tiny, data, learner, model, same, trainer, weights
from torch import nn

from s4lite.nn.groups import parameter_kinds
from s4lite.train.module import Average, Learner, Settings
from s4lite.train.schedules import cosine


class Stop(Exception):
    """What stands for a killed process."""


class StopAfter(Callback):
    """Save at a batch's end, a validation's end or an epoch's end, and die there."""

    def __init__(self, path, hook, steps):
        self.path, self.steps = path, steps
        setattr(self, hook, self._save)

    def _save(self, trainer, *args):
        if trainer.global_step == self.steps and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise Stop


PLACES = [
    ("on_train_batch_end", 13),  # in the middle of the second epoch of nine batches
    ("on_train_batch_end", 9),  # behind the last batch of the first
    ("on_train_batch_end", 1),
    ("on_validation_end", 18),
    ("on_train_epoch_end", 18),
    ("on_validation_end", 12),  # with three validations an epoch
]


@pytest.mark.parametrize(("hook", "steps"), PLACES)
@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "clip": 0.5, "schedule": "plateau"}])
def test_resumed_is_uninterrupted_to_the_last_bit(tmp_path, hook, steps, settings):
    settings = settings | ({"warmup": 0, "patience": 0} if "schedule" in settings else {})
    options = {"val_check_interval": 3} if steps == 12 else {}
    whole, want = learner(**settings), trainer(tmp_path, **options)
    want.fit(whole, data())
    path = tmp_path / "half.ckpt"
    stop = StopAfter(path, hook, steps)
    with pytest.raises(Stop):
        trainer(tmp_path, callbacks=[stop], **options).fit(learner(**settings), data())
    torch.manual_seed(99)  # whatever was drawn before must not matter
    half, got = learner(**settings), trainer(tmp_path, **options)
    got.fit(half, data(), ckpt_path=path, weights_only=True)
    assert got.global_step == want.global_step == 27
    assert same(weights(whole), weights(half))
    assert got.callback_metrics.keys() == want.callback_metrics.keys()
    for name, value in want.callback_metrics.items():
        assert torch.equal(value, got.callback_metrics[name]), name


def test_resumed_with_workers_and_padded_batches(tmp_path):
    whole, half = learner(), learner()
    task = Tiny(ragged=True)
    fit(tmp_path, whole, task)
    with pytest.raises(Stop):
        stop = StopAfter(tmp_path / "half.ckpt", "on_train_batch_end", 13)
        trainer(tmp_path, callbacks=[stop]).fit(learner(), data(task))
    run = trainer(tmp_path)
    run.fit(half, data(task, workers=2), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert same(weights(whole), weights(half))


class Watch(Callback):
    """What happened, step by step."""

    def __init__(self):
        self.rates, self.losses, self.scores = [], [], []

    def on_train_batch_start(self, trainer, learner, batch, batch_idx):
        groups = trainer.optimizers[0].param_groups
        self.rates.append({group["name"]: group["lr"] for group in groups})

    def on_train_batch_end(self, trainer, learner, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())

    def on_validation_end(self, trainer, learner):
        if not trainer.sanity_checking:
            self.scores.append(trainer.callback_metrics["val/accuracy"].item())


def fit(tmp_path, made, task=None, watch=None, **options):
    callbacks = [watch] if watch else []
    run = trainer(tmp_path, callbacks=callbacks, **options)
    run.fit(made, data(task))
    return run


def test_all_rates_follow_the_schedule_and_keep_their_ratio(tmp_path):
    watch = Watch()
    fit(tmp_path, learner(ssm_lr=0.005), watch=watch)
    assert len(watch.rates) == 27
    for step, rates in enumerate(watch.rates):
        factor = cosine(step, 27, 3)
        want = {"decayed": 0.02, "plain": 0.02, "slow": 0.005, "clock": 0.005}
        assert rates == {name: lr * factor for name, lr in want.items()}


def test_accumulated_batches_are_one_step(tmp_path):
    watch = Watch()
    run = fit(tmp_path, learner(total=9, warmup=0), watch=watch, accumulate_grad_batches=3)
    assert run.global_step == 9
    assert [r["decayed"] for r in watch.rates[::3]] == [0.02 * cosine(k, 9) for k in range(9)]


def test_plateau_cuts_all_rates_when_the_metric_stands_still(tmp_path):
    watch = Watch()
    made = learner(schedule="plateau", warmup=0, lr=1e-6, ssm_lr=1e-7, patience=0, shrink=0.5)
    fit(tmp_path, made, watch=watch, max_epochs=4)
    assert len(set(watch.scores)) == 1  # no learning at such a rate
    got = [watch.rates[9 * e]["decayed"] for e in range(4)]
    assert got == [1e-6, 1e-6, 0.5e-6, 0.25e-6]
    assert all(abs(r["clock"] / r["decayed"] - 0.1) < 1e-9 for r in watch.rates)


def test_every_parameter_is_in_one_group_and_the_average_in_none(tmp_path):
    made = learner(ema=0.9)
    run = fit(tmp_path, made, max_epochs=1)
    groups = run.optimizers[0].param_groups
    got = {id(p): group["name"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(got)
    kinds = parameter_kinds(made.model)
    assert got == {id(p): kinds[name] for name, p in made.model.named_parameters()}


def test_scores_are_those_of_the_whole_split(tmp_path):
    made, task = learner(), Tiny(ragged=True)
    run = fit(tmp_path, made, task)
    with torch.no_grad():
        made.eval()
        for stage, part in (("val", task.parts.val), ("test", task.parts.test)):
            if stage == "test":
                run.test(made, data(task), verbose=False)
            logits = torch.cat(
                [made.model(u[None]) for u, _ in (part[i] for i in range(len(part)))]
            )
            y = torch.tensor([part[i][1] for i in range(len(part))])
            want = {
                "accuracy": (logits.argmax(-1) == y).float().mean().item(),
                "loss": nn.functional.cross_entropy(logits, y).item(),
            }
            for name, value in want.items():
                assert abs(run.callback_metrics[f"{stage}/{name}"].item() - value) < 1e-6


def test_noise_is_a_function_of_its_place(tmp_path):
    """Neither what was drawn before nor how often one validates changes a run."""
    ends = []
    for checks in (1.0, 3):
        torch.manual_seed(int(10 * checks))
        made = learner()
        torch.manual_seed(int(10 * checks))
        fit(tmp_path, made, val_check_interval=checks)
        ends.append(weights(made))
    other = learner(seed=6)
    fit(tmp_path, other)
    assert same(*ends) and not same(ends[0], weights(other))


def test_it_learns(tmp_path):
    made = Learner(model(dropout=0.0), "accuracy", lr=0.05, schedule="cosine", total=270)
    task = Tiny(sizes=(40, 30, 30))
    run = fit(tmp_path, made, task, max_epochs=27)
    assert run.callback_metrics["train/loss"] < 0.2


# ---------------------------------------------------------------- the average


def test_an_average_is_the_mean_first_and_fades_later():
    a, decay = nn.Linear(2, 1, bias=False), 0.8
    average, past, want = Average(a, decay), [], 0.0
    for k in range(1, 12):
        a.weight.data.fill_(float(k * k))
        past.append(float(k * k))
        average.update(a)
        share = max(1 / k, 1 - decay)
        want = (1 - share) * want + share * past[-1]
        assert abs(average.model.weight[0, 0].item() - want) < 1e-4
        if k <= 5:  # 1 / (1 - decay)
            assert abs(want - sum(past) / k) < 1e-9


def test_an_average_shares_no_storage_and_keeps_ties():
    first = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    first[2].weight = first[0].weight
    average = Average(first, 0.9)
    mine = {p.data_ptr() for p in average.model.state_dict().values()}
    assert not mine & {p.data_ptr() for p in first.state_dict().values()}
    assert average.model[2].weight is average.model[0].weight
    assert not any(p.requires_grad for p in average.parameters())
    first(torch.randn(5, 3))
    before = average.model[1].running_mean.clone()
    average.update(first)
    assert not torch.equal(before, average.model[1].running_mean)
    assert torch.equal(first[1].running_mean, average.model[1].running_mean)


def test_the_average_is_what_is_judged(tmp_path):
    made = learner(ema=0.99)
    run = fit(tmp_path, made)
    assert made.judged is made.average.model and learner().judged is not None
    got = run.test(made, data(), verbose=False)[0]
    made.average = None
    assert run.test(made, data(), verbose=False)[0] != got


@pytest.mark.parametrize("decay", [0.0, 1.0, -1, float("nan")])
def test_bad_decay(decay):
    with pytest.raises(ValueError, match="want 0 < ema < 1"):
        Average(nn.Linear(1, 1), decay)


# ---------------------------------------------------------------- clipping, precision, trouble


@pytest.mark.parametrize("way", ["clip", "trainer", None])
def test_clipping_shortens_all_gradients_together(tmp_path, way):
    class Lengths(Callback):
        def on_before_zero_grad(self, trainer, learner, optimizer):  # behind a step
            squares = [p.grad.square().sum() for p in learner.model.parameters() if p.requires_grad]
            seen.append(torch.stack(squares).sum().sqrt().item())

        def on_train_start(self, trainer, learner):
            for p in learner.model.parameters():
                p.grad = torch.zeros_like(p)

    seen, options = [], {"gradient_clip_val": 0.01} if way == "trainer" else {}
    made = learner(clip=0.01 if way == "clip" else None)
    fit(tmp_path, made, watch=Lengths(), max_epochs=1, **options)
    assert max(seen) > 0.0099
    assert all(n <= 0.01 + 1e-6 for n in seen) == bool(way)


def test_mixed_precision_with_clipping_and_a_fused_step(tmp_path):
    made = learner(clip=1.0, ema=0.9)
    run = fit(tmp_path, made, precision="bf16-mixed", max_epochs=1)
    assert run.optimizers[0].defaults["fused"]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in made.model.parameters())


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    made = learner()
    made.model.decoder.map.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"the loss is nan after .* steps.*clocks learn"):
        fit(tmp_path, made, num_sanity_val_steps=0)


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("want schedule cosine, constant or plateau, got 'linear'", {"schedule": "linear"}),
        ("want warmup < total", {"schedule": "cosine"}),
        ("want warmup < total", {"schedule": "cosine", "total": 5, "warmup": 5}),
        ("want no warmup with plateau", {"schedule": "plateau", "warmup": 5}),
        ("want clip > 0 or None, got 0", {"clip": 0}),
        ("want 0 < ema < 1, got 1", {"ema": 1}),
    ],
)
def test_bad_settings(message, settings):
    with pytest.raises(ValueError, match=re.escape(message)):
        Learner(model(), "accuracy", **settings)


def test_unknown_setting_and_metric():
    with pytest.raises(TypeError, match="learning_rate"):
        Learner(model(), "accuracy", learning_rate=1.0)
    with pytest.raises(ValueError, match="want a metric"):
        Learner(model(), "f1")


def test_settings_are_frozen_and_equal_by_value():
    assert Settings(lr=0.1) == Settings(lr=0.1) != Settings()
    with pytest.raises(AttributeError):
        Settings().lr = 1.0


def test_rate_reaches_the_model_when_judged(tmp_path):
    made = learner()
    run = fit(tmp_path, made, max_epochs=1)
    plain = run.test(made, data(), verbose=False)[0]["test/loss"]
    made.rate = 2.0
    assert run.test(made, data(), verbose=False)[0]["test/loss"] != plain


# ---------------------------------------------------------------- two processes

TWO = """
import sys, torch
sys.path.insert(0, {here!r})
from lightning.pytorch.strategies import DDPStrategy
from tiny import *
from test_module import Watch, make_two

def one_trainer(**options):
    gloo = DDPStrategy(process_group_backend="gloo")
    return trainer({out!r}, devices=2, strategy=gloo, max_epochs=2, **options)

if __name__ == "__main__":
    task = Tiny(sizes=(36, 13, 9))
    made, watch, keep = make_two(), Watch(), Keep({out!r} + "/two.ckpt", 6)
    run = one_trainer(callbacks=[watch, keep])
    module = data(task)
    run.fit(made, module)
    calls = list(task.parts.train.calls)
    scores = {{name: value.item() for name, value in run.callback_metrics.items()}}
    again = make_two(seed=1)
    resumed = one_trainer()
    resumed.fit(again, data(task), ckpt_path={out!r} + "/two.ckpt", weights_only=True)
    logged = [name for name in scores if not name.startswith("step/")]
    assert all(resumed.callback_metrics[name].item() == scores[name] for name in logged), scores
    assert same(weights(made), weights(again))
    scores |= run.test(made, module, verbose=False)[0]
    torch.save([weights(made), scores, len(watch.losses), calls],
               {out!r} + f"/{{run.global_rank}}.pt")
"""


def make_two(seed=0):
    return Learner(model(seed, dropout=0.0), "accuracy", lr=0.02, ema=0.9, clip=1.0)


@pytest.mark.slow
def test_two_processes_are_one_with_batches_twice_as_large(tmp_path):
    script = tmp_path / "two.py"
    here = str(Path(__file__).parent)
    script.write_text(TWO.format(here=here, out=str(tmp_path)))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (first, scores, steps, seen), (second, others, _, seen_too) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)
    )
    assert same(first, second) and scores.keys() == others.keys() and steps == 8
    logged = [name for name in scores if not name.startswith("step/")]
    assert all(scores[name] == others[name] for name in logged)
    assert not set(seen[:16]) & set(seen_too[:16])  # the first epoch, shared out
    # the same by one process
    made, task = (
        Learner(model(dropout=0.0), "accuracy", lr=0.02, ema=0.9, clip=1.0),
        Tiny(sizes=(36, 13, 9)),
    )
    module = data(task)
    module.batch_size = 8
    run = trainer(tmp_path, max_epochs=2)
    run.fit(made, module)
    for name, p in weights(made).items():
        assert torch.allclose(p, first[name], atol=2e-5), name
    one = {name: value.item() for name, value in run.callback_metrics.items()}
    one |= run.test(made, module, verbose=False)[0]
    for name in logged:
        assert abs(one[name] - scores[name]) < 1e-4, name


def test_lightning_must_not_share_out_the_data_again():
    module = data()
    module.setup()

    class Trainer:
        world_size, global_rank = 2, 0

        class _accelerator_connector:
            use_distributed_sampler = True

    module.trainer = Trainer()
    with pytest.raises(ValueError, match="use_distributed_sampler=False"):
        module.train_dataloader()
