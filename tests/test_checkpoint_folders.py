"""Folders of checkpoints: whole or torn, and set aside."""

from let_titan.checkpoint import folders
from tests.checkpoints import make


def test_a_folder_is_whole_once_its_mark_is_there(tmp_path):
    make(
        tmp_path, "step-5/.metadata", "step-10/__0_0.distcp", "step-7/model.safetensors.index.json"
    )
    make(tmp_path, "abandoned-1/step-20/.metadata", "step-3.copy/.metadata", "step-2")
    assert list(folders.step_folders(tmp_path)) == [5, 7, 10]
    assert list(folders.whole_checkpoints(tmp_path)) == [5, 7]
    assert folders.remove_torn(tmp_path) == [tmp_path / "step-10"]
    assert list(folders.step_folders(tmp_path)) == [5, 7]
    folders.tear(tmp_path / "step-5")
    assert list(folders.whole_checkpoints(tmp_path)) == [7]


def test_a_folder_that_held_torn_ones_alone_goes(tmp_path):
    make(tmp_path, "checkpoint/step-1/__0_0.distcp")
    folders.remove_torn(tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()
    assert folders.remove_torn(tmp_path / "checkpoint") == []


def test_what_is_set_aside_keeps_its_names_and_is_never_mixed(tmp_path):
    make(tmp_path, *(f"step-{step}/.metadata" for step in (2, 4, 6)))
    assert folders.set_aside(tmp_path, 2, among=(2, 3)) is None
    assert folders.set_aside(tmp_path, 6) is None
    assert folders.set_aside(tmp_path, 2) == tmp_path / "abandoned-1"
    assert sorted(path.name for path in (tmp_path / "abandoned-1").iterdir()) == [
        "step-4",
        "step-6",
    ]
    make(tmp_path, "step-4/.metadata", "abandoned-1-keep/step-4/.metadata", "abandoned-7.bak")
    assert folders.set_aside(tmp_path, 2) == tmp_path / "abandoned-2"
    assert list(folders.step_folders(tmp_path)) == [2]
