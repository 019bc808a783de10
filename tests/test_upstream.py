"""torchtitan's private names are there, and another version is told."""

import importlib.metadata
import signal
from types import SimpleNamespace

import pytest
import torchtitan.train
from torch.distributed.pipelining.schedules import _Action
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.config import ConfigManager

from let_titan import upstream
from let_titan.checkpoint.manager import LetCheckpointManager
from let_titan.config import LetConfigManager
from let_titan.errors import ConfigError
from let_titan.fake_ranks import fake_ranks
from let_titan.spec import register
from let_titan.stop import SIGNALS
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


def test_a_saver_is_deaf_from_its_start_on_and_serves_its_rank(monkeypatch):
    """A signal comes to it before it can block any; blocked, it ends by serving alone."""
    seen = []
    start = lambda _: seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))  # noqa: E731
    monkeypatch.setattr(upstream.TorchSaver, "__init__", start)
    monkeypatch.setattr(upstream, "serve_rank", lambda: seen.append("serves"))
    run = staticmethod(lambda *args: seen.append(args))
    monkeypatch.setattr(upstream.TorchSaver, "_checkpointing_subprocess", run)
    upstream.Saver()
    upstream.Saver._checkpointing_subprocess(1, 2)
    assert seen == [set(SIGNALS), "serves", (1, 2)]


def test_a_ranks_actions_are_what_it_computes_and_reduces():
    order = "0UNSHARD 0F0 0SEND_F0 1RECV_F0 1F0 1I0 1W0 0RECV_B0 0B0 0REDUCE_GRAD 0RESHARD"
    actions = [None, *map(_Action.from_str, order.split())]
    schedule = SimpleNamespace(pipeline_order_with_comms={2: actions})
    assert upstream.pipeline_actions(schedule, 2) == [
        *((0, "F", 0), (1, "F", 0), (1, "I", 0), (1, "W", 0), (0, "B", 0)),
        (0, "REDUCE_GRAD", None),
    ]


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
