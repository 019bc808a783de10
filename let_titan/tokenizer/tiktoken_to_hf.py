"""tiktoken's tokenizers as Hugging Face's: what an export writes and a teacher's is compared with.

transformers' TikTokenConverter does the work. Two things it leaves to its caller: special tokens
keep tiktoken's ids, also where there is a gap before them, and the split pattern is one that
Oniguruma reads as tiktoken's regular expressions are read (in it ``{1,3}+`` repeats instead of
being possessive, and ``$`` ends every line).
"""

from typing import Any
from unittest import mock

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from let_titan.tokenizer.tiktoken_files import LLAMA_3_PATTERN, Ranks

GPT_2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS = {
    "r50k_base": GPT_2_PATTERN,
    "p50k_base": GPT_2_PATTERN,
    "cl100k_base": LLAMA_3_PATTERN,  # Llama 3 took it over
}
"""The same splits as tiktoken's, in what Oniguruma knows; other patterns are that already."""


class Converter(TikTokenConverter):
    """transformers' converter, special ids where tiktoken has them."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(
            pattern=PATTERNS.get(ranks.name, ranks.pattern),
            extra_special_tokens=sorted(ranks.special, key=lambda token: ranks.special[token]),
        )
        self.ranks = ranks

    def extract_vocab_merges_from_model(self, tiktoken_url: Any) -> tuple[dict[str, int], list]:
        """Returns vocabulary, with the special tokens, and merges."""
        with mock.patch.object(TikTokenConverter, "load_tiktoken_bpe", lambda *_: self.ranks.ranks):
            vocabulary, merges = super().extract_vocab_merges_from_model(tiktoken_url)
        return vocabulary | self.ranks.special, merges


def hugging_face_form(ranks: Ranks) -> Tokenizer:
    """Returns a tokenizer with the same ids for every text that spells no special token."""
    return Converter(ranks).converted()
