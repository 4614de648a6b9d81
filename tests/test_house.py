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


# What a game calls its networks, players and streams is its own affair.
OF_GAMES = {"G", "D", "real"}
ROOMS_OF_GAMES = ("games", "nets", "losses")


def outside(rooms: tuple[str, ...]) -> Iterator[tuple[str, ast.Module]]:
    """The package's files that lie in none of these rooms, read."""
    for name, path in modules().items():
        if name.split(".")[1:2] not in [[room] for room in rooms]:
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def test_no_file_outside_games_names_their_networks() -> None:
    held = {
        target.id
        for name, path in modules().items()
        if name.split(".")[1:2] in [[room] for room in ROOMS_OF_GAMES]
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value in OF_GAMES
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    named = []
    for name, tree in outside(ROOMS_OF_GAMES):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in OF_GAMES:
                named.append(f"{name}:{node.lineno} {node.value}")
            if isinstance(node, ast.ImportFrom) and held & {alias.name for alias in node.names}:
                named.append(f"{name}:{node.lineno} imports one")
    assert named == []


def test_nobody_asks_a_game_for_latents_or_images() -> None:
    old = {"latents", "render", "images_only", "settle_nets"}
    found = [
        f"{name}:{node.lineno}"
        for name, tree in outside(())
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"latents"})
        or (isinstance(node, ast.FunctionDef) and node.name in old)
    ]
    assert found == []


# Where the number of dimensions is asked: of a file's layout, or of a layer's weights and outputs, not of a column.
ASKS_DIMENSIONS = {
    "gancli.compute.device": "weights, of which those of two places have an order in memory",
    "gancli.data.npz": "arrays of a file, grey or in colour",
    "gancli.games.critic": "logits, one a sample or one a patch",
    "gancli.metrics.extractor": "a network's output, with or without places",
    "gancli.metrics.linear_probe": "a layer's output, with or without places",
    "gancli.observers.log": "a picture, grey or in colour",
    "gancli.observers.spectra": "weights, which are matrices, and biases, which are none",
    "gancli.store.safe": "a tensor of a file, whose shape and strides fit",
}


FIELDS = {f"gancli.data.{name}" for name in ("field", "fields", "pixel_fields", "symbol_fields")}


def asks_dimensions(node: ast.AST) -> bool:
    """Whether a comparison looks at how many dimensions something has."""
    if not isinstance(node, ast.Compare):
        return False
    for side in (node.left, *node.comparators):
        if isinstance(side, ast.Call) and isinstance(side.func, ast.Attribute) and side.func.attr == "dim":
            return True
        if isinstance(side, ast.Attribute) and side.attr == "ndim":
            return True
        length = isinstance(side, ast.Call) and isinstance(side.func, ast.Name) and side.func.id == "len"
        if length and "shape" in ast.dump(side):  # type: ignore[arg-type]
            return True
    return False


def test_only_fields_ask_what_a_column_is_by_its_dimensions() -> None:
    asking = set()
    for name, tree in outside(("nets", "losses", "augment", "pretrained")):
        refusing = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and any(isinstance(part, ast.Raise) for part in node.body)
            for inner in ast.walk(node.test)
        }
        for node in ast.walk(tree):
            if asks_dimensions(node) and id(node) not in refusing and name not in FIELDS:
                asking.add(name)
    assert asking == set(ASKS_DIMENSIONS)
