"""Tokenizers are compared by what they do: what changes no id passes, what changes one is named."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from let_titan.checks import find_mistakes
from let_titan.errors import ConfigError
from let_titan.teacher import read_tokenizer
from let_titan.teacher.gguf_file import tokenizer_of_gguf
from let_titan.tokenizer.match import CURE, check_same_tokenizer

SMOLLM = Path("assets/teachers/smollm2-135m")
GGUF = Path("assets/teachers/SmolLM2-135M-Instruct.Q4_1.gguf")


def swap_merges(tokenizer, config):
    merges = tokenizer["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]


def swap_tokens(tokenizer, config):
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def lower_case(tokenizer, config):
    tokenizer["normalizer"] = {"type": "Lowercase"}


def split_digits(tokenizer, config):
    digits = {"type": "Digits", "individual_digits": True}
    parts = [digits, tokenizer["pre_tokenizer"]]
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}


def other_end(tokenizer, config):
    config["eos_token"] = "<s>"
    del config["bos_token"]


def pad_and_name(tokenizer, config):
    """What changes no id: padding, a template, the form of the merges, a name."""
    tokenizer["padding"] = {
        "strategy": {"Fixed": 512},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<s>",
    }
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    first, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"id": "A", "type_id": 0}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": text}],
        "pair": [{"Sequence": text}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    config["name_or_path"] = "somewhere/else"


CHANGES = {
    swap_merges: "but other merges: number 0 is",
    swap_tokens: "differs from the teacher's in 2 tokens ('a' is",
    lower_case: 'but gives "The quick brown fox',
    split_digits: 'but gives "The quick brown fox',
    other_end: "The student's EOS is 1 and the teacher's 0",
    pad_and_name: None,
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_the_teachers_tokenizer(change, lab):
    teacher = lab.folder / "teacher"
    shutil.copytree(lab.assets / "teacher", teacher)
    shutil.copytree(lab.assets / "tokenizer", teacher, dirs_exist_ok=True)
    paths = [teacher / name for name in ("tokenizer.json", "tokenizer_config.json")]
    contents = [json.loads(path.read_text()) for path in paths]
    change(*contents)
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    mistakes = find_mistakes(lab.parsed({}, teacher__checkpoint=str(teacher)))
    if CHANGES[change] is None:
        assert mistakes == []
        return
    (told,) = mistakes
    assert CHANGES[change] in str(told)
    assert str(told).endswith(CURE)


def test_a_tokenizer_that_cuts_or_fills_documents_is_refused(lab):
    folder = lab.folder / "tokenizer"
    shutil.copytree(lab.assets / "tokenizer", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    pad_and_name(tokenizer, {})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (told,) = find_mistakes(lab.parsed(None, model__hf_assets_path=str(folder)))
    assert 'has a padding, which would change every document: set "padding" to null' in str(told)


@pytest.mark.parametrize("reads", ["same", "align"])
def test_a_teachers_torn_tokenizer_is_told(reads, lab):
    teacher = shutil.copytree(lab.assets / "teacher", lab.folder / "teacher")
    (teacher / "tokenizer.json").write_text("{")
    keys = {"teacher__checkpoint": str(teacher), "teacher__tokenizer": reads}
    (told,) = find_mistakes(lab.parsed({}, **keys))
    assert str(told).startswith(f"{str(teacher)!r} holds a tokenizer that cannot be read (")


@pytest.mark.skipif(not GGUF.exists(), reason="scripts/fetch_teacher.py was not run")
def test_the_real_teachers_tokenizer_in_its_two_forms():
    gguf, folder = read_tokenizer(str(GGUF)), read_tokenizer(str(SMOLLM))
    check_same_tokenizer(folder, gguf)
    with pytest.raises(ConfigError, match="EOS"):
        check_same_tokenizer(folder, gguf._replace(eos_id=0))


@pytest.mark.skipif(not GGUF.exists(), reason="scripts/fetch_teacher.py was not run")
def test_a_gguf_files_ends_of_text_are_those_of_its_header(monkeypatch):
    """transformers 5.17 takes SmolLM2's BOS for its EOS, and has no padding for it."""
    right = tokenizer_of_gguf(GGUF)
    read = AutoTokenizer.from_pretrained

    def mistaken(*args, **keys):
        tokenizer = read(*args, **keys)
        tokenizer.eos_token, tokenizer.pad_token = tokenizer.bos_token, None
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", mistaken)
    mended = tokenizer_of_gguf(GGUF)
    for each in (right, mended):
        assert (each.bos_token_id, each.eos_token_id, each.pad_token_id) == (1, 2, 2)
    assert (
        mended.eos_token == "<|im_end|>" and mended.special_tokens_map == right.special_tokens_map
    )
