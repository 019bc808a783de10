"""The nine tasks: what the harness is asked, what is made of its answer, and all of it for real."""

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from let_titan.compare.result import compare
from let_titan.errors import ConfigError, RunError
from let_titan.evaluate import __main__ as command_line
from let_titan.evaluate import harness, perplexity, table
from let_titan.evaluate.models import Model
from let_titan.evaluate.record import note
from let_titan.evaluate.tasks import TASKS
from let_titan.runs import EVALUATIONS, Run, read_lines
from tests.exported import student, write_run
from tests.handmade import BASELINE as LOSSES
from tests.handmade import write_run as write_made_run

needs_harness = pytest.mark.skipif(
    not harness.harness_python().exists() and "CI" not in os.environ,
    reason="no harness here: bash scripts/eval_env.sh",
)
MADE_STEPS = (20, 40)
SYNTHETIC = Path("assets/synthetic_tasks")
SMALL = ["--offline", str(SYNTHETIC), "--dtype", "float32", "--batch-size", "6"]
FIGURES = {"acc,none": 0.25, "acc_stderr,none": 0.1}
NORMED = {"acc_norm,none": 0.5, "acc_norm_stderr,none": 0.2}


class FakeHarness:
    """Answers as the harness does, and keeps what it was asked."""

    def __init__(self):
        self.versions = {"lm-eval": "0.4.13"}
        self.asked = []

    def run(self, model, settings, log):
        self.asked.append((model.name, settings.tasks, settings.add_bos))
        return {
            "results": {
                task: FIGURES | (NORMED if task == "piqa" else {}) for task in settings.tasks
            },
            "n-samples": {task: {"effective": 6} for task in settings.tasks},
            "versions": dict.fromkeys(settings.tasks, 1.0),
            "task_hashes": dict.fromkeys(settings.tasks, "abc"),
        }


def model(digest="d", add_bos=True):
    return Model("m", Path("m"), digest, 3, None, {"special_tokens": {"add_bos": add_bos}})


def parsed(*args):
    return command_line.settings_of(command_line.parse(["m", "--out", "o", *args]))


def test_both_accuracies_are_kept_and_the_normed_one_leads(tmp_path):
    settings = harness.Settings(tasks=("piqa", "boolq"))
    found = harness.evaluate(model(), settings, FakeHarness(), tmp_path)
    assert found["piqa"]["acc"] == 0.25 and found["piqa"]["acc_norm"] == 0.5
    assert found["piqa"]["metric"] == "acc_norm" and found["piqa"]["stderr"] == 0.2
    assert found["boolq"]["metric"] == "acc" and "acc_norm" not in found["boolq"]
    assert table.average(found) == pytest.approx((0.5 + 0.25) / 2)
    assert found["boolq"]["add_bos"] and found["boolq"]["hash"] == "abc"


def test_one_item_has_no_standard_error(tmp_path, monkeypatch):
    """--limit 1: the harness says "N/A"."""
    monkeypatch.setitem(NORMED, "acc_norm_stderr,none", "N/A")
    found = harness.evaluate(model(), harness.Settings(limit=1), FakeHarness(), tmp_path)
    assert found["piqa"]["stderr"] is None and found["boolq"]["stderr"] == 0.1
    name, step, *figures, _ = table.cells(model(), found)
    shown = dict(zip(TASKS, figures, strict=True))
    assert (name, step) == ("m", "3")
    assert (shown["piqa"], shown["boolq"]) == ("50.0", "25.0 ± 10.0")


def test_several_gpus_leave_no_hash(tmp_path):
    settings = harness.Settings(tasks=("boolq",), gpus=2)
    found = harness.evaluate(model(), settings, FakeHarness(), tmp_path)
    assert found["boolq"]["hash"] is None


def test_only_what_is_not_cached_is_run(tmp_path):
    fake = FakeHarness()
    settings = harness.Settings(tasks=("piqa", "boolq"))
    first = harness.evaluate(model(), settings, fake, tmp_path)
    assert harness.evaluate(model(), settings, fake, tmp_path) == first
    more = harness.Settings(tasks=("piqa", "sciq"))
    harness.evaluate(model(), more, fake, tmp_path)
    harness.evaluate(model(digest="other"), settings, fake, tmp_path)
    harness.evaluate(model(add_bos=False), settings, fake, tmp_path)
    spread = harness.Settings(tasks=settings.tasks, gpus=8)  # the same items, shared out
    assert harness.evaluate(model(), spread, fake, tmp_path) == first
    assert [tasks for _, tasks, _ in fake.asked] == [
        ("piqa", "boolq"),
        ("sciq",),
        ("piqa", "boolq"),
        ("piqa", "boolq"),
    ]
    assert [bos for *_, bos in fake.asked] == [True, True, True, False]


def test_a_task_without_accuracy_is_told_and_the_others_are_kept(tmp_path, monkeypatch):
    fake, answer = FakeHarness(), FakeHarness.run

    def run(self, model, settings, log):
        found = answer(self, model, settings, log)
        found["results"]["wikitext"] = {"word_perplexity,none": 20.0}
        return found

    monkeypatch.setattr(FakeHarness, "run", run)
    with pytest.raises(RunError, match=r"wikitext gives no accuracy: leave it out of --tasks"):
        harness.evaluate(model(), harness.Settings(tasks=("wikitext", "piqa")), fake, tmp_path)
    found = harness.evaluate(model(), harness.Settings(tasks=("piqa",)), fake, tmp_path)
    assert found["piqa"]["acc"] == 0.25 and len(fake.asked) == 1


def test_a_torn_result_in_the_cache_counts_as_missing(tmp_path):
    fake, settings = FakeHarness(), harness.Settings(tasks=("piqa", "boolq"))
    first = harness.evaluate(model(), settings, fake, tmp_path)
    files = sorted((tmp_path / "cache").iterdir())
    assert [file.suffix for file in files] == [".json", ".json"]  # and no temporary ones
    files[0].write_text(files[0].read_text()[:20])
    assert harness.evaluate(model(), settings, fake, tmp_path) == first
    assert [len(tasks) for _, tasks, _ in fake.asked] == [2, 1]
    assert harness.evaluate(model(), settings, fake, tmp_path) == first


def test_a_file_in_the_place_of_the_results_is_told(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match="can be no folder, since a file stands in the way"):
        harness.evaluate(model(), harness.Settings(), FakeHarness(), tmp_path / "out")


def test_the_harness_is_told_bos_shots_and_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(harness.Harness, "__init__", lambda self, python: None)
    caller = harness.Harness(Path("python"))
    caller.python = Path("python")
    settings = parsed("--add-bos", "--tasks", "piqa,boolq", "--limit", "5", "--offline", "d")
    line = " ".join(caller.command(model(), settings, Path("tasks"), Path("out")))
    for said in (
        "add_bos_token=True",
        "--num_fewshot 1",
        "--seed 1234",
        "--tasks piqa,boolq",
        "--limit 5",
        "--include_path tasks",
    ):
        assert said in line
    assert line.startswith("python -m lm_eval run --model hf ")
    spread = " ".join(caller.command(model(), parsed("--gpus", "2"), Path("t"), Path("o")))
    assert "accelerate.commands.launch --multi_gpu --num_processes 2 -m lm_eval" in spread
    assert "--include_path" not in spread and "--limit" not in spread
    one = parsed("--parallelize", "--limit", "1")
    parted = " ".join(caller.command(model(), one, Path("t"), Path("o")))
    assert "parallelize=True" in parted and "--limit 1" in parted


IN_THE_HARNESS = """
import json, sys
from accelerate.commands.launch import launch_command_parser
told = launch_command_parser().parse_args(json.loads(sys.argv[1]))
keys = ("multi_gpu", "num_processes", "module", "training_script", "training_script_args")
print(json.dumps([getattr(told, key) for key in keys]))
"""


@needs_harness
def test_accelerate_reads_what_several_gpus_are_asked_with():
    caller = harness.Harness(harness.harness_python())
    line = caller.command(model(), parsed("--gpus", "4"), Path("t"), Path("o"))
    launch = line[line.index("accelerate.commands.launch") + 1 :]
    command = [str(caller.python), "-c", IN_THE_HARNESS, json.dumps(launch)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told[:4] == [True, 4, True, "lm_eval"]
    assert told[4] == launch[launch.index("lm_eval") + 1 :]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--gpus", "0"], "must be at least 1"),
        (["--limit", "0"], "must be at least 1"),
        (["--gpus", "2", "--parallelize"], "exclude each other"),
    ],
)
def test_mistakes_are_sentences(args, says):
    with pytest.raises(ConfigError, match=says):
        parsed(*args)


def test_a_missing_harness_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LET_TITAN_EVAL_PYTHON", str(tmp_path / "none"))
    assert command_line.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "bash scripts/eval_env.sh" in capsys.readouterr().err


def test_a_narrow_terminal_gets_the_table_on_its_side(tmp_path):
    results = harness.evaluate(model(), harness.Settings(), FakeHarness(), tmp_path)
    for width, first in ((200, "model"), (80, "hellaswag")):
        console = Console(width=width, record=True, file=io.StringIO())
        table.show([(model(), results)], console)
        text = console.export_text()
        assert all(name in text for name in (*TASKS, "average", "50.0 ± 20.0"))
        assert any(line.strip("│┃ ").startswith(first) for line in text.splitlines())


def test_compare_reads_what_is_noted(tmp_path):
    folder = write_made_run(tmp_path / "run", True, {0: 9.0, 10: 8.0})
    results = {"piqa": {"acc": 0.5, "metric": "acc", "stderr": 0.1}}
    note(folder, 10, tasks=results, average=0.5)
    (line,) = Run.load(folder).evaluations
    assert line["step"] == 10 and line["average"] == 0.5 and line["tasks"] == results


@pytest.mark.parametrize("torn", ['{"step": 9, "aver', '{"step": 9, "average": 0.25}', ""])
def test_what_is_noted_begins_on_a_line_of_its_own(torn, tmp_path):
    note(tmp_path, 4, average=0.125)
    with (tmp_path / EVALUATIONS).open("a") as file:
        file.write(torn)
    note(tmp_path, 10, average=0.5)
    whole = [{"step": 9, "average": 0.25}] if torn.endswith("}") else []
    lines = [{"step": 4, "average": 0.125}, *whole, {"step": 10, "average": 0.5}]
    assert read_lines(tmp_path / EVALUATIONS) == lines


def write_evaluable(folder, let, tokenizer):
    """A finished run's folder, made by hand, with two checkpoints that can be evaluated."""
    write_made_run(folder, let, LOSSES)
    made = json.loads((folder / "summary.json").read_text())
    for seed, step in enumerate(MADE_STEPS):
        write_run(folder, student("debug", seed=seed), "debug", tokenizer, step=step)
    real = json.loads((folder / "summary.json").read_text())
    config = {**made["config"], **real["config"]}
    config["training"] = {**made["config"]["training"], **real["config"]["training"]}
    summary = {**made, **real, "config": config, "let_plan": made["let_plan"]}
    summary |= {"hardware": made["hardware"], "versions": made["versions"]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@needs_harness
def test_a_checkpoint_goes_through_all_nine_tasks(assets, tmp_path, capsys):
    checkpoint = write_run(tmp_path / "run", student("debug"), "debug", assets / "tokenizer")
    assert command_line.main([str(checkpoint), *SMALL, "--out", str(tmp_path / "out")]) == 0, (
        capsys.readouterr().err
    )
    content = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    (row,) = content["models"]
    assert row["step"] == 3 and set(row["tasks"]) == set(TASKS)
    for task, result in row["tasks"].items():
        assert result["items"] == 6 and result["hash"], task
        assert 0 <= result["acc"] <= 1 and (result["acc"] * 6) % 1 < 1e-6, task
    assert row["tasks"]["hellaswag"]["metric"] == "acc_norm"
    assert row["tasks"]["boolq"]["metric"] == "acc"
    assert content["settings"]["versions"]["lm-eval"] >= "0.4.10"
    noted = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text())
    assert noted["step"] == 3 and noted["average"] == row["average"]
    assert "One-shot" in (tmp_path / "out" / "accuracy.md").read_text()


@needs_harness
def test_compare_shows_what_was_evaluated_of_two_checkpoints(assets, tmp_path, capsys):
    run = write_evaluable(tmp_path / "let", True, assets / "tokenizer")
    baseline = write_evaluable(tmp_path / "baseline", False, assets / "tokenizer")
    paths = [str(run / "checkpoint" / f"step-{step}") for step in MADE_STEPS]
    out = ["--out", str(tmp_path / "out")]
    args = [*paths, *SMALL, "--tasks", "piqa,boolq", *out]
    assert command_line.main(args) == 0, capsys.readouterr().err
    text = ["--data", str(assets / "validation.jsonl"), "--windows", "2", *out]
    assert perplexity.main([*paths, *text]) == 0
    models = json.loads((tmp_path / "out" / "accuracy.json").read_text())["models"]
    texts = json.loads((tmp_path / "out" / "perplexity.json").read_text())["models"]
    assert [row["step"] for row in models] == [row["step"] for row in texts] == list(MADE_STEPS)
    for row in models:
        note(baseline, row["step"], tasks=row["tasks"], average=row["average"] - 0.01)
        note(baseline, row["step"], perplexity={"Test": {"bits_per_byte": 9.0}})
    (result,) = compare([Run.load(run)], [Run.load(baseline)]).results
    averages = [(row["step"], row["average"]) for row in models]
    assert [(row.step, row.run.value) for row in result.averages] == averages
    assert result.averages[-1].difference.value == pytest.approx(0.01)
    found = {score.name: score.row for score in result.scores}
    assert found.keys() == {"piqa", "boolq", "Test"}
    assert found["boolq"].run.value == models[-1]["tasks"]["boolq"]["acc"]
    assert found["piqa"].run.value == models[-1]["tasks"]["piqa"]["acc_norm"]
    bits = texts[-1]["perplexity"]["Test"]["bits_per_byte"]
    assert (found["Test"].run.value, found["Test"].baseline.value) == (bits, 9.0)
    assert {row.step for row in found.values()} == {MADE_STEPS[-1]}
