"""Where text for people passes through, so that a translation can be added without touching the code.

English is the source language and stands in the code. A translation is a file ``locale/LANGUAGE.yaml`` next to
this module that maps the English sentence, placeholders included, to the other one. A sentence that has no
translation is shown in English.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tunewright.settings import settings


@cache
def _table(language: str) -> dict[str, str]:
    file = Path(__file__).parent / "locale" / f"{language}.yaml"
    if language == "en" or not file.exists():
        return {}
    import yaml  # only a translated session pays for the parser

    return dict(yaml.safe_load(file.read_text(encoding="utf-8")) or {})


def _(sentence: str, /, **values: object) -> str:
    """The sentence in the person's language, with ``{name}`` filled from ``values``."""
    found = _table(settings().language).get(sentence, sentence)
    return found.format(**values) if values else found
