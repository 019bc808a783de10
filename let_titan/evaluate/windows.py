"""A corpus in The Pile's format as the windows of ids that a model reads."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from let_titan.data.files import data_files
from let_titan.data.policy import Policy
from let_titan.data.reading import read_file
from let_titan.data.shards import check_text
from let_titan.tokenizer.encoder import load_encoder


@dataclass(frozen=True)
class Window:
    """A stretch of the corpus that the model reads at once.

    Attributes:
        ids: [S + 1] int64 (fewer at a strided corpus's end); the last is a label alone.
        sets: for each id, the index of its document's set.
        scored: how many of the last ids are scored; those before are context alone.
    """

    ids: np.ndarray
    sets: np.ndarray
    scored: int


class Packed:
    """A corpus as one stream of ids, cut into windows; documents in the order of the files.

    Args:
        pattern: the files, as ``validation.dataset_path``.
        tokenizer: folder of the model's.
        add_bos, add_eos: what stands around each document.
        policy: which documents are read; None: all that are sound.

    Attributes:
        left_out: how many documents were not read, by reason.

    Raises:
        ConfigError: there is no file, a token shard, or no tokenizer that can be read.
    """

    def __init__(
        self,
        pattern: str,
        tokenizer: str,
        add_bos: bool,
        add_eos: bool,
        policy: Policy | None = None,
    ) -> None:
        self.files = data_files(pattern)
        check_text(self.files)
        self.policy = policy or Policy()
        self.left_out: Counter[str] = Counter()
        # Many models come with truncation on. Windows are cut here, and lm-evaluation-harness, too,
        # reads without it.
        self.encode = load_encoder(tokenizer, uncut=True).documents(add_bos, add_eos)
        self.names: list[str] = []

    def _pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (ids, sets) of each document."""
        for file in self.files:
            for line in read_file(file, 0, 0, self.policy.limit):
                document = self.policy.read(file, line, self.left_out)
                if document is None:
                    continue
                if not self.policy.copies(document, epoch=0):
                    self.left_out["not of the validation set"] += 1
                    continue
                if document.pile_set_name not in self.names:
                    self.names.append(document.pile_set_name)
                [ids] = self.encode([document.text])
                yield ids, np.full(len(ids), self.names.index(document.pile_set_name))

    def windows(self, seq_len: int, stride: int | None) -> Iterator[Window]:
        """Yields windows of ``seq_len`` ids and a label.

        Args:
            seq_len: S.
            stride: None: plain windows, as the trainer's validation reads them: each begins where
                the last ended, its first id is no label, and a last one that is not full is left
                out. A number: all windows but the first score that many ids, or what is left, with
                all that fits before them as context.
        """
        step = seq_len + 1 if stride is None else stride
        kept, ids, sets = 0, np.empty(0, np.int64), np.empty(0, np.int64)
        for more, of in self._pieces():
            ids, sets = np.concatenate((ids, more)), np.concatenate((sets, of))
            while len(ids) > seq_len:
                cut = slice(0, seq_len + 1)
                yield Window(ids[cut], sets[cut], stride if stride and kept else seq_len)
                kept = seq_len + 1 - step
                ids, sets = ids[step:], sets[step:]
        if stride is not None and len(ids) > max(kept, 1):
            yield Window(ids, sets, len(ids) - kept if kept else len(ids) - 1)
