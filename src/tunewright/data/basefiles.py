"""What a base's folder says about text: its tokenizer, its chat template, its special tokens and its stop tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.errors import BaseModelError
from tunewright.text import _

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
SPECIAL_MAP = "special_tokens_map.json"
GENERATION = "generation_config.json"
CONFIG = "config.json"

# Saved with a run as they are, byte for byte.
KEPT = (TOKENIZER, TOKENIZER_CONFIG, TEMPLATE, SPECIAL_MAP)

_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class BaseFiles:
    """The files themselves (name to bytes) and where they came from. Small enough to be sent to a worker."""

    files: Mapping[str, bytes]
    where: str

    @classmethod
    def read(cls, folder: Path) -> BaseFiles:
        """Raises BaseModelError if the folder or its tokenizer is missing."""
        if not folder.is_dir():
            raise BaseModelError(
                _("there is no such folder"), where=str(folder), do=_("give the folder of a base")
            )
        files = {
            name: (folder / name).read_bytes() for name in (*KEPT, GENERATION, CONFIG) if (folder / name).is_file()
        }
        if TOKENIZER not in files:
            raise BaseModelError(
                _("the base has no {name}", name=TOKENIZER),
                where=str(folder),
                do=_("use a base with a fast tokenizer, or save one there with transformers' AutoTokenizer"),
            )
        return cls(files, str(folder))

    def save(self, folder: Path, without: Container[str] = ()) -> None:
        """What is kept with a run, byte for byte; ``without`` names files that somebody else writes."""
        for name in KEPT:
            if name in self.files and name not in without:
                rundir.write_bytes(folder / name, self.files[name])

    def json(self, name: str) -> dict[str, Any]:
        content = self.files.get(name)
        if content is None:
            return {}
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BaseModelError(
                _("{name} is damaged: {error}", name=name, error=error),
                where=self.where,
                do=_("fetch the base again or repair the file"),
            ) from None
        return value if isinstance(value, dict) else {}

    def named_tokens(self) -> dict[str, str]:
        """``bos_token`` and its like with their text, as templates may use them."""
        found: dict[str, str] = {}
        for source in (self.json(SPECIAL_MAP), self.json(TOKENIZER_CONFIG)):
            for name in _NAMES:
                value = source.get(name)
                text = value.get("content") if isinstance(value, dict) else value
                if isinstance(text, str):
                    found[name] = text
        return found

    def special_texts(self) -> set[str]:
        """Texts that the configuration names as special, whatever the tokenizer's own flags say."""
        texts = set(self.named_tokens().values())
        for source in (self.json(SPECIAL_MAP), self.json(TOKENIZER_CONFIG)):
            for value in source.get("additional_special_tokens") or []:
                text = value.get("content") if isinstance(value, dict) else value
                if isinstance(text, str):
                    texts.add(text)
        return texts

    def stop_ids(self) -> list[int]:
        """End-of-sequence ids that the model's configurations name, the generation's first."""
        found: list[int] = []
        for name in (GENERATION, CONFIG):
            value = self.json(name).get("eos_token_id")
            for token in value if isinstance(value, list) else [value]:
                if isinstance(token, int) and not isinstance(token, bool) and token not in found:
                    found.append(token)
        return found

    def named_templates(self) -> dict[str, str]:
        """The base's own chat templates by name; the one that is meant where none is named is ``default``."""
        value = self.json(TOKENIZER_CONFIG).get("chat_template")
        named: dict[str, str] = {}
        if isinstance(value, str):
            named["default"] = value
        elif isinstance(value, list):
            named = {str(e.get("name")): str(e.get("template")) for e in value if isinstance(e, dict)}
        if TEMPLATE in self.files:  # the newer place wins, as it does in transformers
            named["default"] = self.files[TEMPLATE].decode("utf-8")
        return named

    def digest(self, template: str) -> str:
        """sha256 over all that decides which ids a conversation becomes, and where an answer ends."""
        digest = hashlib.sha256()
        for name in (TOKENIZER, TOKENIZER_CONFIG, SPECIAL_MAP):
            digest.update(name.encode() + b"\0" + hashlib.sha256(self.files.get(name, b"")).digest())
        digest.update(template.encode("utf-8"))
        digest.update(json.dumps(self.stop_ids()).encode())
        return digest.hexdigest()
