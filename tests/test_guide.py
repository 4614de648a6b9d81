"""The guide's pages and the catalogue of systems: shown, complete, and true."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gancli.cli import check
from gancli.config.build import make_as
from gancli.config.compose import compose, groups
from gancli.config.files import overridden
from gancli.config.help import complete
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.guide import pages, systems
from gancli.train import assemble, streams
from tests.conftest import Gan
from tests.tiny import facts_of

README = Path(__file__).resolve().parent.parent / "README.md"
NO_SYSTEM = {"none", "demo"}  # experiments that are no run of a system

ALL = [system for family in systems.families() for system in family.systems]
COUNTS = [pytest.param(system, count, id=count.told) for system in ALL for count in system.counts]


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_terminal(show: Callable[[Sequence[str]], None], *words: str) -> str:
    """What is printed to a terminal of 100 columns."""
    out = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("COLUMNS", "100"), ("LINES", "40"), ("TERM", "xterm")):
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", out)
        show(words)
    return out.getvalue()


def plain(text: str) -> str:
    """Text without colours and links."""
    return re.sub(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\", "", text)


# -- pages -------------------------------------------------------------------------------------------------------------


def test_the_pages_are_listed_with_title_and_first_sentence(gan: Gan) -> None:
    answer = gan("--guide")
    assert answer.code == 0
    assert set(pages.pages()) >= {"systems", "translate"}
    for topic, page in pages.pages().items():
        text = page.file.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.title}\n"), topic
        assert page.summary, topic
        assert f"{topic} " in answer.out
        assert f" {page.title}: {page.summary}\n" in answer.out


def test_title_and_summary_are_read_from_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "```\n# no title\n```\n\n# Photos\n\n![A sheet](x.png)\n\n| a |\n|---|\n\nTrain `dcgan` on [yours](x.md), as\n"
    )
    (tmp_path / "photos.md").write_text(f"{text}Brock et al. do. Then sample.\n", encoding="utf-8")
    (tmp_path / "bare.md").write_text("no heading", encoding="utf-8")
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    found = pages.pages()
    assert list(found) == ["bare", "photos"]
    assert found["photos"][1:3] == ("Photos", "Train dcgan on yours, as Brock et al. do")
    assert found["bare"][1:3] == ("bare", "no heading")


def test_a_page_goes_into_a_pipe_as_it_is(gan: Gan) -> None:
    text = (pages.FOLDER / "translate.md").read_text(encoding="utf-8")
    for words in (["--guide", "translate"], ["--guide=translate"], ["--guide", "Translate.md"]):
        answer = gan(*words)
        assert (answer.code, answer.out) == (0, text)


def test_a_page_is_rendered_on_a_terminal() -> None:
    shown = on_terminal(pages.show, "translate")
    assert "\x1b[" in shown
    shown = plain(shown)
    assert "Translate images" in shown
    assert "# Translate" not in shown
    code = "".join(re.findall(r"```.*?```", (pages.FOLDER / "translate.md").read_text(encoding="utf-8"), re.DOTALL))
    wide = [line for line in map(str.rstrip, shown.splitlines()) if len(line) > 100]
    assert wide  # a command is one line, so that it can be copied
    assert [line for line in wide if line not in code] == []


def test_long_words_of_tables_are_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = "penalty=" + "x" * 100
    (tmp_path / "wide.md").write_text(
        f"# Wide\n\n| key | meaning |\n|---|---|\n| `{word}` | long |\n", encoding="utf-8"
    )
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    assert plain(on_terminal(pages.show, "wide")).count("x") == 100


def test_the_list_fits_a_terminal() -> None:
    lines = plain(on_terminal(pages.show)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(re.match(r"  systems +Systems: .* \.\.\.$", line) for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guide", "trnslate"], "gan: --guide trnslate is not a page; did you mean translate? (choices: "),
        (["--guide", "../nets"], "gan: --guide ../nets is not a page; "),
        (["--guide", "translate", "x"], "gan: --guide translate x is not a page; "),
        (["--systems", "bigan"], "gan: --systems bigan is not a system here; did you mean biggan?"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(gan: Gan, words: list[str], message: str) -> None:
    answer = gan(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(message)
    assert answer.err.count("\n") == 1


def test_help_and_completion_know_both() -> None:
    assert complete("gan --g") == ["--guide"]
    assert complete("gan --guide tra") == ["train", "translate"]
    assert complete("gan --guide translate ") == []
    assert complete("gan --guide ") == list(pages.pages())
    assert complete("gan --systems bigg") == ["biggan", "biggan-deep"]
    assert complete("gan --systems ") == [system.key for system in ALL]


def test_neither_needs_torch_or_hydra(gan: Gan) -> None:
    assert "gan --guide" in gan("--help").out
    assert "gan --systems" in gan("--help").out
    code = (
        "import sys; from gancli.cli import main; main(['--guide']); main(['--guide', 'systems']); main(['--systems']);"
        "print([m for m in ('torch', 'hydra', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -- systems -----------------------------------------------------------------------------------------------------------


def test_the_catalogue_is_printed_whole(gan: Gan) -> None:
    answer = gan("--systems")
    assert answer.code == 0
    assert "\x1b" not in answer.out
    for system in ALL:
        assert f"\n{systems.whole(system)}\n" in f"{answer.out}\n", system.name


def test_one_system_is_printed_whole(gan: Gan) -> None:
    answer = gan("--systems", "WGAN-GP")
    assert answer.code == 0
    for text in (
        "WGAN-GP\n",
        "Gulrajani et al. 2017, arXiv 1704.00028\n",
        "gan train model=dcgan loss=wasserstein penalty=wgan_gp optimizer=wgan_gp game.d_steps=5\n",
        "gan train experiment=wgan_gp_ring\n",
        "3,576,704 / 2,765,568 parameters\n",
    ):
        assert text in answer.out
    assert gan("--systems", "cgan", "(input)").out == gan("--systems", "cgan-input").out
    assert gan("--systems", "--help").out == gan("--systems=").out == gan("--systems").out


def test_the_tables_fit_a_terminal() -> None:
    shown = plain(on_terminal(systems.show))
    assert max(map(len, shown.splitlines())) <= 100
    assert all(f" {system.name.split()[0]} " in shown for system in ALL)
    assert "gan train model=dcgan loss=lsgan " in shown


def test_page_and_source_agree() -> None:
    """`python -m gancli.guide.systems` writes the page anew."""
    assert systems.PAGE.read_text(encoding="utf-8") == systems.page()


def test_the_module_writes_page_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systems, "PAGE", tmp_path / "systems.md")
    assert systems.main([]) == 0
    assert systems.PAGE.read_text(encoding="utf-8") == systems.page()
    assert systems.main(["--readme"]) == 0
    assert capsys.readouterr().out == f"{systems.readme_table()}\n"
    assert systems.main(["readme"]) == 2


def test_the_readme_table_has_a_line_a_system() -> None:
    lines = systems.readme_table().splitlines()
    proper = [system for system in ALL if system.counts]
    assert [line.split(" | ")[0] for line in lines[2 : 2 + len(proper)]] == [f"| {system.name}" for system in proper]
    assert len(lines) == 2 + len(proper) + 2
    assert all(system.name in lines[-1] for system in ALL if not system.counts)


def test_names_are_told_apart() -> None:
    names = [systems.find(system.key).name for system in ALL]
    assert names == [system.name for system in ALL]
    assert len({system.key for system in ALL}) == len(ALL)


def test_every_model_and_experiment_has_its_system() -> None:
    commands = [command for system in ALL for command in (system.command, *(c.told for c in system.counts))]
    models = {word.partition("=")[2] for c in commands for word in shlex.split(c) if word.startswith("model=")}
    assert models == set(groups("train")["model"])
    listed = [name for system in ALL for names in system.experiments.values() for name in names]
    assert sorted(listed) == sorted(set(groups("train")["experiment"]) - NO_SYSTEM)


def test_every_loss_penalty_and_augmentation_is_in_the_catalogue() -> None:
    text = systems.SOURCE.read_text(encoding="utf-8")
    taken = {"none", "ns", "hinge", "energy"}  # what models choose themselves
    for group in ("loss", "penalty", "augment"):
        names = set(groups("train")[group]) - taken
        assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set(), group


def test_the_page_of_parts_lists_every_choice() -> None:
    page = (Path(pages.__file__).parent / "parts.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    told = {group: text for names, text in rows for group in re.findall(r"`(\w+)`", names)}
    missing = {
        f"{group}={choice}"
        for group, choices in groups("train").items()
        for choice in choices
        if "--guide" not in told.get(group, "--guide") and "--systems" not in told[group]
        if not re.search(rf"\b{choice}\b", told[group])
    }
    assert missing == set()
    assert groups("train").keys() - told.keys() <= {"game"}


@pytest.mark.parametrize("system", ALL, ids=lambda system: system.key)
def test_every_command_composes_and_builds(system: systems.System) -> None:
    program, verb, *words = shlex.split(system.command)
    assert (program, verb) == ("gan", "train")
    config = compose("train", words)
    check("train", config, words)
    if not system.counts:  # the networks of the others are built below
        assemble.game(compose("train", [*words, "model.ch=4"]), facts_of((3, 32, 32), tuple("0123456789")))


@pytest.mark.parametrize("name", sorted(set(groups("train")["experiment"]) - NO_SYSTEM))
def test_every_experiment_composes(name: str) -> None:
    words = [f"experiment={name}"]
    check("train", compose("train", words), words)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "count"), COUNTS)
def test_counts_are_those_of_the_networks(system: systems.System, count: systems.Count) -> None:
    program, verb, *words = shlex.split(count.told)
    assert (program, verb, words[-1]) == ("gan", "train", "steps=0")
    config = compose("train", [*words, *(["dataset.n=2"] if count.size else [])])
    source = streams.data(make_as(TrainSettings, config, ""))
    frozen = assemble.frozen(config)
    with assemble.shapes_only():
        game = assemble.game(config, DataFacts.of(source), pretrained=frozen)
    counted = {player: sum(p.numel() for p in params) for player, params in game.parameters_by_player().items()}
    assert counted == {"G": count.G, "D": count.D}


def test_experiments_are_runs_of_their_system() -> None:
    """The paper's run and the small one choose a model that the system's commands choose, too."""
    for system in ALL:
        chosen = set()
        for command in (system.command, *(count.told for count in system.counts)):
            choices = dict(word.split("=", 1) for word in shlex.split(command)[2:])
            chosen.add(choices.get("model") or overridden("experiment", choices["experiment"])["model"])
        for name in (name for names in system.experiments.values() for name in names):
            assert overridden("experiment", name)["model"] in chosen, name


def test_readme_and_source_agree() -> None:
    """`python -m gancli.guide.systems --readme` prints the table anew."""
    block = re.search(r"<!-- systems -->\n(.*?)\n<!-- /systems -->", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert block[1].strip() == systems.readme_table()


def test_the_pages_that_figures_refer_to_exist() -> None:
    assert {system.page for system in ALL if system.page} <= set(pages.topics())
