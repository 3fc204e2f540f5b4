"""The task ``classify`` with the head ``linear``: a new layer on top of the base gives a number to each label.

The base reads the text (or the two texts of a pair) as its own tokenizer writes it; encoders and decoders do, each
through the class that transformers has for it. What is learned of a row is its label's number (``data/texts.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from tunewright.data.basefiles import BaseFiles
from tunewright.data.codec import Codec
from tunewright.data.texts import TextCodec, given, wanted
from tunewright.errors import BaseModelError, RecipeError
from tunewright.example import Chat
from tunewright.model.catalog import suited
from tunewright.model.labels import LabelLoss, LinearLogits
from tunewright.model.pooling import reads_mean
from tunewright.model.source import read_config
from tunewright.recipe.schema import Recipe
from tunewright.tasks.interface import Gives, Head, Objective, Question, Reads
from tunewright.text import _

FOR_LABEL_TOKEN = ("classify.prompt", "classify.words", "data.system", "data.chat_template")


class LinearTask:
    name = "linear"
    reads: Reads = "labels"
    head: Head = "classifier"
    gives: Gives = "labels"
    retains = False

    def require(self, folder: Path, name: str) -> None:
        config = read_config(folder)
        kind = str(config.get("model_type", ""))
        what = None
        if config.get("is_encoder_decoder"):
            what = _("{name} cannot be given a head for labels: it reads a text and writes another (encoder-decoder)",
                     name=name)  # fmt: skip
        elif kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            what = _("{name} cannot be given a head for labels: transformers has none for {kind!r}",
                     name=name, kind=kind)  # fmt: skip
        if what:
            raise BaseModelError(
                what, where=str(folder / "config.json"),
                do=_("these would do: {names}", names=", ".join(suited("classify"))), command="tunewright models",
            )  # fmt: skip

    def codec(self, folder: Path, recipe: Recipe, labels: Sequence[str] = ()) -> TextCodec:
        for key in FOR_LABEL_TOKEN:
            section, _dot, name = key.partition(".")
            if getattr(getattr(recipe, section), name):
                raise RecipeError(
                    _("a linear head reads the text alone, and {key} is not used", key=key), where=key,
                    do=_("leave it out, or set classify.head to label_token"),
                    command=f"tunewright recipe explain {key}",
                )  # fmt: skip
        codec = TextCodec(BaseFiles.read(folder), labels, recipe.classify.multi_label, recipe.data.truncation_side)
        if reads_mean(folder):
            codec.notes = (
                _("the base was made to be read as the mean of its tokens; the query of its last layer begins at zero, "
                  "so that the first token, which a new head reads, begins as such a mean"),
            )  # fmt: skip
        return codec

    def objective(self, model: Any, codec: Codec) -> Objective:
        assert isinstance(codec, TextCodec)
        return LabelLoss(self.logits(model, codec), codec.multi_label)

    def logits(self, model: Any, codec: Codec) -> LinearLogits:
        assert isinstance(codec, TextCodec)
        return LinearLogits(model, codec.separator)

    def question(self, chat: Chat, codec: Codec) -> Question | None:
        last = chat.last_answer()
        if last is None:
            return None
        assert isinstance(codec, TextCodec)
        text, pair = given(chat)
        ids = codec.ask([(text, pair)])[0]
        prompt = ids.ids[~ids.learn].tolist()
        return Question(prompt, text if pair is None else f"{text}\n{pair}", chat.messages[last].content)

    def given(self, chat: Chat) -> tuple[str, str | None]:
        return given(chat)

    def wanted(self, chat: Chat, labels: Sequence[str]) -> tuple[int, ...]:
        return wanted(chat, labels)
