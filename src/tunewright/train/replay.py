"""Keeping what the base can do: general prompts, as the base itself would go on with them, are part of the steps.

A model that is taught one thing forgets others where its weights are shared. The base answers bundled general prompts
once (``infer/held.py``); while training, the tuned model's distribution at these answers is held to the base's
(Kullback-Leibler divergence, base first), which says more than the words alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.data.codec import Codec
from tunewright.data.template import ChatTemplate
from tunewright.evaluate.questions import read_lines
from tunewright.example import Rendered
from tunewright.infer import held
from tunewright.infer.engine import Progress
from tunewright.infer.transformers import TransformersEngine
from tunewright.model.loss import Replayed
from tunewright.recipe.schema import Recipe
from tunewright.tasks.chat import ask

PROMPTS = "general_prompts.txt"
ANSWER_TOKENS = 32
PULL = 8.0  # of a token that is held to the base, against one that is learned, at most
WEIGHS = 16  # training rows, and no more, that a general prompt counts as much as


def prompts() -> list[str]:
    """The bundled general prompts, one a line."""
    return read_lines("tunewright.train", PROMPTS)


def share(recipe: Recipe) -> float:
    """General prompts to each training row."""
    assert recipe.retain != "auto"  # choose.py has filled it
    return 0.0 if recipe.retain == "off" else recipe.retain


def pull(rows: Sequence[Rendered], general: Sequence[Rendered]) -> float:
    """How much a held token weighs. Rows of which a word alone is learned, as of a label, have so few tokens that the
    answer of a general prompt would drown them."""
    learned = sum(row.learned for row in rows) / len(rows)
    held = sum(row.learned for row in general) / len(general)
    return min(PULL, WEIGHS * learned / held)


def tokens(codec: Codec | None, system: str | None) -> float:
    """About how many tokens a general prompt has together with its answer."""
    if not isinstance(codec, ChatTemplate):
        return 2 * ANSWER_TOKENS
    asked = [ask(text, codec, system) for text in prompts()[::8]]
    return sum(map(len, asked)) / len(asked) + ANSWER_TOKENS


def answered(
    engine: TransformersEngine, template: ChatTemplate, base: str, system: str | None, progress: Progress
) -> list[Replayed]:
    """The general prompts with the base's own answers. ``engine`` holds the base, whose sha256 is ``base``."""
    return held.answered(engine, template, base, system, prompts(), ANSWER_TOKENS, progress)
