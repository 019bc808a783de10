"""Which of the teacher's tokens a student's meets: against a loop, and by changing what follows."""

import bisect
import functools
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from let_titan.data.align import NO_TARGET, Slice, Special, Twin, of_slice, row_of
from let_titan.data.teacher_text import TeacherText, changed_text
from let_titan.tokenizer import tiktoken_files
from let_titan.tokenizer.encoder import encoder_of_tokenizer, load_encoder
from let_titan.tokenizer.tiktoken_files import RANKS
from tests.conftest import TEXTS, make_tokenizer
from tests.tiktoken_files import llama_3_file, openai_file

BOS, EOS = 7, 8  # the teacher's
SMOLLM = Path("assets/teachers/smollm2-135m")


def cuts(size):
    """Where tokens end that are cut from ``size`` bytes anyhow."""
    return st.sets(st.integers(1, size)).map(lambda found: sorted(found | {size}))


def twin_of(ends, teacher_ends, bos, eos):
    whole = np.array([0] * bos + ends + ends[-1:] * eos)
    ids = np.array([100 + end for end in teacher_ends])
    return Twin(whole, bos, eos, ids, np.array(teacher_ends))


@st.composite
def documents(draw):
    size = draw(st.integers(1, 30))
    bos, eos = draw(st.booleans()), draw(st.booleans())
    return twin_of(draw(cuts(size)), draw(cuts(size)), bos, eos)


def by_the_words(twin, begin, end, special):
    """The page's rule, token by token: the teacher's ids of a slice and its targets."""
    start = twin.ends[begin - 1] if begin else 0
    read = [("bos", special.bos, 0)] if begin == 0 and special.bos is not None else []
    last = 0
    for index, stop in zip(twin.teacher_ids, twin.teacher_ends, strict=True):
        if start <= last and stop <= twin.ends[end - 1]:
            read.append(("text", index, stop))
        last = stop
    if end == len(twin.ends) and special.eos is not None:
        read.append(("eos", special.eos, twin.ends[-1]))
    targets = []
    for i in range(begin, end):
        is_eos = twin.eos and i == len(twin.ends) - 1
        kind = "bos" if twin.bos and i == 0 else "eos" if is_eos else "text"
        fitting = [j for j, (k, _, stop) in enumerate(read) if k == kind and stop <= twin.ends[i]]
        targets.append(max(fitting, default=NO_TARGET))
    return [index for _, index, _ in read], targets


special_ids = st.builds(Special, st.sampled_from([None, BOS]), st.sampled_from([None, EOS]))


@given(documents(), special_ids, st.data())
@settings(deadline=None, max_examples=300)
def test_slices_of_documents_are_those_of_a_loop(twin, special, data):
    begin = data.draw(st.integers(0, len(twin.ends) - 1))
    end = data.draw(st.integers(begin + 1, len(twin.ends)))
    ids, targets = of_slice(Slice(twin, begin, end), special)
    assert (ids.tolist(), targets.tolist()) == by_the_words(twin, begin, end, special)


@given(st.lists(documents(), min_size=1, max_size=4), special_ids, st.integers(1, 40))
@settings(deadline=None)
def test_a_row_is_its_slices_one_after_the_other(twins, special, context):
    parts = [Slice(twin, 0, len(twin.ends)) for twin in twins]
    parts.insert(1, Slice(None, 3, 5))  # a document that the teacher does not read
    whole, cut = row_of(parts, special), row_of(parts, special, context)
    ids, targets, lengths = [], [], []
    for part in parts:
        found = of_slice(part, special)
        targets += [t if t < 0 else t + len(ids) for t in found[1].tolist()]
        ids += found[0].tolist()
        lengths += [len(found[0])] if len(found[0]) else []
    assert whole.ids.tolist() == ids and whole.targets.tolist() == targets
    assert whole.documents == lengths
    numbers = [i for i, length in enumerate(lengths) for _ in range(length)][:context]
    assert cut.ids.tolist() == ids[:context]
    assert cut.documents == list(Counter(numbers).values())
    assert cut.targets.tolist() == [t if t < context else NO_TARGET for t in targets]
    assert cut.targets.dtype == np.int32


@given(documents(), special_ids, st.data())
@settings(deadline=None, max_examples=300)
def test_nothing_that_follows_a_token_changes_its_target(twin, special, data):
    """Both tokenizers may cut anew all that ends after it, and the slice may end elsewhere."""
    text = len(twin.ends) - twin.eos
    token = data.draw(st.integers(int(twin.bos), text - 1))
    begin, here = data.draw(st.integers(0, token)), int(twin.ends[token])
    size = here + data.draw(st.integers(0, 12))

    def anew(ends):
        kept = ends[: bisect.bisect_right(ends, here)]
        return kept + [end for end in data.draw(cuts(max(1, size))) if end > here]

    ours = twin.ends[int(twin.bos) : text].tolist()
    other = twin_of(anew(ours), anew(twin.teacher_ends.tolist()), twin.bos, twin.eos)
    ends = (len(twin.ends), len(other.ends))
    slices = [
        Slice(each, begin, data.draw(st.integers(token + 1, end)))
        for each, end in zip((twin, other), ends, strict=True)
    ]
    (ids, targets), (other_ids, other_targets) = (of_slice(part, special) for part in slices)
    place = token - begin
    assert targets[: place + 1].tolist() == other_targets[: place + 1].tolist()
    read = targets[place] + 1  # and what the teacher has read by then is the same
    assert ids[:read].tolist() == other_ids[:read].tolist()


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Tokenizers that cut in different ways, by name."""
    folder = tmp_path_factory.mktemp("encoders")
    make_tokenizer(folder / "tiny")
    make_tokenizer(folder / "larger", 420, bos=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiktoken_files, "LLAMA_3_RANKS", 300)
        found = {
            "tiny": load_encoder(str(folder / "tiny")),
            "larger": load_encoder(str(folder / "larger")),
            "gpt2": load_encoder(str(openai_file(folder, "r50k_base", RANKS["r50k_base"]))),
            "llama3": load_encoder(str(llama_3_file(folder))),
        }
    if SMOLLM.exists():
        found["smollm2"] = load_encoder(str(SMOLLM))
    return found


@functools.cache
def readers(ours, theirs):
    return TeacherText(ours, theirs, True, True, None, 1)


@functools.cache
def pieces_of(encoder):
    return encoder.pieces()


WORDS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab \n'\u00e9\U0001f600")))


@given(st.one_of(st.sampled_from(TEXTS), WORDS.filter(bool)), st.data())
@example("\U0001f600\u00e9</s><s>", None)
@settings(deadline=None, max_examples=60, phases=set(Phase) - {Phase.shrink, Phase.explain})
def test_any_text_by_any_two_tokenizers(encoders, text, data):
    """What the teacher has read up to a target is all that it can have of the student's bytes."""
    each = st.sampled_from(sorted(encoders))
    names = data.draw(st.tuples(each, each)) if data else ("tiny", "tiny")
    ours, theirs = (encoders[name] for name in names)
    [ids] = ours.documents(True, True)([text])
    reader, raw = readers(ours, theirs), text.encode()
    [twin] = reader.twins([text], [ids])
    if twin is None:  # SmolLM2's vocabulary lacks some bytes, and drops them
        assert "smollm2" in names and not set(text) <= set(string.printable)
        return
    row = reader.row([Slice(twin, 0, len(ids))])
    own, pieces = pieces_of(ours), pieces_of(theirs)
    before, bos = theirs.bos_id is not None, ours.bos_id is not None
    read = [pieces[i] for i in row.ids[int(before) : -1]]
    spelled = b""
    for index, target in list(zip(ids, row.targets, strict=True))[int(bos) : -1]:
        spelled += own[index]
        count = target - before + 1 if target != NO_TARGET else 0
        assert count >= 1 or target == NO_TARGET
        known = b"".join(read[:count])
        assert raw.startswith(spelled) and spelled.startswith(known)
        assert count == len(read) or len(known + read[count]) > len(spelled)
    assert spelled == raw == b"".join(read)
    assert row.targets[-1] == len(row.ids) - 1  # EOS, which all of them have
    if bos:
        assert row.targets[0] == (0 if before else NO_TARGET)


def test_equal_tokenizers_meet_one_by_one(encoders):
    tiny = encoders["tiny"]
    reader = TeacherText(tiny, tiny, True, True, None, 1)
    encoded = tiny.documents(True, True)(TEXTS)
    twins = reader.twins(TEXTS, encoded)
    parts = [Slice(twin, i % 3, len(twin.ends) - i % 2) for i, twin in enumerate(twins)]
    row = reader.row(parts)
    wanted = np.concatenate([ids[p.begin : p.end] for ids, p in zip(encoded, parts, strict=True)])
    assert row.ids.tolist() == wanted.tolist()
    assert row.targets.tolist() == list(range(len(wanted)))


def whole(text):
    """A byte-level BPE whose only token of several bytes is ``text``."""
    letters = bytes_to_unicode()
    spelled = [letters[byte] for byte in text.encode()]
    joined = ["".join(spelled[: n + 1]) for n in range(len(spelled))]
    vocabulary = {token: i for i, token in enumerate([*letters.values(), *joined[1:]])}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(zip(joined, spelled[1:], strict=False))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return encoder_of_tokenizer(tokenizer, None, None)


def test_a_character_in_several_tokens_is_met_at_its_last(encoders):
    """An emoji is four tokens of the student's and one of the teacher's, then the other way."""
    tiny, one = encoders["tiny"], whole("\U0001f600")
    text = "\U0001f600a"
    [ids] = tiny.documents(False, False)([text])
    reader = TeacherText(tiny, one, False, False, None, 1)
    row = reader.row([Slice(*reader.twins([text], [ids]), 0, 5)])
    assert row.targets.tolist() == [NO_TARGET, NO_TARGET, NO_TARGET, 0, 1]
    back = TeacherText(one, tiny, False, False, None, 1)
    [ids] = one.documents(False, False)([text])
    assert back.row([Slice(*back.twins([text], [ids]), 0, 2)]).targets.tolist() == [3, 4]


def test_a_tokenizer_that_changes_text_is_noticed(encoders, tmp_path):
    for name, encoder in encoders.items():
        assert changed_text(encoder) is None, name
    make_tokenizer(tmp_path / "t")
    tokenizer = Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json"))
    for normalizer, text in (
        (normalizers.Lowercase(), "The quick"),
        (normalizers.NFKC(), "na\u00efve"),
        (normalizers.Prepend("x"), "The quick"),
    ):
        tokenizer.normalizer = normalizer
        assert changed_text(encoder_of_tokenizer(tokenizer, 0, 1)).startswith(text)
    tokenizer.normalizer = normalizers.NFC()
    composing = encoder_of_tokenizer(tokenizer, 0, 1)
    assert changed_text(composing) is None
    tiny = encoders["tiny"]
    texts = ["e\u0301", "\u00e9"]
    for ours, theirs in ((tiny, composing), (composing, tiny)):
        reader = TeacherText(ours, theirs, True, True, None, 1)
        twins = reader.twins(texts, ours.documents(True, True)(texts))
        assert twins[0] is None and twins[1] is not None
        ids, targets = of_slice(Slice(None, 0, 3), Special(BOS, EOS))
        assert len(ids) == 0 and targets.tolist() == [NO_TARGET] * 3
