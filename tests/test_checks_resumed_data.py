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
    first = {"step": 0, "world_size": 24}
    apart = {f"{kind}_parallel_degree": 2 for kind in ("tensor", "context", "pipeline")}
    told_four = {"lanes": 4}
    for starts, degrees, data, lanes in (
        (summary["starts"], {}, {}, 1),  # one for each data-parallel rank
        ([first], {}, {}, 24),
        ([first], apart, {}, 3),
        ([first], {}, told_four, 4),
        ([first, {"step": 1, "world_size": 6}], {}, told_four, 4),
    ):
        config = summary["config"]
        layout, read = {**config["parallelism"], **degrees}, {**config["data"], **data}
        config = {**config, "parallelism": layout, "data": read}
        path.write_text(json.dumps({**summary, "starts": starts, "config": config}))
        (told,) = resumed(data__lanes=lanes + 1)
        assert f"its data was read with data.lanes = {lanes}: set data.lanes = {lanes}," in told
        assert resumed(data__lanes=lanes) == resumed(data__lanes=0) == []


@pytest.mark.parametrize("starts", [[(0, 1), (1, 2)], [(1, 2)], []])
def test_lanes_that_are_not_known_are_left_to_the_loader(starts, resumed, lab):
    """The layout of the first of several starts, or one that an older summary does not tell."""
    path = lab.folder / "run" / "summary.json"
    told = [{"step": step, "world_size": ranks} for step, ranks in starts]
    path.write_text(json.dumps({**json.loads(path.read_text()), "starts": told}))
    assert resumed(data__lanes=2) == []


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
