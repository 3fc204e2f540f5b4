"""The run's own side of a comparison, and an export asked the same."""

from __future__ import annotations

from tunewright.export import compare
from tunewright.export.work import Work
from tunewright.infer.open import Opened
from tunewright.text import _
from tunewright.verify.logits import logits
from tunewright.verify.subject import Subject


def reference(subject: Subject) -> compare.Reference:
    """What the run says: its logits, its base's, and its answers."""
    tuned = subject.tuned_logits
    answers = subject.answers if subject.task.gives in ("answers", "outputs") else []
    return compare.Reference(tuned, subject.base_logits, answers)


def most_tokens(subject: Subject) -> int:
    """Of each answer, that are compared."""
    limit = subject.recipe.evaluate.max_new_tokens
    assert limit != "auto"
    return min(limit, compare.NEW_TOKENS)


def compare_opened(work: Work, reader: str, then: compare.Reference, opened: Opened) -> None:
    """Adds the comparison to the record. Raises RunError if it does not hold."""
    subject = work.subject
    with subject.listener.doing(_("Asking the export"), len(subject.rows)) as progress:
        found = logits(opened, subject.rows, progress)
    answers: list[tuple[int, ...]] = []
    if then.answers:
        with subject.listener.doing(_("Answering, exported"), len(then.answers)) as progress:
            prompts = [question.prompt for question in subject.questions]
            answers = [one.ids for one in opened.engine.generate(prompts, most_tokens(subject), progress)]
    limit = compare.allowed(work.kind, str(subject.recipe.train.precision))
    work.record["comparisons"].append(compare.compared(reader, then, found, answers, limit, str(subject.run)))
