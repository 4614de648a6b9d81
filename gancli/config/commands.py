"""Commands in messages, quoted so that they can be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from gancli.config.grammar import in_quotes


def shell(text: str) -> str:
    """Quote a text as one word for a shell, in double quotes if it contains single ones.

    >>> print(shell("note='a b'"), shell("a b"), shell("ab"))
    "note='a b'" 'a b' ab
    """
    if "'" in text and not any(c in text for c in '"$`\\!'):
        return f'"{text}"'
    return shlex.quote(text)


def word(key: str, value: str | Path | int) -> str:
    """Return `key=value`, quoted for a shell and for Hydra.

    >>> word("run", "my run"), word("steps", 3), word("resume", "it's")
    ("run='my run'", 'steps=3', 'resume="it\\'s"')
    """
    text = str(value)
    if text.startswith(("'", '"', "[")) or text == "null" or text != text.strip() or "${" in text:
        text = in_quotes(text.replace("${", "\\${"))  # Hydra would not parse these as this text
    return f"{key}={shell(text)}"


def command(verb: str, *words: str) -> str:
    """Return a `gan` command. words: made by `word`, or without characters that need quotes.

    >>> command("train", word("resume", "my run"), "steps=9")
    "gan train resume='my run' steps=9"
    """
    return " ".join(("gan", verb, *words))
