"""How the house is laid out: what lies where, and that imports go one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_AT_THE_ROOT = 8


def modules() -> dict[str, Path]:
    """The package's files by their dotted names."""
    found = {}
    for path in sorted((ROOT / "gancli").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Which of the package's files a tree imports, inside functions too; not those for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from imports(ast.Module(node.orelse, []), known)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (
                    name for name in (inner, node.module) if name in known and (name == inner or inner not in known)
                )
        yield from imports(node, known)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Names that reach each other: what is left without all that nothing imports, or that imports nothing."""
    left = {name: set(targets) for name, targets in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        loose = {name for name, targets in left.items() if not targets & left.keys() or name not in imported}
        if not loose:
            return [sorted(left)] if left else []
        left = {name: targets - loose for name, targets in left.items() if name not in loose}


def test_no_circles() -> None:
    known = modules()
    graph = {
        name: set(imports(ast.parse(path.read_text(encoding="utf-8")), known)) - {name} for name, path in known.items()
    }
    assert sum(map(len, graph.values())) > 500
    assert circles(graph) == []


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []
    text = "if TYPE_CHECKING:\n    from gancli import waiting\ndef f():\n"
    text += "    from gancli.errors import plain\n    import gancli.cli"
    known = {name: Path() for name in ("gancli", "gancli.cli", "gancli.errors", "gancli.waiting")}
    assert sorted(imports(ast.parse(text), known)) == ["gancli.cli", "gancli.errors"]


def test_few_files_lie_at_the_root() -> None:
    assert len(list((ROOT / "gancli").glob("*.py"))) <= MOST_AT_THE_ROOT


def test_every_room_says_what_it_is_for() -> None:
    rooms = [path.parent for path in (ROOT / "gancli").rglob("*.py") if path.parent != ROOT / "gancli"]
    for room in {room for room in rooms if "templates" not in room.parts}:
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))), room
