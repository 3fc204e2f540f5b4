"""The task ``chat``: answer as the assistant turns of the data do."""

from __future__ import annotations

from collections.abc import Callable

from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Message, Rendered
from tunewright.tasks.interface import Question


class ChatTask:
    name = "chat"

    def renderer(self, template: ChatTemplate) -> Callable[[Chat], list[Rendered]]:
        return template.render

    def question(self, chat: Chat, template: ChatTemplate) -> Question | None:
        """The conversation up to its last learned answer."""
        last = chat.last_answer()
        if last is None:
            return None
        before = chat.messages[:last]
        text = next((m.content for m in reversed(before) if m.role == "user"), "")
        return Question(template.prompt_ids(before, chat.tools), text, chat.messages[last].content)

    def ask(self, text: str, template: ChatTemplate, system: str | None = None) -> list[int]:
        opening = [Message("system", system)] if system else []
        return template.prompt_ids([*opening, Message("user", text)])
