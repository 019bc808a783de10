"""Checkpoints: checked before they are loaded, told of when they fail."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from let_titan.checkpoint import folders
from let_titan.checkpoint.checksums import damaged_files
from let_titan.errors import ConfigError
from let_titan.train import LetTrainer
from tests.checkpoints import DAMAGE, LAST, cut, make, steps_of
from tests.plain import plain_trainer
from tests.resumed import SAVED, STEPS, train


@pytest.fixture
def copied(finished, lab):
    """A lab whose run folder is a copy of the finished one."""
    shutil.copytree(finished[0], lab.folder / "run")
    return lab


def test_a_checkpoint_is_intact_as_written(finished):
    paths = folders.whole_checkpoints(finished[0] / "checkpoint").values()
    assert len(paths) == STEPS
    for path in paths:
        sums = [name.name for name in path.glob("*checksums.json")]
        assert sorted(sums) == ["__0_checksums.json", "metadata_checksums.json"]
        assert damaged_files(path) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_flipped_bit_is_found(finished, tmp_path_factory, data):
    source = finished[0] / "checkpoint" / LAST
    folder = tmp_path_factory.mktemp("flip") / LAST
    shutil.copytree(source, folder)
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    assert damaged_files(folder) != []
    if "checksums" not in name:
        assert damaged_files(folder) == [name]


def test_shares_of_the_files_make_the_whole(finished, tmp_path):
    shutil.copytree(finished[0] / "checkpoint" / LAST, tmp_path / LAST)
    (tmp_path / LAST / "__0_0.distcp").unlink()
    found = [name for share in range(3) for name in damaged_files(tmp_path / LAST, share, 3)]
    assert found == ["__0_0.distcp"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_the_older_checkpoint_goes_on(damage, copied, finished):
    checkpoints = copied.folder / "run" / "checkpoint"
    DAMAGE[damage](checkpoints / LAST / "__0_0.distcp")
    older = STEPS - 1
    sentence = rf"{LAST}' is damaged: __0_0\.distcp is missing .* --checkpoint\.load_step {older}\."
    with pytest.raises(ConfigError, match=sentence):
        train(copied)
    resumed = train(copied, checkpoint__load_step=older)
    assert resumed["lines"] == finished[1]["lines"]
    assert (checkpoints / "abandoned-1" / LAST).is_dir()


def load(lab, **changes):
    """Loads the last checkpoint as a trainer does, without the checks of its config before it."""
    trainer = LetTrainer(lab.parsed({"s_stop": 3}, **{**SAVED, **changes}))
    try:
        return trainer.checkpointer.load()
    finally:
        trainer.close()


def test_a_damaged_metadata_is_named(copied):
    metadata = copied.folder / "run" / "checkpoint" / LAST / ".metadata"
    metadata.write_bytes(b"\x80" + metadata.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"\.metadata' is damaged: restore it, or move step-6"):
        train(copied)
    with pytest.raises(ConfigError, match=r"is damaged: \.metadata is missing or not as written"):
        load(copied, validation__enable=False)


def test_torn_folders_never_load_and_go(copied, finished):
    checkpoints = copied.folder / "run" / "checkpoint"
    (checkpoints / LAST / ".metadata").unlink()
    make(checkpoints, "step-99/__0_0.distcp")
    assert train(copied)["lines"] == finished[1]["lines"]
    assert steps_of(checkpoints) == list(range(1, STEPS + 1))
    assert not [*checkpoints.glob("step-99"), *checkpoints.glob("abandoned-*")]


def test_starting_again_from_an_earlier_step_leaves_the_later_ones_aside(copied, finished):
    checkpoints = copied.folder / "run" / "checkpoint"
    kept = (checkpoints / LAST / ".metadata").read_bytes()
    assert train(copied, checkpoint__load_step=2)["lines"] == finished[1]["lines"]
    assert steps_of(checkpoints) == list(range(1, STEPS + 1))
    assert steps_of(checkpoints / "abandoned-1") == list(range(3, STEPS + 1))
    assert (checkpoints / "abandoned-1" / LAST / ".metadata").read_bytes() == kept


def test_a_checkpoint_of_another_student_does_not_load(copied):
    sentence = r"step-6' does not fit this run \(rank 0: .*Size mismatch"
    with pytest.raises(ConfigError, match=sentence):
        load(copied, model__flavor="demo", validation__enable=False)


def test_an_initial_checkpoint_that_does_not_load_is_to_be_another(copied):
    step = copied.folder / "run" / "checkpoint" / LAST
    start = {"job__dump_folder": str(copied.folder / "new"), "validation__enable": False}
    start["checkpoint__initial_load_path"] = str(step)
    with pytest.raises(ConfigError, match=r"Size mismatch.* another checkpoint\.initial_load_path"):
        load(copied, model__flavor="demo", **start)
    (step / "__0_0.distcp").unlink()
    with pytest.raises(ConfigError, match=r"damaged.* another one with checkpoint\.initial_load_p"):
        load(copied, **start)


def test_an_initial_checkpoint_at_the_end_or_past_it_is_told(copied):
    """The run would end at once, and pass for one that was trained."""
    start = {"job__dump_folder": str(copied.folder / "new"), "validation__enable": False}
    start["checkpoint__initial_load_path"] = str(copied.folder / "run" / "checkpoint" / LAST)
    whole = {"checkpoint__initial_load_model_only": False}
    for steps in (STEPS - 1, STEPS):
        sentence = rf"is of step {STEPS}, and training\.steps = {steps} leaves nothing to train: "
        with pytest.raises(ConfigError, match=sentence):
            load(copied, **start, **whole, training__steps=steps)
    assert load(copied, **start, **whole, training__steps=STEPS + 1)
    assert load(copied, **start, training__steps=STEPS)  # of its weights alone


def test_keep_latest_k_counts_whole_ones_and_purges_after_the_last_save(lab, monkeypatch):
    checkpoints, deleted, rmtree = lab.folder / "run" / "checkpoint", [], shutil.rmtree

    def noted(path, **options):
        deleted.append(folders.is_whole(Path(path)))  # which a kill on the way would leave
        rmtree(path, **options)

    monkeypatch.setattr("torchtitan.components.checkpoint.shutil.rmtree", noted)
    assert train(lab, checkpoint__keep_latest_k=2)["lines"][-1]["step"] == STEPS
    assert steps_of(checkpoints) == [STEPS - 1, STEPS]
    assert list(folders.step_folders(checkpoints)) == [STEPS - 1, STEPS]
    assert deleted == [False] * (STEPS - 2)


def test_plain_torchtitan_loads_ours_and_ours_loads_plain_torchtitans(copied, lab):
    checkpoints = copied.folder / "run" / "checkpoint"
    cut(copied.folder / "run", 4)
    for file in checkpoints.glob("step-4/*checksums.json"):
        file.unlink()
    assert damaged_files(checkpoints / "step-4") == []
    train(copied)
    validation = {"validation__enable": False}
    plain = plain_trainer(lab.config(None, **{**SAVED, **validation}))
    plain.checkpointer.load(-1)
    assert plain.step == STEPS
    plain.close()
