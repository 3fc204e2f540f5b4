"""Can this data be learned at all? A few rows are learned by heart, which takes about a minute, before hours are spent.

Two questions, because broken data fails in two ways. Rows that contradict each other cannot be given back, however
often they are seen. Rows whose answers belong to other prompts can: a model learns anything by heart. So the second is
asked of the base: is an answer likelier after its own prompt than after another row's? And of labels: does anything
choose them better than always naming the most common one?
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from tunewright.data.lengths import micro_batches
from tunewright.evaluate import classes
from tunewright.evaluate.labels import LabelMeasurement, measure_labels
from tunewright.evaluate.metrics import Estimate, mean_change, share_change
from tunewright.evaluate.yardstick import TFIDF, Given, yardsticks
from tunewright.example import Rendered
from tunewright.infer.engine import Score
from tunewright.model import fast
from tunewright.model.load import quiet
from tunewright.tasks import LabelTask
from tunewright.text import _
from tunewright.train.choose import LEARNING_RATE
from tunewright.train.events import Listener
from tunewright.train.forecast import worked
from tunewright.train.learner import Learner
from tunewright.train.measuring import mean_loss, standing
from tunewright.train.ready import Ready

ROWS = 32
LOOKED_AT = 128  # rows of which the shortest are taken, so that a minute is enough
LEARNED = 16  # tokens of an answer that are learned; what follows in the row is left out
BATCH = 8
FASTER = 2.5  # times the learning rate: by heart is what is wanted here
PASSES = 20
SECONDS = 50.0  # of work; on a machine that does something else besides it takes as much longer
MANY = 0.5  # of the rows, from which on they count as given back
FELL = 0.35  # of the loss before, at which rows are being learned although few are given back word for word
FALLS = 0.9  # of a pass's loss at the next, where it has not come to rest
CONTRADICTING = 0.25  # of the rows, from which on that is what hinders
TOLD = 2000  # training rows on which labels are told from their words
FRESH = 256  # rows on which the model is asked that has learned a few
FOLDS = 5
APART = 0.02  # of the loss; by less, the prompt makes no difference to an answer

Verdict = Literal["learnable", "doubtful", "not learnable"]


@dataclass(frozen=True)
class Probed:
    """curve: loss of the rows before, and as each pass over them went.  right: rows given back whole, before and after.
    own, other: loss of answers after their own prompt and after another row's, by the base.  link: the difference of
    that; of labels, by how much the best chooser beats the most common one, as a share of rows.  contradicting: places
    of rows whose prompt has another answer elsewhere among them.  why: in words."""

    verdict: Verdict
    why: str
    rows: int
    seconds: float
    curve: list[float]
    right: tuple[int, int]
    own: float | None = None
    other: float | None = None
    link: dict[str, Any] | None = None
    contradicting: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe(ready: Ready, listener: Listener) -> Probed:
    """Learn some training rows by heart and say what came of it. Writes nothing."""
    began = time.monotonic()
    rows, learner = picked(ready), Learner(ready)
    engine = learner.engine()
    before = _asked(engine, rows, ready)
    pairs = _paired(engine, rows, ready)
    learner.adapt()
    with listener.doing(_("Learning {count} rows by heart", count=len(rows)), PASSES) as progress:
        passes = _learn(learner.model, rows, ready, progress)
    engine, chooses = learner.engine(), isinstance(ready.task, LabelTask)
    with _mixed(learner.model, ready):
        after = _asked(engine, rows, ready)
        link = _labels_told(engine, ready, rows, listener) if chooses else None
    if pairs:
        link = mean_change(*pairs, ready.recipe.seed)
    found = Probed(
        "learnable", "", len(rows), round(time.monotonic() - began, 1),
        [round(loss, 4) for loss in (before[0], *passes, after[0])], (before[1], after[1]),
        own=float(np.mean(pairs[0])) if pairs else None, other=float(np.mean(pairs[1])) if pairs else None,
        link=link.as_dict() if link is not None else None, contradicting=contradicting(rows),
    )  # fmt: skip
    return judged(found, labels=chooses)


# ---- which rows ----------------------------------------------------------------------------------------------------


def picked(ready: Ready) -> list[Rendered]:
    """Up to ``ROWS`` training rows, the shorter of some drawn at random, each cut after the first it teaches."""
    train = ready.prepared.train
    drawn = np.random.default_rng(ready.recipe.seed).permutation(len(train))[:LOOKED_AT]
    rows = [train[number] for number in sorted(drawn.tolist())]
    if ready.task.gives in ("answers", "likelihood"):
        rows = [first_answer(row) for row in rows]
    return sorted(rows, key=lambda row: row.length)[:ROWS]


def first_answer(row: Rendered) -> Rendered:
    """A row up to the end of its first answer, or to the first ``LEARNED`` tokens of it."""
    start = border(row)
    end = start + int(np.argmin(np.append(row.learn[start:], False)))
    end = min(end, start + LEARNED)
    return Rendered(row.ids[:end], row.learn[:end], row.origin)


def border(row: Rendered) -> int:
    """Where the first learned token stands; the first token of a row cannot be learned."""
    return max(1, int(row.learn.argmax()))


def contradicting(rows: Sequence[Rendered]) -> list[str]:
    """Places of rows whose prompt stands in another of them with another answer."""
    answers: dict[bytes, set[bytes]] = {}
    split = [(row.ids[: border(row)].tobytes(), row.ids[border(row) :].tobytes()) for row in rows]
    for prompt, answer in split:
        answers.setdefault(prompt, set()).add(answer)
    return [str(row.origin) for row, (prompt, _answer) in zip(rows, split, strict=True) if len(answers[prompt]) > 1]


# ---- what the model makes of them ----------------------------------------------------------------------------------


def _asked(engine: Any, rows: Sequence[Rendered], ready: Ready) -> tuple[float, int]:
    """Loss per learned token or label, and rows of which all that is learned is the model's first choice: greedy, it
    would give them back word for word."""
    if isinstance(ready.task, LabelTask):
        one = standing(engine, ready, rows)
        return one.loss, round((one.accuracy or 0.0) * one.rows)
    scores: list[Score] = engine.score(rows)
    return mean_loss(scores), sum(score.correct == score.tokens for score in scores)


def _labelled(engine: Any, rows: Sequence[Rendered], ready: Ready) -> LabelMeasurement:
    multi = ready.recipe.classify.multi_label
    return measure_labels(engine, rows, [""] * len(rows), ready.prepared.labels, multi)


def _paired(engine: Any, rows: Sequence[Rendered], ready: Ready) -> tuple[list[float], list[float]] | None:
    """Loss of each answer after its own prompt, and after another row's. None where nothing is asked."""
    if ready.task.gives not in ("answers", "outputs"):
        return None
    own, other = [], []
    for index, row in enumerate(rows):
        near = rows[(index + 1 + index % max(1, len(rows) - 1)) % len(rows)]
        swapped = np.concatenate([near.ids[: border(near)], row.ids[border(row) :]])
        learn = np.concatenate([near.learn[: border(near)], row.learn[border(row) :]])
        own.append(row)
        other.append(Rendered(swapped, learn, row.origin))
    scored = [[score.loss / max(1, score.tokens) for score in engine.score(side)] for side in (own, other)]
    return scored[0], scored[1]


def _learn(model: Any, rows: Sequence[Rendered], ready: Ready, progress: Any) -> list[float]:
    """Pass after pass, until the rows are known, the passes are over, or the minute is. Returns each pass's loss."""
    train, task, codec = ready.recipe.train, ready.task, ready.prepared.codec
    assert train.learning_rate != "auto" and train.token_budget != "auto"
    trained = [p for p in model.parameters() if p.requires_grad]
    rate = FASTER * max(train.learning_rate, LEARNING_RATE[task.name][train.method])
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    mixed = _mixed(model, ready)
    order = np.random.default_rng(ready.recipe.seed)
    losses: list[float] = []
    began = worked(ready.device)
    with quiet(), fast.kernels(model):
        with mixed:
            objective = task.objective(model, codec)
        for number in range(PASSES):
            shuffled = [rows[i] for i in order.permutation(len(rows)).tolist()]
            model.train()
            total = sum(
                _step(objective, optimizer, mixed, shuffled[start : start + BATCH], train.token_budget)
                for start in range(0, len(rows), BATCH)
            )
            losses.append(total / sum(row.learned for row in rows))
            progress(1)
            spent = worked(ready.device) - began
            if losses[-1] < 0.01 or spent + spent / (number + 1) > SECONDS:
                break
    return losses


def _mixed(model: Any, ready: Ready) -> torch.autocast:
    """As in training: weights that are trained are fp32, and are multiplied in bf16."""
    train = ready.recipe.train
    enabled = train.precision == "bf16" and train.method != "lora"
    return torch.autocast(model.device.type, torch.bfloat16, enabled=enabled)


def _step(
    objective: Any, optimizer: torch.optim.Optimizer, mixed: torch.autocast, rows: Sequence[Rendered], budget: int
) -> float:
    """One update. Returns the loss summed over what the rows teach."""
    learned, total = sum(row.learned for row in rows), 0.0
    for group in micro_batches([row.length for row in rows], budget):
        with mixed:
            loss = objective([rows[index] for index in group])
        (loss / learned).backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total


def _labels_told(engine: Any, ready: Ready, learned: Sequence[Rendered], listener: Listener) -> Estimate:
    """By how much labels are chosen better than by always naming the most common: by TF-IDF, each fifth of the rows
    from the others, or by the model that has seen a few on rows that it has not, whichever does better. A tenth of the
    rows, as is held out, would be too few to tell."""
    multi, labels, task = ready.recipe.classify.multi_label, ready.prepared.labels, ready.task
    assert isinstance(task, LabelTask)
    chats = [*ready.prepared.train_chats[:TOLD], *ready.prepared.held_out_chats]
    wanted = classes.marked([task.wanted(chat, labels) for chat in chats], len(labels))
    shares = wanted.mean(axis=0)
    with listener.doing(_("Measuring TF-IDF on the same rows"), FOLDS) as progress:
        words = _by_words([task.given(chat) for chat in chats], wanted, labels, ready, progress)
    seen = {(row.origin.file, row.origin.row) for row in learned}
    fresh = [*ready.prepared.held_out[:FRESH], *ready.prepared.train[:TOLD]]
    fresh = [row for row in fresh if (row.origin.file, row.origin.row) not in seen]
    measured = _labelled(engine, fresh[:FRESH], ready)
    changes = [
        share_change(*(classes.right(true, classes.choose(given, multi)).tolist() for given in (common, chances)))
        for true, common, chances in (
            (wanted, np.tile(shares, (len(wanted), 1)), words),
            (measured.wanted, np.tile(shares, (len(measured.wanted), 1)), measured.probabilities),
        )
        if len(true)
    ]
    return max(changes, key=lambda change: (change.low or 0.0, change.value or 0.0))


def _by_words(texts: Sequence[Given], wanted: Any, labels: Sequence[str], ready: Ready, progress: Any) -> Any:
    """(N, L) what TF-IDF makes of each row, having learned from the rows of the other folds."""
    fold = np.random.default_rng(ready.recipe.seed).permutation(len(texts)) % FOLDS
    chances = np.tile(wanted.mean(axis=0), (len(texts), 1))
    for number in range(FOLDS):
        inside, others = np.flatnonzero(fold == number).tolist(), np.flatnonzero(fold != number).tolist()
        found = yardsticks(
            [texts[i] for i in others], [np.flatnonzero(wanted[i]).tolist() for i in others],
            [texts[i] for i in inside], labels, ready.recipe.classify.multi_label, ready.recipe.seed,
        )  # fmt: skip
        for one in found:
            if one.name == TFIDF:
                chances[inside] = one.probabilities
        progress(1)
    return chances


# ---- in words ------------------------------------------------------------------------------------------------------


def judged(found: Probed, labels: bool) -> Probed:
    """The verdict on what was measured, with what it might be."""
    right, rows = found.right[1], found.rows
    fell = found.curve[-1] < FELL * found.curve[0]
    if len(found.contradicting) >= CONTRADICTING * rows:
        places = ", ".join(found.contradicting[:4]) + (", …" if len(found.contradicting) > 4 else "")
        why = _("{count} of {rows} rows answer a prompt that other rows answer otherwise ({places})",
                count=len(found.contradicting), rows=rows, places=places)  # fmt: skip
        return replace(found, verdict="not learnable", why=why)
    if right < MANY * rows and not fell and _still_falls(found.curve):
        why = _("time was up after {passes} passes while the loss still fell (from {first} to {last}); a smaller base "
                "or shorter rows would show more", passes=len(found.curve) - 2, first=f"{found.curve[0]:.2f}",
                last=f"{found.curve[-1]:.2f}")  # fmt: skip
        return replace(found, verdict="doubtful", why=why)
    if right < MANY * rows and not fell:
        why = _("only {right} of {rows} rows can be given back after {passes} passes, and the loss fell from {first} "
                "to {last} only: contradicting rows, answers without any pattern, or the wrong columns?",
                right=right, rows=rows, passes=len(found.curve) - 2, first=f"{found.curve[0]:.2f}",
                last=f"{found.curve[-1]:.2f}")  # fmt: skip
        return replace(found, verdict="not learnable", why=why)
    given = _("{right} of {rows} rows can be given back (before: {before})",
              right=right, rows=rows, before=found.right[0])  # fmt: skip
    doubt = _label_doubt(found) if labels else _prompt_doubt(found)
    return replace(found, verdict="doubtful" if doubt else "learnable", why=f"{given}; {doubt}" if doubt else given)


def _still_falls(curve: Sequence[float]) -> bool:
    """Whether the passes ended before the loss had come to rest."""
    passes = curve[1:-1]
    return len(passes) < PASSES and (len(passes) < 2 or passes[-1] < FALLS * passes[-2])


def _prompt_doubt(found: Probed) -> str:
    if found.link is None or found.own is None or found.other is None or found.link["low"] is None:
        return ""
    if found.link["low"] > 0 or found.link["value"] > APART * found.own:
        return ""
    return _("but by heart: to the base an answer is no likelier after its own prompt (loss {own}) than after another "
             "row's ({other}). Are the rows shuffled, or the columns the wrong ones?",
             own=f"{found.own:.2f}", other=f"{found.other:.2f}")  # fmt: skip


def _label_doubt(found: Probed) -> str:
    if found.link is None or found.link["low"] is None or found.link["low"] > 0:
        return ""
    return _("but by heart: on {n} other rows nothing chooses labels better than always the most common one. Are "
             "they shuffled, or not in the text at all? Too few rows look the same.",
             n=found.link["n"])  # fmt: skip


def told(found: Probed) -> list[str]:
    """The probe for people, one sentence a line."""
    heads = {"learnable": _("Learnable"), "doubtful": _("Doubtful"), "not learnable": _("Not learnable")}
    shown = " ".join(f"{loss:.2f}" for loss in thinned(found.curve))
    return [
        _("Probe   {rows} rows learned by heart in {seconds:.0f} s", rows=found.rows, seconds=found.seconds),
        _("Loss    {bars}  {shown}", bars=bars(found.curve), shown=shown),
        f"{heads[found.verdict]}: {found.why}",
    ]


def thinned(curve: Sequence[float], most: int = 6) -> list[float]:
    """The first and the last of a curve and some between."""
    places = np.linspace(0, len(curve) - 1, min(most, len(curve))).round().astype(int)
    return [curve[place] for place in places]


def bars(curve: Sequence[float]) -> str:
    """The curve as a row of blocks, from nothing to its highest."""
    blocks = "▁▂▃▄▅▆▇█"
    top = max([*curve, 1e-9])
    return "".join(blocks[min(7, int(8 * max(0.0, loss) / top))] for loss in curve)
