"""[teacher] cache: keys that exclude it, and whether the states in it are this run's."""

from pathlib import Path

from let_titan.build_data import build_dataloader
from let_titan.checks.checkpoint import resume_step
from let_titan.checks.layout import data_parallel_degrees, global_batch_size
from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig, distills
from let_titan.data.files import PILE
from let_titan.data.loader import PileLoader
from let_titan.errors import ConfigError
from let_titan.plan import resolve_plan
from let_titan.state_cache import (
    StateFiles,
    bytes_per_token,
    check_cache,
    check_room,
    key_of,
    uses_cache,
)
from let_titan.teacher.sources import plan_fetch, read_config
from let_titan.tokenizer.build import load_tokenizer

KEY = "teacher.cache"


def cache_combination_mistakes(config: LetJobConfig) -> Mistakes:
    """Keys that exclude it."""
    if not config.teacher.cache:
        return
    if distills(config):
        yield ConfigError(
            f"{KEY} cannot be used with distill.method = {config.distill.method!r}, which needs "
            "the teacher's LM head beside its states: leave it out."
        )
    if config.teacher.tokenizer != "same":
        yield ConfigError(
            f'{KEY} needs teacher.tokenizer = "same", whose states are found by the student\'s '
            "sequences: leave one of them out."
        )
    if config.let.enable and config.training.dataset != PILE:
        yield ConfigError(
            f"{KEY} needs training.dataset = {PILE!r}, whose sequences are numbered, not "
            f"{config.training.dataset!r}: change it, or leave {KEY} out."
        )


def cache_mistakes(config: LetJobConfig, world_size: int, elsewhere: bool) -> Mistakes:
    """Whether the folder is this run's, and, unless ``elsewhere``, has room for what is missing.

    A teacher that is still to be fetched is compared once it is there.
    """
    if not uses_cache(config) or config.training.dataset != PILE:
        return
    folder, _ = plan_fetch(*config.teacher.source)
    if not (folder / "config.json").exists():
        return
    plan = resolve_plan(config)
    replicate, shard = data_parallel_degrees(config, world_size)
    tokenizer = load_tokenizer(config.model.hf_assets_path)
    loader = build_dataloader(replicate * shard, 0, tokenizer, config)
    assert isinstance(loader, PileLoader)
    path = Path(config.teacher.cache).expanduser()
    key = key_of(config, plan, folder, loader.identity, loader.deal.lanes)
    goes_on = resume_step(config) > 0
    wrong = list(raised_by(check_cache, path, key, ["lanes"] if goes_on else []))
    yield from wrong
    if wrong or elsewhere or goes_on:  # only the checkpoint knows where a resumed run stands
        return
    width = read_config(str(folder), config.teacher.trust_remote_code).hidden_size
    rows = StateFiles(path, 0).missing(range(plan.s_stop * global_batch_size(config, world_size)))
    each = bytes_per_token(len(key["layers"]), width)
    yield from raised_by(check_room, path, rows * config.training.seq_len * each)
