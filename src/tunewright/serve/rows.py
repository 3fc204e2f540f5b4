"""Texts of requests as the rows that a run was trained on: the same columns, prompt and system message."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.data.asked import asking, is_blank, line_column
from tunewright.data.read import Row
from tunewright.example import Chat, Origin
from tunewright.infer.open import Opened
from tunewright.infer.predict import reading_of
from tunewright.serve.errors import bad
from tunewright.text import _

Given = tuple[str, str | None]  # a text, and the second one of a pair


def chats_of(opened: Opened, texts: Sequence[Given], param: str) -> list[Chat]:
    """One example to each. Raises ApiError 400 for one without text, DataError for what the run cannot read."""
    data = opened.recipe.data
    reading = reading_of(opened.task, opened.recipe, opened.labels, opened.texts)
    first, second = data.columns.get("text", "text1"), data.columns.get("pair", "text2")
    chats: list[Chat] = []
    for number, (text, pair) in enumerate(texts):
        fields = {line_column(data): text} if pair is None else {first: text, second: pair}
        rows = [Row(fields, Origin(param, 0, number + 1))]
        chat = asking(rows, data, reading).chats(rows)[0]
        if is_blank(chat):
            raise bad(_("'{param}' holds a text without any character.", param=param), param, "invalid_value")
        chats.append(chat)
    return chats
