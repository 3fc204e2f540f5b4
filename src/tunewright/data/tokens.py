"""Text to token ids and back, with the one rule that matters for safety: what a person typed is always text.

A special token such as ``<|im_end|>`` inside a message would end the turn if it were tokenised as itself. ``shield``
breaks such words up with a character that Unicode reserves for programs; ``Encoder`` removes it again after the
template's own special tokens have been found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import DecodeStream

from tunewright.errors import DataError
from tunewright.text import _

SHIELD = "\ufdd2"
PROBE = "\ufdd3"  # stands for a message's content where only its place is wanted
_RESERVED = re.compile("[\ufdd0-\ufdef]")


class Encoder:
    """A base's ``tokenizer.json``.

    special: the texts that are structure: every added token marked special, and those that the base's configuration
    names as beginning, end, padding or unknown, whether marked or not.
    """

    def __init__(self, tokenizer_json: bytes, named_special: Iterable[str]) -> None:
        self._source = tokenizer_json.decode("utf-8")
        added = json.loads(self._source).get("added_tokens") or []
        known = {str(entry["content"]): entry for entry in added}
        self.special = sorted(
            {text for text, entry in known.items() if entry.get("special")} | (set(named_special) & set(known)),
            key=lambda text: (-len(text), text),
        )
        self._unmarked = [text for text in self.special if not known[text].get("special")]
        self._flags: dict[str, dict[str, Any]] = {text: known[text] for text in self.special}
        self._pattern = re.compile("|".join(map(re.escape, self.special))) if self.special else None
        self._tokenizer = self._load()
        self._plain: Tokenizer | None = None
        self._prepends = self._writes_a_prefix()
        self.opening = self._writes_first()

    def _load(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._source)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if self._unmarked:
            tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in self._unmarked])
        return tokenizer

    def plain(self) -> Tokenizer:
        """A tokenizer to which everything that stands in a text is text, whatever it looks like."""
        tokenizer = self._load()
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _writes_a_prefix(self) -> bool:
        """SentencePiece-like tokenizers put a space before a text; then a text's second half is not encoded alone."""
        alone = self._tokenizer.encode("x", add_special_tokens=False).ids
        after = self._tokenizer.encode("\nx", add_special_tokens=False).ids
        return alone != after[-len(alone) :] or len(alone) == len(after)

    def _writes_first(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer itself puts before every text: ``<s>``, or none.

        A base's own chat template writes them where it wants them, so they are never added to what it wrote. What has
        no such template (one of ours, a plain document) asks here.
        """
        alone = self._tokenizer.encode("x", add_special_tokens=False).ids
        whole = self._tokenizer.encode("x", add_special_tokens=True).ids
        added = len(whole) - len(alone)
        first = next((n for n in range(added + 1) if whole[n : n + len(alone)] == alone), 0)
        return tuple(whole[:first])

    # -- special tokens typed by a person ------------------------------------------------------------------------

    def shield(self, text: str) -> str:
        """``text`` with its special tokens broken up, so that a template can carry them as text."""
        if _RESERVED.search(text):
            found = _RESERVED.findall(text)[0]
            raise DataError(
                _("the text holds U+{code:04X}, a code that Unicode reserves for use inside programs", code=ord(found)),
                do=_("remove the character from the data"),
            )
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: SHIELD + SHIELD.join(match[0]) + SHIELD, text)

    def specials_in(self, text: str) -> list[str]:
        """The special tokens that stand in ``text`` as a person wrote it."""
        return self._pattern.findall(text) if self._pattern is not None else []

    def without_specials(self, text: str, keep: Sequence[str] = ()) -> str:
        return self._pattern.sub(lambda m: m[0] if m[0] in keep else "", text) if self._pattern is not None else text

    # -- encoding ------------------------------------------------------------------------------------------------

    def encode_parts(self, rows: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Token ids of each part of each row. Parts of a row follow each other, and no token spans two of them."""
        if self._prepends:
            return [self._one_by_one(parts) for parts in rows]
        flat = [part for parts in rows for part in parts]
        clean = [part for part in flat if SHIELD not in part]
        encoded = iter(self._tokenizer.encode_batch_fast(clean, add_special_tokens=False) if clean else [])
        ids = [list(next(encoded).ids) if SHIELD not in part else self._shielded(part) for part in flat]
        place = iter(ids)
        return [[next(place) for _ in parts] for parts in rows]

    def encode(self, text: str) -> list[int]:
        if SHIELD in text:
            return self._shielded(text)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _one_by_one(self, parts: Sequence[str]) -> list[list[int]]:
        """For tokenizers whose ids depend on what stands before: each part as the text so far continues."""
        done: list[list[int]] = []
        before: list[int] = []
        text = ""
        for part in parts:
            text += part
            whole = self.encode(text)
            if whole[: len(before)] == before:
                ids = whole[len(before) :]
            else:  # a token would span the border: encode the part behind a character that joins nothing
                anchor = self.encode("\n")
                behind = self.encode("\n" + part)
                ids = behind[len(anchor) :] if behind[: len(anchor)] == anchor else self.encode(part)
            done.append(ids)
            before = before + ids
        return done

    def _shielded(self, text: str) -> list[int]:
        """Special tokens of the template become one id each; everything between is text, whatever it looks like."""
        if self._plain is None:
            self._plain = self.plain()
        assert self._pattern is not None
        ids: list[int] = []
        place = 0
        strip_next = False
        for match in [*self._pattern.finditer(text), None]:
            piece = text[place : match.start() if match else len(text)]
            flags = self._flags[match[0]] if match else {}
            piece = piece.lstrip() if strip_next else piece
            piece = piece.rstrip() if flags.get("lstrip") else piece
            ids += self._plain.encode(piece.replace(SHIELD, ""), add_special_tokens=False).ids
            if match:
                ids.append(self.id_of(match[0]))
                place = match.end()
            strip_next = bool(flags.get("rstrip"))
        return ids

    # -- back to text --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def id_of(self, token: str) -> int:
        found = self.find(token)
        if found is None:
            raise KeyError(token)
        return found

    def find(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def text_of(self, token: int) -> str:
        """One token as it stands in the vocabulary; empty if there is none of this number."""
        return str(self._tokenizer.id_to_token(token) or "")

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=skip_special))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text. A character made of several tokens stands at the last of them."""
        stream = DecodeStream(skip_special_tokens=False)
        pieces: list[str] = []
        for token in ids:
            try:
                pieces.append(stream.step(self._tokenizer, int(token)) or "")
            except Exception:  # bytes that are no text: the stream has lost its place, so it starts anew
                stream = DecodeStream(skip_special_tokens=False)
                pieces.append("\ufffd")
        return pieces
