"""Pages of run and sweep directories that are damaged in any way: a page without the damaged part, or one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from gancli.report import page
from gancli.report.__main__ import main
from gancli.report.page import script_json
from gancli.report.record import read
from tests.conftest import TINY, Gan


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "r")
    Path("r/eval").mkdir(exist_ok=True)
    (Path("r/eval") / "00000006-p.json").write_text(json.dumps({"fid": 4.5, "step": 6, "protocol_id": "p"}))
    return Path("r")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(side: int = 60_000) -> bytes:
    """A picture of 60000 × 60000 pixels in some hundred bytes."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


PICTURES = {"empty": b"", "huge": huge_png(), "other": b"GIF89a" + bytes(50), "text": b"no picture"}


@pytest.mark.parametrize("kind", [*PICTURES, "cut", "pipe", "folder", "dangling"])
def test_a_picture_that_cannot_be_shown_is_left_out(run: Path, kind: str) -> None:
    file = run / "samples" / "00000002.png"
    content = file.read_bytes()
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "dangling":
        file.symlink_to("nowhere")
    else:
        file.write_bytes(PICTURES.get(kind, content[: len(content) // 2]))
    (run / "samples" / f"{'9' * 100}.png").write_bytes(content)
    (run / "samples" / "1\u00b2.png").write_bytes(content)
    text = page.write(run).read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert [step for step, _ in data["sheets"]["r"]] == [0, 4, 6]


def test_a_page_never_ends_a_training(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [word for word in TINY if not word.startswith("observers.report")] + ["observers.report.every=1e-9"]

    def broken(*args: object) -> Path:
        raise ZeroDivisionError("no page today")

    with monkeypatch.context() as patch:
        patch.setattr(page, "write", broken)
        answer = gan("train", *keys, "steps=3", "run_dir=r")
    assert answer.code == 0
    assert answer.err.count("no page today") == 1
    assert "note: r/report.html was not written: no page today" in Path("r/log.txt").read_text(encoding="utf-8")
    Path("r/samples/00000000.png").write_bytes(huge_png())
    answer = gan("train", "resume=r", "steps=4")
    assert answer.code == 0
    assert "note: r/report.html" not in answer.err
    assert Path("r/report.html").is_file()


VALUES: list[Any] = [
    "x", "", None, True, -1, 10**400, 1e308, float("nan"), float("inf"), [], [1, "x"], {}, {"a": {"b": [None]}},
    "\ud800", "<!--<script>", [[[[1]]]],
]  # fmt: skip


@pytest.mark.parametrize("name", ["run.json", "eval/00000006-p.json", "metrics.jsonl"])
def test_values_of_another_kind_stand_on_no_page(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value of a file as another kind: a page, or one line with the file's name."""
    whole = (run / name).read_text(encoding="utf-8")
    about = json.loads(whole.splitlines()[-1] if name.endswith("l") else whole)
    keys = [*about, "more"]
    if name == "run.json":  # which is checked as a whole: one value at a time
        wrong = [{key: VALUES[(k * 7 + 3) % len(VALUES)]} for k, key in enumerate(keys)]
    else:
        wrong = [{key: VALUES[(k + turn) % len(VALUES)] for k, key in enumerate(keys)} for turn in range(0, 16, 4)]
        wrong.append({"fid": 10**400, "loss_D": 10**400})
    for each in wrong:
        (run / name).write_text(json.dumps(about | each) + "\n", encoding="utf-8")
        code = main(["r"])
        said = capsys.readouterr()
        assert (code, said.err.count("\n")) in ((0, 0), (2, 1)), each
        assert code == 0 or name in said.err, each


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "eval/00000006-p.json", "metrics.jsonl"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"{", b"[]", b"3", b"null", b"[" * 5000, b'{"step": ' + b"9" * 5000 + b"}", None],
    ids=["empty", "bytes", "cut", "list", "number", "null", "deep", "digits", "pipe"],
)
def test_files_of_another_kind_end_no_page(
    run: Path, name: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink()
    if content is None:
        os.mkfifo(run / name)
    else:
        (run / name).write_bytes(content)
    code = main(["r"])
    said = capsys.readouterr()
    needed = name in ("run.json", "config.yaml")
    assert code == 0 or needed
    assert said.err.count("\n") == (1 if code else 0)
    assert not code or Path(name).name in said.err


def test_results_that_lie_deep_or_share_no_protocol(run: Path) -> None:
    deep: Any = 1.0
    for _ in range(400):
        deep = [deep]
    for k, more in enumerate([{"deep": deep}, {"fid": 3.0}, {"protocol_id": ["p"], "fid": float("nan")}]):
        (run / "eval" / f"00000004-{k}.json").write_text(json.dumps({"step": 4} | more), encoding="utf-8")
    page.write(run)
    assert read(run).scores() == {"fid (p)": [(6.0, 4.5)], "fid ()": [(4.0, 3.0)]}


def test_names_do_not_end_a_script_or_a_tag(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["<!--<script>", "]]>&amp;\u2028'\"", "<b>x<"]
    for name in names:
        shutil.copytree(trained, name)
    text = page.compare([Path(name) for name in names], Path("all.html")).read_text(encoding="utf-8")
    inside = re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S)[1]  # type: ignore[index]
    assert not set("<>&\u2028") & set(inside)
    assert list(json.loads(inside)["sheets"]) == names
    shown = json.loads(inside)["figures"]["loss_D"]["data"]
    assert shown[0]["name"] == "&lt;!--&lt;script&gt;"
    outside = text.replace(inside, "")
    assert all(f"<td>{name}" not in outside for name in names)
    assert "<td>&lt;!--&lt;script&gt;</td>" in outside


def test_json_in_a_script() -> None:
    value = {"a": "</script><!--<script>&\u2028\u2029"}
    assert script_json(value).isascii()
    assert not set("<>&") & set(script_json(value))
    assert json.loads(script_json(value)) == value


def test_a_name_that_is_no_utf8(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff")
    shutil.copytree(trained, name)
    assert main([name]) == 0
    assert capsys.readouterr().out.endswith("r\\udcff/report.html\n")
    assert b"<h1>r?</h1>" in (Path(name) / "report.html").read_bytes()


@pytest.mark.parametrize("kind", ["png", "txt"])
def test_a_link_among_the_samples_shows_no_other_file(run: Path, kind: str) -> None:
    """A stranger's run could lead to any file of the machine that looks at it."""
    own = run / "samples" / "00000002.png"
    secret = Path("elsewhere")
    secret.write_bytes(own.read_bytes() if kind == "png" else b"a secret line")
    link = run / "samples" / f"00000009.{kind}"
    link.write_bytes(secret.read_bytes())
    record = read(run)
    assert 9 in record.pictures | record.texts
    link.unlink()
    link.symlink_to(secret.resolve())
    record = read(run)
    assert 9 not in record.pictures | record.texts
