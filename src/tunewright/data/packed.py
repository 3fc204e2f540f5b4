"""Rendered rows in flat arrays: little memory for many rows, and written to the cache as they are, without pickle."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tunewright.example import Chat, Origin, Rendered


class Packed(Sequence[Rendered]):
    """Rows over shared arrays: ids (tokens,) int32, learn (tokens,) bool, starts (rows + 1,), place (rows, 3) with
    file, line and row. ``pick`` names which rows this view shows, in order."""

    def __init__(self, arrays: dict[str, NDArray[Any]], files: Sequence[str], pick: NDArray[np.int64]) -> None:
        self._arrays = arrays
        self._files = files
        self._pick = pick

    def __len__(self) -> int:
        return len(self._pick)

    @overload
    def __getitem__(self, index: int) -> Rendered: ...
    @overload
    def __getitem__(self, index: slice) -> Packed: ...
    def __getitem__(self, index: int | slice) -> Rendered | Packed:
        if isinstance(index, slice):
            return Packed(self._arrays, self._files, self._pick[index])
        row = int(self._pick[index])
        starts = self._arrays["starts"]
        inside = slice(int(starts[row]), int(starts[row + 1]))
        file, line, number = self._arrays["place"][row].tolist()
        origin = Origin(self._files[file], line, number)
        return Rendered(self._arrays["ids"][inside], self._arrays["learn"][inside], origin)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(rows,) tokens of each row."""
        return np.diff(self._arrays["starts"])[self._pick]


def pack(rows: Sequence[Rendered], example: Sequence[int], files: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Flat arrays of ``rows``; ``example`` says which example each row came from."""
    number = {name: index for index, name in enumerate(files)}
    return {
        "ids": np.concatenate([row.ids for row in rows]) if rows else np.zeros(0, np.int32),
        "learn": np.concatenate([row.learn for row in rows]) if rows else np.zeros(0, np.bool_),
        "starts": np.cumsum([0, *(row.length for row in rows)]).astype(np.int64),
        "place": np.array([(number[r.origin.file], r.origin.line, r.origin.row) for r in rows], dtype=np.int64).reshape(
            -1, 3
        ),
        "example": np.array(example, dtype=np.int64),
    }


def join(parts: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Several packs behind each other."""
    joined = {name: np.concatenate([p[name] for p in parts]) for name in ("ids", "learn", "place", "example")}
    lengths = np.concatenate([np.diff(part["starts"]) for part in parts])
    joined["starts"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return joined


def to_bytes(arrays: dict[str, NDArray[Any]], text: bytes) -> bytes:
    buffer = io.BytesIO()
    stored = {**arrays, "learn": np.packbits(arrays["learn"]), "text": np.frombuffer(text, dtype=np.uint8)}
    np.savez(buffer, allow_pickle=False, **stored)
    return buffer.getvalue()


def from_bytes(content: bytes) -> tuple[dict[str, NDArray[Any]], bytes]:
    """Raises ValueError, KeyError or OSError if this is not what ``to_bytes`` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in ("ids", "learn", "starts", "place", "example", "held_out", "watched")}
        text = stored["text"].tobytes()
    arrays["learn"] = np.unpackbits(arrays["learn"], count=len(arrays["ids"])).astype(np.bool_)
    return arrays, text


class LazyChats(Sequence[Chat]):
    """Conversations that are read again from their files when the first of them is asked for."""

    def __init__(self, load: Callable[[], Sequence[Chat]], size: int) -> None:
        self._load = load
        self._size = size
        self._chats: Sequence[Chat] | None = None

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Chat: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Chat]: ...
    def __getitem__(self, index: int | slice) -> Chat | Sequence[Chat]:
        if self._chats is None:
            self._chats = self._load()
        return self._chats[index]
