"""The recipes on two tokenizers: what they write of a tiny pair."""

import json

import cross_tokenizer
import packed_teacher
import pytest
from pair import batches


@pytest.fixture
def pair(assets, readers, monkeypatch):
    """Arguments: the corpus, and the student's tokenizer and the teacher's."""
    for program in (batches, cross_tokenizer):
        monkeypatch.setattr(program, "SEQ_LEN", 64)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # which the recipe sets
    return str(assets / "train.jsonl"), str(readers / "equal"), str(readers / "other")


def test_both_ways_are_timed_over_the_same_batches(pair, tmp_path):
    corpus, student, teacher = pair
    packed_teacher.main(
        [corpus, student, "--teacher", teacher, "--rounds", "3", "--out", str(tmp_path)]
    )
    found = json.loads((tmp_path / "packing.json").read_text())
    assert len(found["rounds"]) == 3
    for each in found["rounds"]:
        rows, positions = each["rows"], each["positions"]
        assert positions == {"side by side": 8 * max(rows), "end to end": sum(rows)}
        assert sum(rows) < 8 * max(rows) and each["states_differ"] < 1e-5
        assert all(way["cpu"] > 0 and way["wall"] > 0 for way in each["seconds"].values())
    told = (tmp_path / "packing.md").read_text()
    assert "the first 3 blocks of other" in told and "| 0.00% |" in told


def test_what_documents_told_is_kept_when_batches_are_read_again(pair, tmp_path):
    corpus, student, teacher = pair
    common = [corpus, f"tiny={student}", "--teacher", teacher, "--out", str(tmp_path)]
    path = tmp_path / "results.json"
    cross_tokenizer.main([*common, "--tokens", "2000"])
    first = json.loads(path.read_text())
    cross_tokenizer.main([*common, "--tokens", "4000", "--batches"])
    again = json.loads(path.read_text())
    own, tiny = first["pairs"]["the teacher's own"], first["pairs"]["tiny"]
    assert own["padding_share_side_by_side"] == own["padding_share"] == tiny["padding_share"] == 0
    assert 0 < tiny["padding_share_side_by_side"] < 1
    assert again["pairs"]["tiny"]["tokens"] > tiny["tokens"]
    assert again["pairs"]["tiny"]["map_ns"] == tiny["map_ns"]
    with pytest.raises(SystemExit):
        cross_tokenizer.main([*common[:3], student, *common[4:], "--batches"])
    assert json.loads(path.read_text()) == again
    assert "batches" in again and "were measured again" in (tmp_path / "report.md").read_text()
