"""What a verdict must not keep silent: figures that are the grid's, runs cut short, lengths."""

import json
import math
import re

import pytest

from let_titan.compare.__main__ import main
from let_titan.compare.markdown import RUN_HEADER, report
from let_titan.compare.page import cards
from let_titan.compare.result import compare
from let_titan.compare.text import accuracy_sentence, cost_rows, headline, speed_sentence, verdict
from let_titan.runs import Run
from tests.handmade import BASELINE, BETTER, WORSE, evaluate, seeds, shifted, twins, write_run


@pytest.mark.parametrize("before", [{}, {20: 0.41}], ids=["one evaluation", "two"])
def test_an_accuracy_met_at_a_first_evaluation_gives_no_figure(tmp_path, before):
    """1.000x (1.000x to 1.000x), or 2x: these are the steps that were evaluated, no speed-up."""
    folders = {}
    for let in (False, True):
        for seed in range(3):
            folder = write_run(tmp_path / f"{let}-seed{seed}", let, BASELINE, seed)
            evaluate(folder, {s: v + 0.2 * let for s, v in before.items()} | {40: 0.5 + 0.1 * let})
            folders.setdefault(let, []).append(Run.load(folder))
    (result,) = compare(folders[True], folders[False]).results
    level = result.accuracy
    assert level.reached == 3 and level.unseen
    assert all(cost.run is cost.speed_up is None for cost in level.costs.values())
    assert level.costs["steps"].baseline == (40 if before else None)
    assert "(3 of 3 reached it). No speed-up can be given: it was" in accuracy_sentence(result)


def test_a_run_whose_summary_was_lost_is_named(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    assert "summary.json was lost" not in report(compare([let], [baseline]))
    let.summary["lost_before"] = 1000
    told = report(compare([let], [baseline]))
    assert f"its summary.json was lost: {let.name} (before step 1,000)." in told


def test_a_loss_that_was_there_untrained_gives_no_figure_but_a_sentence(tmp_path):
    baseline, let = twins(tmp_path, {**BASELINE, 40: 11.0}, BETTER)
    (result,) = compare([let], [baseline]).results
    assert speed_sentence(result) == (
        "No speed-up can be given: it was there at a first evaluation already, and how long "
        "before that is not known (the goal is the baseline's 11.000)."
    )
    assert cards(result)[1].value == "not known"


def test_an_untimed_run_that_misses_the_goal_leaves_no_time(tmp_path):
    """Its pair does not count for the clock, but the others are the lucky ones nonetheless."""
    baseline = seeds(tmp_path, False, BASELINE, BASELINE)
    let = seeds(tmp_path, True, BETTER, WORSE)
    (result,) = compare(let, baseline, untimed={id(let[1])}).results
    for name, cost in result.target.costs.items():
        assert cost.run is cost.speed_up is None, name
    assert {row[2] for row in cost_rows(result.target, "hours")} == {"not reached"}


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("fine", [0, 1], ids=["baseline", "run"])
def test_a_speed_up_is_read_on_the_steps_that_both_were_evaluated_at(tmp_path, fine, paired):
    """What one side was evaluated at besides changes nothing: neither of two like runs of a convex
    curve is the faster by it, and a better one is as much faster as it was."""
    found = {}
    for also in (False, True):
        for ahead in (0, 4):
            curves = [
                {step: 7 + 4 * math.exp(-(step + ahead * let) / 12) for step in range(0, 41, 2)}
                for let in (False, True)
            ]
            losses = [{step: curve[step] for step in (0, 20, 40)} for curve in curves]
            if also:
                losses[fine] = curves[fine]
            runs = {False: [], True: []}
            for let in (False, True):
                for seed in (0, 1) if paired or not let else (2, 3):
                    folder = tmp_path / f"{also}-{ahead}-{let}-{seed}"
                    write_run(folder, let, losses[let], seed)
                    evaluate(folder, {step: 1 - loss / 20 for step, loss in losses[let].items()})
                    runs[let].append(Run.load(folder))
            (result,) = compare(runs[True], runs[False]).results
            assert result.paired == paired
            levels = (*result.curve, result.target, result.accuracy)
            found[also, ahead] = [level.costs["steps"].speed_up.value for level in levels]
    assert found[True, 0] == found[False, 0] == pytest.approx([1.0] * len(found[True, 0]))
    assert found[True, 4] == found[False, 4]
    assert min(found[True, 4]) > 1


def test_a_longer_run_is_followed_past_the_baselines_end(tmp_path):
    late = WORSE | {45: 7.0, 50: 6.9}
    baseline, let = twins(tmp_path, BASELINE, late)
    (result,) = compare([let], [baseline]).results
    assert result.rows[-1].step == 40
    assert result.target.costs["steps"].run == 45


@pytest.mark.parametrize(
    "state", ["failed: the loss is not finite\nat step 27 " + 99 * "long ", "running"]
)
def test_a_run_that_did_not_come_to_its_end_is_named_beside_the_verdict(tmp_path, state):
    baseline, let = twins(tmp_path, BASELINE, {s: BETTER[s] for s in (0, 10, 20, 30)})
    (sound,) = json.loads(compare([let], [baseline]).to_json())["arms"]
    assert "caveats" not in sound
    let.summary["exit_state"] = state
    comparison = compare([let], [baseline])
    said = " ".join(state.split())[:40]
    assert f"But let did not come to its end (exit state: {said}" in headline(comparison.results[0])
    assert "; last step: 30)." in verdict(comparison.results[0])
    assert len(headline(comparison.results[0])) < 500
    assert json.loads(comparison.to_json())["arms"][0]["caveats"]
    del let.summary["exit_state"]  # of an old version
    assert "come to its end" not in verdict(compare([let], [baseline]).results[0])


def test_an_exit_state_of_several_lines_stays_in_its_cell(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    words = "failed on rank 3: CUDA error | device-side assert\nCompile with it\n"
    let.summary["exit_state"] = words + 99 * "long "
    lines = report(compare([let], [baseline])).split("## The runs\n\n")[1].splitlines()
    assert [line[:6] for line in lines[:5]] == ["| run ", "| --- ", "| base", "| LET ", ""]
    cells = re.split(r"(?<!\\)\|", lines[3])
    assert len(cells) == len(RUN_HEADER) + 2
    state = cells[1 + RUN_HEADER.index("exit state")]
    assert r"rank 3: CUDA error \| device-side assert Compile with it long" in state
    assert len(state) < 130


def test_learning_rates_set_for_other_lengths_are_named_beside_the_verdict(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, {s: BETTER[s] for s in (0, 10, 20)})
    let.summary["config"]["training"]["steps"] = 20
    said = "learning rates were set for other lengths (20 steps, the baseline's for 40)"
    assert said in headline(compare([let], [baseline]).results[0])
    for run in (baseline, let):  # one schedule, of which one run saw the first half
        run.summary["config"]["lr_scheduler"] = {"total_steps": 40}
    assert "other lengths" not in headline(compare([let], [baseline]).results[0])


def test_a_run_that_diverged_has_no_speed_up(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, {**BETTER, 30: 6.9, 40: None})
    (result,) = compare([let], [baseline]).results
    assert result.target is None
    assert verdict(result).endswith("(1 of LET). No speed-up is given to runs that diverged.")


@pytest.mark.parametrize("n", [3, 2], ids=["paired", "Welch"])
def test_one_diverged_seed_of_several_is_said(tmp_path, capsys, n):
    for seed, curve in enumerate((BETTER, {**BETTER, 30: None, 40: None}, BETTER)):
        write_run(tmp_path / f"let-seed{seed}", True, curve, seed)
        write_run(tmp_path / f"baseline-seed{seed}", False, BASELINE, seed)
    let, baseline = (
        [str(tmp_path / f"{side}-seed{seed}") for seed in range(count)]
        for side, count in (("let", 3), ("baseline", n))
    )
    out = tmp_path / "out"
    assert main([*let, "--baseline", *baseline, "--out", str(out)]) == 0
    said = "LET cannot be compared at step 40: runs diverged (1 of LET)."
    assert said in capsys.readouterr().out and said in (out / "report.md").read_text()
    rows = json.loads((out / "report.json").read_text())["arms"][0]["rows"]
    assert [row["difference"]["value"] is None for row in rows] == [False] * 3 + [True] * 2


def test_a_difference_too_small_for_three_digits_is_not_nothing(tmp_path):
    baseline = seeds(tmp_path, False, BASELINE, BASELINE, BASELINE)
    let = seeds(tmp_path, True, *(shifted(BASELINE, -3e-4 + d) for d in (0, 1e-5, -1e-5)))
    (result,) = compare(let, baseline).results
    assert "LET is 0.00030 nats per token lower" in headline(result)
    assert "95 % interval -0.00032 to -0.00028, paired t" in headline(result)
    assert cards(result)[0].value == "-0.00030"
