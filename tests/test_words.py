"""What a word of the command line may hold: texts as they are, numbers that mean something, and nothing empty."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gancli.cli import main
from gancli.config import unused
from gancli.config.build import convert, find, hints_of, make_as
from gancli.config.commands import command, word
from gancli.config.compose import compose, composed
from gancli.config.files import conf_dir, default_choices, file_of, groups, leaves, read
from gancli.config.grammar import parses
from gancli.config.settings import EvalSettings, InterpolateSettings, SampleSettings, TrainSettings
from gancli.config.texts import _forms, forms, quote
from gancli.errors import ConfigError, GanError, nearest
from gancli.sweeps.sweep import SweepSettings
from gancli.train.automatic import filled
from gancli.train.checks import check_sections
from tests.conftest import TINY, Gan

VERBS: dict[str, Any] = {
    "train": TrainSettings,
    "sample": SampleSettings,
    "eval": EvalSettings,
    "interpolate": InterpolateSettings,
    "sweep": SweepSettings,
}


def nodes(content: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every section of a group's file that names what it builds, by its dotted path."""
    if "_target_" in content:
        yield path, content
    for name, inner in content.items():
        if isinstance(inner, dict):
            yield from nodes(inner, f"{path}.{name}" if path else name)


def parameters() -> Iterator[tuple[str, Any]]:
    """(dotted key, type) of all that conf/ can set: keys at the top, and parameters of what its files name."""
    for kind in VERBS.values():
        yield from hints_of(kind).items()
    for file in sorted(conf_dir().glob("*/*.yaml")):
        package, content, _ = read(file)
        for path, node in nodes(content, ".".join(package)):
            for name, hint in hints_of(find(node["_target_"], path)).items():
                yield f"{path}.{name}", hint


PARAMETERS = {(key, str(hint)): (key, hint) for key, hint in parameters()}.values()


def of_numbers(hint: Any) -> bool:
    return hint in (int, float) or any(map(of_numbers, typing.get_args(hint)))


TEXTS = [(key, hint) for key, hint in PARAMETERS if "text" in set(_forms(hint))]
NUMBERS = [(key, hint) for key, hint in PARAMETERS if of_numbers(hint)]


def test_there_are_keys_of_every_kind() -> None:
    assert {"run_dir", "dataset.root", "metrics.ppl.vgg16", "extractor.weights", "resume_sweep"} <= {
        k for k, _ in TEXTS
    }
    known = {
        "optimizer.G.lr",
        "optimizer.G.betas",
        "dataset.means",
        "observers.grid.n",
        "max_time",
        "penalty.r1.weight",
        "loss.noise",
        "launcher.minutes",
    }
    assert known <= {k for k, _ in NUMBERS}
    assert len(NUMBERS) > 150


@pytest.mark.parametrize("empty", ["", "  ", "\t"])
def test_no_text_is_empty(empty: str) -> None:
    for key, hint in TEXTS:
        with pytest.raises(ConfigError, match=f"^{re.escape(key)}= is empty"):
            convert(empty, hint, key)


def test_every_text_is_taken_as_it_is() -> None:
    for key in dict.fromkeys(key for key, _ in TEXTS):
        for text in ("a, b [c]=d", "007x y", "it's", "50%(x)", "{a:b}"):
            quoted = quote([f"{key}={text}"])
            assert parses(quoted[0]), quoted
            assert (quoted == [f"{key}={text}"]) is ((key, text) == ("init", "{a:b}"))  # which may be networks of runs
        assert quote([f"{key}=null", f"{key}=plain/path.npz"]) == [f"{key}=null", f"{key}=plain/path.npz"]


def test_a_number_is_quoted_where_a_text_is_meant_and_nowhere_else() -> None:
    assert quote(["note=007", "checkpoint=3", "steps=3", "dataset.root=12"]) == [
        "note='007'",
        "checkpoint=3",
        "steps=3",
        "dataset.root='12'",
    ]
    assert quote(["loss=ns,hinge", "note=a,b", "note=choice(a,b)"], sweep=True) == [
        "loss=ns,hinge",
        "note=a,b",
        "note=choice(a,b)",
    ]
    assert forms("nothing.of.this") == frozenset()


@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan"), 1e300, 10**400, -(10**400), -3, -0.5])
def test_no_number_is_absurd(odd: float) -> None:
    """Infinite, NaN and beyond what a tensor holds; below 0 but where the type says that it may be."""
    for key, hint in NUMBERS:
        if abs(odd) < 10 and _signed(hint):
            continue
        with pytest.raises(ConfigError, match=f"^{re.escape(key)}="):
            convert(odd if "list" not in set(_forms(hint)) else [odd], hint, key)


def _signed(hint: Any) -> bool:
    return "signed" in str(hint)


def test_what_may_be_negative_says_so() -> None:
    signed = [key for key, hint in NUMBERS if _signed(hint)]
    assert set(signed) == {"dataset.means", "translate", "rotate"}
    config = compose("train", ["dataset=gauss1d", "dataset.means=[-3,2.5]"])
    assert config["dataset"]["means"] == [-3, 2.5]


def test_a_yaml_file_of_ones_own_is_held_to_the_same(gan: Gan) -> None:
    Path("mine/dataset").mkdir(parents=True)
    for text, said in (("n: 1:30", "n=90"), ("n: .inf", "n=inf"), ("n: -1", "n=-1"), ("n: .nan", "n=nan")):
        Path("mine/dataset/odd.yaml").write_text(f"_target_: gancli.data.noise.noise\n{text}\n", encoding="utf-8")
        answer = gan("train", "dataset=odd", "--config-dir", "mine", "steps=x")
        assert (answer.code, answer.err.count("\n")) == (2, 1), said


@pytest.mark.parametrize("text", ["loss: [1", "a: b: c", "\tx: 1"])
def test_a_file_that_is_no_yaml_is_named(gan: Gan, text: str) -> None:
    Path("mine/loss").mkdir(parents=True)
    Path("mine/loss/odd.yaml").write_text(text, encoding="utf-8")
    answer = gan("train", "loss=odd", "--config-dir", "mine")
    assert answer.code == 2
    assert "mine/loss/odd.yaml is not valid YAML in line" in answer.err


@pytest.mark.parametrize("name", ["it's my run", "[a=$HOME],b"])
def test_a_printed_command_can_be_pasted(gan: Gan, name: str) -> None:
    answer = gan("train", *TINY, "observers=none", "steps=0", f"run_dir={name}")
    assert answer.code == 0
    line = next(line for line in answer.err.splitlines() if "gan train resume=" in line)
    typed = shlex.split(line[line.index("gan train resume=") :])
    assert (typed[3], typed[-3:-1]) == ("steps=N,", ["gan", "sample"])
    told = gan(*typed[1:3], "--cfg", "job")
    assert told.code == 0
    assert gan(*typed[-2:], "n=1", "device=cpu").code == 0
    assert compose("train", quote([f"resume={name}"]))["resume"] == name


def test_a_word_is_read_back_as_it_was() -> None:
    for text in ("null", "'a'", '"', "${x}", " a ", "[1]", "$(ls)", "`ls`", "a\\", "!x"):
        shell = subprocess.run(
            ["sh", "-c", f"printf %s {word('note', text)}"], capture_output=True, text=True, check=True
        )
        assert compose("train", quote([shell.stdout]))["note"] == text
    assert command("eval", word("run", "x"), "n=3") == "gan eval run=x n=3"


@pytest.mark.parametrize(
    ("word", "choices", "near"),
    [
        ("srgan", ["gan", "dcgan", "sagan", "ebgan"], None),
        ("sagn", ["gan", "dcgan", "sagan", "ebgan"], "sagan"),
        ("cyclegan", ["gan", "dcgan", "sagan", "ebgan"], None),
        ("pix2pix", ["gan", "dcgan", "sagan", "ebgan"], None),
        ("translate", ["train", "sample", "eval", "interpolate"], None),
        ("input", ["points", "run", "seeds"], None),
        ("interp", ["train", "sample", "eval", "interpolate"], "interpolate"),
        ("rl", ["lr", "betas"], "lr"),
        ("batchsize", ["batch_size", "seed"], "batch_size"),
    ],
)
def test_only_what_is_near_is_suggested(word: str, choices: list[str], near: str | None) -> None:
    assert nearest(word, choices) == near


def test_words_that_are_no_utf8_are_refused(gan: Gan) -> None:
    for typed in ("note=caf\udce9", "run_dir=\udcff", "caf\udce9", "--x\udce9"):
        answer = gan("train", *TINY, "steps=0", typed)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert "is not UTF-8" in answer.err


def test_a_terminal_without_the_characters_shows_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["train", "--help"]) == 0
    out.flush()
    assert b"loss.noise=0.0  ? of Gaussian noise" in out.buffer.getvalue()  # type: ignore[attr-defined]
    assert out.errors == "strict"  # the stream is the caller's again


@pytest.mark.slow
def test_every_verb_works_in_a_locale_of_ascii(tmp_path: Path) -> None:
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "GAN_TRACEBACK": "1"}
    commands = [
        ["train", *TINY, "steps=1", "run_dir=r", "note=µ"],
        ["eval", "run=r", "metrics=[modes]", "--help"],
        ["sample", "run=r", "n=2", "run_dir=s"],
        ["interpolate", "run=r", "rows=1", "run_dir=i"],
        ["train", "resume=r", "steps=2"],
    ]
    for words in commands:
        encoded = [sys.executable, "-m", "gancli", *words]
        done = subprocess.run([w.encode() for w in encoded], cwd=tmp_path, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert '"note": "µ"' in (tmp_path / "r" / "run.json").read_text(encoding="utf-8")


# -- an experiment's keys of a group that was replaced -----------------------------------------------------------------

REPLACED = [g for g in default_choices("train") if g not in ("experiment", "logger")]


def composes_or_says(experiment: str, group: str, choice: str) -> None:
    typed, said = [f"experiment={experiment}", f"{group}={choice}"], ""
    try:
        check_sections(make_as(TrainSettings, filled(compose("train", typed)), ""))
    except GanError as error:
        said = str(error)
    assert not said or group in said or choice in said, (typed, said)


@pytest.mark.parametrize("group", REPLACED)
def test_an_experiment_goes_with_another_choice_of_any_group(group: str) -> None:
    for experiment in ("r3gan_cifar10", "collapse"):
        composes_or_says(experiment, group, groups("train")[group][-1])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", groups("train")["experiment"])
def test_every_experiment_goes_with_every_other_part(experiment: str) -> None:
    for group in REPLACED:
        for choice in groups("train")[group]:
            composes_or_says(experiment, group, choice)


def test_values_go_with_the_group_they_were_set_for() -> None:
    made = composed("train", ["experiment=r3gan_cifar10", "augment=none"])
    assert made.config["augment"] == {}
    assert made.config["ramp"]["augment"] is None
    assert made.config["model"]["conditioning"] == "projection"
    assert any("augment.target" in note and "augment=none" in note for note in made.notes)
    made = composed("train", ["experiment=r3gan_cifar10"])
    assert (made.config["ramp"]["augment"], made.notes) == (0.55, [])
    made = composed("train", ["experiment=r3gan_cifar10", "augment=none", "ramp.augment=0.3"])
    assert made.config["ramp"]["augment"] == 0.3  # typed: to be answered
    made = composed("train", ["experiment=sagan_small", "optimizer=sgd"])
    assert made.config["optimizer"]["G"]["lr"] == leaves("experiment", "sagan_small")["optimizer.G.lr"]
    assert made.notes == ["experiment=sagan_small sets optimizer.G.lr: also applied to optimizer=sgd"]


def test_a_resumed_run_with_other_data_is_told_of_the_data(gan: Gan, tmp_path: Path) -> None:
    assert gan("train", *TINY, "observers=none", "dataset.classes=2", "steps=0", "run_dir=r").code == 0
    answer = gan("train", "resume=r", "dataset=fashion", "steps=2")
    assert answer.code == 2
    assert "dataset._target_: gancli.data.noise.noise -> gancli.data.embedded.fashion" in answer.err
    assert "unknown key" not in answer.err


# -- keys without effect -----------------------------------------------------------------------------------------------


def told(*typed: str) -> list[str]:
    keys = ["model=mlp", "dataset=ring", *typed]
    settings = make_as(TrainSettings, compose("train", keys), "")
    assert settings.steps is not None
    assert settings.batch_size is not None
    images = settings.steps * settings.game["d_steps"] * settings.batch_size
    return unused.notes(settings, unused.typed_keys(keys), settings.steps, images, points=True)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["steps=3", "optimizer.schedule.kind=linear", "optimizer.schedule.start=3"], "before the decay begins"),
        (["optimizer.schedule.start=3"], "with optimizer.schedule.kind=constant"),
        (["optimizer.schedule.end=3"], "optimizer.schedule.end=3 has no effect"),
        (["steps=3", "+optimizer.D.schedule={kind:linear,start:9}"], "optimizer.D.schedule.start=9: the run ends at"),
        (
            ["steps=3", "batch_size=4", "optimizer.schedule={kind:linear,start:12,unit:images}"],
            "the run ends after 12 images, before the decay begins",
        ),
        (["steps=3", "model.ema.start=9"], "the run ends at step 3"),
        (["model.ema.decay=0", "model.ema.start=9"], "model.ema.start has no effect with model.ema.decay=0"),
        (["steps=3", "observers.checkpoints.every=4"], "observers.checkpoints.every=4: the run has 3 steps"),
        (["steps=3", "observers.alarms.every=4"], "never runs"),
        (["observers.grid.n=4"], "observers.grid.n has no effect with data of points"),
        (["loss.noise_until=5"], "loss.noise=0"),
        (["steps=3", "loss.noise=0.1", "loss.noise_until=5000"], "ends after 768 images, before the noise is 0"),
        (["steps=3", "penalty=lecam"], "penalty.lecam.after=1000: D has 3 updates"),
        (["steps=3", "ramp=r3gan"], "the run sees 768"),
        (["game.class_weight=2"], "model.conditioning=ac"),
        (["model.D.pieces=3"], "model.D.activation=leaky_relu"),
        (["observers.scores.n=9"], "observers.scores.every=null"),
        (["augment=ada", "augment.target=null"], "nothing is augmented"),
    ],
)
def test_what_has_no_effect_is_said(typed: list[str], said: str) -> None:
    assert any(said in line for line in told(*typed)), told(*typed)


def test_nothing_is_said_of_what_takes_effect() -> None:
    assert told("steps=3") == []
    fits = ["optimizer.schedule.kind=linear", "optimizer.schedule.start=2", "model.ema.start=2", "loss.noise=0.1"]
    assert told("steps=3", *fits, "loss.noise_until=700", "observers.metrics.every=3", "observers.plane.n=9") == []


@pytest.mark.parametrize("group", ["model", "loss", "game", "penalty", "metrics", "optimizer", "experiment", "dataset"])
def test_every_choice_has_a_word_of_itself(group: str) -> None:
    from gancli.config.files import headline

    verb = "eval" if group == "metrics" else "train"
    for choice in groups(verb)[group]:
        file = file_of(group, choice)
        assert file is not None
        assert headline(file), choice
