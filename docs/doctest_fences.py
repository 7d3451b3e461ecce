"""Examples in docstrings as code: Markdown would take their `>>>` for quotations. An extension of griffe, which reads
the docstrings for the site without importing the code.
"""

from typing import Any

import griffe


class DoctestFences(griffe.Extension):
    """Put every run of lines from a prompt to an empty line into a fence."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Once for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    r"""The text with its examples as code.

    >>> fenced("Sum.\n\n>>> 1 + 1\n2\n\nMore.").splitlines()
    ['Sum.', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'More.']
    """
    lines: list[str] = []
    inside = False
    for line in [*text.split("\n"), ""]:
        if inside and not line.strip():
            lines.append("```")
            inside = False
        elif not inside and line.startswith(">>> "):
            lines.append("```pycon")
            inside = True
        lines.append(line)
    return "\n".join(lines[:-1])
