"""Checks of a run that goes on: it reads, and is validated on, what it was."""

import json
import shutil

import pytest

from tests.short import validated


@pytest.mark.parametrize(
    ("change", "was"),
    [
        ({"data__shuffle_seed": 5}, "data.shuffle_seed = 0"),
        ({"data__shuffle_buffer": 100}, "data.shuffle_buffer = 0"),
        ({"data__add_bos": False}, "data.add_bos = True"),
        ({"data__weights": ["A:0.5"]}, "data.weights = []"),
        ({"data__validation_fraction": 0.5}, "data.validation_fraction = 0.0"),
        ({"data__max_document_mib": 1}, "data.max_document_mib = 16"),
        ({"training__seq_len": 32}, "training.seq_len = 64"),
    ],
)
def test_other_data_from_the_same_files(resumed, change, was):
    """The loader would refuse it, when student and checkpoint are loaded."""
    (told,) = resumed(**change)
    assert f"its data was read with {was}: set {was}, add" in told
    assert resumed(**change, checkpoint__exclude_from_loading=["dataloader"]) == []


def test_other_lanes(resumed, lab):
    path = lab.folder / "run" / "summary.json"
    summary = json.loads(path.read_text())
    assert resumed(data__lanes=2) == []  # of a run that was told none the summary says none
    summary["config"]["data"]["lanes"] = 4
    path.write_text(json.dumps(summary))
    (told,) = resumed(data__lanes=2)
    assert "its data was read with data.lanes = 4" in told
    assert resumed(data__lanes=4) == resumed(data__lanes=0) == []


def test_other_data(resumed, lab):
    moved = shutil.copy(lab.assets / "train.jsonl", lab.folder)
    assert resumed(training__dataset_path=str(moved)) == []
    other = {"training__dataset_path": str(lab.assets / "validation.jsonl")}
    (told,) = resumed(**other)
    assert "with other files than now" in told
    assert resumed(**other, checkpoint__exclude_from_loading=["dataloader"]) == []


def test_other_validation(resumed, lab):
    """One curve would be of two measures. It may begin, end and be read in other batches."""
    same = validated(lab)
    moved = shutil.copy(lab.assets / "validation.jsonl", lab.folder)
    for change in ({}, {"freq": 3}, {"dataset_path": str(moved)}, {"enable": False}):
        assert resumed(**same | {f"validation__{key}": x for key, x in change.items()}) == []
    assert resumed(**same | {"validation__steps": 3, "validation__local_batch_size": 2}) == []
    (told,) = resumed(**same | {"validation__steps": 3})
    assert "its validation read 6 sequences, and now would read 9: set validation.steps = 2" in told
    (told,) = resumed(**same | {"validation__seq_len": 32})
    assert "its validation read sequences of 64 tokens: set validation.seq_len = 64" in told
    (told,) = resumed(**same | {"validation__dataset_path": str(lab.assets / "train.jsonl")})
    assert "validation.jsonl', other files than now: set validation.dataset" in told
    path = lab.folder / "run" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "validation_data": None}))
    assert resumed(**same | {"validation__steps": 3}) == []


def test_other_documents_of_validation(resumed, lab):
    """Training may begin other data; what is validated on stays."""
    anew = {**validated(lab), "checkpoint__exclude_from_loading": ["dataloader"]}
    assert resumed(**anew, data__shuffle_buffer=100, data__weights=["A:0.5"]) == []
    (told,) = resumed(**anew, data__validation_fraction=0.5)
    assert "its validation was read with data.validation_fraction = 0.0: set data.valid" in told
    (told,) = resumed(**anew, data__weights=["A:0"])
    assert "its validation left out the sets of weight 0 in []: set these" in told
