"""The Lightning module: resumed is uninterrupted, averages share nothing, scores are exact."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from tiny import Tiny, data, learner, model, same, trainer, weights
from torch import nn

from s4lite.nn.groups import parameter_kinds
from s4lite.train import module as training
from s4lite.train.average import Average
from s4lite.train.module import Learner, Settings
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


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"])
def test_a_plateau_is_seen_in_the_epoch_in_which_a_run_is_taken_up(tmp_path, hook):
    """Of validations that do not get better, none is left out: neither before nor behind."""
    settings = {"schedule": "plateau", "warmup": 0, "patience": 0, "lr": 1e-6, "ssm_lr": 1e-7}
    steps = 13 if hook == "on_train_batch_end" else 18
    whole, want, got = learner(**settings), Watch(), Watch()
    fit(tmp_path, whole, watch=want, max_epochs=4)
    stop = StopAfter(tmp_path / "half.ckpt", hook, steps)
    with pytest.raises(Stop):
        trainer(tmp_path, callbacks=[stop], max_epochs=4).fit(learner(**settings), data())
    half, run = learner(**settings), trainer(tmp_path, callbacks=[got], max_epochs=4)
    run.fit(half, data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert got.rates == want.rates[steps:] and len({r["decayed"] for r in want.rates}) == 3
    assert same(weights(whole), weights(half))


def test_a_plateau_is_seen_in_every_validation(tmp_path):
    settings = {"schedule": "plateau", "warmup": 0, "patience": 0, "lr": 1e-6, "ssm_lr": 1e-7}
    watch = Watch()
    run = fit(tmp_path, learner(**settings), watch=watch, max_epochs=1, val_check_interval=3)
    assert run.lr_scheduler_configs[0].scheduler.last_epoch == len(watch.scores) == 3
    assert [round(watch.rates[k]["decayed"] / 1e-6, 9) for k in (0, 2, 3, 5, 6, 8)] == [
        *[1, 1],  # the first validation is the best so far
        *[1, 1],
        *[0.2, 0.2],
    ]


def test_training_scores_are_those_of_their_epoch(tmp_path):
    """Also where a checkpoint behind an epoch's last batch was taken up."""
    whole, half = trainer(tmp_path), trainer(tmp_path)
    whole.fit(learner(), data())
    with pytest.raises(Stop):
        stop = StopAfter(tmp_path / "half.ckpt", "on_train_batch_end", 18)
        trainer(tmp_path, callbacks=[stop]).fit(learner(), data())
    half.fit(learner(), data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, value in whole.callback_metrics.items():
        assert torch.equal(value, half.callback_metrics[name]), name


def test_an_epoch_of_fewer_batches_is_taken_up(tmp_path):
    for steps in (6, 8):
        whole, half = learner(total=12), learner(total=12)
        want = fit(tmp_path, whole, limit_train_batches=4)
        stop = StopAfter(tmp_path / "half.ckpt", "on_train_batch_end", steps)
        with pytest.raises(Stop):
            fit(tmp_path, learner(total=12), watch=stop, limit_train_batches=4)
        run = trainer(tmp_path, limit_train_batches=4)
        run.fit(half, data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
        assert run.global_step == 12 and same(weights(whole), weights(half))
        assert all(
            torch.equal(v, run.callback_metrics[k]) for k, v in want.callback_metrics.items()
        )


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


class Poison(Callback):
    """From a step on, inputs are no numbers."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, learner, batch, batch_idx):
        if trainer.global_step >= self.step:
            batch.u.fill_(float("nan"))


def test_no_checkpoint_holds_weights_that_are_no_numbers(tmp_path):
    made = learner(ema=0.9)
    keep = ModelCheckpoint(
        tmp_path / "kept", filename="{step}", every_n_train_steps=1, save_top_k=-1
    )
    run = trainer(tmp_path, callbacks=[Poison(5), keep], enable_checkpointing=True)
    with pytest.raises(FloatingPointError, match="the loss is nan after 5 steps"):
        run.fit(made, data())
    paths = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in paths] == [f"step={k}.ckpt" for k in range(1, 6)]
    for path in paths:
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(p.isfinite().all() for p in state.values())
    assert all(p.isfinite().all() for p in made.state_dict().values())


class Mean(nn.Linear):
    """A model that does not look at its poles."""

    def __init__(self):
        super().__init__(1, 2)

    def forward(self, u, lengths=None):
        return super().forward(u.mean(1))


@pytest.mark.parametrize("step", [3, 8])
def test_a_loss_that_is_looked_at_seldom_is_looked_at_before_it_is_kept(
    tmp_path, monkeypatch, step
):
    """As on an accelerator: a loss there is looked at now and then only."""
    check = training._check_loss

    def seldom(loss, steps):
        if sys._getframe(1).f_code.co_name != "training_step":
            check(loss, steps)

    monkeypatch.setattr(training, "_check_loss", seldom)
    keep = ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_train_steps=5)
    options = {"callbacks": [Poison(step), keep], "enable_checkpointing": True}
    with pytest.raises(FloatingPointError, match="the loss is nan after"):
        trainer(tmp_path, **options).fit(Learner(Mean(), "accuracy", lr=0.01), data())
    kept = [path.name for path in (tmp_path / "kept").glob("*")]
    assert kept == ([] if step == 3 else ["step=5.ckpt"])


def test_complex_parameters_can_be_trained(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, 2, dtype=torch.complex64))

        def forward(self, u, lengths=None):
            return (u.mean(1) @ self.w.real) + (u.square().mean(1) @ self.w.imag)

    made = Learner(Net(), "accuracy", lr=0.01, ema=0.9, clip=1.0)
    run = fit(tmp_path, made, max_epochs=1)
    assert not run.optimizers[0].defaults["fused"] and made.model.w.isfinite().all()
    assert not torch.equal(made.average.model.w, made.model.w)


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "want lr finite and > 0, got -1", {"lr": -1}),
        (TypeError, "want lr as a number", {"lr": "0.1"}),
        (ValueError, "want weight_decay finite and >= 0", {"weight_decay": -1}),
        (ValueError, "want clock_lr finite and > 0", {"clock_lr": 0}),
        (ValueError, "want 0 < shrink < 1, got 2", {"shrink": 2}),
        (ValueError, "want patience >= 0, got -1", {"patience": -1}),
        (ValueError, "want seed >= 0", {"seed": -1}),
        (ValueError, "want seed >= 0", {"seed": 2**64}),
        (TypeError, "want seed as an int, got float", {"seed": 1.5}),
        (TypeError, "want warmup as an int, got float", {"warmup": 1.5}),
    ],
)
def test_bad_numbers_are_refused_when_a_learner_is_made(error, message, settings):
    with pytest.raises(error, match=re.escape(message)):
        Learner(model(), "accuracy", **settings)


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
    task = Tiny({ragged!r}, sizes=(36, 13, 3))
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
@pytest.mark.parametrize("ragged", [False, True])
def test_two_processes_are_one_with_batches_twice_as_large(tmp_path, ragged):
    """Also with buckets, and where the test is one batch."""
    script = tmp_path / "two.py"
    here = str(Path(__file__).parent)
    script.write_text(TWO.format(here=here, out=str(tmp_path), ragged=ragged))
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
        Tiny(ragged, sizes=(36, 13, 3)),
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
