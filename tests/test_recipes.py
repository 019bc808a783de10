"""The lab's recipes in a tiny form: each parses, and a run is trained once for all of them."""

import importlib
import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cross_tokenizer_training as training
import pytest
from lab import launch, runs
from lab.launch import flags, train
from lab.recipe import Recipe, main
from lab.smollm2_arms import STUDENTS

from let_titan.compare import files
from let_titan.config import LetConfigManager
from let_titan.runs import is_complete
from let_titan.tokenizer.tiktoken_files import RANKS

RECIPES = Path(__file__).parents[1] / "recipes"

NAMES = sorted(
    path.stem
    for path in RECIPES.glob("*.py")
    if path.stem.startswith(("ablate_", "compare_", "tune_")) and path.stem != "tune_demo_baseline"
)

MEANS = 85
"""Runs of a setting: six hours on one core, at four minutes a run."""


@pytest.fixture
def place(lab):
    """A place of tiny runs, in which the lab is made."""
    validation = {
        "validation__enable": True,
        "validation__dataset": "pile",
        "validation__dataset_path": str(lab.assets / "validation.jsonl"),
        "validation__seq_len": 64,
        "validation__local_batch_size": 4,
        "validation__steps": 1,
    }
    lab.parsed(None, training__steps=2, checkpoint__enable=False, **validation)
    here = runs.Place(lab.folder, "run-0.toml", lab.folder / "lab", lab.folder / "results")
    here.lab.mkdir()
    named = {keys.get("teacher.checkpoint") for keys in all_keys()} - {None}
    known = {f"{teacher}/model.safetensors": f"sha of {teacher}" for teacher in named}
    known |= {f"{lab.assets}/teacher/model.safetensors": "sha", "student.jsonl.zst": "sha"}
    (here.lab / "lab.json").write_text(json.dumps(known))
    return here


def all_keys(setting=None):
    """The keys of every recipe's every run; of one setting's, if it is named."""
    recipes = [importlib.import_module(name).RECIPE for name in NAMES]
    wanted = [recipe for recipe in recipes if setting in (None, recipe.place)]
    return [keys for recipe in wanted for *_, keys in recipe.settings()]


def pretend_to_train(place, keys):
    """Leaves what the first baseline or LET run measured, as if under ``keys``."""
    arguments = ["--job.config_file", str(place.root / place.config), *flags(keys)]
    config = LetConfigManager().parse_args(arguments).to_dict()
    folder = place.root / keys["job.dump_folder"]
    for kept in (place.results / "lab").iterdir():
        summary = json.loads((kept / "summary.json").read_text())
        if ("let.enable" in keys) == (summary["let_plan"] is not None):
            shutil.copytree(kept, folder)
            text = json.dumps({**summary, "config": config}, default=str)
            (folder / "summary.json").write_text(text)
            return


def test_a_run_is_trained_once_and_shared(lab, place, monkeypatch, capsys):
    """The first recipe's runs are trained as a user does; charts are drawn in other tests."""
    trained = []

    def counted(*args, **until):
        trained.append(args)
        return train(*args, **until) if len(trained) <= 2 else pretend_to_train(place, args[-1])

    monkeypatch.setattr(runs, "train", counted)
    monkeypatch.setattr(files, "page", lambda *_: "")
    monkeypatch.setattr(files, "save_png", lambda *_: None)
    let = {
        "let.enable": "true",
        "let.k": "2",
        "let.s_stop": "1",
        "teacher.checkpoint": str(lab.assets / "teacher"),
    }
    first = Recipe("first", "It helps.", "The loss.", {"let": let}, (0,), {})
    main(first, ["--jobs", "2"], place)
    assert len(trained) == 2
    other = {"let": let, "lambda 1": {**let, "let.lambda_0": "1"}}
    main(Recipe("second", "It helps.", "The loss.", other, (0,), {}), [], place)
    assert len(trained) == 3  # the baseline and "let" were there
    capsys.readouterr()
    main(first, ["--list"], place)
    assert capsys.readouterr().out.count("finished") == 2
    for name in ("first", "second"):
        report = json.loads((place.results / name / "report.json").read_text())
        assert report
    assert not any((place.lab / "runs").iterdir())  # what is measured is kept elsewhere
    more = Recipe("first", "It helps.", "The loss.", {"let": let}, (0, 1), {})
    main(more, ["--report"], place)
    assert len(trained) == 3  # nothing was trained for it
    assert "1 of 2 seeds" in (place.results / "first" / "report.md").read_text()
    slow = {"slow": {"optimizer.lr": "1e-5"}}
    third = Recipe("third", "It helps.", "The loss.", {"let": let, **slow}, (0,), {})
    main(third, ["--report"], place)  # of two arms one is there
    text = (place.results / "third" / "report.md").read_text()
    assert "To come: slow." in text and "LET is" in text and "slow is" not in text
    none = Recipe("none", "It helps.", "The loss.", slow, (0,), {})
    main(none, ["--report"], place)
    assert "nothing to report" in capsys.readouterr().out and not (place.results / "none").exists()
    found = place.results / "lab" / runs.key_of(place, {"debug.seed": "0"}) / "summary.json"
    summary = json.loads(found.read_text())
    summary["config"]["let"]["cca_every"] = 10  # of a loss that it does not have
    found.write_text(json.dumps(summary))
    assert runs.is_finished(place, {"debug.seed": "0"})
    summary["config"]["optimizer"]["beta2"] = 0.9  # as if that default had been another one then
    found.write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=r"beta2 = 0\.9, whose default is 0\.95"):
        main(first, ["--list"], place)
    del summary["config"]["optimizer"]["beta2"]  # a key that there was not, then
    found.write_text(json.dumps(summary))
    main(more, [], place)  # trains seed 1, whose summary has it: they compare nonetheless
    assert len(trained) == 5
    text = (place.results / "first" / "report.md").read_text()
    assert "Seeds 0, 1 of the initial weights" in text


def test_a_run_whose_time_is_over_is_no_finished_one_and_goes_on(place, monkeypatch, capsys):
    keys = {"training.steps": "1000000", "checkpoint.enable": "true"}
    folder = place.lab / "runs" / runs.key_of(place, keys)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    starts = []
    for seconds in (0, 12, 12, 25, 50, 100):  # the last ones on a machine that is loaded
        assert not runs.finish(place, keys, time.monotonic() + seconds)
        if (folder / "summary.json").exists():
            starts = json.loads((folder / "summary.json").read_text())["starts"]
        if len(starts) == 2:
            break
    assert starts[1]["step"] > 0
    assert not is_complete(folder) and not runs.is_finished(place, keys)
    recipe = Recipe("long", "It helps.", "The loss.", {"slow": {"optimizer.lr": "1e-5"}}, (0,), {})
    main(recipe, ["--minutes", "0"], place)
    assert "The time is over" in capsys.readouterr().out
    assert list((place.lab / "runs").iterdir()) == [folder]


def test_a_run_that_is_stopped_has_the_time_to_save(tmp_path, monkeypatch):
    given = []

    def popen(command, *, cwd, env):
        given.append(env)
        return subprocess.Popen(["true"])

    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(Popen=popen))
    for said in (None, "20"):
        if said:
            monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", said)
        launch.train(tmp_path, "x.toml", {})
    assert [env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] for env in given] == ["600", "20"]


@pytest.mark.parametrize("setting", [runs.LAB, runs.SMOLLM2, runs.GPU], ids=lambda s: s.lab.name)
def test_what_is_not_made_names_the_program_that_makes_it(setting, tmp_path, capsys):
    made = Path(setting.root / setting.maker)
    assert made.exists() and setting.lab.name in made.read_text().replace('" / "', "/")
    recipe = Recipe("first", "It helps.", "The loss.", {}, (0,), {}, setting)
    with pytest.raises(SystemExit):
        main(recipe, ["--list"], replace(setting, lab=tmp_path))
    assert f"run {setting.maker} first" in capsys.readouterr().err


def test_no_job_at_a_time_is_a_mistake(place, capsys):
    with pytest.raises(SystemExit):
        main(Recipe("first", "It helps.", "The loss.", {}, (0,), {}), ["--jobs", "0"], place)
    assert "one run at a time is the least" in capsys.readouterr().err


def test_the_key_is_of_what_is_trained(place, lab):
    teacher = f"{lab.assets}/teacher"
    let = {"let.enable": "true", "let.lambda_0": "0.1", "teacher.checkpoint": teacher}
    key, with_teacher = runs.key_of(place, {}), runs.key_of(place, let)
    assert runs.key_of(place, {"metrics.log_freq": "5"}) == key
    assert runs.key_of(place, {"optimizer.beta2": "0.95"}) == key  # its default
    assert runs.key_of(place, {"debug.seed": "1"}) != key
    assert runs.key_of(place, {"checkpoint.interval": "7"}) == key
    assert runs.key_of(place, {"checkpoint.initial_load_path": "start/step-8"}) != key
    assert with_teacher != key
    marker = place.lab / "lab.json"
    known = json.loads(marker.read_text())
    marker.write_text(json.dumps(known | {f"{teacher}/model.safetensors": "another"}))
    assert runs.key_of(place, let) != with_teacher
    assert runs.key_of(place, {}) == key  # which has no teacher
    marker.write_text(json.dumps(known | {"student.jsonl.zst": "another"}))
    assert runs.key_of(place, {}) != key
    with pytest.raises(FileNotFoundError, match="knows no elsewhere"):
        runs.key_of(place, {**let, "teacher.checkpoint": "elsewhere"})


def test_the_key_is_of_the_tokenizer_but_not_of_the_cache(place, lab):
    marker = place.lab / "lab.json"
    known = json.loads(marker.read_text())
    named = {"tokenizers/r50k_base.tiktoken": "r50k", "tokenizers/other/tokenizer.json": "other"}
    plain = runs.key_of(place, {})
    marker.write_text(json.dumps(known | named))
    assert runs.key_of(place, {}) == plain  # it reads neither
    files = ("tokenizers/r50k_base.tiktoken", "tokenizers/other")
    keys = [{"model.hf_assets_path": file} for file in files]
    assert [runs.files_read(place, each)["tokenizer"] for each in keys] == ["r50k", "other"]
    assert len({plain, *(runs.key_of(place, each) for each in keys)}) == 3
    let = {"let.enable": "true", "teacher.checkpoint": f"{lab.assets}/teacher"}
    cached = {**let, "teacher.cache": "states"}
    assert runs.key_of(place, cached) == runs.key_of(place, let)


def test_all_tokenizers_in_one_table(lab, place, monkeypatch):
    """The second setting's students, here one that trains and one that is to come."""
    teacher = {"let.s_stop": "1", "teacher.checkpoint": f"{lab.assets}/teacher"}
    arms = {"LET": {"let.enable": "true", "let.k": "2", **teacher}}
    same = replace(training.RECIPES["same"], arms=arms, place=place)
    main(same, [])
    later = replace(same, name="cross_tokenizer/later", seeds=(9,))
    monkeypatch.setattr(training, "RECIPES", {"same": same, "later": later})
    text = training.summarise(place)
    assert text == (place.results / "cross_tokenizer" / "training.md").read_text()
    (row,) = json.loads((place.results / "cross_tokenizer" / "training.json").read_text())["same"]
    ends = [
        runs.load(place, {**keys, "debug.seed": "0"}, "run").curve[-1][1]
        for keys in ({}, arms["LET"])
    ]
    assert row["baseline"] == ends[0]
    assert row["percent"] == pytest.approx(100 * (ends[1] - ends[0]) / ends[0])
    assert "To come: later." in text and f"| {ends[0]:.3f} | {ends[1] - ends[0]:+.3f} |" in text


def test_every_student_of_another_tokenizer_is_asked_for_by_a_known_name():
    files = [Path(keys["model.hf_assets_path"]) for keys in STUDENTS.values()]
    assert {file.stem for file in files if file.suffix} < set(RANKS)
    for name, keys in STUDENTS.items():
        arm = training.RECIPES[name].arms["LET"]
        assert arm["teacher.tokenizer"] == "align" and arm.items() >= keys.items()


@pytest.mark.parametrize("setting", [runs.LAB, runs.SMOLLM2], ids=["lab", "smollm2"])
def test_all_recipes_of_a_setting_are_within_its_means(setting, place):
    real = replace(setting, lab=place.lab)
    assert 0 < len({runs.key_of(real, keys) for keys in all_keys(setting)}) <= MEANS


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_says_what_it_asks_and_its_runs_differ(name, place):
    recipe = importlib.import_module(name).RECIPE
    real = replace(recipe.place, lab=place.lab)
    assert recipe.name == name and recipe.hypothesis and recipe.metric
    one = replace(recipe, seeds=recipe.seeds[:1])
    keys = [runs.key_of(real, keys) for *_, keys in one.settings()]
    assert len(set(keys)) == len(keys) == len(recipe.arms) + 1


def test_the_labs_configs_name_the_labs_files():
    for name in ("teacher", "student"):
        config = LetConfigManager().parse_args(["--job.config_file", f"{RECIPES}/lab/{name}.toml"])
        assert config.training.dataset_path == f"outputs/lab/corpus/{name}.jsonl.zst"
        assert config.validation.dataset_path == "outputs/lab/corpus/validation.jsonl.zst"
