"""The proofs as a table of 80 columns, and below it what failed and how to mend it."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunewright.text import _
from tunewright.verify.proof import Proof
from tunewright.verify.run import Verified

WIDTH = 80
MARKS = {"pass": ("pass", "green"), "fail": ("FAIL", "bold red"), "not applicable": ("n/a", "dim")}


def table(found: Verified) -> RenderableType:
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1))
    shown.add_column(_("proof"), width=8)
    shown.add_column("", width=4)
    shown.add_column(_("numbers"), ratio=1, overflow="fold")
    for proof in found.proofs:
        word, style = MARKS[proof.outcome]
        text = proof.numbers or proof.what or ""
        shown.add_row(proof.name, Text(word, style), Text(text, "dim" if proof.outcome == "not applicable" else ""))
    more = [line for proof in found.proofs for line in _lines(proof)]
    return Group(shown, Text("\n".join(more))) if more else shown


def _lines(proof: Proof) -> list[str]:
    lines = [_("note:  {name}: {note}", name=proof.name, note=note) for note in proof.notes]
    if proof.outcome == "fail":
        lines.append(f"{proof.name}: {proof.what}")
        lines += [f"  where: {proof.where}"] if proof.where else []
        lines += [f"  do:    {proof.do}"] if proof.do else []
    return lines
