"""What wandb gets of a run, and what stays out of every file."""

import json
import os
import shutil

import pytest
import torch
import wandb

from let_titan.runs import FILES, read_lines
from let_titan.train import run
from let_titan.wandb_account import has_account, is_silent
from tests.wandb_records import wandb_records

NAMES = ("MODE", "API_KEY", "BASE_URL", "PROJECT", "RUN_NAME", "RUN_GROUP", "RUN_ID", "RESUME")
SECRET = "5ec2e7" * 6 + "5ec2"  # 40 characters, as a key has


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No account, no settings; whatever a run sets is taken back."""
    for name in NAMES:
        monkeypatch.setenv(f"WANDB_{name}", "x")
        monkeypatch.delenv(f"WANDB_{name}")
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.teardown()  # it keeps the settings of its first run in this process
    return monkeypatch


def train(lab, let, **changes):
    changes = {"metrics__enable_wandb": True, "training__steps": 2, **changes}
    folder = lab.folder / "the-twins" / "let-arm"
    run(lab.config(let, "--job.dump_folder", str(folder), **changes))
    torch.distributed.init_process_group("gloo")  # run() ends the world it was in
    return folder


def field(text):
    """Returns a short string as protobuf writes it; wandb has no reader of its files in Python."""
    return bytes([len(text)]) + text.encode()


def test_without_an_account_nothing_is_asked_or_written(lab, environment, capfd):
    folder = train(lab, None)
    said = capfd.readouterr()
    assert "wandb: (1)" not in said.out + said.err and "wandb.ai" not in said.out + said.err
    assert not [path for path in lab.folder.rglob("*") if "wandb" in path.name]
    assert (folder / "metrics.jsonl").exists()
    assert "WANDB_RUN_ID" not in os.environ


def test_offline_it_records_name_group_and_figures_but_no_key(lab, environment):
    environment.setenv("WANDB_MODE", "offline")
    environment.setenv("WANDB_API_KEY", SECRET)
    folder = train(lab, {"s_stop": 1})
    (content,) = wandb_records(folder)
    for name in ("let_titan", "the-twins", "let-arm", (folder / "wandb_run_id").read_text()):
        assert field(name) in content, name
    assert b'"lambda_0":0.5' in content
    for value in ("0.5", "0"):  # lambda in steps 1 and 2; 16 is the number of value_json
        assert field("let/lambda") + b"\x82\x01" + field(value) in content
    assert field("let/align_cosine") in content
    for file in lab.folder.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_after_a_kill_offline_records_hold_what_metrics_jsonl_holds(lab, environment):
    environment.setenv("WANDB_MODE", "offline")
    kept = {"checkpoint__enable": True, "checkpoint__interval": 2, "checkpoint__keep_latest_k": 0}
    folder = train(lab, None, training__steps=4, **kept)
    first = {line["step"]: line["loss"] for line in read_lines(folder / "metrics.jsonl")}
    shutil.rmtree(folder / "checkpoint" / "step-4")  # killed after logging step 4, before saving
    train(lab, None, training__steps=4, training__max_norm=1e-3, **kept)
    second = {line["step"]: line["loss"] for line in read_lines(folder / "metrics.jsonl")}
    assert second[2] == first[2] and second[4] != first[4]
    old, new = wandb_records(folder)
    key = field("loss_metrics/global_avg_loss") + b"\x82\x01"
    for step in (1, 2, 3, 4):
        assert old.count(key + field(json.dumps(first[step]))) >= 1
        assert new.count(key + field(json.dumps(second[step]))) >= 1
    assert key + field(json.dumps(first[4])) not in new
    assert field("let-arm") in old and field("let-arm") in new
    for name in FILES:  # kept with the run, to be compared by its name
        assert [p for p in folder.rglob(name) if "files" in p.parts]


def test_an_account_is_a_key_or_a_netrc_entry(lab, environment, tmp_path):
    assert not has_account()
    netrc = tmp_path / "home" / ".netrc"
    netrc.parent.mkdir()
    netrc.write_text(f"machine api.wandb.ai login user password {SECRET}\n")
    for mode in (0o600, 0o644):  # wandb does not mind who may read it
        netrc.chmod(mode)
        assert has_account()
    environment.setenv("NETRC", "~/elsewhere")
    assert not has_account()
    netrc.rename(netrc.with_name("elsewhere"))
    assert has_account()
    environment.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_account()
    environment.setenv("WANDB_API_KEY", SECRET)
    assert has_account()
    assert not is_silent()
