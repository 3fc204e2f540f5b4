"""The likelihood of answers that share their question."""

from __future__ import annotations

from typing import Any

import pytest
from tests import tiny

from tunewright.infer import choices
from tunewright.infer.choices import likelihoods
from tunewright.infer.engine import Choices


def questions() -> list[Choices]:
    """Prompts of several lengths with a common beginning, answers of one to five ids."""
    made = []
    for number in range(12):
        prompt = (5, 6, 7, *range(10 + number, 12 + number + number % 4))
        options = tuple(tuple(range(20 + number + o, 21 + number + o + (number + o) % 5)) for o in range(4))
        made.append(Choices(prompt, options))
    return made


def apart(model: Any, asked: list[Choices]) -> list[tuple[float, ...]]:
    """Each answer with its whole prompt, alone."""
    return [choices._apart(model, [one], 64)[0] for one in asked]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mistral", "bloom", "qwen3"])
@pytest.mark.parametrize("budget", [1, 2048])
def test_sharing_what_is_alike_changes_no_likelihood(kind: str, budget: int) -> None:
    model, asked = tiny.model(kind), questions()
    for one, two in zip(likelihoods(model, asked, budget), apart(model, asked), strict=True):
        assert one == pytest.approx(two, abs=1e-3)


def test_a_model_whose_memory_cannot_be_repeated_reads_each_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny.model(), questions()

    def forgets(*given: Any) -> list[tuple[float, ...]]:
        return [tuple(-9.0 * len(option) for option in one.options) for one in given[-1]]

    monkeypatch.setattr(choices, "_together", forgets)
    assert likelihoods(model, asked, 64) == [pytest.approx(one, abs=1e-4) for one in apart(model, asked)]


def test_one_question_and_none() -> None:
    model, asked = tiny.model(), questions()[:1]
    assert likelihoods(model, asked, 64)[0] == pytest.approx(apart(model, asked)[0], abs=1e-3)
    assert likelihoods(model, [], 64) == []


def test_what_prompts_share_leaves_each_an_id_of_its_own() -> None:
    assert choices._opening([(1, 2, 3), (1, 2, 4, 5)]) == (1, 2)
    assert choices._opening([(1, 2), (1, 2, 4, 5)]) == (1,)
    assert choices._opening([(1, 2), (1, 2)]) == (1,)
    assert choices._opening([(3, 2), (1, 2)]) == ()
