"""Answers that have to look like something: JSON by a schema, or any JSON object. llguidance says which tokens may come
next; engines strike the others out."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunewright.errors import DataError, MissingExtra
from tunewright.text import _

# Between JSON's signs: a line break and an indentation at most. Without a bound a small model that would rather say
# something else writes blanks until its tokens are spent.
SPACE = r"\n? {0,8}"


def from_schema(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON that ``schema`` (JSON Schema) describes. Raises DataError where it is refused, MissingExtra
    without llguidance."""
    library = _llguidance()
    try:
        grammar = str(
            library.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_pattern": SPACE})
        )
    except ValueError as error:
        raise _refused(error) from None
    return _checked(grammar)


def any_object() -> str:
    """The grammar of any JSON object."""
    return from_schema({"type": "object"})


def between(before: str | int, schema: Mapping[str, Any], after: str | int) -> str:
    """The grammar of JSON by ``schema`` that stands between two marks: texts, or ids of special tokens. Raises as
    ``from_schema``."""
    from_schema(schema)
    held = {**schema, "x-guidance": {"whitespace_pattern": SPACE}}
    blank = r"/[ \n]{0,2}/"  # inside the marks, where templates differ
    first, last = _lark(before), _lark(after)
    parts = [*([first, blank] if first else []), "said", *([blank, last] if last else [])]
    return _checked(f"start: {' '.join(parts)}\nsaid: %json {json.dumps(held)}\n")


def _lark(mark: str | int) -> str:
    if isinstance(mark, int):
        return f"<[{mark}]>"
    return json.dumps(mark, ensure_ascii=False) if mark else ""


class Grammars:
    """llguidance's view of one tokenizer. folder: holds its tokenizer.json.  vocabulary: width of the logits."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self.folder, self.vocabulary = folder, vocabulary
        self._tokenizers: dict[frozenset[int], Any] = {}

    def begin(self, grammar: str, stops: Collection[int]) -> Held:
        """A new answer under ``grammar``, which ends with one of ``stops`` and nowhere else."""
        key = frozenset(stops)
        if key not in self._tokenizers:
            text = (self.folder / "tokenizer.json").read_text(encoding="utf-8")
            self._tokenizers[key] = _llguidance().LLTokenizer(text, n_vocab=self.vocabulary, eos_token=sorted(key))
        return Held(_llguidance().LLMatcher(self._tokenizers[key], grammar))


class Held:
    """One answer's way through its grammar."""

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher

    def only_allowed(self, row: torch.Tensor) -> torch.Tensor:
        """(V,) -> the same with minus infinity where the grammar allows no token."""
        mask = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(mask, bitorder="little")[: row.shape[0]]).bool()
        return row.masked_fill(~allowed.to(row.device), -torch.inf)

    def took(self, token: int) -> None:
        self.matcher.consume_token(token)


@lru_cache(maxsize=1)
def _llguidance() -> Any:
    if find_spec("llguidance") is None:
        raise MissingExtra("llguidance", "serve", _("an answer in a given form"))
    import llguidance

    return llguidance


def _checked(grammar: str) -> str:
    problem = _llguidance().LLMatcher.validate_grammar(grammar)
    if problem:
        raise _refused(problem)
    return grammar


def _refused(why: object) -> DataError:
    return DataError(
        _("the schema cannot be followed: {why}", why=" ".join(str(why).split())), where="json_schema",
        do=_("use the keywords of JSON Schema that structured outputs know"), command="tunewright serve --help",
    )  # fmt: skip
