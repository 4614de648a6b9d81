"""Commands as they are printed: what stands there can be pasted into a shell and means the same."""

from __future__ import annotations

import shlex
from pathlib import Path

from gancli.config.grammar import in_quotes


def shell(text: str) -> str:
    """A text as one word of a shell, in double quotes where it has single ones.

    >>> print(shell("note='a b'"), shell("a b"), shell("ab"))
    "note='a b'" 'a b' ab
    """
    if "'" in text and not any(c in text for c in '"$`\\!'):
        return f'"{text}"'
    return shlex.quote(text)


def word(key: str, value: str | Path | int) -> str:
    """`key=value` for a shell, whatever the value holds.

    >>> word("run", "my run"), word("steps", 3), word("resume", "it's")
    ("run='my run'", 'steps=3', 'resume="it\\'s"')
    """
    text = str(value)
    if text.startswith(("'", '"', "[")) or text == "null" or text != text.strip() or "${" in text:
        text = in_quotes(text.replace("${", "\\${"))  # what would be read as something else than this text
    return f"{key}={shell(text)}"


def command(verb: str, *words: str) -> str:
    """A command of this program, of words that `word` made or that need no quotes.

    >>> command("train", word("resume", "my run"), "steps=9")
    "gan train resume='my run' steps=9"
    """
    return " ".join(("gan", verb, *words))
