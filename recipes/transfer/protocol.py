"""What is asked of the transfer, written down before its first run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.arms import BASELINE, LET, THREE

HYPOTHESIS = (
    "A student that was aligned with a teacher early learns a domain that it never read in fewer "
    "steps, to a lower loss, and forgets less, at equal steps of pretraining; at equal validation "
    "loss nothing is left of it."
)
METRIC = (
    "Paired differences LET - baseline with their 95 % intervals (paired t over seeds) in the "
    "domain's loss after fine-tuning, in the steps to the loss that the baseline has half-way, and "
    "in the rise of the loss on the domains learned first; one that excludes zero is an effect."
)


@dataclass(frozen=True)
class Protocol:
    """The runs.

    Half as long as the lab's, which the means allow. The paper's lambda_0 = 0.1 until 15 % of the
    steps came to a cosine of 0.04 there: nothing to transfer. Here it is 0.3, of the paper's own
    grid, until half of the steps. An intermediate checkpoint has a higher learning rate behind it
    than a last one; a match at equal loss has that in it.

    Attributes:
        config: what all runs are made of.
        held_out: domains that no student reads before it is fine-tuned.
        seeds: of the initial weights.
        pretraining: keys of every pretraining; checkpoints at each validation, the last ten kept.
        arms: keys of each arm, the baseline first.
        fine_tuning: keys of every fine-tuning; AdamW begins anew, at a third of pretraining's
            learning rate, which nobody tuned.
        windows: how many windows of the validation set of the seen domains tell forgetting.
    """

    config: str = "recipes/lab/student.toml"
    held_out: tuple[str, ...] = ("Code", "Shakespeare")
    seeds: tuple[int, ...] = THREE
    pretraining: Mapping[str, str] = field(
        default_factory=lambda: {
            "training.steps": "400",
            "lr_scheduler.warmup_steps": "40",
            "checkpoint.interval": "20",
            "checkpoint.keep_latest_k": "10",
            "validation.steps": "4",
            "validation.freq": "20",
        }
    )
    arms: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {
            "baseline": BASELINE,
            "LET": {**LET, "let.lambda_0": "0.3", "let.s_stop_fraction": "0.5"},
        }
    )
    fine_tuning: Mapping[str, str] = field(
        default_factory=lambda: {
            "training.steps": "60",
            "optimizer.lr": "1e-3",
            "lr_scheduler.warmup_steps": "6",
            "checkpoint.interval": "60",
            "checkpoint.last_save_model_only": "true",
            "validation.steps": "2",
            "validation.freq": "10",
            "metrics.log_freq": "10",
        }
    )
    windows: int = 64
