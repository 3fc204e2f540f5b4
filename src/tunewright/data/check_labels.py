"""What is odd about labels, as findings D501 to D509."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tunewright.data.digest import Digest
from tunewright.data.findings import finding
from tunewright.data.formats import Reading
from tunewright.example import Chat, Finding, Origin
from tunewright.text import _

FEWEST = 10  # rows of a label; with fewer, hardly one is held out
_SMALL_SHARE, _RATIO = 0.10, 4.0
_SHOWN = 12
_SPACE = re.compile(r"[\s_]+|(?<=\w)-(?=\w)")  # written or not, between the words of one name


def labels_of(chat: Chat, multi_label: bool) -> tuple[str, ...]:
    """The names that the row is labelled with."""
    answer = chat.messages[-1].content
    return tuple(json.loads(answer)) if multi_label else (answer,)


def check_labels(chats: Sequence[Chat], known: Sequence[Digest], reading: Reading) -> Iterator[Finding]:
    """``known`` comes from digests(). Says nothing where there are no rows."""
    if not chats:
        return
    chosen = [labels_of(chat, reading.multi_label) for chat in chats]
    counts = Counter(name for names in chosen for name in names)
    yield from _no_choice(chats, chosen, counts)
    yield from _balance(chats, chosen, counts, reading)
    yield from _unused(counts, reading)
    yield from _contradictions(chats, known)
    yield from _alike(chats, chosen, counts)


def _no_choice(chats: Sequence[Chat], chosen: Sequence[tuple[str, ...]], counts: Counter[str]) -> Iterator[Finding]:
    """One class for all rows, or nearly one for each."""
    if len(set(chosen)) == 1:
        label = ", ".join(map(repr, chosen[0])) or _("none")
        yield finding("D501", [chats[0].origin], count=len(chats), label=label)
    elif _free(counts):
        yield finding("D507", [chats[0].origin], count=len(chats), labels=len(counts), names=_names(counts, 4))


def _free(counts: Counter[str]) -> bool:
    """Whether a label is hardly ever given twice: then it is no class."""
    return sum(counts.values()) >= 20 and 2 * len(counts) > sum(counts.values())


def _balance(
    chats: Sequence[Chat], chosen: Sequence[tuple[str, ...]], counts: Counter[str], reading: Reading
) -> Iterator[Finding]:
    if len(counts) < 2 or _free(counts):
        return
    most, least = counts.most_common()[0], counts.most_common()[-1]
    small = least[1] / len(chats) < min(_SMALL_SHARE, 0.5 / len(counts)) and not reading.multi_label
    if small or most[1] > _RATIO * least[1]:
        yield finding(
            "D502", [], count=least[1], most=most[0], many=most[1], least=least[0],
            share=f"{100 * least[1] / len(chats):.3g}", majority=f"{100 * most[1] / len(chats):.3g}",
        )  # fmt: skip
    few = {name for name, count in counts.items() if count < FEWEST}
    if few:
        rows = [chat.origin for chat, names in zip(chats, chosen, strict=True) if few & set(names)]
        yield finding(
            "D505", rows, count=len(few), least=FEWEST,
            names=_names(Counter({name: counts[name] for name in sorted(few)})),
        )  # fmt: skip
    total = len(chats)
    names = ", ".join(f"{name!r} {count} ({100 * count / total:.3g} %)" for name, count in counts.most_common(_SHOWN))
    if len(counts) > _SHOWN:
        names += _(" and {count} more", count=len(counts) - _SHOWN)
    none = sum(not names_ for names_ in chosen)
    if none:
        names += _("; no label {count}", count=none)
    yield finding("D509", [], count=total, labels=len(counts), names=names)


def _unused(counts: Counter[str], reading: Reading) -> Iterator[Finding]:
    expected = dict.fromkeys([*reading.labels, *reading.names.values()])
    without = [name for name in expected if not counts[name]]
    if without:
        yield finding("D506", [], count=len(without), names=", ".join(map(repr, without[:_SHOWN])))


def _contradictions(chats: Sequence[Chat], known: Sequence[Digest]) -> Iterator[Finding]:
    answers: dict[bytes, set[bytes]] = defaultdict(set)
    for digest in known:
        answers[digest.question].add(digest.answer)
    pairs = [(c, d) for c, d in zip(chats, known, strict=True) if len(answers[d.question]) > 1]
    if pairs:
        texts = len({digest.question for _chat, digest in pairs})
        # The rows of one text stand together, so that the first ones named can be compared.
        first: dict[bytes, int] = {}
        for place, (_chat, digest) in enumerate(pairs):
            first.setdefault(digest.question, place)
        pairs.sort(key=lambda pair: first[pair[1].question])
        yield finding("D503", [chat.origin for chat, _digest in pairs], texts=texts)


def _alike(chats: Sequence[Chat], chosen: Sequence[tuple[str, ...]], counts: Counter[str]) -> Iterator[Finding]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        groups[_SPACE.sub("", name.casefold())].append(name)
    stray = [sorted(names, key=lambda name: -counts[name]) for names in groups.values() if len(names) > 1]
    stray += [names for names in groups.values() if len(names) == 1 and names[0] != names[0].strip()]
    if not stray:
        return
    rarer = {name for names in stray for name in (names[1:] or names)}
    rows: list[Origin] = [c.origin for c, names in zip(chats, chosen, strict=True) if rarer & set(names)]
    shown = "; ".join(" / ".join(f"{name!r} ({counts[name]})" for name in names) for names in stray[:4])
    first = stray[0]
    better = f"{first[-1]!r}: {first[0].strip()!r}"
    yield finding("D504", rows, names=shown, example="classify.names={" + better.replace("'", '"') + "}")


def _names(counts: Counter[str], most: int = _SHOWN) -> str:
    shown = [f"{name!r} ({count})" for name, count in counts.most_common(most)]
    return ", ".join(shown) + (" …" if len(counts) > most else "")
