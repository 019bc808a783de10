"""A teacher with a tokenizer of its own: what it does not go with, what preflight tells of it."""

import json
from itertools import islice

import pytest
import torch

from let_titan.data.tokenize import main as tokenize
from let_titan.preflight import examine
from let_titan.preflight.gpus import GPUS
from let_titan.preflight.table import sections
from tests.align_runs import LET, aligned, loader_of, shards, told
from tests.conftest import make_teacher, make_tokenizer
from tests.support import SEQ_LEN
from tests.world import outside_the_world


def test_what_it_does_not_go_with_is_a_sentence(lab, readers):
    assert told(lab, **aligned(readers, "other")) == []
    (none,) = told(lab, teacher__tokenizer="align")
    assert "needs the teacher's tokenizer" in none and "brings none" in none
    c4 = {"training__dataset": "c4_test", "training__dataset_path": str(readers)}
    (other,) = told(lab, **aligned(readers, "other", **c4))
    assert "needs training.dataset = 'pile'" in other
    distilled = told(lab, None, **aligned(readers, "other", distill__method="rkd"))
    assert "cannot be used with distill.method = 'rkd'" in distilled[0]
    (same,) = told(lab, teacher__checkpoint=str(readers / "other"))
    assert same.endswith('or, without [distill], teacher.tokenizer = "align".')
    # A teacher that sees less than a sequence reads what it can.
    assert told(lab, **aligned(readers, "short")) == []
    for theirs, says in ((None, "has none of its ids"), ("short", "has ids of another tokenizer")):
        pattern = shards(lab, lab.folder / f"{theirs}", theirs and readers / theirs)
        (mistake,) = told(lab, **aligned(readers, "other", training__dataset_path=pattern))
        assert says in mistake and "make the shards with --teacher-tokenizer" in mistake


def test_a_tokenizer_that_changes_text_or_has_too_many_ids_is_refused(lab, readers, tmp_path):
    folder = tmp_path / "lower"
    make_tokenizer(folder, 420)
    make_teacher(folder, 400)
    (ids,) = told(lab, **aligned(tmp_path, "lower"))
    assert "knows 400 ids and the tokenizer in" in ids and "has 420" in ids
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    changed = told(lab, **aligned(tmp_path, "lower"))
    assert "the teacher's tokenizer in" in changed[0] and "changes text such as" in changed[0]
    student = told(lab, **aligned(readers, "other", model__hf_assets_path=str(folder)))
    assert "the student's tokenizer in" in student[0]


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_shards_are_refused_by_the_folder_of_the_tokenizer_that_changes_text(
    whose, readers, tmp_path, capsys
):
    text, good, bad = tmp_path / "a.jsonl", readers / "other", tmp_path / "lower"
    text.write_text('{"text": "A"}\n')
    make_tokenizer(bad, 420)
    content = json.loads((bad / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (bad / "tokenizer.json").write_text(json.dumps(content))
    student, teacher = (bad, good) if whose == "student" else (good, bad)
    names = ["--tokenizer", str(student), "--teacher-tokenizer", str(teacher)]
    assert tokenize([str(text), *names, "--out", str(tmp_path / "shards")]) == 2
    assert f"the {whose}'s tokenizer in {str(bad)!r} changes text" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["equal", "short"])
def test_preflight_measures_the_pair(name, lab, readers):
    let = {**LET, "s_stop": 300}
    config = lab.parsed(let, **aligned(readers, name, training__steps=400))
    with outside_the_world():
        report = examine(config, 2, GPUS["a100"])
    assert report.findings.mistakes == []
    reading = report.price["teacher_reading"]
    batches = [batch for batch, _ in islice(loader_of(config), 2**16 // (4 * SEQ_LEN))]
    read = torch.cat([batch["teacher_input"] for batch in batches])
    found = torch.cat([batch["teacher_targets"].flatten() for batch in batches])
    assert reading["tokens"] == len(found) == 2**16
    assert reading["positions_per_token"] == pytest.approx(len(read) / 2**16)
    assert reading["target_share"] == pytest.approx((found >= 0).double().mean().item())
    assert reading["padding_share"] == 0
    equal = name == "equal"
    assert (reading["same_needs"] == "") == equal
    assert equal or "differs from the teacher's" in reading["same_needs"]
    cost, each = report.price["cost"], report.price["teacher"]["flops_per_token"]
    with_it, without = cost["flops_per_token_in_let_phase"], cost["flops_per_token_after"]
    assert with_it - without == round(each * len(read) / 2**16)
    assert all(title in sections(report.price) for title in ("teacher", "its reading"))


def test_preflight_says_what_it_could_not_measure(lab, readers):
    config = lab.parsed(LET, **aligned(readers, "other", model__hf_assets_path="SmolLM-135M"))
    with outside_the_world():
        report = examine(config, 2, GPUS["a100"])
    assert report.findings.mistakes == []
    assert any("is priced as one" in sentence for sentence in report.findings.unchecked)
    assert any("were not read" in sentence for sentence in report.findings.unchecked)
