"""A teacher's rows of unequal lengths, laid end to end, so that no padding is computed.

Everything but attention works on single tokens and does not see where a row ends. Attention takes
each row by itself, and positions begin anew in each, so the states are those of rows read alone.
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from let_titan.batch import RowPieces
from let_titan.teacher.attention import Pieces, takes_pieces
from let_titan.teacher.model import Teacher


def positions_read(rows: Sequence[int], packed: bool) -> int:
    """Returns how many positions a teacher computes for rows of these lengths, at least one."""
    return max(1, sum(rows) if packed else len(rows) * max(rows))


def read_rows(
    teacher: Teacher, ids: torch.Tensor, pieces: RowPieces, documents: bool
) -> tuple[torch.Tensor, ...]:
    """Returns a teacher's states of rows that come end to end.

    Rows of one length are read side by side, as under the student's tokenizer; so are those of an
    architecture that attends by a mask of its own, padded to the longest.

    Args:
        teacher: the teacher.
        ids: [N], row after row.
        pieces: of the rows; the host knows them.
        documents: whether each is a document.

    Returns:
        One [N, d_T] per layer; a single state where all rows are empty.
    """
    if not len(ids):  # a sharded teacher is called on all ranks or on none
        ids, pieces = ids.new_zeros(1), [[1]]
    unequal = len({sum(row) for row in pieces}) > 1
    if unequal and takes_pieces(teacher.model.config):
        return end_to_end(teacher, ids, pieces)
    return side_by_side(teacher, ids, pieces, documents)


def end_to_end(teacher: Teacher, ids: torch.Tensor, pieces: RowPieces) -> tuple[torch.Tensor, ...]:
    lengths = torch.tensor([length for row in pieces for length in row])
    positions = positions_in(pieces, ids.device)
    states = teacher(ids.unsqueeze(0), positions.unsqueeze(0), Pieces(lengths))
    return tuple(each.squeeze(0) for each in states)


def side_by_side(
    teacher: Teacher, ids: torch.Tensor, pieces: RowPieces, documents: bool
) -> tuple[torch.Tensor, ...]:
    rows = [sum(row) for row in pieces]
    beside = pad_sequence(ids.split(rows), batch_first=True)
    positions = None
    if documents:
        each = positions_in(pieces, ids.device).split(rows)
        positions = pad_sequence(each, batch_first=True)
    states = teacher(beside, positions)
    return tuple(torch.cat([x[:n] for x, n in zip(each, rows, strict=True)]) for each in states)


def positions_in(pieces: RowPieces, device: torch.device) -> torch.Tensor:
    """Returns each id's position in its piece, [N]."""
    lengths = [length for row in pieces for length in row]
    count = torch.arange(max(lengths), device=device)
    return torch.cat([count[:length] for length in lengths])
