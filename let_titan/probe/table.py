"""The probe's report for people: a row a block, and the proposal as keys of a TOML."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from let_titan.probe.proposal import Evidence, Proposal

COLUMNS = (
    "block",
    "grad cosine",
    "grad ratio",
    "cosine to the teacher",
    "NLL",
    "gain on baseline",
    "auto stop",
)


def show(evidence: Sequence[Evidence], proposal: Proposal, steps: int) -> None:
    """Prints the report on stdout."""
    console = Console(highlight=False)
    table = Table(title=f"{steps} steps a run, one seed")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in evidence:
        table.add_row(*cells(row), style="bold" if row.block == proposal.k else None)
    console.print(table)
    console.print("[let]", markup=False)
    s_stop = f"s_stop = {proposal.s_stop}" if proposal.s_stop else "# s_stop"
    for key, text in (
        ("k", f"k = {proposal.k}"),
        ("lambda_0", f"lambda_0 = {proposal.lambda_0}"),
        ("s_stop", s_stop),
    ):
        console.print(f"{text}  # {proposal.because[key]}", markup=False, soft_wrap=True)


def cells(row: Evidence) -> tuple[str, ...]:
    return (
        str(row.block),
        f"{row.grad_cosine:+.4f} ± {row.grad_cosine_error:.4f}",
        f"{row.grad_ratio:.3g}",
        f"{row.cosine_first:.3f} -> {row.cosine_last:.3f}",
        f"{row.loss:.4f}",
        f"{row.loss_gain:+.4f}",
        str(row.stop) if row.stop else "later",
    )
