"""What the way of the data asks of whoever writes examples as token ids. Each task brings its own (``tasks/``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tunewright.data.fit import Cut
from tunewright.example import Chat, Rendered


class Codec(Protocol):
    """One base's way from examples to ids and back, torch-free to use.

    Whatever the task, a row is ids of which some are learned: an answer's tokens, the target behind its source, the
    label's number behind its text, a document. So packing, caching, batching and counting are the same for all.

    sha256: of everything that decides the ids; a part of the cache's key and of the manifest.
    reads_clock: the same example is another row tomorrow.  notes: what a person should know, said as finding D305.
    """

    sha256: str

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def reads_clock(self) -> bool: ...

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        """The rows of each example; none where nothing is learned."""
        ...

    def size(self, row: Rendered) -> int:
        """Tokens of ``row`` that the base has to hold at once."""
        ...

    def cut(self, chat: Chat, rows: Sequence[Rendered], most: int) -> Cut:
        """The rows of one example within ``most`` tokens, for ``data.too_long: truncate``."""
        ...

    def specials_in(self, text: str) -> list[str]:
        """The special tokens that stand in ``text`` as a person wrote it."""
        ...

    def adds_system(self) -> str | None:
        """Text that is put before an example by itself, if any is."""
        ...

    def pieces(self, row: Rendered) -> list[str]:
        """What each id of ``row`` reads as, for people; joined, the row's text."""
        ...

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Generated ids as text."""
        ...

    def save(self, folder: Path) -> None:
        """All that is needed to write the same ids again, into a run's folder."""
        ...
