# ruff: noqa: E501
"""Damage of files that hold values by name: JSON, lines of JSON, and YAML."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.checkpoints import places
from tests.fuzz.place import remove

Random = random.Random
Damage = Callable[[Path, Random], str]  # changes the file, says how
NAMES = [
    "<!--<script>",
    "a\nb",
    "caf\udce9",
    "</script>",
    "a b'c\"d",
    "${oc.env:SECRET}",
    "-m",
    "=",
    "{a}",
    "[x]",
    "%s%n",
    "é日本",
]
SAID = "${oc.env:SECRET}"


def _odd(draw: Random) -> Any:
    """A value that is probably not right, as a Python value; `Raw` stands in the file as it is."""
    deep: Any = []
    for _ in range(90):
        deep = [deep]
    return draw.choice(
        [
            Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("9" * 400), Raw("-" + "9" * 400), Raw("1e400"), Raw("9" * 5000),
            Raw("[" * 60_000 + "]" * 60_000), None, True, "", "x", "a\nb", "x" * 100_000, "\ud800", "\0", "<!--<script>", "</script>",
            SAID, "${a}", "???", "../../../outside/victim", "/etc/passwd", "~root", [], {}, [1], [[1, [2]], None], {"a": {"b": [1]}}, deep,
            -1, 0, 0.5, 10**15, 10**30, -(10**18), 1e308, "12:30:45", "2024-01-01", "1e5", "nan", "0x10", {"": 1}, ["a", {}],
        ]
    )  # fmt: skip


class Raw(str):
    """Text that stands in a JSON file without quotes."""


def dumped(value: Any) -> str:
    """JSON, with each `Raw` as it is."""
    marks: dict[str, str] = {}

    def marked(node: Any) -> Any:
        if isinstance(node, Raw):
            mark = f"@raw{len(marks)}@"
            marks[json.dumps(mark)] = str(node)
            return mark
        if isinstance(node, dict):
            return {key: marked(child) for key, child in node.items()}
        return [marked(child) for child in node] if isinstance(node, list) else node

    text = json.dumps(marked(value))
    for mark, raw in marks.items():
        text = text.replace(mark, raw)
    return text


def _changed(value: Any, draw: Random) -> tuple[Any, str]:
    """A document with one value replaced, left out, put in or renamed; and what was done."""
    found = places(value)
    how = draw.random()
    if not found or how < 0.06:
        odd = _odd(draw)
        return odd, f"all of it is {short(odd)}"
    depth = draw.choice(sorted({len(path) for path in found}))
    *above, key = draw.choice([path for path in found if len(path) == depth])
    node = value
    for part in above:
        node = node[part]
    where = ".".join(map(str, [*above, key]))
    if how < 0.2:
        del node[key]
        return value, f"{where} is missing"
    if how < 0.28 and isinstance(node, dict):
        name = draw.choice(NAMES)
        node[name] = node.pop(key)
        return value, f"{where} is called {name!r}"
    node[key] = _odd(draw)
    return value, f"{where} is {short(node[key])}"


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:40]}... ({len(text)} characters)"


def _json(path: Path, draw: Random) -> str:
    value, said = _changed(json.loads(path.read_text(encoding="utf-8")), draw)
    path.write_text(dumped(value), encoding="utf-8")
    return said


def _json_twice(path: Path, draw: Random) -> str:
    text = path.read_text(encoding="utf-8")
    path.write_text(text + text, encoding="utf-8")
    return ""


def _rows(path: Path, draw: Random) -> str:
    rows = path.read_text(encoding="utf-8").splitlines()
    at = draw.randrange(len(rows))
    value, said = _changed(json.loads(rows[at]), draw)
    rows[at] = dumped(value)
    path.write_text("\n".join(rows) + draw.choice(["\n", ""]), encoding="utf-8")
    return f"row {at}: {said}"


def _row(path: Path, draw: Random) -> str:
    rows = path.read_bytes().splitlines()
    row = draw.choice(
        [
            b"null", b"[]", b"3", b'"x"', b"{}", b'{"step": null}', b'{"step": "3"}', b'{"step": [1]}', b'{"step": 1e400}', b'{"step": NaN}',
            b'{"step": ' + b"9" * 400 + b"}", b'{"step": 3, "loss_G": "<!--<script>"}', b'{"step": 3, "loss_G": ' + b"9" * 400 + b"}",
            b"\xff\xfe", b"[" * 100_000, b"x" * (1 << 21), b'{"step": 1.5}', b'{"step": -4}', b'{"step": true}', b'{"step": 2, "alarm": [1]}',
            b'{"step": 4, "<!--<script>": 1}', b'{"step": 4, "loss_G": [NaN]}', b'{"step": 4, "images_per_second": -Infinity}',
        ]
    )  # fmt: skip
    rows.insert(draw.randrange(len(rows) + 1), row)
    path.write_bytes(b"\n".join(rows) + b"\n")
    return repr(row[:40])[1:]


def _yaml(path: Path, draw: Random) -> str:
    value, said = _changed(yaml.safe_load(path.read_text(encoding="utf-8")), draw)
    if isinstance(value, dict) and draw.random() < 0.5:
        text = "".join(f"{json.dumps(k)}: {dumped(v)}\n" for k, v in value.items())
    else:
        text = dumped(value)
    path.write_text(text.replace("NaN", ".nan").replace("Infinity", ".inf"), encoding="utf-8")
    return said


def _yaml_text(path: Path, draw: Random) -> str:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    value = draw.choice(
        [
            "12:30:45", "1:1:1:1:1:1:1", "9" * 5000 + ":1", "&a [*a]", "!!python/object/apply:os.system ['true']", "!!binary x", "2024-13-45",
            "2024-01-01", "0o17", "0b1", "1_000", ".inf", "-.inf", ".NaN", "~", "<<: 3", "[", "{", "'", "|", "> x", "\t", "\0", "\x85", "? x",
            SAID, "${seed}", "${..seed}", "${nope}", "???", "1e400", "9" * 400, "*nowhere", "!<x> y", "&x 1", "- a", "%TAG", "---", "...",
        ]
    )  # fmt: skip
    at = draw.randrange(len(lines))
    lines[at] = f"{lines[at].partition(':')[0]}: {value}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"line {at}: {short(lines[at])}"


def _yaml_bomb(path: Path, draw: Random) -> str:
    rows = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    rows += [f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text + draw.choice(["\n".join(rows), "\n".join(["x: " + "[" * 3000, text]), text, "b: " + "{a: " * 5000]),
        encoding="utf-8",
    )
    return ""


def _hostile_run(path: Path, draw: Random) -> str:
    """What a stranger would have this machine do when the run goes on."""
    about = json.loads(path.read_text(encoding="utf-8"))
    own = path.parent / "evil"
    (own / "experiment").mkdir(parents=True, exist_ok=True)
    (own / "experiment" / "evil.yaml").write_text(f"# @package _global_\nnote: {SAID}\n", encoding="utf-8")
    more = draw.choice(
        [
            [f"--config-dir={own}", "experiment=evil"], [f"note={SAID}"], [f"note='{SAID}'"], ["++hydra.job.env_set.X=1"], ["resume=last"],
            ["run_dir=../outside/project"], [f"+note={SAID}"], ["logger=wandb"], ["dataset=folder", "dataset.root=../outside/photos"],
            ["dataset=webdataset", "dataset.root='pipe:touch ../outside/pwned'"], ["observers.scores.weights=a_pipe"], ["~loss"], ["--cfg", "job"],
            ["-m"], ["seed=1,2"], ["\0"], ["=", "x"], ["--config-dir="], ["--config-dir=nowhere"], ["init=../outside"], ["9" * 400], ["note=\ud800"],
            ["max_time=nan"], ["batch_size=1e9"], ["note=<!--<script>"], ["device.timeout=inf"], ["+x.y=1"], ["model=" + "x" * 5000],
        ]
    )  # fmt: skip
    about["overrides"] = [*about.get("overrides", []), *more]
    path.write_text(json.dumps(about), encoding="utf-8")
    return f"overrides end with {short(more)}"


def _hostile_sweep(path: Path, draw: Random) -> str:
    """What a stranger would have this machine do when the sweep goes on; its jobs wait again."""
    about = json.loads(path.read_text(encoding="utf-8"))
    job = draw.choice(about["jobs"])
    said = draw.choice(["shell", "secret", "climbs", "places", "keys", "run", "twice", "number", "optuna"])
    if said == "shell":
        about["keys"] = ["launcher=slurm", "launcher.cluster=local", 'launcher.setup=["touch ../outside/pwned"]']
    elif said == "secret":
        job["overrides"].append(f"note={SAID}")
    elif said == "climbs":
        job["run"] = draw.choice(["../../outside/project", "/tmp", "..", "a/b", "", "x\0"])
    elif said == "places":
        about["places"] = [draw.choice(["/nowhere", "../outside", 3, "a_pipe"])]
    elif said == "keys":
        about["keys"] = [
            draw.choice(
                [
                    "rank=nope",
                    "better=x",
                    "search=optuna",
                    "sweep_dir=foreign",
                    "resume_sweep=last",
                    "x=1",
                    f"rank={SAID}",
                    "~launcher",
                ]
            )
        ]
    elif said == "run":
        job["overrides"].append(
            draw.choice(
                [
                    "run_dir=../outside/project",
                    "steps=nan",
                    "batch_size=1000000000",
                    "nope=1",
                    "seed=1,2",
                    "resume=last",
                    "-m",
                    "\0",
                ]
            )
        )
    elif said == "twice":
        about["jobs"][1]["run"] = about["jobs"][0]["run"]
    elif said == "number":
        about["jobs"] = [job] * 3
    else:
        about["keys"], about["overrides"] = (
            ["search=optuna", "search.trials=3"],
            [*about["overrides"], "optimizer.G.lr=interval(1e-4,1e-3)"],
        )
    if draw.random() < 0.8:
        for each in about["jobs"]:
            each["status"], each["run"] = "waiting", each["run"] + ("x" if draw.random() < 0.5 else "")
        remove(path.parent / ".jobs")
    path.write_text(json.dumps(about), encoding="utf-8")
    return f"{said}: {short(about['keys'])}"


JSON: dict[str, Damage] = {"one value": _json, "another value": _json, "some value": _json, "twice": _json_twice}
ROWS: dict[str, Damage] = {"one value": _rows, "another value": _rows, "a row": _row, "some row": _row}
YAML: dict[str, Damage] = {
    "one value": _yaml,
    "another value": _yaml,
    "a line": _yaml_text,
    "some line": _yaml_text,
    "more": _yaml_bomb,
}
KNOWN: dict[str, dict[str, Damage]] = {
    "run.json": {"a stranger's": _hostile_run, "a stranger's too": _hostile_run},
    "sweep.json": {
        "a stranger's": _hostile_sweep,
        "a stranger's too": _hostile_sweep,
        "also a stranger's": _hostile_sweep,
    },
}
