"""The catalogue of systems: printed by `gan --systems`, written as a guide page and as the README's table.

`python -m gancli.guide.systems` writes gancli/guide/systems.md; with --readme it prints the table instead.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from gancli.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from rich.console import RenderableType

SOURCE = Path(__file__).with_name("systems.yaml")
PAGE = Path(__file__).with_name("systems.md")
WIDEST = 100  # columns of the tables on a terminal
RUNS = {"paper": "paper's run", "small": "small run"}  # the kinds of experiment files


@dataclass(frozen=True)
class Count:
    """Trainable parameters of G and D, and the command that counts them."""

    G: int
    D: int
    base: str  # the command of the system
    command: str = ""  # another one in its place
    size: tuple[int, ...] = ()  # channels, height, width of dataset=random; (): the command's own data
    classes: int = 0
    set: str = ""  # one more override
    at: str = ""  # what the command's own data are

    @property
    def told(self) -> str:
        """The whole command, with steps=0."""
        data = ["dataset=random", f"dataset.size={list(self.size)}".replace(" ", "")] if self.size else []
        labels = [f"dataset.classes={self.classes}"] if self.classes else []
        return " ".join([self.command or self.base, *([self.set] if self.set else []), *data, *labels, "steps=0"])

    @property
    def numbers(self) -> str:
        """`G / D` with thousands separators."""
        return f"{self.G:,} / {self.D:,}"

    @property
    def setting(self) -> str:
        """Size, classes and overrides that differ from the system's command, in words."""
        own = shlex.split(self.base)
        other = [w for w in shlex.split(self.command)[2:] if w not in own]
        shape = "×".join(map(str, self.size)) or self.at
        labels = [f"{self.classes:,} classes"] if self.classes else []
        return ", ".join([shape, *labels, *other, *([self.set] if self.set else [])])


@dataclass(frozen=True)
class System:
    """A system or a technique: an entry of systems.yaml."""

    name: str
    paper: str
    arxiv: str
    about: str
    command: str
    data: str = ""
    counts: tuple[Count, ...] = ()
    experiments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    here: str = ""
    page: str = ""
    published: str = ""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> System:
        """A system of its entry in the file."""
        base = entry["command"]
        counts = [{**c, "base": base, "size": tuple(c.get("size", ()))} for c in entry.get("counts", ())]
        made = {**entry, "counts": tuple(Count(**count) for count in counts)}
        return cls(**made)

    @cached_property
    def key(self) -> str:
        """What is typed after --systems: the name in small letters, words joined by hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def link(self) -> str:
        """The paper as a Markdown link."""
        return f"[{self.paper}](https://arxiv.org/abs/{self.arxiv})"

    def figure(self, folder: str = "") -> str:
        """The figure measured here with a Markdown link to its protocol, or `-`."""
        return f"{self.here}, [protocol]({folder}{self.page}.md)" if self.here else "-"

    def runs(self, quote: str = "") -> list[str]:
        """The experiment files, a line a kind, each name between two of `quote`."""
        return [
            f"{RUNS[kind]}: {' '.join(f'{quote}{name}{quote}' for name in names)}"
            for kind, names in self.experiments.items()
        ]


@dataclass(frozen=True)
class Family:
    """Systems of one kind."""

    name: str
    about: str
    systems: tuple[System, ...]

    @property
    def proper(self) -> bool:
        """Whether its entries are systems, which have networks of their own to count, and no techniques."""
        return any(system.counts for system in self.systems)


@lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    """The catalogue, in the order of the file."""
    entries = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return tuple(Family(e["family"], e["about"], tuple(map(System.read, e["systems"]))) for e in entries)


def keys() -> list[str]:
    """What can be typed after --systems."""
    return [system.key for family in families() for system in family.systems]


def find(name: str) -> System:
    """The system of a name, of an experiment file or of a model. Raises ConfigError for an unknown name.

    >>> find("WGAN_GP").name, find("biggan_fashion").name, find("mlp").name
    ('WGAN-GP', 'BigGAN', 'Dense GAN')
    """
    systems = [system for family in families() for system in family.systems]
    known = {_plain(system.key): system for system in systems}
    for system in systems:
        for names in system.experiments.values():
            known |= {_plain(each): system for each in names}
    for system in systems:
        model = re.search(r"model=(\w+)", system.command)
        if model:
            known.setdefault(_plain(model[1]), system)
    if _plain(name) not in known:
        raise ConfigError(f"--systems {name} is not a system here; {suggestion(name, (s.key for s in systems))}")
    return known[_plain(name)]


def show(words: Sequence[str]) -> None:
    """Print the catalogue, or one system whole. Raises ConfigError for an unknown name."""
    if words:
        print(whole(find(" ".join(words))))
    elif sys.stdout.isatty():
        _on_terminal(families())
    else:
        print("\n\n".join(_listed(family) for family in families()))


def whole(system: System) -> str:
    """Everything that the catalogue has on a system, as plain text."""
    rows = [("about", system.about), ("paper", f"{system.paper}, arXiv {system.arxiv}"), ("data", system.data)]
    rows.append(("command", system.command))
    for kind, names in system.experiments.items():
        rows += [(RUNS[kind], f"gan train experiment={name}") for name in names]
    for count in system.counts:
        rows += [("G / D", f"{count.numbers} parameters"), ("", f"  {count.told}")]
    rows.append(("here", system.here and f"{system.here}; protocol: gan --guide {system.page}"))
    rows.append(("published", system.published))
    return "\n".join([system.name, *(f"  {label:12} {text}" for label, text in rows if text)])


def page() -> str:
    """The guide's page."""
    lines = [
        "# Systems",
        "",
        "Every GAN of the project with its paper, its size, its shortest command and its experiment files.",
        "`gan --systems` prints the same list, `gan --systems NAME` one system.",
        "`python -m gancli.guide.systems` writes this page.",
    ]
    for family in families():
        lines += ["", f"## {family.name}", "", family.about, ""]
        if not family.proper:
            lines += _table("technique", "paper", "what it does", "command")
            lines += [_row(s.name, s.link, s.about, f"`{s.command}`") for s in family.systems]
            continue
        lines += _table("system", "paper", "data", "parameters G / D", "command", "experiments")
        for s in family.systems:
            first = s.counts[0]
            runs = "; ".join(s.runs("`")) or "-"
            sized = f"{first.numbers} ({first.setting})"
            lines.append(_row(f"**{s.name}**: {s.about}", s.link, s.data, sized, f"`{s.command}`", runs))
    return "\n".join([*lines, *_sizes(), *_figures(), ""])


def _sizes() -> list[str]:
    """The page's table of all parameter counts."""
    rows = [
        _row(s.name, f"`{count.told}`", count.numbers)
        for family in families()
        for s in family.systems
        for count in s.counts
    ]
    about = "Trainable parameters as `run.json` counts them. `steps=0` builds the networks, forecasts and stops."
    return ["", "## Parameters", "", about, "", *_table("system", "command", "G / D"), *rows]


def _figures() -> list[str]:
    """The page's table of figures."""
    rows = [
        _row(s.name, s.figure(), s.published or "-")
        for family in families()
        for s in family.systems
        if s.here or s.published
    ]
    about = "Figures with different data, sample counts or extractors cannot be compared."
    return ["", "## Figures", "", about, "", *_table("system", "measured here", "published"), *rows]


def readme_table() -> str:
    """The README's table: a line a system, techniques in one line."""
    listed = families()
    lines = _table("system", "paper", "command", "figure here", "published figure")
    for system in (s for family in listed if family.proper for s in family.systems):
        figure = system.figure("gancli/guide/")
        lines.append(_row(system.name, system.link, f"`{system.command}`", figure, system.published or "-"))
    names = [s.name for family in listed if not family.proper for s in family.systems]
    return "\n".join(
        [*lines, "", f"Techniques that fit most of them ([commands](gancli/guide/systems.md)): {', '.join(names)}."]
    )


def _table(*columns: str) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(name: str) -> str:
    """A name without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(family: Family) -> str:
    """A family as plain text."""
    return "\n\n".join([f"{family.name}\n{family.about}", *map(whole, family.systems)])


def _on_terminal(listed: Sequence[Family]) -> None:
    """Print a table a family with rich."""
    from rich.box import HORIZONTALS
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for family in listed:
        heading = f"{family.name}: {family.about}"
        table = Table(title=heading, title_justify="left", title_style="bold", box=HORIZONTALS, expand=True)
        middle = "data, parameters of G / D" if family.proper else "what it does"
        for column, ratio in (("system, paper", 22), (middle, 34), ("command, experiment files", 44)):
            table.add_column(column, ratio=ratio, overflow="fold")
        for system in family.systems:
            cells: list[RenderableType] = [Group(Text(system.name, style="bold"), Text(system.paper))]
            cells.append("\n".join(_middle(system)))
            cells.append(Group(Text(system.command, style="cyan"), *map(Text, system.runs())))
            table.add_row(*cells, end_section=family.proper)
        console.print(table, "", width=min(console.width, WIDEST))
    print("gan --systems NAME shows all of one, as in: gan --systems biggan")


def _middle(system: System) -> list[str]:
    """The lines of a system's second column on a terminal."""
    if not system.counts:
        return [system.about]
    first, others = system.counts[0], len(system.counts) - 1
    more = [f"  and {others} more"] if others else []
    return [system.data, first.numbers, f"  {first.setting}", *more]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the guide's page, or print the README's table."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--readme"]:
        print(readme_table())
    elif words:
        print("usage: python -m gancli.guide.systems [--readme]", file=sys.stderr)
        return 2
    else:
        PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
