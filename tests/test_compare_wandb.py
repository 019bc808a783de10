"""The comparison and wandb: what it records there, and runs read by their names."""

import json
import shutil
from types import SimpleNamespace

import pytest
import wandb

from let_titan.compare.__main__ import main
from let_titan.compare.sources import load
from let_titan.runs import Run
from tests.handmade import BASELINE, BETTER, write_run
from tests.support import wandb_records

NAMES = ("MODE", "API_KEY", "PROJECT", "RUN_GROUP")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No account, no settings."""
    for name in NAMES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.teardown()  # it keeps the settings of its first run in this process
    return monkeypatch


@pytest.fixture
def arguments(tmp_path):
    baseline = write_run(tmp_path / "baseline", False, BASELINE)
    let = write_run(tmp_path / "let", True, BETTER)
    return [str(let), "--baseline", str(baseline), "--out", str(tmp_path / "out"), "--wandb"]


def test_offline_it_records_tables_charts_and_the_page(environment, arguments, tmp_path):
    environment.setenv("WANDB_MODE", "offline")
    environment.setenv("WANDB_RUN_GROUP", "the-twins")
    assert main(arguments) == 0
    (content,) = wandb_records(tmp_path / "out")
    for text in ("let_titan", "the-twins", "comparison", "0.200 nats per token lower"):
        assert text.encode() in content, text
    assert b"LET/with the teacher/tokens_per_s to baseline" in content
    tables = [json.loads(p.read_text()) for p in (tmp_path / "out").rglob("*.table.json")]
    rows = [row for table in tables for row in table["data"]]
    assert ["LET", "FLOPs, the teacher's included", "4,000", "4,000", "1.000x"] in rows
    assert ["LET, with the teacher", "450, 0.900x", "3, 1.500x"] in rows
    (page,) = (p for p in (tmp_path / "out").rglob("*.html") if "media" in p.parts)
    assert page.read_bytes() == (tmp_path / "out" / "report.html").read_bytes()


def test_without_an_account_the_cure_is_named_and_the_report_stands(
    environment, arguments, tmp_path, capsys
):
    assert main(arguments) == 2
    assert "set WANDB_MODE=offline" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").exists()


def test_a_run_is_read_by_its_name(monkeypatch, tmp_path):
    """A stand-in for the service hands out the files of a folder; the query is the real one."""
    folder = write_run(tmp_path / "let", True, BETTER)

    def file(name):
        return SimpleNamespace(
            download=lambda root, exist_ok: shutil.copy(folder / name, f"{root}/{name}")
        )

    def runs(path, filters, order):
        assert path == "team/project" and order == "-created_at"
        (by_name, by_id) = filters["$or"]
        found = by_name["display_name"] == by_id["name"] == "let"
        return [SimpleNamespace(file=file)] if found else []

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=runs))
    assert load("wandb:team/project/let") == Run.load(folder)
    with pytest.raises(ValueError, match="has no run 'other'"):
        load("wandb:team/project/other")
