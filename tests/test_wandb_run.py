"""A run in wandb: its names, its group, one run over resumes; silent without an account."""

import os

import pytest
import torch
import wandb
from torchtitan.distributed import ParallelDims

from let_titan.run.metrics import LetMetricsProcessor
from let_titan.run.wandb import wandb_names
from let_titan.train import run
from tests.wandb_records import wandb_records


@pytest.fixture
def clean_wandb(monkeypatch, tmp_path):
    for name in ("MODE", "API_KEY", "PROJECT", "RUN_NAME", "RUN_GROUP", "RUN_ID", "RESUME"):
        monkeypatch.setenv(f"WANDB_{name}", "x")  # so that monkeypatch restores it
        monkeypatch.delenv(f"WANDB_{name}")
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # it keeps the settings of its first run in this process
    return monkeypatch


def names_of(config):
    with wandb_names(config, rank=0):
        names = {key: value for key, value in os.environ.items() if key.startswith("WANDB_")}
    assert not {"WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_RESUME"} & os.environ.keys()
    return names


def test_wandb_groups_twins_and_resumes_in_the_same_run(lab, clean_wandb):
    config = lab.config(None, metrics__enable_wandb=True, checkpoint__enable=True)
    folder = lab.folder / "demo" / "let"
    config.job.dump_folder = str(folder)
    clean_wandb.setenv("WANDB_API_KEY", "k")
    names = names_of(config)
    assert names["WANDB_RUN_GROUP"] == "demo" and names["WANDB_RUN_NAME"] == "let"
    assert "WANDB_MODE" not in names
    (folder / "checkpoint" / "step-2").mkdir(parents=True)
    (folder / "checkpoint" / "step-2" / ".metadata").touch()
    (folder / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n')
    assert names_of(config)["WANDB_RUN_ID"] == names["WANDB_RUN_ID"]  # where it was left
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 1.0}\n')
    after_a_kill = names_of(config)["WANDB_RUN_ID"]
    (folder / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n')
    assert names_of(config)["WANDB_RUN_ID"] == after_a_kill != names["WANDB_RUN_ID"]
    (folder / "checkpoint" / "step-2" / ".metadata").unlink()
    (folder / "metrics.jsonl").write_text("damaged\n{}\n")  # will be set aside, unread
    assert names_of(config)["WANDB_RUN_ID"] != after_a_kill  # it begins anew
    clean_wandb.setenv("WANDB_RUN_GROUP", "mine")
    assert names_of(config)["WANDB_RUN_GROUP"] == "mine"  # what the user says stands
    assert os.environ["WANDB_RUN_GROUP"] == "mine"


def test_wandb_is_silent_without_an_account(lab, clean_wandb, capfd):
    run(lab.config(None, metrics__enable_wandb=True))
    torch.distributed.init_process_group("gloo")
    output = capfd.readouterr()
    assert "wandb.ai" not in output.out + output.err
    assert not list(lab.folder.rglob("*.wandb"))


def test_wandb_records_offline(lab, clean_wandb):
    clean_wandb.setenv("WANDB_MODE", "offline")
    run(lab.config({}, metrics__enable_wandb=True))
    torch.distributed.init_process_group("gloo")
    (content,) = wandb_records(lab.folder)
    for name in (b"let/lambda", b"let/align_cosine", b"throughput(tps)", b"memory/max_reserved"):
        assert name in content


@pytest.fixture
def of_rank_1(monkeypatch):
    """Builds the metrics of a config as rank 1 does."""
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *args: 1)
    dims = ParallelDims(dp_replicate=1, dp_shard=1, cp=1, tp=1, pp=1, ep=1, etp=1, world_size=1)
    return lambda config: LetMetricsProcessor(config, dims)


def test_only_one_rank_writes(lab, of_rank_1):
    assert of_rank_1(lab.config(None)).file is None


def test_every_rank_that_logs_is_silent_without_an_account(lab, clean_wandb, of_rank_1, caplog):
    every = {"metrics__enable_wandb": True, "metrics__save_for_all_ranks": True}
    of_rank_1(lab.config(None, **every)).close()
    assert "Failed to create WandB logger" not in caplog.text
    assert not list(lab.folder.rglob("*.wandb"))


def test_every_rank_that_logs_has_a_wandb_run_of_its_own(lab, clean_wandb, of_rank_1):
    clean_wandb.setenv("WANDB_MODE", "offline")
    every = {"metrics__enable_wandb": True, "metrics__save_for_all_ranks": True}
    processor = of_rank_1(lab.config({}, **every))
    processor.log_diagnostics(1, {"block_cosine": [[0.5]], "grad_cosine": [0], "grad_ratio": [1]})
    processor.close()
    (content,) = wandb_records(lab.folder)
    of_its_own = (lab.folder / "run" / "wandb_run_id-rank_1").read_text()
    for text in ("run-rank_1", of_its_own, "let_titan", "diagnostics/grad_ratio/pair_1"):
        assert text.encode() in content, text
    of_rank_1(lab.config(None, metrics__enable_wandb=True)).close()
    assert len(wandb_records(lab.folder)) == 1  # torchtitan's default: rank 0 alone
