"""What the lab is made of: a corpus that is dealt, tokenizers, teachers made worse."""

import pytest
from lab.bad_teachers import drawn_anew, make_worse, with_noise
from lab.corpus import deal, documents
from lab.make_smollm2 import copy_tokenizer
from safetensors.torch import load_file


def test_a_tokenizer_that_is_not_there_is_told(lab, tmp_path):
    folder = lab.assets / "tokenizer"
    for path, name in ((tmp_path / "r50k_base.tiktoken", ""), (tmp_path, "llama3"), (folder, "")):
        with pytest.raises(ValueError, match="or NAME=FOLDER"):
            copy_tokenizer(path, tmp_path / "kept", name)
    assert not (tmp_path / "kept").exists()
    copy_tokenizer(folder, tmp_path / "kept", "llama3")
    assert (tmp_path / "kept" / "llama3" / "tokenizer.json").exists()


def test_the_corpus_is_dealt_without_overlap(lab, tmp_path):
    deal(str(lab.assets / "train.jsonl"), tmp_path / "parts")
    parts = {
        name: {d["text"] for d in documents(str(tmp_path / "parts" / f"{name}.jsonl.zst"))}
        for name in ("teacher", "student", "validation")
    }
    assert sum(map(len, parts.values())) == 100  # each is short enough for one piece
    assert not parts["teacher"] & parts["student"]
    assert min(len(parts["teacher"]), len(parts["student"])) > 30


def test_bad_teachers_are_as_bad_as_said(lab, tmp_path):
    good = load_file(lab.assets / "teacher" / "model.safetensors")
    for change, error in ((with_noise(0.3), 0.3), (drawn_anew(), 2**0.5)):
        make_worse(lab.assets / "teacher", tmp_path / f"bad{error}", change)
        bad = load_file(tmp_path / f"bad{error}" / "model.safetensors")
        for name, weight in good.items():
            if weight.ndim > 1:
                found = (bad[name] - weight).norm() / weight.norm()
                assert found.item() == pytest.approx(error, rel=0.1), name
            else:
                assert bad[name].equal(weight)
