"""The comparison and wandb: what it records there, and runs read by their names."""

import json

import pytest
import wandb

from let_titan.compare.__main__ import main
from let_titan.compare.publish import publish
from let_titan.compare.result import compare
from let_titan.compare.sources import load
from let_titan.run.wandb import WandbFiles, as_logged
from let_titan.runs import FILES, Run, read_lines
from tests.handmade import BASELINE, BETTER, evaluate, shifted, write_run
from tests.wandb_records import wandb_records
from tests.wandb_server import serving

NAMES = ("MODE", "API_KEY", "BASE_URL", "PROJECT", "RUN_GROUP")
KEY = "0123456789" * 4
TABLES = ("costs to the baseline's loss", "throughput and memory", "tasks and perplexity")


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


@pytest.fixture
def online(environment):
    """A stand-in for the service, as the environment names it."""
    with serving(KEY) as service:
        environment.setenv("WANDB_API_KEY", KEY)
        environment.setenv("WANDB_BASE_URL", service.url)
        environment.setenv("WANDB_ERROR_REPORTING", "false")
        environment.setenv("WANDB_SILENT", "true")
        yield service
        wandb.teardown()
    assert service.refused == []


def log_online(folder, group="twins"):
    """Logs a run as training does: lines, and its files at the end."""
    with wandb.init(project="let_titan", name="let", group=group, dir=folder) as run:
        for line in read_lines(folder / FILES[0]):
            run.log(as_logged(line), step=line["step"])
        WandbFiles(folder).close()


def test_online_a_run_is_read_by_its_name_and_the_newest_counts(online, tmp_path):
    folders = [write_run(tmp_path / str(i), True, shifted(BETTER, i)) for i in (0, 1)]
    for folder in folders:
        log_online(folder)
    old, new = online.runs.values()
    assert old.state == new.state == "finished" and new.facts["groupName"] == "twins"
    losses = [line["validation_metrics/loss"] for line in new.history if line["_step"] > 0]
    assert losses == [BETTER[step] + 1 for step in (10, 20, 30, 40)]
    assert load("wandb:team/let_titan/let").curve == Run.load(folders[1]).curve
    assert load(f"wandb:team/let_titan/{old.name}").curve == Run.load(folders[0]).curve
    with pytest.raises(ValueError, match="has no run 'other': look at its name"):
        load("wandb:team/let_titan/other")
    del new.files["summary.json"]  # of a run that was killed
    with pytest.raises(ValueError, match=r"let_titan/let on wandb has no summary\.json, which"):
        load("wandb:team/let_titan/let")


def test_online_charts_and_tables_stand_in_the_group(online, environment, tmp_path):
    environment.setenv("WANDB_RUN_GROUP", "twins")
    let, baseline = (write_run(tmp_path / n, n == "let", BETTER) for n in ("let", "baseline"))
    evaluate(let, {20: 0.4, 40: 0.55})
    evaluate(baseline, {20: 0.4, 40: 0.5})
    (tmp_path / "report.html").write_text("<p>the page</p>")
    publish(compare([Run.load(let)], [Run.load(baseline)]), tmp_path)
    run = online.named("comparison")
    assert run.facts["groupName"] == "twins" and run.state == "finished"
    assert run.summary["LET/with the teacher/tokens_per_s to baseline"] == pytest.approx(0.9)
    assert run.summary["verdict"].startswith("LET is level with its baseline at step 40.")
    assert {key for line in run.history for key in line} >= {"report", *TABLES}
    tables = {}
    for files in online.tables.values():
        for name, content in files.items():
            tables[name.removesuffix(".table.json")] = json.loads(content)["data"]
    assert ["LET", "FLOPs, the teacher's included", "4,000", "4,500", "0.889x"] in tables[TABLES[0]]
    assert ["LET, with the teacher", "450, 0.900x", "3, 1.500x"] in tables[TABLES[1]]
    assert ["LET", "piqa", "acc_norm", "40", "0.4000", "0.4500", "+0.0500"] in tables[TABLES[2]]
    for chart, points in {
        "validation loss": [[step, "LET", BETTER[step]] for step in (10, 40)],
        "average accuracy of the tasks": [[20, "baseline", 0.4], [40, "LET", 0.55]],
        "speed-up in steps": [[BETTER[40], "LET", 1.0]],
    }.items():
        assert all(point in tables[f"{chart}_table"] for point in points), tables[f"{chart}_table"]
        panel = run.config["_wandb"]["value"]["visualize"][chart]
        assert panel["panel_config"]["panelDefId"] == "wandb/lineseries/v0"
        assert f"{chart}_table" in json.dumps(panel)  # the chart draws this table
    (page,) = (content for name, content in run.files.items() if name.endswith(".html"))
    assert page == b"<p>the page</p>"


def test_a_name_in_several_groups_is_asked_back(online, tmp_path):
    """1_4b/let and 7b/let are both called "let": the newest of them is any."""
    folders = {
        group: write_run(tmp_path / group, True, shifted(BETTER, i))
        for i, group in enumerate(("1_4b", "7b"))
    }
    for group, folder in folders.items():
        log_online(folder, group)
    (small, large) = online.runs
    said = rf"named 'let' in 2 groups \(1_4b: {small}; 7b: {large}\): write wandb:team/let_titan/GR"
    with pytest.raises(ValueError, match=said):
        load("wandb:team/let_titan/let")
    for source, group in ((small, "1_4b"), (large, "7b"), ("1_4b/let", "1_4b"), ("7b/let", "7b")):
        assert load(f"wandb:team/let_titan/{source}").curve == Run.load(folders[group]).curve
    with pytest.raises(ValueError, match="has no run 'let' in the group '3b': look"):
        load("wandb:team/let_titan/3b/let")


def test_what_wandb_refuses_is_told_in_a_sentence(online, environment):
    environment.setenv("WANDB_API_KEY", KEY[::-1])
    with pytest.raises(ValueError, match=r"wandb did not give team/p/let \(.*: give the"):
        load("wandb:team/p/let")
