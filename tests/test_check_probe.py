"""recipes/check_probe.py: noise, verdicts, and its report on whole runs made by hand."""

import json
import math

import check_probe
import pytest
from ablate_lambda import RECIPE as LAMBDA
from compare_methods import RECIPE as METHODS
from lab.runs import ROOT, Place, key_of
from probe_check.verdict import HOLDS, OPEN, WRONG, at_least, judge, nearest
from probe_check.whole_runs import Ends, Noise, ends_of, noise_of

from let_titan.config import LetConfigManager
from let_titan.probe.__main__ import check, parser

NOISE = Noise(sd=0.02, df=6)


def test_two_arms_are_told_apart_by_students_t_and_many_by_tukeys_range():
    assert NOISE.of_two(1) == pytest.approx(2.447 * 0.02, rel=1e-3)
    assert NOISE.of_two(4) == pytest.approx(NOISE.of_two(1) / 2)
    assert NOISE.of_all(2, 1) == pytest.approx(NOISE.of_two(1))  # of two arms they are the same
    assert NOISE.of_all(5, 1) == pytest.approx(5.305 * 0.02 / math.sqrt(2), rel=1e-3)  # a table's


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        ({1: 0.0, 2: 0.01, 3: 0.2}, HOLDS),  # an arm is worse, and it is not this one
        ({1: 0.0, 2: 0.06, 3: 0.2}, WRONG),
        ({1: 0.0, 2: 0.01, 3: 0.03}, OPEN),  # all may be equal
    ],
)
def test_a_rule_holds_is_wrong_or_cannot_be_decided(ended, outcome):
    verdict = judge("k", 2, (2,), Ends(ended, 1, ()), NOISE)
    assert (verdict.outcome, verdict.best, verdict.regret) == (outcome, 1, ended[2])


def test_the_arm_for_a_proposal():
    arms = {0.01: 0.0, 0.1: 0.0, 1.0: 0.0}
    assert nearest(0.25, arms) == (0.1,) and nearest(0.4, arms) == (1.0,)  # in ratio
    assert at_least(120 / 800, {0.05: 0.0, 0.15: 0.0, 1.0: 0.0}) == (0.15, 1.0)


def write_run(place, keys, last):
    """A finished run, as far as it is looked at."""
    folder = place.results / "lab" / key_of(place, keys)
    folder.mkdir(parents=True)
    lines = [{"step": 800, "loss": last}, {"step": 800, "val_loss": last}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {key: {} for key in ("hardware", "let_plan", "parameters", "versions")}
    summary["config"] = {"training": {"steps": 800}}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def place(tmp_path):
    """A lab whose whole runs say: block 3 is good, lambda_0 is best at 0.1, seeds do 0.02."""
    here = Place(ROOT, lab=tmp_path / "lab", results=tmp_path / "results")
    here.lab.mkdir()
    known = {"recipes/lab/made/teacher/model.safetensors": "a", "student.jsonl.zst": "b"}
    (here.lab / "lab.json").write_text(json.dumps(known))
    written = set()

    def write(recipe, arms, seeds):
        for arm, seed, keys in recipe.settings():
            key = key_of(here, keys)
            if arm in arms and seed in seeds and key not in written:
                written.add(key)
                write_run(here, keys, 4.6 + arms[arm] + (0.02 * seed if arm != "baseline" else 0))

    write(METHODS, {"baseline": 0.0, "LET": -0.01, "SALT": -0.07}, (0, 1, 2))
    write(check_probe.K, {"block 1": 0.1, "block 3": -0.02, "block 4": 0.0}, (0,))
    write(LAMBDA, {"lambda_0 0.01": 0.02, "lambda_0 0.1": 0, "lambda_0 1": 0.2}, (0,))
    return here


def test_noise_and_ends_are_of_the_runs_that_are_there(place):
    noise = noise_of([METHODS, LAMBDA], place)
    assert noise.df == 4  # two arms of three seeds; LET is both recipes', and counts once
    assert noise.sd == pytest.approx(0.02)
    ends = ends_of(check_probe.K, place)
    expected = {1: 0.1, 2: -0.01, 3: -0.02, 4: 0.0}
    assert ends.differences == pytest.approx(expected) and ends.missing == ("block 6",)
    assert ends_of(LAMBDA, place).seeds == 1  # 0.1 has three, the others one


def test_the_report_judges_what_the_probe_proposed(place, capsys):
    row = {"grad_cosine_error": 0.01, "cosine_first": 0.0, "loss": 6.0}
    names = ("grad_cosine", "grad_ratio", "cosine_last", "loss_gain")
    evidence = [{"block": k, **dict.fromkeys(names, 0.1 * k), **row} for k in (1, 2, 3, 4, 6)]
    proposal = {"k": 3, "lambda_0": 2.0, "s_stop": None, "because": {}}
    probe = {"steps": 120, "evidence": evidence, "proposal": proposal}
    probe |= {"lambda_0": 0.1, "target_ratio": 0.1}
    facts = {"versions": {"python": "3", "torch": "2"}, "hardware": {"cpu": "a CPU"}}
    folder = place.results / "check_probe"
    with pytest.raises(SystemExit):
        check_probe.main(["--report"], place)
    assert "run without --report first" in capsys.readouterr().err
    folder.mkdir()
    (folder / "probe.json").write_text(json.dumps({**probe, **facts}))
    check_probe.main(["--report"], place)
    results = json.loads((folder / "results.json").read_text())
    said = {row["setting"]: row for row in results["verdicts"]}
    assert said["k"]["outcome"] == HOLDS and said["k"]["regret"] == 0
    assert said["lambda_0"]["outcome"] == WRONG and said["lambda_0"]["stands_for"] == [1.0]
    assert said["s_stop"]["outcome"] == OPEN  # one arm alone
    assert results["rank_correlations"]["grad_cosine"] == pytest.approx(-0.4)
    report = (folder / "report.md").read_text()
    assert "| 1 | 2 | +0.200 |" in report  # 0.2 of block 2 at 0.1, times ten
    assert "To come: block 6." in report and "| 3 | +0.3000 ± 0.0100" in report
    assert (folder / "probe.png").stat().st_size > 1000


def test_the_probe_is_run_on_what_it_accepts():
    own, rest = parser().parse_known_args(check_probe.probe_arguments(Place()))
    config = LetConfigManager().parse_args(rest)
    check(own, config)
    assert (own.blocks, own.steps, config.let.lambda_0) == ("1,2,3,4,6", 120, 0.1)
