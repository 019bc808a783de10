"""Whether two tokenizers do the same, as they must where the teacher reads the student's ids.

Files may differ in what changes no id (names, padding, templates of BOS and EOS), so they are
compared by what they do: vocabulary, special ids, merges or scores, and the ids of odd texts.
"""

import json
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from let_titan.errors import ConfigError

CURE = (
    "set model.hf_assets_path to the teacher's tokenizer, or, without [distill], "
    'teacher.tokenizer = "align".'
)

PROBES = (
    "The quick brown fox doesn't jump; it's 3.14159 or 1,234,567 lazy dogs, they'll say!",
    " leading, trailing  and   several    spaces ",
    "tabs\tand\nlines\r\n\r\n\n\n    of code: if (x != y) { return f'{x:>8}'; }  // ok",
    "na\u00efve cafe\u0301 \u212b \ufb01 \u00bd \u2460 STRASSE stra\u00dfe \u0130I\u0131",
    "\u4f60\u597d\uff0c\u4e16\u754c \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f468\u200d\U0001f469 \U0001f600\u00a0\u2003\u200b\ufeff\u0007 \u2581 \u0120",
    "https://example.org/a_b?c=d&e=%20#f user@example.org $9.99 \u20ac5 50% #tag C++ a->b",
    "2026-11-24T03:16:23Z 0xDEADBEEF 1e-05 IIIVXL iPhone15 camelCaseWords snake_case_words",
)
"""Texts at which normalizers, pre-tokenizers and byte fallbacks differ."""


class Reading(NamedTuple):
    """A tokenizer, and the ids that stand around a document.

    Attributes:
        special_in_text: whether text that spells a special token gets its id. With tiktoken it
            never does, so its special tokens, all but BOS and EOS, may have other names.
    """

    tokenizer: Tokenizer
    bos_id: int | None
    eos_id: int | None
    special_in_text: bool = True


def check_same_tokenizer(ours: Reading, theirs: Reading) -> None:
    """Checks that every text has the same ids for student and teacher.

    Raises:
        ConfigError: names the first difference.
    """
    readings, special = (ours, theirs), ours.special_in_text
    check_same_vocabulary(*(vocabulary(reading.tokenizer, special) for reading in readings))
    for name, here, there in (
        ("BOS", ours.bos_id, theirs.bos_id),
        ("EOS", ours.eos_id, theirs.eos_id),
    ):
        if here != there and None not in (here, there):
            raise ConfigError(f"The student's {name} is {here} and the teacher's {there}: {CURE}")
    check_same_segmentation(ours.tokenizer, theirs.tokenizer)
    added = [token.content for token in ours.tokenizer.get_added_tokens_decoder().values()]
    for text in (*PROBES, *(f"a {token}b" for token in added if special)):
        if ids_of(ours.tokenizer, text) != ids_of(theirs.tokenizer, text):
            raise ConfigError(
                f"The student's tokenizer has the teacher's vocabulary, but gives {text!r} other "
                f"ids: {CURE}"
            )


def vocabulary(tokenizer: Tokenizer, special: bool) -> dict[str, int]:
    """Returns {token: id}; without ``special``, of what text can become."""
    if special:
        return tokenizer.get_vocab()
    added = tokenizer.get_added_tokens_decoder()
    return {token: i for token, i in tokenizer.get_vocab().items() if i not in added}


def check_same_vocabulary(ours: dict[str, int], theirs: dict[str, int]) -> None:
    """Checks that every id means the same to student and teacher.

    Raises:
        ConfigError: names the first token that differs.
    """
    tokens = sorted(ours.keys() | theirs.keys())
    different = [token for token in tokens if ours.get(token) != theirs.get(token)]
    if different:
        token = different[0]
        raise ConfigError(
            f"The student's tokenizer differs from the teacher's in {len(different)} tokens "
            f"({token!r} is {ours.get(token)} here and {theirs.get(token)} there): {CURE}"
        )


def check_same_segmentation(ours: Tokenizer, theirs: Tokenizer) -> None:
    """Compares BPE's merges, or a unigram model's scores, in their order.

    Raises:
        ConfigError: names the first that differs.
    """
    here, there = segmentation(ours), segmentation(theirs)
    if here == there:
        return
    place = next(
        (i for i, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]),
        min(len(here), len(there)),
    )
    first = [rules[place] if place < len(rules) else "none" for rules in (here, there)]
    raise ConfigError(
        f"The student's tokenizer has the teacher's vocabulary, but other merges: number {place} "
        f"is {first[0]} here and {first[1]} there, so {CURE}"
    )


def segmentation(tokenizer: Tokenizer) -> list[Any]:
    """Returns BPE's merges as pairs, a unigram model's scored tokens, or nothing."""
    model = json.loads(tokenizer.to_str())["model"]
    if "merges" in model:  # "a b" in older files, ["a", "b"] in newer ones
        return [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return model["vocab"] if isinstance(model["vocab"], list) else []


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns a text's ids without BOS, EOS and padding."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return [i for i, real in zip(encoding.ids, encoding.attention_mask, strict=True) if real]
