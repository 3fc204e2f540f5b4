"""One export in the making: what its steps hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.export.gguf_model import Type
from tunewright.export.usage import Use
from tunewright.model.source import Base
from tunewright.verify.subject import Subject


@dataclass
class Work:
    """folder: that is being filled.  kind: type of a GGUF file, None where there is none.  record: what becomes
    ``export.json``."""

    subject: Subject
    base: Base
    form: str
    kind: Type | None
    folder: Path
    use: Use
    record: dict[str, Any]
