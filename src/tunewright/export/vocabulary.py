"""A run's tokenizer, stop tokens and chat template as a GGUF file holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer

from tunewright.data.basefiles import TOKENIZER, BaseFiles
from tunewright.errors import RunError
from tunewright.export import pieces, splitting
from tunewright.export.pieces import Pieces
from tunewright.text import _

# Texts at which llama.cpp ends an answer wherever a vocabulary has them. Any other stop token needs one of the three
# places that a GGUF file has for them.
ENDS_BY_TEXT = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "<|end_of_text|>")
)


@dataclass(frozen=True)
class Merges:
    """BPE over bytes. splitting: llama.cpp's name of the rule by which text is cut.  merges: as ``a b``."""

    splitting: str
    merges: list[str]

    def write(self, writer: gguf.GGUFWriter, _tokens: Sequence[str]) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.splitting)
        writer.add_token_merges(self.merges)


@dataclass(frozen=True)
class Vocabulary:
    """tokens, kinds: text and gguf.TokenType of each id up to the model's vocabulary.  joining: how they come from a
    text.  end: the id that the template knows as ``eos_token``.  turn_end: that ends an answer.  more_end: a third one.
    opens: every text begins with ``begin``.  stops: all ids that end an answer, however the file says so."""

    tokens: list[str]
    kinds: list[int]
    joining: Merges | Pieces
    end: int
    turn_end: int
    more_end: int | None
    begin: int | None
    unknown: int | None
    pad: int | None
    opens: bool
    template: str | None
    stops: tuple[int, ...]

    def write(self, writer: gguf.GGUFWriter) -> None:
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        self.joining.write(writer, self.tokens)
        writer.add_eos_token_id(self.end)
        writer.add_eot_token_id(self.turn_end)
        if self.more_end is not None:
            writer.add_eom_token_id(self.more_end)
        if self.begin is not None:
            writer.add_bos_token_id(self.begin)
        if self.unknown is not None:
            writer.add_unk_token_id(self.unknown)
        if self.pad is not None:
            writer.add_pad_token_id(self.pad)
        writer.add_add_bos_token(self.opens)
        writer.add_add_eos_token(False)
        if self.template is not None:
            writer.add_chat_template(self.template)


def read(
    folder: Path, size: int, generation: dict[str, Any], answers_end: int | None, template: str | None
) -> Vocabulary:
    """Of a run's own ``folder``. size: rows of the model's embedding.  generation: the run's generation config.
    answers_end: the id that its template ends an answer with, where it has a template.

    Raises RunError for a tokenizer that llama.cpp would read otherwise than the run did.
    """
    files = BaseFiles.read(folder)
    source = str(folder / TOKENIZER)
    stored = json.loads(files.files[TOKENIZER])
    joining = pieces.read(stored, source) if pieces.is_one(stored) else _merges(stored, source)
    tokenizer = Tokenizer.from_str(files.files[TOKENIZER].decode("utf-8"))
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if max(ids.values()) >= size:
        raise RunError(
            _("the tokenizer has more tokens than the model ({n}, {size})", n=max(ids.values()) + 1, size=size),
            where=source, do=_("bring back the files that the run wrote"), command="tunewright verify",
        )  # fmt: skip
    tokens, kinds = _tokens(ids, stored, files.special_texts(), size)
    named = {name: ids.get(text) for name, text in files.named_tokens().items()}
    stops = tuple(sorted(generation["eos_token_id"]))
    end, turn_end, more = _ends(stops, named.get("eos_token"), answers_end, tokens, source)
    begin = named.get("bos_token")
    opening = tokenizer.encode("x", add_special_tokens=True).ids
    return Vocabulary(
        tokens, kinds, joining, end, turn_end, more, begin, named.get("unk_token"), generation.get("pad_token_id"),
        begin is not None and opening[0] == begin and len(opening) > 1, template, stops,
    )  # fmt: skip


def _merges(stored: dict[str, Any], source: str) -> Merges:
    merges = stored["model"]["merges"]
    return Merges(splitting.name_of(stored, source), [m if isinstance(m, str) else " ".join(m) for m in merges])


def _tokens(ids: dict[str, int], stored: dict[str, Any], special: set[str], size: int) -> tuple[list[str], list[int]]:
    """Rows of the embedding that no token has are filled up, since a GGUF file must name each of them."""
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [int(gguf.TokenType.UNUSED)] * size
    added = {str(token["content"]): bool(token.get("special")) for token in stored.get("added_tokens") or []}
    spelling = pieces.BYTES if pieces.is_one(stored) else set()
    for text, number in ids.items():
        tokens[number] = text
        if text not in added:
            kinds[number] = int(gguf.TokenType.BYTE if text in spelling else gguf.TokenType.NORMAL)
        else:
            is_control = added[text] or text in special
            kinds[number] = int(gguf.TokenType.CONTROL if is_control else gguf.TokenType.USER_DEFINED)
    return tokens, kinds


def _ends(
    stops: Sequence[int], named: int | None, answers_end: int | None, tokens: Sequence[str], where: str
) -> tuple[int, int, int | None]:
    """(``eos``, ``eot``, ``eom``). The first is what a template may write as ``eos_token``; the second is set even if
    it is the same, or llama.cpp would choose one by its text."""
    end = named if named is not None else answers_end if answers_end is not None else stops[0]
    turn_end = answers_end if answers_end is not None else end
    rest = [stop for stop in stops if stop not in (end, turn_end) and tokens[stop] not in ENDS_BY_TEXT]
    if rest and turn_end == end:
        turn_end, rest = rest[0], rest[1:]
    if len(rest) > 1:
        raise RunError(
            _("answers of this run end at {n} tokens, and a GGUF file has no place for {texts}",
              n=len(stops), texts=", ".join(repr(tokens[stop]) for stop in rest[1:])),
            where=where, do=_("export the run as merged, which keeps all of them"),
            command="tunewright export --to merged",
        )  # fmt: skip
    return end, turn_end, rest[0] if rest else None
