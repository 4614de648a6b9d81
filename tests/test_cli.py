"""Help, version and completion: for people, complete, and fast."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from gancli.config.build import shown
from gancli.config.compose import compose, groups
from gancli.config.help import EXAMPLES, VERBS, complete, keys
from tests.conftest import Gan


def test_general_help_names_every_verb(gan: Gan) -> None:
    for words in ([], ["--help"], ["-h"]):
        answer = gan(*words)
        assert answer.code == 0
        assert all(f"gan {verb}" in answer.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_verb_help_has_keys_choices_and_examples(gan: Gan, verb: str) -> None:
    answer = gan(verb, "--help")
    assert answer.code == 0
    config = compose(verb, [])
    for key, _, words in keys(verb):
        value: Any = config
        for part in key.split("."):
            value = value[part]
        assert f"{key}={shown(value)}" in answer.out
        assert words in answer.out
    for group, choices in groups(verb).items():
        assert f"\n  {group} " in answer.out
        assert all(choice in answer.out for choice in choices)
    assert len(EXAMPLES[verb]) >= 3
    assert all(command in answer.out for command, _ in EXAMPLES[verb])
    assert max(map(len, answer.out.splitlines())) <= 140


def test_help_explains_what_is_inside_groups(gan: Gan) -> None:
    train = gan("train", "--help").out
    for text in (
        "model.ch=64 ",
        "model.D.norm=auto ",
        "observers.grid.every=500 ",
        "game.d_steps=1 ",
        "dataset.flip=",
    ):
        assert text in train
    assert "metrics.kid.subset_size=1000 " in gan("eval", "--help").out


def test_version(gan: Gan) -> None:
    import gancli

    assert gan("--version").out == f"gan {gancli.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    """Help on a verb composes, for the defaults that would run; neither needs torch."""
    for words, heavy in ((["--help"], "[]"), (["train", "--help"], "['hydra']")):
        code = (
            f"import sys; from gancli.cli import main; main({words});"
            "print([m for m in ('torch', 'hydra') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == heavy


def test_completion() -> None:
    assert complete("gan ") == [*VERBS, "--guide", "--systems", "--help", "--version"]
    assert complete("gan tr") == ["train"]
    assert complete("gan train mod") == ["model="]
    assert complete("gan train model=dc") == ["model=dcgan"]
    assert "steps=" in complete("gan train ")
    assert "steps=" in complete("gan train model=dcgan st")
    assert "dataset.size=" in complete("gan train dataset.s")
    assert complete("gan train optimizer.G.l") == ["optimizer.G.lr="]
    assert complete("gan train observers.grid.e") == ["observers.grid.every="]
    assert complete("gan train model=sngan model.e") == [f"model.ema.{k}=" for k in ("decay", "start", "warmup")]
    assert complete("gan train penalty=r1 penalty.") == ["penalty.r1.every=", "penalty.r1.weight="]
    assert complete("gan eval metrics=[fid,k") == ["metrics=[fid,kid"]
    assert "dataset.root=" in complete("gan train dataset=folder dataset.")
    assert "dataset.root=" not in complete("gan train dataset.")
    assert complete("gan sample form") == ["format="]
    assert complete("gan dance x") == []


def test_completion_scripts(gan: Gan) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "gan --complete" in gan("--completion", shell).out
    assert gan("--complete", "gan eva").out == "eval\n"
    assert gan("--completion", "tcsh").code == 2
    script = gan("--completion", "bash").out
    check = script + '\ngan() { echo "$2"; }\nCOMP_LINE="gan train lo"; COMP_POINT=12; _gan; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "gan train lo\n"
