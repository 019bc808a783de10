"""The harness as a program: what it is given, and what is made of how it ends. A stub answers."""

import json
import sys
from pathlib import Path

import pytest

from let_titan.evaluate import harness
from let_titan.evaluate.__main__ import main
from let_titan.runs import EVALUATIONS, read_lines
from tests.exported import student, write_run

SYNTHETIC = Path("assets/synthetic_tasks")

STUB = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path

here = Path(__file__).parent
if sys.argv[1] == "-c":
    print(json.dumps([str(here / "lm_eval"), {{"lm-eval": "0.4.13"}}]))
    sys.exit()
asked = dict(zip(sys.argv, sys.argv[1:]))
print("its words")
print("its complaint", file=sys.stderr)
included = Path(asked.get("--include_path", "none"))
placed = {{f.stem: json.loads(f.read_text()) for f in included.glob("*.yaml")}}
noted = {{"asked": asked, "placed": placed, "environment": dict(os.environ)}}
with (here / "asked.jsonl").open("a") as file:
    file.write(json.dumps(noted) + "\\n")
tasks = asked["--tasks"].split(",")
figures = {{"acc,none": 0.25, "acc_stderr,none": 0.125}}
normed = {{"acc_norm,none": 0.5, "acc_norm_stderr,none": 0.25}}
answer = {{
    "results": {{task: figures | (normed if task == "piqa" else {{}}) for task in tasks}},
    "n-samples": {{task: {{"effective": 6}} for task in tasks}},
    "versions": {{}},
}}
if os.environ["STUB"] != "says nothing":
    folder = Path(asked["--output_path"]) / "model"
    folder.mkdir(parents=True)
    for hour in ("08", "09"):
        (folder / f"results_{{hour}}.json").write_text(json.dumps(answer))
        answer["results"][tasks[0]]["acc,none"] = 0.75
sys.exit(3 if os.environ["STUB"] == "fails" else 0)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """An interpreter that plays the harness; returns what it was asked so far."""
    python = tmp_path / "stub" / "python"
    python.parent.mkdir()
    python.write_text(STUB)
    python.chmod(0o755)
    monkeypatch.setenv("LET_TITAN_EVAL_PYTHON", str(python))
    monkeypatch.setenv("STUB", "answers")
    told = python.with_name("asked.jsonl")
    return lambda: [json.loads(x) for x in told.read_text().splitlines()] if told.exists() else []


@pytest.fixture
def folder(tmp_path, assets):
    """A Hugging Face folder, as far as we look into it."""
    folder = tmp_path / "some-model"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((assets / "tokenizer" / name).read_bytes())
    (folder / "config.json").write_text("{}")
    return folder


def test_a_run_of_it_is_told_all_and_ends_in_the_table(stub, folder, tmp_path, monkeypatch):
    for name in harness.OURS:
        monkeypatch.setenv(name, "1")
    out = tmp_path / "out"
    options = ["--tasks", "boolq,piqa", "--out", str(out), "--device", "cpu", "--dtype", "float32"]
    offline = ["--offline", str(SYNTHETIC), "--limit", "5", "--add-bos"]
    assert main([str(folder), *options, *offline]) == 0
    (once,) = stub()
    arguments = dict(x.split("=") for x in once["asked"]["--model_args"].split(","))
    assert arguments["pretrained"] == str(folder) and arguments["dtype"] == "float32"
    assert (once["asked"]["--device"], once["asked"]["--batch_size"]) == ("cpu", "auto")
    assert not set(harness.OURS) & set(once["environment"])
    assert harness.OFFLINE.items() <= once["environment"].items()
    assert once["placed"]["boolq"]["include"] == str(
        tmp_path / "stub" / "lm_eval" / "tasks" / "super_glue" / "boolq" / "default.yaml"
    )
    (row,) = json.loads((out / "accuracy.json").read_text())["models"]
    assert (row["name"], row["step"]) == ("some-model", None)
    assert row["tasks"]["boolq"]["acc"] == 0.75  # of the newest file
    assert row["average"] == (0.75 + 0.5) / 2
    page = (out / "accuracy.md").read_text()
    for said in (
        "| model | step | boolq | piqa | average |\n|",
        "| some-model |  | 75.0 ± 12.5 | 50.0 ± 25.0 | 62.5 |\n",
        "One-shot, the first 5 items of each task, seed 1234;",
        "acc_norm for piqa, acc for the others. some-model: with BOS. float32; lm-eval 0.4.13.",
    ):
        assert said in page, page
    assert (out / "some-model.log").read_text().splitlines() == ["its words", "its complaint"]


def test_what_it_was_asked_before_it_is_not_asked_again(stub, folder, tmp_path):
    options = ["--out", str(tmp_path / "out"), "--device", "cpu"]
    for tasks, asked in (("piqa", ["piqa"]), ("piqa", ["piqa"]), ("sciq,piqa", ["piqa", "sciq"])):
        assert main([str(folder), *options, "--tasks", tasks]) == 0
        assert [each["asked"]["--tasks"] for each in stub()] == asked
    (folder / "model.safetensors").write_bytes(b"other weights, by the same name")
    assert main([str(folder), *options, "--tasks", "sciq"]) == 0
    assert len(stub()) == 3
    first = stub()[0]
    assert first["placed"] == {} and not set(harness.OFFLINE) & (
        set(first["environment"]) - {"HF_HUB_OFFLINE"}  # which the tests set
    )
    page = (tmp_path / "out" / "accuracy.md").read_text()
    assert "all items" in page and "some-model: without BOS. bfloat16" in page


def test_what_it_says_of_a_runs_checkpoint_is_noted_there(stub, assets, tmp_path, capsys):
    checkpoint = write_run(tmp_path / "run", student("debug"), "debug", assets / "tokenizer")
    out = tmp_path / "out"
    options = ["--out", str(out), "--device", "cpu", "--tasks", "boolq,piqa"]
    assert main([str(checkpoint), *options]) == 0
    (row,) = json.loads((out / "accuracy.json").read_text())["models"]
    (noted,) = read_lines(tmp_path / "run" / EVALUATIONS)
    assert noted == {"step": 3, "tasks": row["tasks"], "average": row["average"]}
    (out / "accuracy.md").unlink()
    (out / "accuracy.md").mkdir()
    assert main([str(checkpoint), *options]) == 1
    assert f"{out} cannot be written (Is a directory): make room" in capsys.readouterr().err


@pytest.mark.parametrize(("how", "code"), [("fails", 3), ("says nothing", 0)])
def test_a_run_of_it_that_fails_is_a_sentence(
    how, code, stub, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("STUB", how)
    out = tmp_path / "out"
    assert main([str(folder), "--out", str(out), "--tasks", "piqa"]) == 1
    told = capsys.readouterr().err
    assert f"failed on some-model (exit code {code}): its last words are in {out}" in told
    assert "its complaint" in (out / "some-model.log").read_text()
    assert not (out / "accuracy.json").exists()


def test_an_interpreter_without_the_harness_is_a_sentence(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LET_TITAN_EVAL_PYTHON", "/bin/false")
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "lm-evaluation-harness is not in '/bin/false'" in capsys.readouterr().err
