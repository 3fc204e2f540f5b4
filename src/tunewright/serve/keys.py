"""Who may ask. A key is shown once, when it is made; what is kept of it is a salted hash.

A key has 256 random bits, so one round of SHA-256 is as good as any: nobody can try them out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.errors import InputError, RunError
from tunewright.serve.errors import ApiError
from tunewright.text import _

PREFIX = "sk-tw-"
HELP = "tunewright serve --help"


@dataclass(frozen=True, slots=True)
class Entry:
    """name: whose key it is.  salt, digest: hexadecimal; digest is SHA-256 of salt and key."""

    name: str
    salt: str
    digest: str
    created: int

    @classmethod
    def of(cls, name: str, key: str) -> Entry:
        salt = secrets.token_hex(16)
        return cls(name, salt, _digest(salt, key), int(time.time()))

    def fits(self, key: str) -> bool:
        return hmac.compare_digest(self.digest, _digest(self.salt, key))


@dataclass
class Keys:
    """file: of hashes; read anew when it changes, so that a key can be taken away while the server runs.
    given: keys in clear, from the environment; they are kept in memory as hashes too."""

    file: Path | None = None
    given: tuple[str, ...] = ()
    _known: list[Entry] = field(default_factory=list, repr=False)
    _fixed: list[Entry] = field(default_factory=list, repr=False)
    _seen: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._fixed = [Entry.of("environment", key) for key in self.given]
        self.given = ()
        self._read()
        if self.file is not None and not self._known:
            raise _empty(self.file)

    def __bool__(self) -> bool:
        return self.file is not None or bool(self._fixed)

    def who(self, authorization: str | None) -> str | None:
        """The name of the key in an ``Authorization`` header; None where no key is asked for. Raises ApiError 401."""
        if not self:
            return None
        scheme, _space, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise _unauthorized(_NO_KEY, None)
        self._read()
        names = [
            entry.name for entry in [*self._fixed, *self._known] if entry.fits(key)
        ]  # all, so that none is quicker
        if not names:
            shown = f"{key[:3]}{'*' * 8}{key[-4:]}" if len(key) > 15 else "*" * 8
            raise _unauthorized(_("Incorrect API key provided: {key}.", key=shown), "invalid_api_key")
        return names[0]

    def _read(self) -> None:
        if self.file is None:
            return
        try:
            told = self.file.stat()
        except OSError:
            self._known, self._seen = [], None
            return
        stamp = (told.st_mtime_ns, told.st_size)
        if stamp != self._seen:
            self._known, self._seen = _entries(self.file), stamp


def create(file: Path, name: str) -> str:
    """A new key for ``name``, its hash added to ``file``. Returns the key, which nobody can read there again.

    Raises InputError for a name that has one, or a file that is something else.
    """
    found = _entries(file) if file.exists() else []
    if any(entry.name == name for entry in found):
        raise InputError(
            _("there is a key for {name} already", name=name), where=str(file),
            do=_("take another name, or remove its entry from the file first"), command=HELP,
        )  # fmt: skip
    key = PREFIX + secrets.token_urlsafe(32)
    rows = [
        {"name": one.name, "salt": one.salt, "sha256": one.digest, "created": one.created}
        for one in [*found, Entry.of(name, key)]
    ]
    rundir.write_json(file, {"keys": rows})
    os.chmod(file, 0o600)
    return key


def _entries(file: Path) -> list[Entry]:
    try:
        stored: Any = rundir.read_json(file)
        return [Entry(str(one["name"]), str(one["salt"]), str(one["sha256"]), int(one["created"]))
                for one in stored["keys"]]  # fmt: skip
    except (RunError, KeyError, TypeError, ValueError):
        raise InputError(
            _("this is no file of keys"), where=str(file), do=_("make one"),
            command=f"tunewright serve --new-key NAME --key-file {file}",
        ) from None  # fmt: skip


def _empty(file: Path) -> InputError:
    return InputError(
        _("there is no key in the file of keys"), where=str(file), do=_("make one"),
        command=f"tunewright serve --new-key NAME --key-file {file}",
    )  # fmt: skip


def _digest(salt: str, key: str) -> str:
    return hashlib.sha256(f"{salt}:{key}".encode("utf-8", "surrogateescape")).hexdigest()


_NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)


def _unauthorized(message: str, code: str | None) -> ApiError:
    return ApiError(401, message, code=code, headers={"www-authenticate": "Bearer"})
