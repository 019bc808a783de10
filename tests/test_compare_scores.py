"""Task accuracy and perplexity over checkpoints, from evaluations made by hand."""

import json

import pytest
from scipy import stats

from let_titan.compare.__main__ import main
from let_titan.compare.charts import drawn
from let_titan.compare.markdown import report
from let_titan.compare.result import compare
from let_titan.compare.text import score_rows
from let_titan.evaluate.record import note
from let_titan.runs import EVALUATIONS, Run
from tests.handmade import BASELINE, BETTER, STUDENT, TEACHER, TOKENS, evaluate, write_run


def evaluated(tmp_path, let, averages, seed=7):
    folder = write_run(tmp_path / f"{'let' if let else 'baseline'}-seed{seed}", let, BASELINE, seed)
    if averages:
        evaluate(folder, averages)
    return Run.load(folder)


def lines_of(tmp_path, *lines):
    folder = write_run(tmp_path / "run", False, BASELINE)
    (folder / EVALUATIONS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Run.load(folder).evaluations


def test_the_cost_of_the_baselines_accuracy_includes_the_teacher(tmp_path):
    baseline = evaluated(tmp_path, False, {10: 0.30, 20: 0.40, 40: 0.50})
    let = evaluated(tmp_path, True, {10: 0.30, 20: 0.45, 40: 0.55})
    (result,) = compare([let], [baseline]).results
    level = result.accuracy
    assert (1 - level.loss, level.reached, level.n) == (pytest.approx(0.5), 1, 1)
    # From 0.45 at step 20 to 0.55 at step 40, 0.5 lies in the middle.
    assert level.costs["steps"].run == pytest.approx(30)
    assert level.costs["steps"].speed_up.value == pytest.approx(40 / 30)
    assert level.costs["tokens"].run == pytest.approx(30 * TOKENS)
    assert level.costs["flops"].run == pytest.approx(30 * STUDENT + 20 * TEACHER)
    assert [row.step for row in result.averages] == [10, 20, 40]
    assert ["average of the tasks", "accuracy", "40", "0.5000", "0.5500", "+0.0500"] in score_rows(
        result
    )


def test_a_dip_does_not_delay_and_what_is_not_reached_is_said(tmp_path):
    baseline = evaluated(tmp_path, False, {5: 0.1, 10: 0.30, 20: 0.4, 40: 0.50})
    let = evaluated(tmp_path, True, {5: 0.30, 10: 0.50, 20: 0.35, 40: 0.49})
    (result,) = compare([let], [baseline]).results
    assert result.accuracy.costs["steps"].run == pytest.approx(10)
    let = evaluated(tmp_path, True, {10: 0.3, 40: 0.49}, seed=8)
    (result,) = compare([let], [baseline]).results
    assert result.accuracy.reached == 0 and result.accuracy.costs["steps"].speed_up is None


def test_seeds_pair_as_they_do_for_the_loss(tmp_path):
    gains = [0.01, 0.02, 0.04]
    baseline = [evaluated(tmp_path, False, {20: 0.3, 40: 0.4 + s / 10}, s) for s in range(3)]
    let = [evaluated(tmp_path, True, {20: 0.3, 40: 0.4 + s / 10 + gains[s]}, s) for s in range(3)]
    (result,) = compare(let[::-1], baseline).results
    difference = result.averages[-1].difference
    wanted = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx(tuple(wanted))
    assert difference.test == "paired t"
    speeds = [
        40 / (20 + 20 * (0.1 + s / 10) / (0.1 + s / 10 + gain)) for s, gain in enumerate(gains)
    ]
    assert result.accuracy.costs["steps"].speed_up.value == pytest.approx(stats.gmean(speeds))


def test_seeds_that_do_not_pair_are_compared_by_their_means(tmp_path):
    baseline = [evaluated(tmp_path, False, {20: 0.3, 40: 0.4 + s / 10}, s) for s in (0, 1)]
    let = [evaluated(tmp_path, True, {20: 0.3, 40: 0.5 + s / 10}, s) for s in (2, 4)]
    (result,) = compare(let, baseline).results  # the means: 0.45 and 0.8 at the end
    assert result.averages[-1].difference.test == "Welch's t"
    assert result.accuracy.costs["steps"].run == pytest.approx(20 + 20 * 0.15 / 0.5)


def test_averages_over_other_tasks_are_not_compared(tmp_path):
    baseline = evaluated(tmp_path, False, {20: 0.4, 40: 0.5})
    let = evaluated(tmp_path, True, {20: 0.4, 40: 0.6})
    for line in let.evaluations:
        del line["tasks"]["piqa"]
    comparison = compare([let], [baseline])
    assert comparison.results[0].averages == [] and comparison.results[0].accuracy is None
    assert [score.name for score in comparison.results[0].scores] == ["winogrande", "overall"]
    assert "accuracy" not in drawn(comparison)


def test_runs_without_evaluations_are_compared_as_before(tmp_path):
    baseline, let = evaluated(tmp_path, False, None), evaluated(tmp_path, True, {40: 0.5})
    (result,) = compare([let], [baseline]).results
    assert (result.scores, result.averages, result.accuracy) == ([], [], None)


def test_either_half_may_be_absent_and_what_comes_last_counts(tmp_path):
    tasks = {"piqa": {"acc": 0.6, "metric": "acc"}}
    found = lines_of(
        tmp_path,
        {"step": 40, "tasks": tasks, "average": 0.5},
        {"step": 20, "perplexity": {"web": {"bits_per_byte": 1.5}}},
        {"step": 40, "average": 0.6},
        {"step": 40, "perplexity": {"web": {"bits_per_byte": 1.4}}},
    )
    assert [line["step"] for line in found] == [20, 40]
    assert found[1]["average"] == 0.6 and found[1]["tasks"] == tasks
    assert found[1]["perplexity"]["web"]["bits_per_byte"] == 1.4


def test_the_files_show_tasks_and_bits_per_byte(tmp_path):
    folders = [write_run(tmp_path / name, name == "let", BETTER) for name in ("base", "let")]
    for folder in folders:
        evaluate(folder, {20: 0.4, 40: 0.5})
    assert main([str(folders[1]), "--baseline", str(folders[0]), "--out", str(tmp_path / "o")]) == 0
    text = (tmp_path / "o" / "report.md").read_text()
    assert "| piqa | acc_norm | 40 | 0.4000 | 0.4000 | +0.0000 |" in text
    assert "| overall | bits per byte | 40 | 1.5000 | 1.5000 | +0.0000 |" in text
    assert "Spent until the tasks' average is 0.5000, the baseline's at step 40 (1 of 1" in text
    assert (tmp_path / "o" / "accuracy.png").exists()
    assert "Tasks and perplexity" in (tmp_path / "o" / "report.html").read_text()
    (arm,) = json.loads((tmp_path / "o" / "report.json").read_text())["arms"]
    assert arm["accuracy"]["costs"]["steps"]["speed_up"]["value"] == 1.0


def test_tasks_of_a_step_evaluated_twice_are_all_kept_and_averaged(tmp_path):
    first = {"piqa": {"acc": 0.6, "metric": "acc"}, "arc": {"acc": 0.3, "metric": "acc"}}
    again = {"boolq": {"acc": 0.7, "metric": "acc"}, "arc": {"acc": 0.5, "metric": "acc"}}
    broken = {"siqa": {"acc": None, "metric": "acc"}}
    lines = [
        {"step": 20, "tasks": first, "average": 0.45},
        {"step": 20, "tasks": again, "average": 0.6},
        {"step": 40, "tasks": first, "average": 0.45},
        {"step": 40, "tasks": broken, "average": None},
    ]
    found = lines_of(tmp_path, *lines)
    assert found[0]["tasks"] == {**first, **again}
    assert found[0]["average"] == pytest.approx((0.6 + 0.5 + 0.7) / 3)
    assert found[1]["average"] is None and "piqa" in found[1]["tasks"]


def test_a_chart_that_is_not_drawn_is_not_linked(tmp_path):
    baseline, let, other = (
        write_run(tmp_path / name, name != "baseline", BETTER) for name in ("baseline", "let", "k")
    )
    text = (other / "summary.json").read_text().replace('"k": 2', '"k": 3')
    (other / "summary.json").write_text(text)
    for folder in (baseline, let):
        evaluate(folder, {20: 0.4, 40: 0.5})
    runs = [Run.load(folder) for folder in (baseline, let, other)]
    for count, linked in ((2, True), (3, False)):
        comparison = compare(runs[1:count], runs[:1])
        assert ("(accuracy.png)" in report(comparison)) == linked
        assert ("accuracy" in drawn(comparison)) == linked
        assert "Spent until the tasks' average is" in report(comparison)


TASK = {"acc": 0.6, "metric": "acc", "items": 1838, "hash": "a" * 64, "version": 1, "add_bos": True}
DOMAIN = {"bits_per_byte": 1.1, "tokens": 5000, "bytes": 20000, "seq_len": 64, "stride": 16}


def scored(tmp_path, task, domain):
    """A baseline and a run that was measured so; at step 20 both as the baseline."""
    runs = []
    for name in ("baseline", "let"):
        folder = write_run(tmp_path / name, name == "let", BETTER)
        for step in (20, 40):
            own = step == 40 and name == "let"
            tasks = {"piqa": TASK | (task if own else {}), "boolq": TASK}
            note(folder, step, tasks=tasks, average=0.6 + step / 1000)
            note(folder, step, perplexity={"web": DOMAIN | (domain if own else {})})
        runs.append(Run.load(folder))
    return runs


def found_of(runs):
    (result,) = compare(runs[1:], runs[:1]).results
    steps = {score.name: score.row.step for score in result.scores}
    return steps, [row.step for row in result.averages], " ".join(result.caveats)


@pytest.mark.parametrize(
    ("term", "value"),
    [("items", 8), ("hash", "b" * 64), ("version", 2), ("add_bos", False)],
    ids=["items", "hash", "version", "add_bos"],
)
def test_tasks_of_other_items_are_not_compared_and_are_named(tmp_path, term, value):
    steps, averages, said = found_of(scored(tmp_path, {term: value}, {}))
    assert steps == {"piqa": 20, "boolq": 40, "web": 40} and averages == [20]
    assert said == (
        "But scores are left out that were not measured alike: piqa (piqa's "
        f"{term} at step 40: {str(TASK[term])[:12]} in baseline, {str(value)[:12]} in let). "
        "Evaluate all runs with the same options."
    )


@pytest.mark.parametrize(
    ("term", "value"), [("tokens", 4096), ("bytes", 19990), ("seq_len", 128), ("stride", 32)]
)
def test_perplexities_of_another_text_are_not_compared_and_are_named(tmp_path, term, value):
    steps, averages, said = found_of(scored(tmp_path, {}, {term: value}))
    assert steps == {"piqa": 40, "boolq": 40, "web": 20} and averages == [20, 40]
    assert f"web (web's {term} at step 40: {DOMAIN[term]} in baseline, {value} in let)" in said


def test_what_a_measure_does_not_say_is_not_held_against_it(tmp_path):
    unsaid = dict.fromkeys(("items", "hash", "version", "add_bos", *list(DOMAIN)[1:]))
    steps, averages, said = found_of(scored(tmp_path, unsaid, unsaid))
    assert steps == {"piqa": 40, "boolq": 40, "web": 40} and averages == [20, 40] and said == ""


@pytest.mark.parametrize(("bytes_", "step"), [(19990, 40), (19000, 20)])
def test_other_tokenizers_are_compared_over_one_text(tmp_path, bytes_, step):
    runs = scored(tmp_path, {}, {"tokens": 4096, "bytes": bytes_})
    runs[1].summary["tokenizer"] = {"sha256": "other"}
    (result,) = compare(runs[1:], runs[:1], ["data"]).results
    assert {score.name: score.row.step for score in result.scores}["web"] == step


def test_many_domains_of_another_text_are_counted(tmp_path):
    runs = scored(tmp_path, {}, {})
    for run, size in zip(runs, (10, 20), strict=True):
        domains = {f"set{n}": DOMAIN | {"bytes": size} for n in range(22)}
        run.evaluations[-1]["perplexity"] = domains
    (caveat,) = compare(runs[1:], runs[:1]).results[0].caveats
    assert "alike: set0, set1, set2, 19 more (set0's bytes at step 40: 10 in base" in caveat
