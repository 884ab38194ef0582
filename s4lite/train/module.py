"""A Lightning module that trains a sequence model by the recipe of this book.

Home: chapter 16, "Training" (chapters/16_training.ipynb).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from s4lite.data.draws import check_whole, child
from s4lite.data.task import Batch
from s4lite.nn.groups import param_groups
from s4lite.train.average import Average
from s4lite.train.objectives import Objective, objective, widest
from s4lite.train.schedules import constant, cosine

__all__ = ["Learner", "Scored", "Settings", "Watched", "plan"]


@dataclass(frozen=True)
class Settings:
    """How a `Learner` walks.

    Args:
        lr, ssm_lr, weight_decay, clock_lr  float  as for `param_groups`, which checks them
        schedule         str           "cosine", "constant" or "plateau" (of the metric)
        total, warmup    int           steps of the whole run (for cosine); steps to rise in
        floor            float         factor at a cosine's end, 0 to 1
        patience, shrink int, float    plateau: validations without a better one that are borne;
            factor at the next, 0 to 1
        clip             float | None  longest gradient over all parameters
        ema              float | None  share of the past in the averaged weights, 0 < ema < 1
        seed             int | None    of noise (dropout), step by step; None: torch's own state
    Raises:
        TypeError, ValueError: if a value makes no sense.
    """

    lr: float = 0.01
    ssm_lr: float = 0.001
    weight_decay: float = 0.0
    clock_lr: float | None = None
    schedule: str = "constant"
    total: int = 0
    warmup: int = 0
    floor: float = 0.0
    patience: int = 10
    shrink: float = 0.2
    clip: float | None = None
    ema: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "constant", "plateau"):
            raise ValueError(f"want schedule cosine, constant or plateau, got {self.schedule!r}")
        if self.schedule == "plateau" and self.warmup:
            raise ValueError("want no warmup with plateau: it follows the metric, not the step")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"want clip > 0 or None, got {self.clip}")
        for name, share in (("shrink", self.shrink), ("ema", self.ema)):
            if share is not None and not 0 < share < 1:
                raise ValueError(f"want 0 < {name} < 1, got {share}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"want floor from 0 to 1, got {self.floor}")
        check_whole(0, patience=self.patience, warmup=self.warmup)
        check_whole(0, 2**64 - 1, seed=0 if self.seed is None else self.seed)
        self.factor(0)

    def factor(self, step: int) -> float:
        """What all learning rates are multiplied by in a step, if the schedule knows it."""
        if self.schedule == "cosine":
            return cosine(step, self.total, self.warmup, self.floor)
        return constant(step, self.warmup)


class Scored(LightningModule):
    """A model and what its task asks: scores of whole epochs, exact whatever the batches are.

    Args:
        model   nn.Module     model(u, lengths=...) -> outputs
        metric  str           as for `objective`
        ema     float | None  as in `Settings`

    It logs loss and scores as "train/...", "val/...", "test/...". `rate` is handed to the model
    (2.0: every second sample was kept).
    """

    def __init__(self, model: nn.Module, metric: str, ema: float | None = None) -> None:
        super().__init__()
        self.model, self.objective, self.rate = model, objective(metric), 1.0
        self.average = None if ema is None else Average(model, ema)
        self.tallies: dict[str, Tensor] = {}

    @property
    def judged(self) -> nn.Module:
        """The model that is validated, tested and kept: the average, if there is one."""
        return self.model if self.average is None else self.average.model

    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The model's outputs, in training; the judged one's otherwise."""
        options = {} if lengths is None else {"lengths": lengths}
        options |= {} if self.rate == 1 else {"rate": self.rate}
        return (self.model if self.training else self.judged)(u, **options)

    def sums(self, stage: str, batch: Batch) -> Tensor:
        """Run a batch, and add what comes out to the stage's tally."""
        sums = self.objective.sums(self(batch.u, batch.lengths), batch.y)
        new = sums.detach().to(widest(sums.device))
        old = self.tallies.get(stage)
        self.tallies[stage] = new if old is None else old.to(new) + new
        return sums

    def total(self, stage: str) -> Tensor:
        """The stage's tally over all processes."""
        tally = self.tallies.get(stage, torch.zeros(3))
        tally = tally.to(self.device, widest(self.device), copy=True)  # it is reduced in place
        return self.trainer.strategy.reduce(tally, reduce_op="sum")

    def report(self, stage: str) -> dict[str, float]:
        """Log the scores of the stage, and begin anew; the same in all processes."""
        scores = self.objective.read(self.total(stage))
        self.tallies.pop(stage, None)
        named = {f"{stage}/{name}": value for name, value in scores.items()}
        self.log_dict(named, prog_bar=stage == "val", sync_dist=self.trainer.world_size > 1)
        return scores


class Watched(Scored):
    """When scores begin and are reported, and what a checkpoint knows of an epoch half done."""

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Begin the training scores anew where an epoch begins."""
        if batch_idx == 0:
            self.tallies.pop("train", None)

    def on_validation_epoch_start(self) -> None:
        """Begin the validation scores anew."""
        self.tallies.pop("val", None)

    def on_test_epoch_start(self) -> None:
        """Begin the test scores anew."""
        self.tallies.pop("test", None)

    def on_train_epoch_end(self) -> None:
        """Log the training scores; FloatingPointError if they are none."""
        _check_loss(self.total("train")[1].item(), self.global_step)
        self.report("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores."""
        self.report("val")

    def on_test_epoch_end(self) -> None:
        """Log the test scores."""
        self.report("test")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation scores."""
        self.sums("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test scores."""
        self.sums("test", batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the training scores so far, of all processes; all of them must come here."""
        checkpoint["tally"] = self.total("train").tolist()
        _check_loss(checkpoint["tally"][1], self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the training scores: the first process takes over what all had."""
        if self.trainer.is_global_zero and "tally" in checkpoint:
            self.tallies["train"] = torch.tensor(checkpoint["tally"], dtype=torch.float64)


def _check_loss(loss: float, steps: int) -> None:
    """Raise FloatingPointError if a loss, or a sum of losses, is no number."""
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss:g} after {steps} steps. Most often the clocks learn too fast: "
            "lower ssm_lr or clock_lr, then lr; or give clip=1.0"
        )


class Learner(Watched):
    """A sequence model that Lightning can train.

    Args:
        model     nn.Module  model(u, lengths=...) -> outputs, for instance a `SequenceModel`
        metric    str        the task's: "accuracy", "bpc", "perplexity", "mse", "mae"
        settings  any        the fields of `Settings`
    Raises:
        TypeError, ValueError: as `Settings`, `objective` and `param_groups`.

    Source: our eq-training-warmup, eq-training-cosine, eq-training-sums, eq-training-average.
    """

    def __init__(self, model: nn.Module, metric: str, **settings: Any) -> None:
        how = Settings(**settings)
        param_groups(model, how.lr, how.ssm_lr, how.weight_decay, clock_lr=how.clock_lr)  # or raise
        super().__init__(model, metric, how.ema)
        self.settings = how

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch; FloatingPointError if it is no number, see `Watched`."""
        loss = self.objective.loss(self.sums("train", batch))
        often = self.trainer.log_every_n_steps
        if loss.device.type == "cpu" or (often and not batch_idx % often):
            _check_loss(loss.item(), self.global_step)
        self.log("step/loss", loss.detach(), prog_bar=True, batch_size=len(batch.y))
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Noise by address: of seed, process, epoch and batch, not of what was drawn before."""
        super().on_train_batch_start(batch, batch_idx)
        if (key := self.settings.seed) is not None:
            for part in (self.global_rank, self.current_epoch, batch_idx):
                key = child(key, part)
            torch.manual_seed(int(key))

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **options: Any) -> None:
        """Shorten the gradient of all parameters together; without `clip`, as Trainer is told."""
        if self.settings.clip is None:
            super().configure_gradient_clipping(optimizer, *args, **options)
        else:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Take a step, and take it into the average."""
        super().optimizer_step(*args, **options)
        if self.average is not None:
            self.average.update(self.model)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW over `param_groups`, and the schedule."""
        made = plan(self.model, self.objective, self.settings, fused=_can_fuse(self))
        made["lr_scheduler"]["reduce_on_plateau"] = False  # it is stepped below
        return made

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step what follows the step's number. (Lightning leaves a plateau out after a resume.)"""
        if self.settings.schedule != "plateau":
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores, and show the metric to a plateau."""
        scores = self.report("val")
        fits = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        if self.settings.schedule == "plateau" and fits:
            self.lr_schedulers().step(scores[self.objective.metric])


def plan(
    model: nn.Module, goal: Objective, settings: Settings, *, fused: bool = False
) -> dict[str, Any]:
    """Make what Lightning's `configure_optimizers` gives back: AdamW and a schedule.

    Args:
        model     nn.Module  its parameters are sorted by `param_groups`
        goal      Objective  which metric a plateau is seen in
        settings  Settings   rates and schedule
        fused     bool       all of a step in one call of the device
    Returns:
        plan  dict  optimizer, lr_scheduler
    """
    s = settings
    groups = param_groups(model, s.lr, s.ssm_lr, s.weight_decay, clock_lr=s.clock_lr)
    optimizer = torch.optim.AdamW(groups, fused=fused)
    if s.schedule == "plateau":
        options = {"mode": goal.mode, "factor": s.shrink, "patience": s.patience}
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        when = {"scheduler": schedule, "monitor": f"val/{goal.metric}", "interval": "epoch"}
    else:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: s.factor(step))
        when = {"scheduler": schedule, "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": when}


def _can_fuse(learner: LightningModule) -> bool:
    """Can AdamW take a step in one call?  Not with complex numbers or scaled gradients."""
    real = all(p.is_floating_point() for p in learner.parameters())
    plain = learner.trainer.precision != "16-mixed"
    return real and plain and learner.device.type in ("cpu", "cuda")
