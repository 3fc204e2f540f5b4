"""Texts, and pairs of texts, as a base's own tokenizer writes them for reading: with the special tokens that stand
around a text ([CLS] … [SEP]), and behind them what is wanted of the model.

    [CLS] a warm film [SEP] | 1          one label: its number
    [CLS] a warm film [SEP] | 0 1 1      several labels: 0 or 1 for each
    what the model reads    | learned; never read

What a person typed is always text, also where it looks like a special token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunewright.data.basefiles import CONFIG, TOKENIZER, BaseFiles
from tunewright.data.fit import Cut
from tunewright.data.tokens import Encoder
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Origin, Rendered
from tunewright.text import _

Side = Literal["left", "right"]
Given = tuple[str, str | None]
_NOWHERE = Origin("", 0, 0)
_PROBES: tuple[Given, ...] = (("one", "two"), ("one two three", "four"), ("a [SEP] b", "c [SEP] d"), ("one", None))


class TextCodec:
    """labels: their names in the order of their numbers.  separator: for a base that numbers the texts of a pair, the
    id that ends the first; None for one that does not.  side: from which end a text that is too long is cut.

    Loads from a base's folder without transformers. Raises BaseModelError for a tokenizer that cannot be used.
    """

    def __init__(self, files: BaseFiles, labels: Sequence[str] = (), multi_label: bool = False, side: Side = "right"):
        self._files = files
        self.labels, self.multi_label, self.side = tuple(labels), multi_label, side
        try:
            self._encoder = Encoder(files.files[TOKENIZER], files.special_texts())
            self._reader = self._encoder.plain()
            self._cutter = self._encoder.plain()
        except Exception as error:  # the tokenizer library raises plain Exception on a damaged file
            raise BaseModelError(_("the tokenizer cannot be read: {error}", error=error), where=files.where) from None
        self._joins_pairs = self._puts_nothing_between()
        self.separator = self._find_separator()
        self._empty = next(iter(files.stop_ids()), 0)
        self.notes: tuple[str, ...] = ()
        made_of = json.dumps(["texts", self.labels, multi_label, side, self.separator, self._joins_pairs])
        self.sha256 = hashlib.sha256((files.digest("") + made_of).encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return TextCodec, (self._files, self.labels, self.multi_label, self.side)

    # -- what others ask -----------------------------------------------------------------------------------------

    @property
    def reads_clock(self) -> bool:
        return False

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        """One row to each example that says its label; none where it does not."""
        known = [chat for chat in chats if chat.last_answer() is not None]
        rows = iter(self._rows([given(chat) for chat in known], [self._numbers(c) for c in known], known))
        return [[next(rows)] if chat.last_answer() is not None else [] for chat in chats]

    def ask(self, texts: Sequence[Given]) -> list[Rendered]:
        """Rows of texts whose labels nobody knows: what is wanted stands there as zeros."""
        blank = (0,) * (len(self.labels) if self.multi_label else 1)
        return self._rows(texts, [blank] * len(texts), [])

    def size(self, row: Rendered) -> int:
        return int(row.length - row.learn.sum())

    def cut(self, chat: Chat, rows: Sequence[Rendered], most: int) -> Cut:
        """The text without its end (or its beginning, by ``side``), of a pair the longer one first; the special tokens
        around it stay."""
        done = [self.shortened(given(chat), row, most) for row in rows]
        return Cut(tuple(done), sum(self.size(a) - self.size(b) for a, b in zip(rows, done, strict=True)))

    def shortened(self, texts: Given, row: Rendered, most: int) -> Rendered:
        """``row``, which was made of ``texts``, within ``most`` tokens."""
        if self.size(row) <= most:
            return row
        self._cutter.enable_truncation(most, strategy="longest_first", direction=self.side)
        ids = self._cutter.encode(*self._written(texts)).ids
        return _row(ids, row.ids[row.learn].tolist(), row.origin)

    def specials_in(self, text: str) -> list[str]:
        return self._encoder.specials_in(text)

    def adds_system(self) -> str | None:
        return None

    def pieces(self, row: Rendered) -> list[str]:
        """Texts of the tokens; the wanted numbers read as the names of their labels."""
        read = self._encoder.pieces(row.ids[~row.learn].tolist())
        numbers = row.ids[row.learn].tolist()
        chosen = [self.labels[i] if n else "" for i, n in enumerate(numbers)] if self.multi_label else [
            self.labels[number] for number in numbers
        ]  # fmt: skip
        return [*read, *(f" {name}" if name else "" for name in chosen)]

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return self._encoder.decode(ids, skip_special)

    def save(self, folder: Path) -> None:
        """The tokenizer's files as the base has them, byte for byte."""
        self._files.save(folder)

    # -- texts to ids --------------------------------------------------------------------------------------------

    def _rows(
        self, texts: Sequence[Given], numbers: Sequence[tuple[int, ...]], chats: Sequence[Chat]
    ) -> list[Rendered]:
        read = self._reader.encode_batch_fast([_asked(*self._written(text)) for text in texts])
        origins = [chat.origin for chat in chats] or [_NOWHERE] * len(texts)
        # A text that a decoder's tokenizer makes nothing of is the end of a text and nothing before it.
        return [
            _row(encoding.ids or [self._empty], wanted, origin)
            for encoding, wanted, origin in zip(read, numbers, origins, strict=True)
        ]

    def _written(self, texts: Given) -> Given:
        text, pair = texts
        return (text + "\n", pair) if pair is not None and self._joins_pairs else texts

    def _numbers(self, chat: Chat) -> tuple[int, ...]:
        chosen = wanted(chat, self.labels)
        return tuple(int(n in chosen) for n in range(len(self.labels))) if self.multi_label else chosen

    # -- what kind of tokenizer it is ----------------------------------------------------------------------------

    def _puts_nothing_between(self) -> bool:
        """A decoder's tokenizer often writes a pair as one run of text; then a line break goes between."""
        parts = self._reader.encode("one", "two").sequence_ids
        return None not in parts[parts.index(0) : len(parts) - parts[::-1].index(1)]

    def _find_separator(self) -> int | None:
        """Where a base has types for the texts of a pair, the row's ids must tell them: type 1 begins behind the first
        separator. That is what the model will be given, so it is compared with the tokenizer's own types."""
        config = self._files.json(CONFIG)
        if int(config.get("type_vocab_size") or 0) < 2:
            return None
        pair = self._reader.encode("one", "two")
        if 1 not in pair.type_ids:
            return None
        separator = int(pair.ids[pair.type_ids.index(1) - 1])
        for probe in _PROBES:
            encoding = self._reader.encode(*probe)
            first = encoding.ids.index(separator) if separator in encoding.ids else len(encoding.ids)
            if encoding.type_ids != [int(place > first) for place in range(len(encoding.ids))]:
                raise BaseModelError(
                    _("the tokenizer numbers the two texts of a pair in a way that is not known here"),
                    where=self._files.where, do=_("take another base"), command="tunewright models",
                )  # fmt: skip
        return separator


def given(chat: Chat) -> Given:
    """The text of an example, and the second one of a pair."""
    said = [message.content for message in chat.messages if message.role == "user"]
    return (said[0] if said else "", said[1] if len(said) > 1 else None)


def wanted(chat: Chat, labels: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the example's labels: one, or as many as its JSON list names. Raises DataError for an unknown one."""
    last = chat.last_answer()
    said = chat.messages[last].content if last is not None else ""
    number = {name: index for index, name in enumerate(labels)}
    if said in number:
        return (number[said],)
    try:
        names = [str(name) for name in json.loads(said)] if said.startswith("[") else [said]
    except ValueError:
        names = [said]
    unknown = [name for name in names if name not in number]
    if unknown:
        raise DataError(
            _("the label {name!r} is not one of: {labels}", name=unknown[0], labels=", ".join(labels)),
            where=str(chat.origin), do=_("correct the label, or add it to classify.labels"),
        )  # fmt: skip
    return tuple(sorted(number[name] for name in names))


def _asked(text: str, pair: str | None) -> Any:
    return text if pair is None else (text, pair)


def _row(text: Sequence[int], numbers: Sequence[int], origin: Origin) -> Rendered:
    ids = np.array([*text, *numbers], dtype=np.int32)
    learn = np.arange(len(ids)) >= len(text)
    return Rendered(ids, learn, origin)
