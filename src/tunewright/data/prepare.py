"""From the recipe's data section to rows that can be trained on: the whole way of the data, readable top to bottom."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunewright.data import cache as entries
from tunewright.data.check import nothing_to_learn
from tunewright.data.check_lengths import Cost
from tunewright.data.codec import Codec
from tunewright.data.digest import clusters, digests
from tunewright.data.files import Source
from tunewright.data.findings import finding, stop_if_errors
from tunewright.data.inspect import check_loaded
from tunewright.data.ledger import Ledger, tokens_of
from tunewright.data.load import Loaded, Reading, find, load
from tunewright.data.packed import LazyChats, Packed, join, pack
from tunewright.data.split import hold_out, how_many, none_held_out, wanted
from tunewright.data.thinking import thinks
from tunewright.errors import DataError
from tunewright.example import Chat, Finding, Message, Origin, Rendered
from tunewright.recipe.schema import Data
from tunewright.text import _

OpenCodec = Callable[[Sequence[str]], Codec]  # labels -> the codec that writes them
Progress = Callable[[str, int, int], None]  # what is being done, how many rows are finished, of how many
_CHUNK = 1024
_ROWS_KEPT = 100  # of each finding, in the cache and in a run; its count says how many there are
FEWEST_TO_CHOOSE = 20  # rows that epochs are compared by; with fewer, one of them right or wrong would decide


@dataclass(frozen=True)
class Prepared:
    """train, held_out: rendered rows.  watched: rows that are in neither, held out to choose among epochs.
    train_chats, held_out_chats: the examples behind them; an example may have several rows.  labels: their names in the
    order of their numbers.  codec: what wrote the rows.  max_length: tokens a row may have.  longest: tokens of the
    longest row.  files: path, sha256 and rows of each file.  data_sha256: over all files.  cached: nothing had to be
    rendered."""

    train: Sequence[Rendered]
    held_out: Sequence[Rendered]
    watched: Sequence[Rendered]
    train_chats: Sequence[Chat]
    held_out_chats: Sequence[Chat]
    labels: tuple[str, ...]
    codec: Codec
    findings: list[Finding]
    ledger: dict[str, Any]
    format_name: str
    format_reason: str
    max_length: int
    longest: int
    data_sha256: str
    files: list[dict[str, Any]]
    cached: bool = False


def prepare(
    data: Data,
    seed: int,
    open_codec: OpenCodec,
    context: int,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    watch: bool = False,
    progress: Progress | None = None,
    cache: bool = True,
) -> Prepared:
    """Reads, checks, splits and renders. ``context`` is how many tokens the base can hold.

    open_codec: the task's way to write examples; it is asked again once the labels are known.  watch: hold out some
    rows more, for choosing among epochs; what is reported stays measured on rows that nothing was chosen by.
    Raises DataError for data that cannot be used and for findings of severity error.
    """
    train, validation = find(data)
    most = max_length(data, context)
    hashes = [source.sha256() for source in (*train, *validation)]
    codec = open_codec(reading.labels)
    name = entries.key(
        {
            "files": [(s.name, digest) for s, digest in zip((*train, *validation), hashes, strict=True)],
            "training_files": len(train),
            "codec": codec.sha256,
            "day": date.today().isoformat() if codec.reads_clock else "",
            "code": entries.code_version(),
            "render": entries.code_of(type(codec)),
            "reading": asdict(reading),
            "watch": watch,
            "data": data.model_dump(mode="json"),
            "seed": seed,
            "most": most,
        }
    )
    found = entries.get(name) if cache else None
    if found is None:
        making = _Making(data, seed, open_codec, most, reading, watch, progress or _quiet)
        arrays, rest = making.make(train, validation, hashes)
        if cache:
            entries.put(name, arrays, rest)
    else:
        arrays, rest = found
    if rest["labels"] != list(reading.labels):
        codec = open_codec(rest["labels"])
    return _prepared(arrays, rest, data, reading, codec, found is not None)


def _quiet(what: str, done: int, total: int) -> None:
    pass


def max_length(data: Data, context: int) -> int:
    """Tokens a row may have on a base that holds ``context``. Raises DataError if the recipe asks for more."""
    if data.max_length == "auto":
        return context
    if data.max_length > context:
        raise DataError(
            _(
                "data.max_length is {wanted}, but the base holds {context} tokens",
                wanted=data.max_length,
                context=context,
            ),
            where="data.max_length",
            do=_("use at most {context}, or leave it at auto", context=context),
            command="tunewright recipe explain data.max_length",
        )
    return data.max_length


# -- making ----------------------------------------------------------------------------------------------------------


class _Making:
    """One way from files to arrays. Rows of training and validation go together until the split."""

    def __init__(
        self, data: Data, seed: int, open_codec: OpenCodec, most: int, reading: Reading, watch: bool, progress: Progress
    ) -> None:
        self.data, self.seed, self.open_codec, self.reading = data, seed, open_codec, reading
        self.most, self.watch, self.progress = most, watch, progress
        self.findings: list[Finding] = []
        self.too_long: list[Origin] = []  # rows left out because of it

    def make(
        self, train: Sequence[Source], validation: Sequence[Source], hashes: Sequence[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        self.progress(_("reading"), 0, 1)
        loaded = load(self.data, train, validation, self.reading)
        self.codec = self.open_codec(loaded.labels)
        chats = [*loaded.chats, *loaded.validation]
        border = len(loaded.chats)
        self.progress(_("checking"), 0, 1)
        known = digests(chats)
        near, together = clusters(chats, known, self.reading.reads)
        self.findings += check_loaded(
            loaded, known, near, self.data, self.reading, self.codec.specials_in, estimate=False
        )
        stop_if_errors(self.findings)

        ledger = Ledger(len(chats))
        usable = self._usable(chats, ledger)
        arrays, longest = self._render_all(chats, usable, ledger, _names(train, validation))
        kept = np.unique(arrays["example"]).tolist()
        held = {index for index in kept if index >= border}
        if not validation:
            held = self._hold_out([known[index] for index in kept], together[kept], kept)
        elif not held or len(held) == len(kept):
            self._nothing_held_out(len(kept), _("one of the two sides is empty"))
        stop_if_errors(self.findings)
        ledger.keep(len(kept))
        watched = self._watched(known, together, [index for index in kept if index not in held], held, border)
        self._template_findings([chats[index] for index in kept])
        arrays["held_out"] = np.array(sorted(held - watched), dtype=np.int64)
        arrays["watched"] = np.array(sorted(watched), dtype=np.int64)
        rest = self._rest(
            arrays, ledger, loaded, chats, held - watched, watched, train, validation, hashes, longest
        )
        return arrays, rest

    def _usable(self, chats: Sequence[Chat], ledger: Ledger) -> list[int]:
        usable: list[int] = []
        for index, chat in enumerate(chats):
            why = nothing_to_learn(chat, self.reading.reads)
            if why is None:
                usable.append(index)
            else:
                ledger.leave_out(chat.origin, "nothing_learned", why)
        return usable

    def _render_all(
        self, chats: Sequence[Chat], usable: Sequence[int], ledger: Ledger, files: Sequence[str]
    ) -> tuple[dict[str, NDArray[Any]], int]:
        parts: list[dict[str, NDArray[Any]]] = []
        long: list[Origin] = []
        longest = 0
        cost = Cost.at(self.most, self.reading.reads)
        for start in range(0, len(usable), _CHUNK):
            self.progress(_("rendering"), start, len(usable))
            some = usable[start : start + _CHUNK]
            batch = [chats[index] for index in some]
            rendered = self.codec.render_many(batch)
            rows: list[Rendered] = []
            example: list[int] = []
            for index, made in zip(some, rendered, strict=True):
                if not any(row.learned for row in made):
                    raise AssertionError(f"{chats[index].origin}: nothing is learned, which the checks did not see")
                size = max(self.codec.size(row) for row in made)
                longest = max(longest, size)
                for row in made:
                    cost.add_row(row, self.codec.size(row))
                if size > self.most:
                    long.append(chats[index].origin)
                    made = self._too_long(chats[index], made, size, ledger)
                rows += made
                example += [index] * len(made)
            parts.append(pack(rows, example, files))
        self.progress(_("rendering"), len(usable), len(usable))
        self._too_long_findings(long, longest, cost, ledger)
        return join(parts or [pack([], [], files)]), longest

    def _too_long(self, chat: Chat, rows: list[Rendered], size: int, ledger: Ledger) -> list[Rendered]:
        detail = _("{size} tokens, {most} allowed", size=size, most=self.most)
        if self.data.too_long == "truncate":
            done = self.codec.cut(chat, rows, self.most)
            if done.rows:
                ledger.cut(done.lost)
                return list(done.rows)
            ledger.leave_out(chat.origin, "answer_too_long", detail)
        elif self.data.too_long == "drop":
            ledger.leave_out(chat.origin, "too_long", detail)
        return []

    def _too_long_findings(self, long: Sequence[Origin], longest: int, cost: Cost, ledger: Ledger) -> None:
        if not long:
            return
        if self.data.too_long == "stop":
            raise_it = "" if self.data.max_length == "auto" else _(", or raise data.max_length")
            self.findings.append(
                finding("D301", long, limit=self.most, longest=longest, cost=str(cost), raise_it=raise_it)
            )
            stop_if_errors(self.findings)
        what = _("they were left out") if self.data.too_long == "drop" else _("their context was cut")
        self.findings.append(finding("D302", long, limit=self.most, what=what, cost=str(cost)))
        dropped = ledger.origins("answer_too_long")
        self.too_long = [*ledger.origins("too_long"), *dropped]
        if dropped:
            self.findings.append(finding("D303", dropped, limit=self.most))

    def _hold_out(self, known: Sequence[Any], together: NDArray[np.int64], kept: Sequence[int]) -> set[int]:
        why_not = none_held_out(together, self.data.held_out)
        count = how_many(self.data.held_out, len(kept))
        if why_not is not None or count is None:
            self._nothing_held_out(len(kept), why_not or "")
            return set()
        held = hold_out(known, together, count, self.seed, self.reading.reads == "labels")
        return {kept[index] for index in held}

    def _nothing_held_out(self, usable: int, why_not: str) -> None:
        """Rows that were too long are named: they are more often the cause than a file with too few."""
        if self.too_long:
            why_not += _("; {count} more are longer than {most} tokens and were left out",
                         count=len(self.too_long), most=self.most)  # fmt: skip
        self.findings.append(finding("D402", self.too_long, count=usable, why_not=why_not))

    def _watched(
        self, known: Sequence[Any], together: NDArray[np.int64], free: Sequence[int], held: set[int], border: int
    ) -> set[int]:
        """Rows to choose among epochs by: taken from the training rows where validation has files of its own, else half
        of the held-out rows. None where they would be so few that chance would choose."""
        if not self.watch:
            return set()
        pool = free if any(index >= border for index in held) else sorted(held)
        count = wanted("auto", len(pool)) if pool is free else len(pool) // 2
        if count < FEWEST_TO_CHOOSE:
            return set()
        asked = [known[index] for index in pool]
        chosen = hold_out(asked, together[list(pool)], count, self.seed + 1, self.reading.reads == "labels")
        return {pool[index] for index in chosen}

    def _template_findings(self, chats: Sequence[Chat]) -> None:
        added = self.codec.adds_system()
        without = [chat.origin for chat in chats if not any(m.role == "system" for m in chat.messages)]
        if added and without:
            self.findings.append(finding("D304", without, text=repr(added)))
        thinking = any(map(thinks, chats))
        for note in self.codec.notes:
            if "<think>" in note and not thinking:
                continue
            self.findings.append(finding("D305", [], count=1, note=note))

    def _rest(
        self,
        arrays: dict[str, NDArray[Any]],
        ledger: Ledger,
        loaded: Loaded,
        chats: Sequence[Chat],
        held: set[int],
        watched: set[int],
        train: Sequence[Source],
        validation: Sequence[Source],
        hashes: Sequence[str],
        longest: int,
    ) -> dict[str, Any]:
        lengths = np.diff(arrays["starts"])
        learned = np.add.reduceat(arrays["learn"], arrays["starts"][:-1]) if len(lengths) else np.zeros(0, np.int64)
        rows_of = {source.name: 0 for source in (*train, *validation)}
        for chat in chats:
            rows_of[chat.origin.file] += 1
        kept = len(np.unique(arrays["example"]))
        no_system = next((found.count for found in self.findings if found.code == "D304"), 0)
        return {
            "ledger": ledger.as_dict(
                train=kept - len(held) - len(watched),
                held_out=len(held),
                **({"watched": len(watched)} if self.watch else {}),
                **tokens_of(list(zip(lengths.tolist(), learned.tolist(), strict=True))),
                template_system_rows=no_system,
                limit=self.data.limit,
                max_length=self.most,
                longest=longest,
            ),
            "findings": [found.as_dict(_ROWS_KEPT) for found in self.findings],
            "labels": list(loaded.labels),
            "format_name": loaded.format_name,
            "format_reason": loaded.format_reason,
            "max_length": self.most,
            "longest": longest,
            "files": [
                {"path": source.name, "sha256": digest, "rows": rows_of[source.name]}
                for source, digest in zip((*train, *validation), hashes, strict=True)
            ],
            "held_out_chats": [_chat_out(chats[index]) for index in sorted(held)],
        }


def _names(train: Sequence[Source], validation: Sequence[Source]) -> list[str]:
    return [source.name for source in (*train, *validation)]


# -- what is stored, and back ----------------------------------------------------------------------------------------


def _prepared(
    arrays: dict[str, NDArray[Any]], rest: dict[str, Any], data: Data, reading: Reading, codec: Codec, cached: bool
) -> Prepared:
    held, watched = arrays["held_out"], arrays["watched"]
    names = [file["path"] for file in rest["files"]]
    is_held, is_watched = np.isin(arrays["example"], held), np.isin(arrays["example"], watched)
    trained = np.setdiff1d(np.unique(arrays["example"]), np.concatenate([held, watched]))

    def train_chats() -> list[Chat]:
        train, validation = find(data)
        for source, file in zip((*train, *validation), rest["files"], strict=False):
            if source.sha256() != file["sha256"]:
                raise DataError(_("the file has changed since it was read"), where=source.name, do=_("start again"))
        loaded = load(data, train, validation, reading)
        chats = [*loaded.chats, *loaded.validation]
        return [chats[index] for index in trained.tolist()]

    return Prepared(
        train=Packed(arrays, names, np.flatnonzero(~is_held & ~is_watched)),
        held_out=Packed(arrays, names, np.flatnonzero(is_held)),
        watched=Packed(arrays, names, np.flatnonzero(is_watched)),
        train_chats=LazyChats(train_chats, len(trained)),
        held_out_chats=[_chat_in(stored) for stored in rest["held_out_chats"]],
        labels=tuple(rest["labels"]),
        codec=codec,
        findings=[Finding.from_dict(stored) for stored in rest["findings"]],
        ledger=rest["ledger"],
        format_name=rest["format_name"],
        format_reason=rest["format_reason"],
        max_length=rest["max_length"],
        longest=rest["longest"],
        data_sha256=data_sha256(rest["files"]),
        files=rest["files"],
        cached=cached,
    )


def _chat_out(chat: Chat) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(chat), default=str))  # type: ignore[no-any-return]


def _chat_in(stored: dict[str, Any]) -> Chat:
    messages = tuple(Message(**{**m, "tool_calls": tuple(m["tool_calls"])}) for m in stored["messages"])
    return replace(Chat(messages, Origin(**stored["origin"])), tools=tuple(stored["tools"]))


def data_sha256(files: Sequence[Mapping[str, Any]]) -> str:
    """One hash over all files, from what ``Prepared.files`` says of each."""
    return entries.sha256_text("\n".join(f"{file['sha256']} {file['rows']}" for file in files))
