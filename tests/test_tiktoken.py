"""tiktoken's tokenizers: tiktoken's own ids, the same in the Hugging Face form, nothing fetched."""

import base64
import functools
import hashlib
import json
import math
import re

import pytest
import tiktoken
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from let_titan.checks import find_mistakes
from let_titan.errors import ConfigError
from let_titan.export.folder import export
from let_titan.export.source import find_source
from let_titan.tokenizer import tiktoken_files
from let_titan.tokenizer.build import fingerprint, load_tokenizer, token_bytes
from let_titan.tokenizer.encoder import cut_blanks
from let_titan.tokenizer.match import PROBES, Reading, check_same_tokenizer
from let_titan.tokenizer.tiktoken_files import RANKS, address, is_tiktoken, read_ranks
from tests.conftest import TEXTS
from tests.exported import same_logits, student, write_run
from tests.test_run_folder import leave
from tests.tiktoken_files import llama_3_file, openai_file, write_ranks

KINDS = ["tokenizer.model", "r50k_base"]
"""Those whose Hugging Face form is made in a second or two."""


@pytest.fixture(scope="module", autouse=True)
def a_small_llama():
    """The tests' tokenizer.model has 300 ranks for 128,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiktoken_files, "LLAMA_3_RANKS", 300)
        yield


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """{kind: tokenizer}."""
    folder = tmp_path_factory.mktemp("tiktoken")
    paths = {name: openai_file(folder, name, RANKS[name]) for name in ("r50k_base", "cl100k_base")}
    paths["tokenizer.model"] = llama_3_file(folder)
    return {name: load_tokenizer(str(path)) for name, path in paths.items()}


@functools.cache
def of_tiktoken(tokenizer) -> tiktoken.Encoding:
    ranks = tokenizer.ranks
    return tiktoken.Encoding(
        "twin", pat_str=ranks.pattern, mergeable_ranks=ranks.ranks, special_tokens=ranks.special
    )


def lines_of_the_jargon_file(count):
    with zstandard.open("assets/jargon/train.jsonl.zst", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    return [line for text in texts for line in text.splitlines()][:count]


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_lines_have_tiktokens_ids(kind, loaded):
    tokenizer, twin = loaded[kind], of_tiktoken(loaded[kind])
    lines = lines_of_the_jargon_file(10_000)
    assert len(lines) == 10_000
    wanted = twin.encode_ordinary_batch(lines, num_threads=1)
    assert [tokenizer.encode(line) for line in lines] == wanted
    assert [e.ids for e in tokenizer.tokenizer.encode_batch(lines)] == wanted


ODD = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cs", "Mn", "Zs", "Nd", "No"]),
        st.sampled_from("\0\n\r\t '’sSſKdtLlEe0123456789\u212a\u2003\u4e2d\u0627\U0001f600"),
    ),
    max_size=60,
)


def assert_tiktokens_ids(tokenizer, text):
    """The run's ids, and the Hugging Face form's where that can have the same.

    It takes no surrogates, and finds special tokens in text, as every Hugging Face tokenizer does.
    """
    wanted = of_tiktoken(tokenizer).encode_ordinary(text)
    assert tokenizer.encode(text) == wanted
    spells_special = any(token in text for token in tokenizer.ranks.special)
    if not spells_special and not re.search("[\ud800-\udfff]", text):
        assert tokenizer.tokenizer.encode(text, add_special_tokens=False).ids == wanted


@settings(deadline=None, max_examples=100)
@given(text=ODD)
@example(text="<|end_of_text|>")
@example(text="<|endoftext|>")
@pytest.mark.parametrize("kind", KINDS)
def test_any_string_has_tiktokens_ids(kind, text, loaded):
    assert_tiktokens_ids(loaded[kind], text)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000)
@given(text=ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_strings_have_tiktokens_ids(kind, text, loaded):
    assert_tiktokens_ids(loaded[kind], text)


def test_a_million_blanks_do_not_end_the_run(loaded):
    text = "a" + " " * 1_200_000 + "b"
    tokenizer = loaded["tokenizer.model"]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_only_runs_of_a_hundred_thousand_blanks_are_cut(loaded):
    short, long = " " * 99_999, " " * 250_000
    assert cut_blanks(f"a{short}b{short}c") == [f"a{short}b{short}c"]
    pieces = cut_blanks(f"a{long}b")
    assert "".join(pieces) == f"a{long}b"
    assert [len(piece) for piece in pieces] == [100_001, 100_000, 50_001]
    tokenizer = loaded["tokenizer.model"]
    text = f"a{short}b"
    assert tokenizer.encode(text) == of_tiktoken(tokenizer).encode_ordinary(text)


def test_special_tokens_are_explicit(loaded):
    llama = loaded["tokenizer.model"]
    assert llama.encode("a", add_bos=True, add_eos=True) == [300, *llama.encode("a"), 301]
    assert llama.get_vocab_size() == 300 + 256
    assert llama.ranks.special["<|eot_id|>"] == 309
    spelled = llama.encode("<|end_of_text|>")
    assert 301 not in spelled and llama.decode(spelled) == "<|end_of_text|>"
    assert llama.decode([301, *spelled], skip_special_tokens=True) == "<|end_of_text|>"
    gpt2 = loaded["r50k_base"]
    assert (gpt2.bos_id, gpt2.eos_id, gpt2.get_vocab_size()) == (None, 50256, 50257)
    large = loaded["cl100k_base"]
    assert (large.eos_id, large.get_vocab_size()) == (100257, 100277)
    for tokenizer in (llama, gpt2):
        form = tokenizer.tokenizer
        assert all(form.token_to_id(t) == i for t, i in tokenizer.ranks.special.items())
        assert token_bytes(tokenizer)[list(tokenizer.ranks.special.values())].sum() == 0


def test_a_name_is_found_in_the_cache_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    path = openai_file(tmp_path, "r50k_base", RANKS["r50k_base"])
    with pytest.raises(ConfigError, match=r"nothing is downloaded: put r50k_base\.tiktoken"):
        read_ranks("gpt2")
    path.rename(tmp_path / hashlib.sha1(address("r50k_base").encode()).hexdigest())
    assert read_ranks("gpt2").fingerprint() == read_ranks("r50k_base").fingerprint()
    read_ranks.cache_clear()
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    with pytest.raises(ConfigError, match="TIKTOKEN_CACHE_DIR"):
        read_ranks("gpt2")


DAMAGE = {
    "its pattern is not known": ("mine.tiktoken", lambda path: write_ranks(path, BYTES)),
    "cut short": ("r50k_base.tiktoken", lambda path: write_ranks(path, BYTES)),
    "no ranks": ("tokenizer.model", lambda path: path.write_bytes(b"\n\x0a<unk>\x15\0\0")),
    "bytes missing": ("tokenizer.model", lambda path: write_ranks(path, BYTES[1:])),
    "not there": ("there_is_none.tiktoken", lambda path: None),
}
BYTES = [bytes([value]) for value in range(256)]
SAYS = ["does not say where text is split", "256 ranks", "cannot be read as", "lacks 1", "no file"]


@pytest.mark.parametrize(("damage", "says"), list(zip(DAMAGE, SAYS, strict=True)))
def test_a_file_that_cannot_be_used_is_a_sentence(damage, says, lab):
    name, make = DAMAGE[damage]
    make(lab.folder / name)
    mistakes = find_mistakes(lab.parsed(None, model__hf_assets_path=str(lab.folder / name)), 1)
    assert len(mistakes) == 1 and says in str(mistakes[0]) and name in str(mistakes[0])


def test_a_run_may_name_tokenizer_model(lab):
    path = llama_3_file(lab.folder)
    sections = lab.parsed(None, model__hf_assets_path=str(path))
    assert sections.model.hf_assets_path == str(path)
    assert not find_mistakes(sections, 1)


def test_another_tokenizer_model_is_not_read_as_llama_3s(tmp_path, monkeypatch):
    monkeypatch.setattr(tiktoken_files, "LLAMA_3_RANKS", 128_000)
    with pytest.raises(ConfigError, match=r"has 300 ranks, and Llama 3's tokenizer\.model has 128"):
        read_ranks(str(llama_3_file(tmp_path)))


def test_the_fingerprint_follows_the_file(tmp_path):
    path = llama_3_file(tmp_path)
    before = fingerprint(load_tokenizer(str(path)))
    load_tokenizer.cache_clear()
    read_ranks.cache_clear()
    assert fingerprint(load_tokenizer(str(path))) == before
    other = tmp_path / "other"
    other.mkdir()
    lines = path.read_bytes().splitlines(keepends=True)
    last = base64.b64encode(b"another token") + b" 299\n"
    (other / "tokenizer.model").write_bytes(b"".join([*lines[:-1], last]))
    assert fingerprint(load_tokenizer(str(other / "tokenizer.model"))) != before
    assert not is_tiktoken(str(other))


def test_it_is_compared_with_the_teachers(loaded):
    ours = loaded["tokenizer.model"]
    reading = Reading(ours.tokenizer, ours.bos_id, ours.eos_id, special_in_text=False)
    theirs = json.loads(ours.tokenizer.to_str())
    renamed = json.dumps(theirs).replace("reserved_special_token_7", "something_else")
    check_same_tokenizer(reading, Reading(Tokenizer.from_str(renamed), 300, 301))
    theirs["model"]["merges"] = theirs["model"]["merges"][::-1]
    with pytest.raises(ConfigError, match="other merges"):
        check_same_tokenizer(reading, Reading(Tokenizer.from_str(json.dumps(theirs)), 300, 301))
    with pytest.raises(ConfigError, match="EOS is 301"):
        check_same_tokenizer(reading, reading._replace(eos_id=309))


def test_the_export_has_its_ids_and_logits(tmp_path):
    ours = load_tokenizer(str(llama_3_file(tmp_path)))
    model = student("debug", ours.get_vocab_size())
    write_run(tmp_path / "run", model, "debug", tmp_path / "tokenizer.model")
    export(find_source(tmp_path / "run"), tmp_path / "hf")
    assert same_logits(model, tmp_path / "hf")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    for text in (*TEXTS[:9], *PROBES):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    config = AutoConfig.from_pretrained(tmp_path / "hf")
    assert (config.vocab_size, config.eos_token_id) == (556, 301)


def test_a_run_trains_and_validates_on_a_tiktoken_file(lab):
    path = llama_3_file(lab.folder)
    _, validation, summary = leave(
        lab, None, model__hf_assets_path=str(path), training__steps=2, validation__steps=1
    )
    tokenizer = load_tokenizer(str(path))
    assert summary["tokenizer"]["sha256"] == fingerprint(tokenizer)
    for line in validation:
        assert 0 < line["val_loss"] < 2 * math.log(tokenizer.get_vocab_size())
        bytes_per_token = line["val_loss"] / math.log(2) / line["val_bits_per_byte"]
        assert 1 < bytes_per_token < 4  # the file's 44 merges make tokens of a few letters
