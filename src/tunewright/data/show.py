"""One rendered row as a person can read it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tunewright.data.template import ChatTemplate
from tunewright.example import Rendered
from tunewright.text import _


def spans(rendered: Rendered, template: ChatTemplate) -> list[tuple[str, bool]]:
    """The row's text in stretches, each with whether it is learned."""
    stretches: list[tuple[str, bool]] = []
    start = 0
    learn = rendered.learn.tolist()
    for place in range(1, len(learn) + 1):
        if place == len(learn) or learn[place] != learn[start]:
            stretches.append((template.decode(rendered.ids[start:place].tolist()), learn[start]))
            start = place
    return stretches


def bracketed(rendered: Rendered, template: ChatTemplate) -> str:
    """The row's text with what is learned in ⟦ ⟧."""
    return "".join(f"⟦{text}⟧" if learned else text for text, learned in spans(rendered, template))


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


def page(rows: Sequence[Rendered], template: ChatTemplate, title: str) -> str:
    """A self-contained page: one box a row, one span a token with its id, learned tokens in colour."""
    boxes = []
    for row in rows:
        ids = row.ids.tolist()
        tokens = zip(ids, template.pieces(ids), row.learn.tolist(), strict=True)
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
