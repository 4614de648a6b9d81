"""Files lie where their path says: no link is followed, no pipe waited for, and a directory of others is not taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gancli.errors import RunError
from gancli.store import files, rundir
from gancli.store.rundir import RunDir
from tests.conftest import TINY, Gan

Write = Callable[[Path], None]
WRITERS: dict[str, Write] = {
    "text": lambda path: files.write_text(path, "new"),
    "json": lambda path: files.write_json(path, {"new": 1}),
    "line": lambda path: files.add_line(path, "new"),
}


@pytest.fixture(params=[True, False], ids=["handles", "names"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that lets folders be opened, and one that does not."""
    monkeypatch.setattr(files, "_HANDLES", files._HANDLES and request.param)


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_is_a_link_is_not_written_into(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "run").symlink_to(outside)
    with pytest.raises(RunError, match=r"run is a link, and nothing is written or deleted through links"):
        WRITERS[kind](tmp_path / "run" / "file")
    assert list(outside.iterdir()) == []


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_a_link_is_not_written_to(tmp_path: Path, kind: str) -> None:
    """What is written whole takes the link's place; a line cannot, and is refused."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    link = tmp_path / "file"
    link.symlink_to(victim)
    if kind == "line":
        with pytest.raises(RunError, match=r"cannot write .*file: it is a link"):
            WRITERS[kind](link)
    else:
        WRITERS[kind](link)
        assert "new" in link.read_text(encoding="utf-8")
        assert not link.is_symlink()
    assert victim.read_text(encoding="utf-8") == "mine"


@pytest.mark.usefixtures("system")
def test_a_line_is_not_added_to_a_file_that_is_elsewhere_too(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("a\n")
    os.link(tmp_path / "backup", tmp_path / "log")
    for word in ("b", "c"):
        files.add_line(tmp_path / "log", word)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "a\nb\nc\n"
    assert (tmp_path / "backup").read_text(encoding="utf-8") == "a\n"


@pytest.mark.usefixtures("system")
def test_deleting_and_renaming_take_the_link_and_no_more(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (tmp_path / "link").symlink_to(outside / "file")
    (tmp_path / "run").symlink_to(outside)
    files.rename(tmp_path / "link", "other")
    assert (tmp_path / "other").is_symlink()
    files.remove(tmp_path / "other")
    files.remove(tmp_path / "other")  # twice is fine
    for act in (files.remove, lambda path: files.rename(path, "new")):
        with pytest.raises(RunError, match="link"):
            act(tmp_path / "run" / "file")
    assert [p.name for p in outside.iterdir()] == ["file"]


@pytest.mark.usefixtures("system")
def test_a_pipe_is_neither_read_nor_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="cannot write"):
        files.add_line(tmp_path / "pipe", "x")
    with pytest.raises(RunError, match=r"cannot read .*pipe: it is not a regular file"):
        files.read_json(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    assert [p.name for p in files.files(tmp_path, "*")] == ["file"]


def test_a_name_of_other_bytes_than_utf8_comes_back_the_same(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    files.write_json(tmp_path / "a.json", {"note": name, "é": "ψ"})
    assert files.read_json(tmp_path / "a.json") == {"note": name, "é": "ψ"}
    files.add_line(tmp_path / "log", name)
    assert (tmp_path / "log").read_bytes() == b"caf\\udce9\n"


@pytest.mark.parametrize("there", ["notes.txt", "config.yaml", "samples/1.png", ".hidden", "pipe", "link"])
def test_a_folder_with_other_things_in_it_is_not_taken(gan: Gan, tmp_path: Path, there: str) -> None:
    path = tmp_path / "mine" / there
    path.parent.mkdir(parents=True)
    if there == "pipe":
        os.mkfifo(path)
    elif there == "link":
        path.symlink_to("nowhere")
    else:
        path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for words in (["train", *TINY, "steps=1"], ["train", *TINY, "steps=1", f"note={there}"]):
        answer = gan(*words, "run_dir=mine")
        assert answer.code == 2
        assert answer.err.startswith("gan: run_dir=mine is a folder with other files in it (")
        assert answer.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("chosen", ["/", "~", ".", "mine/..", "file", "file/below", "dangling"])
def test_places_that_are_no_place_for_a_run(gan: Gan, tmp_path: Path, chosen: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        answer = gan("train", *TINY, "steps=1", f"run_dir={chosen}")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"run_dir={chosen}" in answer.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken_also_by_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert rundir.claim(tmp_path / "empty") == tmp_path / "empty"
    assert rundir.claim(tmp_path / "link") == (tmp_path / "empty").resolve()
    assert rundir.claim(tmp_path / "new" / "deeper", "sweep_dir").is_dir()
    with pytest.raises(RunError, match=r"^sweep_dir=.* is a folder with other files in it \(deeper\)"):
        rundir.claim(tmp_path / "new", "sweep_dir")


LINKS = [
    ".lock",
    "log.txt",
    "metrics.jsonl",
    "config.yaml",
    "run.json",
    "samples",
    "eval",
    "checkpoints",
    "tensorboard",
]


@pytest.mark.parametrize("name", LINKS)
def test_links_in_a_run_lead_nowhere_when_it_goes_on(gan: Gan, tmp_path: Path, trained: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run = _copy(trained, tmp_path / "run")
    if (run / name).is_dir() or (run / name).exists():
        (run / name).rename(outside / name)
    else:
        (outside / name).write_text("mine")
    (outside / "photos").mkdir()
    (run / name).symlink_to(outside / name)
    before = {p: p.read_bytes() for p in sorted(outside.rglob("*")) if p.is_file()}
    answer = gan("train", "resume=run", "steps=8")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"run/{name} is a link, and nothing is written or deleted through links" in answer.err
    assert {p: p.read_bytes() for p in sorted(outside.rglob("*")) if p.is_file()} == before


def test_links_of_pictures_and_checkpoints_are_deleted_and_not_what_they_lead_to(
    gan: Gan, tmp_path: Path, trained: Path
) -> None:
    run = _copy(trained, tmp_path / "run")
    (tmp_path / "mine.png").write_text("mine")
    for name in ("samples/00000099.png", "checkpoints/00000099.json", "checkpoints/00000098.pt.aside"):
        (run / name).symlink_to(tmp_path / "mine.png")
    assert gan("train", "resume=run", "steps=8").code == 0
    assert (tmp_path / "mine.png").read_text(encoding="utf-8") == "mine"
    assert not (run / "samples" / "00000099.png").exists()


def test_a_run_that_was_killed_while_it_began_may_be_begun_again(gan: Gan, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    rundir.claim(run.path)
    run.lock()
    run.write_config({"seed": 1})
    files.write_text(run.checkpoints / ".00000000.pt.0123.half", "half a checkpoint")
    assert run._lock is not None
    run._lock.close()  # as the system does of a process that is gone
    answer = gan("train", "resume=run")
    assert (answer.code, "repeat its command" in answer.err) == (2, True)
    assert gan("sample", "run=run").code == 2
    assert gan("train", *TINY, "steps=2", "run_dir=run").code == 0
    assert RunDir(tmp_path / "run").about()["status"] == "finished"
    assert not list((tmp_path / "run").rglob(".*"))


def test_what_cannot_begin_leaves_nothing(gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gancli.store.checkpoint.torch.save", full)
    (tmp_path / "empty").mkdir()
    for place in ("new", "empty"):
        answer = gan("train", *TINY, "steps=2", f"run_dir={place}")
        assert answer.code == 2
        target = f"{place}/checkpoints/00000000.pt"
        assert answer.err.splitlines()[-1].startswith(f"gan: step 0: cannot write {target}: No space")
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    assert not any((tmp_path / "empty").iterdir())


def _copy(run: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(run, target)
    return target


def test_a_line_that_is_too_long_is_passed_over_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b" " * files.LONGEST_LINE + b'{"b": 2}\n{"c": 3}\n')
    assert list(files.json_lines(path)) == [{"a": 1}, {"c": 3}]
