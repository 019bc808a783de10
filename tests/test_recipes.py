"""The lab's recipes in a tiny form: each parses, and a run is trained once for all of them."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
from lab import runs
from lab.bad_teachers import drawn_anew, make_worse, with_noise
from lab.corpus import deal, documents
from lab.launch import flags, train
from lab.recipe import Recipe, main
from safetensors.torch import load_file

from let_titan.compare import files
from let_titan.config import LetConfigManager

RECIPES = Path(__file__).parents[1] / "recipes"

NAMES = sorted(
    path.stem
    for path in RECIPES.glob("*.py")
    if path.stem.startswith(("ablate_", "compare_", "tune_lab"))
)


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


def all_keys():
    """The keys of every recipe's every run."""
    recipes = [importlib.import_module(name).RECIPE for name in NAMES]
    return [keys for recipe in recipes for *_, keys in recipe.settings()]


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

    def counted(*args):
        trained.append(args)
        return train(*args) if len(trained) <= 2 else pretend_to_train(place, args[-1])

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


def test_the_key_is_of_what_is_trained(place, lab):
    teacher = f"{lab.assets}/teacher"
    let = {"let.enable": "true", "let.lambda_0": "0.1", "teacher.checkpoint": teacher}
    key, with_teacher = runs.key_of(place, {}), runs.key_of(place, let)
    assert runs.key_of(place, {"metrics.log_freq": "5"}) == key
    assert runs.key_of(place, {"optimizer.beta2": "0.95"}) == key  # its default
    assert runs.key_of(place, {"debug.seed": "1"}) != key
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


@pytest.fixture
def real(place):
    """The lab's own student, whose configs are parsed once for all tests."""
    return runs.Place(lab=place.lab)


def test_all_recipes_together_are_within_the_labs_means(real):
    assert len({runs.key_of(real, keys) for keys in all_keys()}) <= 62


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_says_what_it_asks_and_its_runs_differ(name, real):
    recipe = importlib.import_module(name).RECIPE
    assert recipe.name == name and recipe.hypothesis and recipe.metric
    keys = [runs.key_of(real, keys) for *_, keys in recipe.settings()]
    assert len(set(keys)) == len(keys) == (len(recipe.arms) + 1) * len(recipe.seeds)


def test_the_labs_configs_name_the_labs_files():
    for name in ("teacher", "student"):
        config = LetConfigManager().parse_args(["--job.config_file", f"{RECIPES}/lab/{name}.toml"])
        assert config.training.dataset_path == f"outputs/lab/corpus/{name}.jsonl.zst"
        assert config.validation.dataset_path == "outputs/lab/corpus/validation.jsonl.zst"


def test_the_corpus_is_dealt_without_overlap(lab, tmp_path):
    deal(str(lab.assets / "train.jsonl"), tmp_path / "parts")
    parts = {
        name: {d["text"] for d in documents(str(tmp_path / "parts" / f"{name}.jsonl.zst"))}
        for name in ("teacher", "student", "validation")
    }
    assert sum(map(len, parts.values())) == 100  # each is short enough for one piece
    assert not parts["teacher"] & parts["student"]
    assert min(len(parts["teacher"]), len(parts["student"])) > 30


def test_bad_teachers_are_as_bad_as_said(lab, tmp_path):
    good = load_file(lab.assets / "teacher" / "model.safetensors")
    for change, error in ((with_noise(0.3), 0.3), (drawn_anew(), 2**0.5)):
        make_worse(lab.assets / "teacher", tmp_path / f"bad{error}", change)
        bad = load_file(tmp_path / f"bad{error}" / "model.safetensors")
        for name, weight in good.items():
            if weight.ndim > 1:
                found = (bad[name] - weight).norm() / weight.norm()
                assert found.item() == pytest.approx(error, rel=0.1), name
            else:
                assert bad[name].equal(weight)
