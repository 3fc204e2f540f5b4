"""One rendered row as a person can read it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from tunewright.data.codec import Codec
from tunewright.example import Rendered
from tunewright.text import _


def bracketed(rendered: Rendered, codec: Codec) -> str:
    """The row's text with what is learned in ⟦ ⟧."""
    stretches = groupby(zip(rendered.learn.tolist(), codec.pieces(rendered), strict=True), key=lambda pair: pair[0])
    texts = [(learned, "".join(piece for _learned, piece in pairs)) for learned, pairs in stretches]
    return "".join(f"⟦{text}⟧" if learned else text for learned, text in texts)


_STYLE = """
body { font: 15px/1.6 ui-monospace, monospace; max-width: 60em; margin: 2em auto; padding: 0 1em }
body { background: #fff; color: #777 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #ddd; border-radius: 6px; padding: 1em }
span:nth-child(even) { background: rgba(128, 128, 128, .10) }
.learned { color: #06603a; font-weight: 600 }
.learned:nth-child(odd) { background: rgba(0, 160, 90, .08) }
.learned:nth-child(even) { background: rgba(0, 160, 90, .16) }
@media (prefers-color-scheme: dark) {
  body { background: #16181a; color: #888 } .learned { color: #7fe0b0 } pre { border-color: #333 }
}
@media print { .learned { text-decoration: underline } }
"""


def page(rows: Sequence[Rendered], codec: Codec, title: str) -> str:
    """A self-contained page: one box a row, one span a token with its id, learned tokens in colour."""
    boxes = []
    for row in rows:
        tokens = zip(row.ids.tolist(), codec.pieces(row), row.learn.tolist(), strict=True)
        boxes.append("<pre>" + "".join(_span(*token) for token in tokens) + "</pre>")
        boxes.append("<p>" + _("{total} tokens, {learned} learned", total=row.length, learned=row.learned) + "</p>")
    heading = escape(title)
    legend = _("Grey is context, green is learned. Hold the pointer over a token for its id.")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{heading}</h1><p>{escape(legend)}</p>\n{''.join(boxes)}\n</body></html>\n"
    )


def _span(token: int, piece: str, learned: bool) -> str:
    kind = ' class="learned"' if learned else ""
    return f'<span{kind} title="{token}">{escape(piece)}</span>'
