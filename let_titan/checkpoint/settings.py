"""Restores the optimizer's settings after a checkpoint was loaded: those of the config count.

A checkpoint of torch's optimizers and schedulers holds settings beside state, so that loading it
would bring back the old learning rate, for instance.
"""

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

KEYS = ("initial_lr", "betas", "eps", "weight_decay", "decoupled_weight_decay")
"""Of a group of parameters: what the config says of it; the last one tells AdamW from Adam.

Not what the implementation made of it (``fused``, ``foreach``): that goes with the state.
"""

Settings = list[list[dict[str, Any]]]


def settings_of(optimizers: Iterable[Optimizer]) -> Settings:
    """Returns {key: value} of every group of every optimizer, whose rates are scheduled."""
    return [
        [{key: group[key] for key in KEYS if key in group} for group in optimizer.param_groups]
        for optimizer in optimizers
    ]


def restore_settings(
    settings: Settings, optimizers: Iterable[Optimizer], schedulers: Iterable[LambdaLR]
) -> None:
    """Gives optimizers their settings again, and their schedule's learning rate at this step.

    Args:
        settings: from ``settings_of``, before anything was loaded.
        optimizers: the same ones.
        schedulers: theirs, at the step that was loaded.
    """
    for groups, optimizer, scheduler in zip(settings, optimizers, schedulers, strict=True):
        for group, setting in zip(optimizer.param_groups, groups, strict=True):
            group.update(setting)
        rates = [setting["initial_lr"] for setting in groups]
        now = [
            rate * factor(scheduler.last_epoch)
            for rate, factor in zip(rates, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, now, strict=True):
            group["lr"] = rate
        loaded = scheduler.state_dict()
        scheduler.load_state_dict({**loaded, "base_lrs": rates, "_last_lr": now})
