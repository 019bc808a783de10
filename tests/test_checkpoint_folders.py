"""Folders of checkpoints: whole or torn, and set aside; the sums of their files."""

import errno
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.checkpoint.metadata import Metadata

from let_titan.checkpoint import folders
from let_titan.checkpoint.checksums import checksum, damaged_files, read_metadata, write_sums
from tests.checkpoints import LAST, make


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


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    """Which neither their names have nor the file system."""
    steps = [8, 100, 9, 1000, 10, 7, 90, 11, 80]
    make(tmp_path, *(f"step-{step}/.metadata" for step in steps))
    assert list(folders.whole_checkpoints(tmp_path)) == sorted(steps)


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
    make(tmp_path, *(f"step-{step}/.metadata" for step in (3, 4, 5)))
    assert folders.set_aside(tmp_path, 3, among=(3, 4)) == tmp_path / "abandoned-2"
    assert list(folders.step_folders(tmp_path)) == [2, 3, 5]
    assert [path.name for path in (tmp_path / "abandoned-2").iterdir()] == ["step-4"]
    make(tmp_path, "step-4/.metadata", "abandoned-1-keep/step-4/.metadata", "abandoned-7.bak")
    assert folders.set_aside(tmp_path, 2) == tmp_path / "abandoned-3"
    assert list(folders.step_folders(tmp_path)) == [2]


def test_a_kill_while_they_go_aside_leaves_a_history_that_ends(tmp_path, monkeypatch):
    make(tmp_path, *(f"step-{step}/.metadata" for step in (2, 4, 6, 8)))
    moved = []

    def killed(path, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(path.rename(target))

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folders.set_aside(tmp_path, 2)
    assert list(folders.step_folders(tmp_path)) == [2, 4, 6]


def make_metadata(folder):
    """Writes a checkpoint's that names no file, and its sum."""
    content = Metadata(state_dict_metadata={}, storage_data={})
    (folder / ".metadata").write_bytes(pickle.dumps(content))
    write_sums(folder, "metadata_checksums.json", [".metadata"])
    return content


def test_a_metadata_that_was_exchanged_is_not_unpickled(tmp_path):
    content = make_metadata(tmp_path)
    assert read_metadata(tmp_path).storage_data == {}
    content.state_dict_metadata["another"] = None
    (tmp_path / ".metadata").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="is not what was written"):
        read_metadata(tmp_path)
    assert damaged_files(tmp_path) == [".metadata"]


def test_every_rank_has_another_share_of_the_files(tmp_path):
    """Whatever the order of a set of names in its process."""
    make_metadata(tmp_path)
    names = [f"__{rank}_0.distcp" for rank in range(16)]
    sums = dict.fromkeys(names, "lost")
    (tmp_path / "__0_checksums.json").write_text(json.dumps(sums))
    found = [damaged_files(tmp_path, share, 3) for share in range(3)]
    wanted = sorted([".metadata", *names])
    assert found == [[x for x in wanted[share::3] if x in names] for share in range(3)]


@pytest.mark.parametrize("name", ["metadata_checksums.json", "__0_checksums.json"])
def test_sums_that_cannot_be_read_are_named(name, tmp_path):
    make_metadata(tmp_path)
    (tmp_path / name).write_text("{")
    assert damaged_files(tmp_path) == [name]


def test_without_sums_a_file_has_only_to_be_there(tmp_path):
    """As plain torchtitan leaves a checkpoint."""
    content = make_metadata(tmp_path)
    (tmp_path / "metadata_checksums.json").unlink()
    content.storage_data["weight"] = SimpleNamespace(relative_path="__0_0.distcp")
    (tmp_path / ".metadata").write_bytes(pickle.dumps(content))
    assert damaged_files(tmp_path) == ["__0_0.distcp"]
    make(tmp_path, "__0_0.distcp")
    assert damaged_files(tmp_path) == []


def test_a_file_that_its_disk_cannot_read_is_damaged(finished, monkeypatch):
    def broken(path):
        if path.name == "__0_0.distcp":
            raise OSError(errno.EIO, "Input/output error")
        return checksum(path)

    monkeypatch.setattr("let_titan.checkpoint.checksums.checksum", broken)
    assert damaged_files(finished[0] / "checkpoint" / LAST) == ["__0_0.distcp"]


def test_sums_are_plain_json(finished):
    path = finished[0] / "checkpoint" / LAST / "__0_checksums.json"
    sums = json.loads(path.read_text())
    assert list(sums) == ["__0_0.distcp"] and len(sums["__0_0.distcp"]) == 32
