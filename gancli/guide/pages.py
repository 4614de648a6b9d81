"""The guide's pages: their list, and one page for a terminal or a pipe."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from gancli.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, JustifyMethod, RenderResult
    from rich.markdown import MarkdownElement

FOLDER = Path(__file__).parent
WIDEST = 120  # columns of a page on a terminal


class Page(NamedTuple):
    """A page: its topic (the file's stem), its title, the first sentence of its first paragraph, and its file."""

    topic: str
    title: str
    summary: str
    file: Path


def pages() -> dict[str, Page]:
    """The pages by topic, in alphabetical order."""
    return {file.stem: _page(file) for file in sorted(FOLDER.glob("*.md"))}


def topics() -> list[str]:
    """The topics alone, without reading the pages."""
    return sorted(file.stem for file in FOLDER.glob("*.md"))


def show(words: Sequence[str]) -> None:
    """Print the list of pages, or the page of a topic. Raises ConfigError for an unknown topic."""
    if not words:
        print(listing())
        return
    topic, known = words[0].lower().removesuffix(".md"), topics()
    if topic not in known or len(words) > 1:
        given = " ".join(words)
        raise ConfigError(f"--guide {given} is not a page; {suggestion(given, known)}")
    text = (FOLDER / f"{topic}.md").read_text(encoding="utf-8")
    if sys.stdout.isatty():
        _on_terminal(text)
    else:
        print(text, end="")


def listing() -> str:
    """What `gan --guide` prints: a line a page, cut at the terminal's width if stdout is a terminal."""
    found = pages()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    wide = max(map(len, found))
    room = width - wide - 5 if width else 1000
    lines = [
        f"  {page.topic:{wide}}  {textwrap.shorten(f'{page.title}: {page.summary}', max(room, 20), placeholder=' ...')}"
        for page in found.values()
    ]
    example = next(iter(found))
    return "\n".join(["pages of the guide", *lines, "", f"gan --guide TOPIC shows one, as in: gan --guide {example}"])


def _page(file: Path) -> Page:
    """Read a page's title and summary."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text)]
    first = next((block for block in blocks if re.match(r"[\w`*\"(\[]", block)), "")
    words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", first)  # links and emphasis as plain text
    sentence = re.split(r"(?<!et al)[.:](?= |$)", words)[0]
    return Page(file.stem, title[1].strip() if title else file.stem, sentence, file)


def _on_terminal(text: str) -> None:
    """Print Markdown with rich, no wider than a page."""
    from rich.console import Console
    from rich.markdown import CodeBlock, Markdown, TableDataElement
    from rich.text import Text

    class Cell(TableDataElement):
        """A table's cell whose long words go on in the next line; rich would cut them off."""

        def __init__(self, justify: JustifyMethod):
            super().__init__(justify)
            self.content.overflow = "fold"

    class Code(CodeBlock):
        """A block of code whose lines stay whole, so that a copied command is one command."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            yield Text(str(self.text).rstrip(), style="markdown.code_block", no_wrap=True, overflow="ignore")

    class Folded(Markdown):
        """Markdown with such cells and blocks."""

        elements: ClassVar[dict[str, type[MarkdownElement]]] = {
            **Markdown.elements, "th_open": Cell, "td_open": Cell, "fence": Code, "code_block": Code
        }  # fmt: skip

    console = Console()
    console.print(Folded(text), width=min(console.width, WIDEST), crop=False)
