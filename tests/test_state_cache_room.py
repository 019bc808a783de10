"""A cache of the teacher's states is not begun where it cannot be held."""

import shutil

import pytest

from let_titan.errors import ConfigError, RunError
from tests.test_state_cache import SEQ_LEN, WIDTH, told, train

STEP = 4 * SEQ_LEN * WIDTH * 2
"""Bytes that a step takes: sequences, tokens, numbers of two bytes."""


def leave_free(monkeypatch, n_bytes):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=n_bytes))


def test_too_small_a_disk_is_refused(lab, monkeypatch):
    for free, refused in ((2 * STEP, False), (2 * STEP - 1, True)):
        leave_free(monkeypatch, free)
        assert ("GiB are free there" in told(lab, lab.folder / "cache")) == refused


def test_a_resume_asks_for_what_is_missing_alone(lab, monkeypatch):
    """Which is known once its checkpoint has said where the data go on."""
    cache = {"teacher__cache": str(lab.folder / "cache")}
    train(lab, "run", until=2, **cache)
    leave_free(monkeypatch, STEP - 1)
    with pytest.raises(ConfigError, match="GiB are free there"):
        train(lab, "run", **cache)
    leave_free(monkeypatch, STEP)
    assert train(lab, "run", **cache)[2] == ["WritingTeacher"]


def test_a_node_that_cannot_make_the_folder_says_so(lab, monkeypatch):
    monkeypatch.setattr("let_titan.let.cache.RunCache._open", lambda *_: None)  # rank 0's could
    (lab.folder / "mount").touch()
    with pytest.raises(RunError, match=r"mount/cache cannot be written \((Not a d|File ex)"):
        train(lab, "run", let={"s_stop": 2}, teacher__cache=str(lab.folder / "mount" / "cache"))
