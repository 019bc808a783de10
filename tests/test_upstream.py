"""torchtitan's private names are there, and another version is told."""

import importlib.metadata

import pytest
import torchtitan.train
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.config import ConfigManager

from let_titan import upstream
from let_titan.checkpoint.manager import LetCheckpointManager
from let_titan.config import LetConfigManager
from let_titan.errors import ConfigError
from let_titan.fake_ranks import fake_ranks
from let_titan.spec import register
from let_titan.train import LetTrainer
from tests.world import outside_the_world


def test_the_installed_version_is_the_one(monkeypatch):
    upstream.check_version()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.3.0")
    with pytest.raises(ConfigError, match=r"0\.3\.0 is installed.*pip install torchtitan==0\.2\.2"):
        upstream.check_version()


def test_the_private_names_do_what_they_did():
    register()
    register()
    assert upstream.is_registered("let_llama") and not upstream.is_registered("llama3")
    assert "quantize.linear.float8" in upstream.converter_names()
    for name in ("_maybe_load_toml", "_validate_config"):
        assert getattr(LetConfigManager, name) is not getattr(ConfigManager, name)
    purge = "_purge_stale_checkpoints"
    assert getattr(LetCheckpointManager, purge) is not getattr(CheckpointManager, purge)


def test_a_trainer_takes_our_checkpoint_manager_while_it_is_built(lab):
    trainer = LetTrainer(lab.config(None))
    assert type(trainer.checkpointer) is LetCheckpointManager
    assert torchtitan.train.CheckpointManager is CheckpointManager
    trainer.close()


def test_a_pipeline_logs_on_rank_0_while_a_trainer_is_built(lab):
    """Where torchtitan logs on the last stage's first rank."""
    config = lab.parsed(None, metrics__enable_tensorboard=True)

    def loggers(rank):
        with fake_ranks(rank, pp=2) as dims:
            processor = MetricsProcessor(config, dims)
            return getattr(processor.logger, "number_of_loggers", 0)

    with outside_the_world():
        assert [loggers(rank) for rank in (0, 1)] == [0, 1]
        with upstream.metrics_from_rank_0():
            assert [loggers(rank) for rank in (0, 1)] == [1, 0]
