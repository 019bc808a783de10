"""The recipes that measure evaluation and export: items rebuilt, parts put together."""

import json
import math

import evaluate_pools
import export_memory
import pytest
from pools.rebuild import science_rows, winogrande_pairs

PAIR = (
    "Sentence 1: The cup would not fit the bag because the _ was big. \nAnswer1: cup. \n"
    "Sentence 2: The cup would not fit the bag because the _ was small. \nAnswer2: bag."
)
UNSOUND = (
    PAIR.replace("Answer2: bag", "Answer2: box"),  # does not stand there
    PAIR.replace("Answer2: bag", "Answer2: cup"),  # one option
    PAIR.replace("the _ was big", "it was big"),  # no blank
    "Sentence 1: half of one",
)


def test_both_sentences_of_a_pair_have_its_answers_as_options():
    [pair] = winogrande_pairs([{"target": [PAIR, *UNSOUND]}, {"target": [PAIR]}])
    assert [row["answer"] for row in pair] == ["1", "2"]
    assert all((row["option1"], row["option2"]) == ("cup", "bag") for row in pair)
    assert pair[1]["sentence"].endswith("because the _ was small.")


def test_choices_are_cut_out_of_a_question():
    text = "Question: What does B do if it meets A?  (A) Join (A) (B) Flee (C) Stay with (A)?"
    [row] = science_rows([{"input": text, "target": ["C."]}])
    assert row["question"] == "What does B do if it meets A?" and row["answerKey"] == "C"
    assert row["choices"] == {
        "text": ["Join (A)", "Flee", "Stay with (A)"],
        "label": ["A", "B", "C"],
    }


def many_pairs(count):
    texts = [PAIR.replace("cup", f"cup{i}") for i in range(count)]
    return [{"target": texts}]


def test_more_items_begin_with_the_same_ones_and_no_shot_is_evaluated():
    found = many_pairs(evaluate_pools.SHOTS)
    few, more = (evaluate_pools.winogrande_parts(found, items) for items in (600, 1_000_000))
    assert [len(part["validation"]) for part in few] == [500, 100]
    assert few[0] == more[0] and few[1]["validation"] == more[1]["validation"][:100]
    shots = {row["sentence"] for row in few[0]["train"]}
    evaluated = [row["sentence"] for part in more for row in part["validation"]]
    assert len(evaluated) == 2 * evaluate_pools.SHOTS - evaluate_pools.SHOTS
    assert shots.isdisjoint(evaluated) and len(shots) == evaluate_pools.SHOTS


def test_less_than_a_pair_is_a_mistake(tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluate_pools.main([str(tmp_path), "--winogrande", "1", "--pools", str(tmp_path)])
    assert "a pair, which stays together, is 2" in capsys.readouterr().err


def test_parts_make_the_harness_figures_of_all_items(tmp_path, monkeypatch):
    right = [[1, 1, 0, 1], [0, 1]]
    told = iter(right)

    def evaluate(model, task, tasks, out):
        answers = next(told)
        result = {"items": len(answers), "acc": sum(answers) / len(answers), "metric": "acc"}
        return {"models": [{"tasks": {task: result}, "digest": "d"}], "settings": {}}

    monkeypatch.setattr(evaluate_pools, "evaluate", evaluate)
    monkeypatch.setattr(evaluate_pools, "write_task", lambda *_: None)
    found = evaluate_pools.evaluate_parts(tmp_path, "winogrande", [{}, {}], tmp_path)
    every = [x for part in right for x in part]
    mean = sum(every) / len(every)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in every) / (len(every) - 1))
    assert found["accuracy"] == pytest.approx(mean)
    assert found["stderr"] == pytest.approx(deviation / math.sqrt(len(every)))
    pool = evaluate_pools.judged(found, "pool", 10, 0.5)
    assert pool["standard_errors_above_chance"] == pytest.approx((mean - 0.5) / found["stderr"])
    assert "| pool | winogrande | 6 of 10 | acc | 66.7 ± 21.1 | 50.0 |" in evaluate_pools.row(pool)


def test_a_last_part_that_has_grown_is_written_anew(tmp_path):
    rows = [row for pair in winogrande_pairs(many_pairs(3)) for row in pair]
    evaluated = tmp_path / "part" / "winogrande" / "validation.jsonl"

    def written(count):
        splits = {"train": rows[-2:], "validation": rows[:count]}
        evaluate_pools.write_task("winogrande", splits, tmp_path / "part")
        return [json.loads(line) for line in evaluated.read_text().splitlines()]

    assert written(2) == rows[:2]
    then = evaluated.stat().st_mtime_ns
    assert written(2) == rows[:2] and evaluated.stat().st_mtime_ns == then
    assert written(4) == rows[:4]


@pytest.mark.slow
def test_the_memory_of_an_export_is_measured(tmp_path):
    args = ["--flavor", "debug", "--vocabulary", "320", "--folder", str(tmp_path)]
    export_memory.main([*args, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["tensors"] == 39 and 0.1 < found["peak_rss_gb"] < 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the rest is deleted
