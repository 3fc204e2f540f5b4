"""The task ``pretrain``: go on with a text. Every token of every document is learned.

A document is its tokens, then the end-of-sequence token; what the tokenizer itself puts before a text comes first.
Nothing else is added, and no chat template is asked. Documents are joined and cut into rows of one length
(``data/joined.py``), so that there is no padding, and attention stays within a document (``model/forward.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data.basefiles import TOKENIZER, BaseFiles
from tunewright.data.codec import Codec
from tunewright.data.fit import Cut
from tunewright.data.joined import Joined, cut_documents, join_documents
from tunewright.data.tokens import Encoder
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Rendered
from tunewright.model.load import require_decoder
from tunewright.model.loss import TokenLoss
from tunewright.recipe.schema import Recipe
from tunewright.tasks.interface import Gives, Head, Objective, Question, Reads
from tunewright.text import _

ROW = 512  # tokens of a row where the person says nothing: long enough for what follows from what, quick on a CPU
_BATCH = 1024  # documents tokenised at once


class PretrainTask:
    name = "pretrain"
    reads: Reads = "documents"
    head: Head = "decoder"
    gives: Gives = "likelihood"
    retains = False

    def require(self, folder: Path, name: str) -> None:
        require_decoder(folder, name, "pretrain")

    def codec(self, folder: Path, recipe: Recipe, labels: Sequence[str] = ()) -> DocumentCodec:
        wanted = recipe.data.max_length
        return DocumentCodec(BaseFiles.read(folder), ROW if wanted == "auto" else wanted)

    def objective(self, model: Any, codec: Codec) -> Objective:
        return TokenLoss(model)

    def question(self, chat: Chat, codec: Codec) -> Question | None:
        """None: a document asks nothing."""
        return None

    def arrange(self, rows: Sequence[Rendered], length: int, measured: bool = False) -> list[Joined]:
        """Documents as full rows of ``length`` tokens. Those that are measured stay apart, long ones in pieces:
        an interval over them says how sure one may be; one over a few rows that each hold several would not."""
        return cut_documents(rows, length) if measured else join_documents(rows, length)


class DocumentCodec:
    """Documents as ids. length: tokens of a row that documents are cut into, hence all that a base has to hold."""

    reads_clock = False

    def __init__(self, files: BaseFiles, length: int = ROW) -> None:
        self._files, self.length = files, length
        try:
            self._encoder = Encoder(files.files[TOKENIZER], files.special_texts())
        except Exception as error:  # the tokenizer library raises plain Exception on a damaged file
            raise BaseModelError(_("the tokenizer cannot be read: {error}", error=error), where=files.where) from None
        self.end = self._find_end()
        self.notes: tuple[str, ...] = (
            _(
                "each document ends in {end}, which is learned; documents are joined into full rows, and none sees "
                "another",
                end=self._encoder.text_of(self.end),
            ),
        )
        settings = json.dumps({"end": self.end, "opening": self._encoder.opening, "length": length})
        self.sha256 = hashlib.sha256(f"documents {files.digest('')} {settings}".encode()).hexdigest()

    @property
    def vocabulary(self) -> int:
        return self._encoder.size

    def text_ids(self, text: str) -> list[int]:
        """(T,) ids of the beginning of a document, as a training row has them: all that stands in it is text."""
        return [*self._encoder.opening, *self._encoder.encode(self._encoder.shield(text))]

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        """One row a document: all learned but the first token, which nothing can predict."""
        rendered: list[list[Rendered]] = []
        for start in range(0, len(chats), _BATCH):
            some = chats[start : start + _BATCH]
            encoded = self._encoder.encode_parts([[self._shielded(chat)] for chat in some])
            rendered += [[self._row(parts[0], chat)] for parts, chat in zip(encoded, some, strict=True)]
        return rendered

    def size(self, row: Rendered) -> int:
        """No more than a row: a longer document goes on in the next one."""
        return min(row.length, self.length)

    def cut(self, chat: Chat, rows: Sequence[Rendered], most: int) -> Cut:
        return Cut(tuple(rows), 0)

    def specials_in(self, text: str) -> list[str]:
        return self._encoder.specials_in(text)

    def adds_system(self) -> str | None:
        return None

    def pieces(self, row: Rendered) -> list[str]:
        return self._encoder.pieces(row.ids.tolist())

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return self._encoder.decode(ids, skip_special)

    def save(self, folder: Path) -> None:
        """The tokenizer's files as the base has them, byte for byte."""
        self._files.save(folder)

    def _find_end(self) -> int:
        """The token that ends a document. Raises BaseModelError if the base names none."""
        named = self._files.named_tokens().get("eos_token")
        end = self._encoder.find(named) if named else None
        found = [token for token in (end, *self._files.stop_ids()) if token is not None]
        if not found:
            raise BaseModelError(
                _("the base names no token that ends a text"),
                where=self._files.where,
                do=_("take a base whose tokenizer has an eos_token"),
            )
        return found[0]

    def _shielded(self, chat: Chat) -> str:
        """The document's text, in which a special token that somebody typed is text."""
        try:
            return self._encoder.shield("".join(message.content for message in chat.messages))
        except DataError as error:
            error.where = error.where or str(chat.origin)
            raise

    def _row(self, ids: Sequence[int], chat: Chat) -> Rendered:
        whole = np.array([*self._encoder.opening, *ids, self.end], dtype=np.int32)
        learn = np.ones(len(whole), dtype=np.bool_)
        learn[0] = False
        return Rendered(whole, learn, chat.origin)
