"""The task ``seq2seq``: write a text from another, with an encoder-decoder (T5, mT5, BART, Marian, mBART, NLLB).

A row is the source's ids, then the target's, each with the special tokens that the base's own tokenizer puts around
it; the target alone is learned. How the two go through the model stands in ``model/sequence.py``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from tunewright import rundir
from tunewright.data.codec import Codec
from tunewright.data.fit import Cut
from tunewright.errors import BaseModelError, DataError, MissingExtra, RecipeError
from tunewright.example import Chat, Message, Rendered
from tunewright.model import hashes
from tunewright.model.catalog import suited
from tunewright.model.load import quiet
from tunewright.model.loss import summed_loss
from tunewright.model.sequence import EncoderDecoderStates, split
from tunewright.model.source import read_config
from tunewright.recipe.schema import Recipe, Seq2seq
from tunewright.tasks.interface import Gives, Head, Objective, Question, Reads
from tunewright.text import _

LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")  # en_XX, fra_Latn: how NLLB names its languages, among other tokens
SPACE = "▁"  # SentencePiece's


class Seq2SeqTask:
    name = "seq2seq"
    reads: Reads = "pairs"
    head: Head = "encoder_decoder"
    gives: Gives = "outputs"
    retains = False

    def require(self, folder: Path, name: str) -> None:
        config = read_config(folder)
        architectures = [str(a) for a in config.get("architectures") or []]
        known = config.get("model_type") in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        whole = not any("EncoderModel" in a for a in architectures)
        if known and whole and config.get("is_encoder_decoder", True):
            return
        what = ", ".join(architectures) or config.get("model_type", "?")
        raise BaseModelError(
            _("{name} cannot write one text from another: {what} is no encoder-decoder", name=name, what=what),
            where=str(folder / "config.json"), do=_("these would do: {names}", names=", ".join(suited("seq2seq"))),
        )  # fmt: skip

    def codec(self, folder: Path, recipe: Recipe, labels: Sequence[str] = ()) -> Seq2SeqCodec:
        return Seq2SeqCodec(folder, recipe.seq2seq, recipe.data.truncation_side)

    def objective(self, model: Any, codec: Codec) -> Objective:
        states = EncoderDecoderStates(model)
        return lambda rows: summed_loss(states, rows, model.device)  # type: ignore[arg-type]  # of the same shape

    def question(self, chat: Chat, codec: Codec) -> Question | None:
        assert isinstance(codec, Seq2SeqCodec)
        last = chat.last_answer()
        if last is None:
            return None
        before = chat.messages[:last]
        return Question(codec.prompt_ids(before), codec.given(before), _written(chat.messages[last]))


class Seq2SeqCodec:
    """Source and target as ids, with the tokenizer of transformers: Marian's is no ``tokenizer.json``.

    generation: what the languages add to the generation config.  tokenizer: transformers' own, with the languages set.
    """

    reads_clock = False

    def __init__(self, folder: Path, settings: Seq2seq, truncation_side: str = "right") -> None:
        self.truncation_side = truncation_side
        self._folder = folder
        self._names = sorted(p.name for p in folder.iterdir() if _of_tokenizer(p.name))
        self.tokenizer = _open(folder, self._names)
        self._prefix, language = _set_languages(self.tokenizer, settings)
        specials = sorted(map(str, self.tokenizer.all_special_tokens), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, specials))) if specials else None
        self._special_ids = frozenset(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        self._end: list[int] = []
        self._end = self._missing_end(folder)
        self.generation = self._language_first(language)
        self.sha256 = self._digest(settings)
        self._head, self._tail = _around(self._ids(["A a", "7 7"]))
        self._lost: dict[str, int] = {}  # characters that the vocabulary does not have, and in how many texts

    # -- texts to ids ------------------------------------------------------------------------------------------------

    def given(self, messages: Sequence[Message]) -> str:
        """The source of what precedes an answer: the user's turn, with a system message above it.

        Raises DataError for a conversation of several turns: an encoder-decoder reads one text and writes another.
        """
        if sum(m.role == "user" for m in messages) > 1 or any(m.role in ("assistant", "tool") for m in messages):
            raise DataError(
                _("the row is a conversation of several turns; `task: seq2seq` learns one text from another"),
                do=_("use `task: chat` with a base that chats, or give rows with one source and one target"),
            )
        return "\n\n".join(m.content for m in messages)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """(S,) ids of the source, as they stand in a training row."""
        return self._ids([self.given(messages)])[0]

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        found: list[tuple[int, str, str]] = []
        for index, chat in enumerate(chats):
            last = chat.last_answer()
            if last is not None:
                found.append((index, _placed(self.given, chat, last), _written(chat.messages[last])))
        sources = self._ids([source for _i, source, _t in found])
        targets = self._ids([target for _i, _s, target in found], target=True)
        rendered: list[list[Rendered]] = [[] for _chat in chats]
        for (index, _source, text), source, target in zip(found, sources, targets, strict=True):
            self._notice_unknown(text, target)
            ids = np.array(source + target, dtype=np.int32)
            rendered[index].append(Rendered(ids, np.arange(len(ids)) >= len(source), chats[index].origin))
        return rendered

    def size(self, row: Rendered) -> int:
        """Source and target go through halves of the model that hold as many tokens each."""
        source, target = split(row)
        return max(len(source), len(target))

    def cut(self, chat: Chat, rows: Sequence[Rendered], most: int) -> Cut:
        """The source without its end (or its beginning), but with prefix and special tokens; a target is never cut."""
        done: list[Rendered] = []
        lost = 0
        for row in rows:
            source, target = split(row)
            room = most - self._head - self._tail
            if len(target) > most or room < 1:
                return Cut((), 0)
            body = source[self._head : len(source) - self._tail]
            kept = body[-room:] if self.truncation_side == "left" else body[:room]
            lost += len(body) - len(kept)
            source = source[: self._head] + kept + source[len(source) - self._tail :]
            ids = np.array(source + target, dtype=np.int32)
            done.append(Rendered(ids, np.arange(len(ids)) >= len(source), row.origin))
        return Cut(tuple(done), lost)

    def _ids(self, texts: Sequence[str], target: bool = False) -> list[list[int]]:
        """Ids of each text, whatever it looks like: what a person typed is text and never a special token."""
        if not texts:
            return []
        found = self._encoded(texts, target)
        typed = [index for index, text in enumerate(texts) if self.specials_in(text)]
        if typed and self._pattern is not None:
            plain = self._structure(self._encoded(["a"], target)[0])
            # Unigram vocabularies hold "</s>" as if it were a piece of text; a space inside of it makes it one.
            open_ = [index for index in typed if self._structure(found[index]) > plain]
            apart = [self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", texts[index]) for index in open_]
            for index, ids in zip(open_, self._encoded(apart, target) if apart else [], strict=True):
                found[index] = ids
        return found

    def _encoded(self, texts: Sequence[str], target: bool) -> list[list[int]]:
        given = {"text_target": list(texts)} if target else {"text": [self._prefix + text for text in texts]}
        with quiet():
            ids = self.tokenizer(**given, split_special_tokens=True, truncation=False, verbose=False)["input_ids"]
        return [[*one, *self._end] for one in ids]

    def _structure(self, ids: Sequence[int]) -> int:
        return sum(token in self._special_ids for token in ids)

    # -- what a person should know -----------------------------------------------------------------------------------

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._lost:
            return ()
        most = sorted(self._lost, key=lambda char: (-self._lost[char], char))[:8]
        shown = ", ".join(f"{char!r} ({self._lost[char]})" for char in most)
        return (_("the base's vocabulary lacks characters of the targets, and cannot learn to write them "
                  "(in brackets, in how many rows): {shown}", shown=shown),)  # fmt: skip

    def _notice_unknown(self, text: str, target: list[int]) -> None:
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown not in target:
            return
        for char in sorted(set(text)):
            if not char.isspace() and (char in self._lost or unknown in self._ids([char], target=True)[0]):
                self._lost[char] = self._lost.get(char, 0) + 1

    def specials_in(self, text: str) -> list[str]:
        return self._pattern.findall(text) if self._pattern else []

    def adds_system(self) -> str | None:
        return None

    # -- back to text ------------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        # Without the clean-up of spaces, which would change " ." in a text to "." on the way back.
        kept = [int(i) for i in ids]
        return str(self.tokenizer.decode(kept, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False))

    def pieces(self, row: Rendered) -> list[str]:
        if not self.tokenizer.is_fast:
            return [str(t).replace(SPACE, " ") for t in self.tokenizer.convert_ids_to_tokens(row.ids.tolist())]
        pieces: list[str] = []
        for side in split(row):  # the target begins anew
            stream = DecodeStream(skip_special_tokens=False)
            pieces += [stream.step(self.tokenizer.backend_tokenizer, token) or "" for token in side]
        return pieces

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """The tokenizer's files as the base has them. Old bases do not say which class reads them; this is added."""
        for name in self._names:
            rundir.write_bytes(folder / name, (self._folder / name).read_bytes())
        path = self._folder / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if "tokenizer_class" not in config:
            rundir.write_json(folder / path.name, config | {"tokenizer_class": type(self.tokenizer).__name__})

    def _digest(self, settings: Seq2seq) -> str:
        chosen = {
            "files": {name: hashes.sha256(self._folder / name) for name in self._names},
            "class": type(self.tokenizer).__name__, "prefix": settings.prefix, "side": self.truncation_side,
            "languages": [settings.source_language, settings.target_language],
        }  # fmt: skip
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    # -- what differs between tokenizers, found by trying ------------------------------------------------------------

    def _missing_end(self, folder: Path) -> list[int]:
        """The end token, if the tokenizer puts none behind a target: without it no output would ever end."""
        end = self.tokenizer.eos_token_id
        if end is None:
            end = self.tokenizer.sep_token_id
        if end is None:
            raise BaseModelError(
                _("the base names no token that ends a text"), where=str(folder / "tokenizer_config.json"),
                do=_("take a base whose tokenizer has an eos_token"),
            )  # fmt: skip
        return [] if end in self._ids(["A"], target=True)[0] else [int(end)]

    def _language_first(self, language: str | None) -> dict[str, int]:
        """How an output is told its language: M2M100 and NLLB begin targets with its token, mBART ends them with it
        and moves it to the front."""
        if language is None:
            return {}
        token = int(self.tokenizer.convert_tokens_to_ids(language))
        ids = self._ids(["A"], target=True)[0]
        return {"forced_bos_token_id" if ids[0] == token else "decoder_start_token_id": token}


def _written(answer: Message) -> str:
    """A target; what was thought before it is written as chats without a way of their own write it."""
    return f"<think>\n{answer.thinking}\n</think>\n\n{answer.content}" if answer.thinking else answer.content


def _placed(given: Callable[[Sequence[Message]], str], chat: Chat, last: int) -> str:
    try:
        return given(chat.messages[:last])
    except DataError as error:
        raise DataError(error.what, where=str(chat.origin), do=error.do) from None


def _of_tokenizer(name: str) -> bool:
    others = ("config.json", "generation_config.json", "model.safetensors.index.json")
    return hashes.is_base_file(name) and name not in others and not name.endswith(".safetensors")


def _open(folder: Path, names: Iterable[str]) -> Any:
    """The base's tokenizer. Raises MissingExtra where it needs a package more, BaseModelError if it is damaged."""
    pieces = [name for name in names if name.endswith((".spm", ".model"))]
    if pieces and "tokenizer.json" not in names:
        needed = ["sentencepiece", "sacremoses"] if "source.spm" in pieces else ["sentencepiece"]
        for package in needed:  # without sacremoses Marian's ids would be others, with no more than a warning
            if find_spec(package) is None:
                raise MissingExtra(package, "translate", _("this base's tokenizer"))
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BaseModelError(
            _("the base's tokenizer cannot be read: {why}", why=why), where=str(folder),
            do=_("fetch the base again; a file of its tokenizer is damaged or missing"),
        ) from error  # fmt: skip


def _around(ids: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many ids two different texts begin and end with alike: special tokens, and the prefix."""
    one, two = ids
    most = min(len(one), len(two))
    head = next((n for n in range(most) if one[n] != two[n]), most)
    tail = next((n for n in range(most) if one[-1 - n] != two[-1 - n]), most)
    return head, min(tail, most - head)


# -- languages -------------------------------------------------------------------------------------------------------


def _set_languages(tokenizer: Any, settings: Seq2seq) -> tuple[str, str | None]:
    """Tells the tokenizer its languages. Returns the text before each source, and the target language's token where
    the base begins its outputs with one. Raises RecipeError for a code that the base does not know, or lacks."""
    source, target = settings.source_language, settings.target_language
    marks = getattr(tokenizer, "supported_language_codes", None)
    if marks is not None:  # Marian: one pair of languages, or a mark before the source
        if marks and not settings.prefix.startswith(">>"):
            mark = f">>{_known('target_language', target, [m[2:-2] for m in marks])}<<"
            return f"{mark} {settings.prefix}", None
        own = (getattr(tokenizer, "source_lang", None), getattr(tokenizer, "target_lang", None))
        if not marks:
            for key, wanted, is_ in (("source_language", source, own[0]), ("target_language", target, own[1])):
                if wanted is not None:
                    _known(key, wanted, [is_] if is_ else [])
        return settings.prefix, None
    codes = _codes(tokenizer)
    if not codes:
        if source or target:
            raise RecipeError(
                _("this base knows no language codes"),
                where="seq2seq.source_language" if source else "seq2seq.target_language",
                do=_("leave it out; some bases are told the languages in seq2seq.prefix"),
                command="tunewright recipe explain seq2seq.prefix",
            )
        return settings.prefix, None
    tokenizer.src_lang = _known("source_language", source, codes)
    tokenizer.tgt_lang = _known("target_language", target, codes)
    name = getattr(tokenizer, "get_lang_token", None)
    return settings.prefix, name(target) if name else target


def _codes(tokenizer: Any) -> list[str]:
    if not hasattr(tokenizer, "src_lang"):
        return []
    known = getattr(tokenizer, "lang_code_to_id", None)
    return sorted(known) if known else sorted(filter(LANGUAGE.fullmatch, map(str, tokenizer.all_special_tokens)))


def _known(key: str, wanted: str | None, codes: Sequence[str]) -> str:
    if wanted in codes and wanted is not None:
        return wanted
    near = difflib.get_close_matches(wanted or "", codes, n=3, cutoff=0.3)
    few = ", ".join(near or codes[:8]) + (", …" if len(codes) > len(near or codes[:8]) else "")
    what = _("this base wants the language named") if wanted is None else _(
        "this base knows no language {wanted!r}", wanted=wanted
    )  # fmt: skip
    raise RecipeError(
        what, where=f"seq2seq.{key}", do=_("it knows {count}: {few}", count=len(codes), few=few),
        command=f"tunewright recipe explain seq2seq.{key}",
    )  # fmt: skip
