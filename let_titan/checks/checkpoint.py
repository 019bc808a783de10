"""[checkpoint]: what is saved, and what a run goes on from."""

import json
import re
from pathlib import Path

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan


def checkpoint_mistakes(config: LetJobConfig, world_size: int) -> Mistakes:
    checkpoint = config.checkpoint
    if checkpoint.keep_latest_k == 1:
        yield ConfigError(
            "checkpoint.keep_latest_k = 1 would delete the last checkpoint while the next is being "
            "written: set 0 (keep all) or at least 2."
        )
    if checkpoint.create_seed_checkpoint and (not checkpoint.enable or world_size > 1):
        yield ConfigError(
            "checkpoint.create_seed_checkpoint = true needs checkpoint.enable = true and a single "
            "process: start it with --nproc_per_node 1."
        )


def resume_step(config: LetJobConfig) -> int:
    """Returns the step whose checkpoint the run will load, 0 without one.

    A run that is past s_stop needs no teacher, and none is looked for.
    """
    if not config.checkpoint.enable:
        return 0
    if config.checkpoint.load_step >= 0:
        return config.checkpoint.load_step
    folder = Path(config.job.dump_folder) / config.checkpoint.folder
    names = [path.parent.name for path in folder.glob("step-*/.metadata")]
    matches = [re.fullmatch(r"step-(\d+)", name) for name in names]
    return max((int(match[1]) for match in matches if match), default=0)


def s_stop_mistakes(config: LetJobConfig, plan: LetPlan) -> Mistakes:
    """A run that goes on keeps its s_stop: a fraction of more steps would call the teacher back."""
    summary = Path(config.job.dump_folder) / "summary.json"
    if resume_step(config) == 0 or not plan.pairs or not summary.exists():
        return
    before = json.loads(summary.read_text())["let_plan"]
    if before is not None and before["s_stop"] != plan.s_stop:
        yield ConfigError(
            f"This run's s_stop was {before['s_stop']} and would become {plan.s_stop}: pass "
            f"--let.s_stop {before['s_stop']} to go on with it, or choose another job.dump_folder."
        )
