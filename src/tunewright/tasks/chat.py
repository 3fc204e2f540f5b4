"""The task ``chat``: answer as the assistant turns of the data do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright.data.codec import Codec
from tunewright.data.template import ChatTemplate
from tunewright.data.thinking import apart
from tunewright.example import Chat, Message
from tunewright.model.load import require_decoder
from tunewright.model.loss import TokenLoss
from tunewright.recipe.schema import Recipe
from tunewright.tasks.interface import Gives, Head, Objective, Question, Reads


class ChatTask:
    name = "chat"
    reads: Reads = "turns"
    head: Head = "decoder"
    gives: Gives = "answers"
    retains = True

    def require(self, folder: Path, name: str) -> None:
        require_decoder(folder, name)

    def codec(self, folder: Path, recipe: Recipe, labels: Sequence[str] = ()) -> ChatTemplate:
        return ChatTemplate.from_folder(folder, recipe.data.chat_template, recipe.data.learn_thinking)

    def objective(self, model: Any, codec: Codec) -> Objective:
        return TokenLoss(model)

    def question(self, chat: Chat, codec: Codec) -> Question | None:
        """The conversation up to its last learned answer."""
        assert isinstance(codec, ChatTemplate)
        last = chat.last_answer()
        if last is None:
            return None
        before = chat.messages[:last]
        text = next((m.content for m in reversed(before) if m.role == "user"), "")
        answer = apart(chat.messages[last], codec.marks)
        return Question(codec.prompt_ids(before, chat.tools), text, answer.content, answer.thinking)


def ask(text: str, template: ChatTemplate, system: str | None = None) -> list[int]:
    """Ids of a prompt that holds one user turn."""
    opening = [Message("system", system)] if system else []
    return template.prompt_ids([*opening, Message("user", text)])
