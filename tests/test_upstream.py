"""torchtitan's private names are there, and another version is told."""

import importlib.metadata

import pytest
import torchtitan.train
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.config import ConfigManager

from let_titan import upstream
from let_titan.checkpoint.manager import LetCheckpointManager
from let_titan.config import LetConfigManager
from let_titan.errors import ConfigError
from let_titan.spec import register
from let_titan.train import LetTrainer


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
