"""recipes/notice_bad_teacher.py: what figures say of teachers, and its report on runs by hand."""

import json
from pathlib import Path

import notice_bad_teacher as recipe
import pytest
from bad_teacher_look.figures import figures_of
from lab.runs import ROOT, Place

from let_titan.config import LetConfigManager
from let_titan.probe.trials import BASELINE, Trial

LOOKS = 12


def looks_of(cosine, angle):
    return [
        (
            step,
            {
                "block_cosine": [[0.0, cosine * step / LOOKS, 0.0]],
                "grad_cosine": [angle],
                "grad_ratio": [0.02],
            },
        )
        for step in range(1, LOOKS + 1)
    ]


def trial(cosine, angle, loss):
    return Trial("t", 2, loss, looks_of(cosine, angle))


def test_a_figure_notices_what_lies_below_the_good_teachers_seed_for_seed():
    good = [trial(0.1 + seed, 0.2, 5.0 + seed) for seed in range(3)]
    low = [trial(0.05 + seed + 0.001 * seed, 0.2, 5.0 + seed) for seed in range(3)]
    high = [trial(0.15 + seed + 0.001 * seed, 0.2 - 0.1 * seed, 5.0 + seed) for seed in range(3)]
    baselines = [Trial(BASELINE, 0, 5.1 + seed, []) for seed in range(3)]
    found = figures_of({"good": good, "low": low, "high": high}, baselines, -2.0, 0.0)
    assert found["low"]["cosine_last"]["says"] == "worse"
    assert found["high"]["cosine_last"]["says"] == "better"
    assert found["low"]["cosine_last"]["difference"]["value"] == pytest.approx(-0.049)
    assert found["high"]["grad_cosine"]["says"] == "nothing"  # one seed of three is as good
    assert found["good"]["loss_gain"]["mean"]["value"] == pytest.approx(0.1)
    assert "says" not in found["good"]["cosine_last"]
    turned = [trial(0.1, -0.2, 5.0)] * 3
    stops = figures_of({"good": good, "turned": turned}, baselines, 0.0, 0.0)
    assert stops["turned"]["auto_stop"] == [10, 10, 10]  # the tenth look
    assert stops["good"]["auto_stop"] == [None] * 3


@pytest.fixture
def place(tmp_path):
    return Place(ROOT, lab=tmp_path / "lab", results=tmp_path / "results")


def test_the_report_and_what_is_there_is_kept(place, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    cosines = {"good": 0.2, "noise 0.3": 0.19, "noise 1.0": 0.1, "random": 0.3}
    trained = []

    def train(args, log):
        config = LetConfigManager().parse_args(args)
        folder = Path(config.job.dump_folder)
        trained.append(folder.name)
        folder.mkdir(parents=True)
        teacher, _, seed = folder.name.rpartition("-seed")
        assert (config.training.steps, config.debug.seed) == (recipe.STEPS, int(seed))
        assert config.lr_scheduler.total_steps == 800  # the whole run's learning rates
        lines = [{"step": 1, "loss": 5.0 + 0.001 * int(seed)}]
        if config.let.enable:
            assert (config.let.schedule, config.let.lambda_0) == ("constant", 0.1)
            cosine = cosines[teacher.replace("_", " ")] + 0.001 * int(seed)
            lines += [{"step": s, "diagnostics": d} for s, d in looks_of(cosine, 0.01)]
        else:
            assert teacher == BASELINE
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = {"versions": {"python": "3", "torch": "2"}, "hardware": {"cpu": "a CPU"}}
        names = ("k", "lambda_0", "auto_stop_cosine", "auto_stop_gain")
        summary |= {"let_plan": {}, "parameters": {}}
        summary["config"] = {"let": {name: getattr(config.let, name) for name in names}}
        (folder / "summary.json").write_text(json.dumps(summary))

    recipe.main(["--seeds", "2"], place, train)
    assert len(trained) == 10 and trained[0] == "baseline-seed0"
    recipe.main(["--seeds", "2"], place, train)
    assert len(trained) == 10
    folder = place.results / "notice_bad_teacher"
    results = json.loads((folder / "results.json").read_text())
    assert (results["block"], results["seeds"]) == (2, [0, 1])
    random = results["figures"]["random"]["cosine_last"]
    assert random["mean"]["value"] == pytest.approx(0.3005)
    report = (folder / "report.md").read_text()
    assert "| random | +0.3005 (" in report and "| good | +0.2005 | +0.0100 |" in report
    assert (folder / "looks.png").stat().st_size > 1000
    assert "random, seed 1: 5.0010" in capsys.readouterr().out
