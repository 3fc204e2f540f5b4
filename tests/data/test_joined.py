"""Documents are joined and cut so that every token is learned once, and rows are full."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.data.joined import cut_documents, join_documents
from tunewright.example import Origin, Rendered


def document(number: int, *ids: int) -> Rendered:
    learn = np.ones(len(ids), dtype=np.bool_)
    learn[0] = False
    return Rendered(np.array(ids, dtype=np.int32), learn, Origin("a.txt", number, number))


def test_the_example_of_the_docstring() -> None:
    documents = [document(1, 1, 2, 3, 4, 0), document(2, 5, 6, 0), document(3, 7, 8, 9, 10, 11, 0)]
    first, second, third = join_documents(documents, 6)
    assert first.ids.tolist() == [1, 2, 3, 4, 0, 5] and first.starts.tolist() == [0, 5]
    assert second.ids.tolist() == [5, 6, 0, 7, 8, 9] and second.starts.tolist() == [0, 3]
    assert third.ids.tolist() == [9, 10, 11, 0] and third.starts.tolist() == [0]
    assert second.learn.tolist() == [False, True, True, False, True, True]
    assert [row.origin.line for row in (first, second, third)] == [1, 2, 3]


@pytest.mark.parametrize("length", [2, 3, 7, 16, 1000])
def test_every_token_but_a_document_s_first_is_learned_once_and_rows_are_full(length: int) -> None:
    random = np.random.default_rng(length)
    sizes = random.integers(2, 40, 50)
    ends = np.cumsum(sizes)
    documents = [
        document(n, *range(int(end - size), int(end))) for n, (size, end) in enumerate(zip(sizes, ends, strict=True), 1)
    ]
    rows = join_documents(documents, length)
    learned = [token for row in rows for token in row.ids[row.learn].tolist()]
    assert learned == [token for one in documents for token in one.ids[1:].tolist()]
    assert {row.length for row in rows[:-1]} <= {length} and rows[-1].length <= length
    assert all((~row.learn).nonzero()[0].tolist() == row.starts.tolist() for row in rows)


def test_a_row_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="two tokens"):
        join_documents([document(1, 1, 2)], 1)


def test_measured_documents_stay_apart_and_are_cut_where_they_are_too_long() -> None:
    documents = [document(1, 1, 2, 3, 4, 0), document(2, 5, 6, 0)]
    rows = cut_documents(documents, 4)
    assert [row.ids.tolist() for row in rows] == [[1, 2, 3, 4], [4, 0], [5, 6, 0]]
    assert all(row.starts.tolist() == [0] for row in rows)
    assert sum(row.learned for row in rows) == sum(one.learned for one in documents)
