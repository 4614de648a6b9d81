"""What a newcomer types: other programs' names, words in the wrong order, a folder in place of a data set."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gancli.cli import check
from gancli.config import elsewhere
from gancli.config.compose import compose
from gancli.config.composition import unresolved
from gancli.config.corrections import missing_key
from gancli.config.files import groups
from gancli.config.help import VERBS, verb_help
from tests.conftest import Gan

LISTS = " (gan train --help lists the keys)"
LENGTH = "steps=N (training steps) or images=N (real images) for the length of a run"
CLIPPED = "model=dcgan loss=wasserstein penalty=clip optimizer=rmsprop game.d_steps=5"
MODELS = ", ".join(groups("train")["model"])

ANSWERS = {
    "train --model biggan": "unknown flag --model: keys have no dashes, type model=biggan",
    "train --model=biggan": "unknown flag --model: keys have no dashes, type model=biggan",
    "train --epochs 10": f"unknown flag --epochs: keys have no dashes, type {LENGTH}",
    "train --batch-size 32": "unknown flag --batch-size: keys have no dashes, type batch_size=32",
    "train biggan": "cannot read 'biggan': write key=value, as in model=biggan",
    "train model biggan": "cannot read 'model': write key=value, as in model=biggan",
    "train photos": "cannot read 'photos': write key=value, as in experiment=photos dataset.root=photos",
    "train two": "cannot read 'two': write key=value, as in dataset=unpaired dataset.root=two",
    "train wgan": f"cannot read 'wgan': write key=value, as in {CLIPPED}",
    "train help": "cannot read 'help': write key=value; gan train --help lists the keys",
    "train -m": "-m runs one job for each value of a key, and no key has several:"
    " type gan train -m loss=hinge,ns seed=1,2,3, or leave -m out",
    "sample -m n=4": "-m runs one job for each value of a key, and no key has several:"
    " type gan sample -m seed=1,2,3, or leave -m out",
    "train epochs=10": f"unknown key epochs: type {LENGTH}{LISTS}",
    "train -m epochs=10,20": f"unknown key epochs: type {LENGTH}{LISTS}",
    "train lr=1e-4": f"unknown key lr: type optimizer.G.lr=1e-4 optimizer.D.lr=1e-4{LISTS}",
    "train batch=32": f"unknown key batch: type batch_size=32{LISTS}",
    "train data=photos": f"unknown key data: type dataset=folder dataset.root=photos{LISTS}",
    "train data=cifar10": f"unknown key data: type dataset=cifar10{LISTS}",
    "train data_dir='my photos'": f"unknown key data_dir: type dataset=folder dataset.root='my photos'{LISTS}",
    "train data_dir=two": f"unknown key data_dir: type dataset=unpaired dataset.root=two{LISTS}",
    "train dataset=npz data_dir=x.npz": f"unknown key data_dir: type dataset.root=x.npz{LISTS}",
    "train gpu=0": "unknown key gpu: type device=cuda, and CUDA_VISIBLE_DEVICES=NUMBER in front of gan to choose the"
    f" GPU{LISTS}",
    "train outdir='my x'": f"unknown key outdir: type run_dir='my x'{LISTS}",
    "train metrics=fid": "unknown key metrics: type observers.scores.metrics=[fid] observers.scores.every=1000" + LISTS,
    "train resume=true": "resume=true: name the run: resume=last, or resume=PATH of its directory",
    "train dataset=photos": "dataset=photos: no such choice; for images of your own type"
    " dataset=folder dataset.root=photos",
    "train dataset=./photos": "dataset=./photos: no such choice; for images of your own type"
    " dataset=folder dataset.root=./photos",
    "train dataset=x.zip": "dataset=x.zip: no such choice; for images of your own type dataset=zip dataset.root=x.zip",
    "train dataset=fotos": f"dataset=fotos: no such choice; choices: {', '.join(groups('train')['dataset'])};"
    " for images of your own: dataset=folder dataset.root=FOLDER",
    "train model=nosuchgan": f"model=nosuchgan: this system is not here; gan --systems lists those that are"
    f" (choices: {MODELS})",
    "train model=BEGAN": f"model=BEGAN: this system is not here; gan --systems lists those that are"
    f" (choices: {MODELS})",
    "train model=wgan": f"model=wgan: this system is a combination of other parts here: type {CLIPPED}",
    "train loss=wgan_gp": "loss=wgan_gp: no such choice; it is one of penalty: type penalty=wgan_gp",
    "train model=biggan_fashion": "model=biggan_fashion: no such choice; it is one of experiment:"
    " type experiment=biggan_fashion",
    "sample num=3": "unknown key num: type n=3 (gan sample --help lists the keys)",
    "eval real=photos": "unknown key real: type reference=photos (gan eval --help lists the keys)",
    "interpolate steps=9": "unknown key steps: type frames=9 (gan interpolate --help lists the keys)",
    "biggan": "'biggan' is not a verb: type gan train model=biggan",
    "photos": "'photos' is not a verb: type gan train experiment=photos dataset.root=photos",
    "model=biggan note='a b'": "'model=biggan' is not a verb: the verb comes first,"
    " type gan train model=biggan 'note=a b'",
    "--model biggan steps=4": "'--model' is not a verb: the verb comes first, type gan train model=biggan steps=4",
    "--train steps=4": "'--train' is not a verb: verbs have no dashes, type gan train steps=4",
    "translate photos": "'translate' is not a verb: type gan sample run=last input=photos after training a translation"
    " model, such as gan train model=cyclegan",
    "generate": "'generate' is not a verb: type gan sample",
    "test": "'test' is not a verb: type gan eval",
    "--list": "'--list' is not a verb: type gan --systems",
    "wgan": f"'wgan' is not a verb: type gan train {CLIPPED}",
}


@pytest.mark.parametrize("typed", ANSWERS)
def test_the_next_command_is_named(gan: Gan, typed: str) -> None:
    Path("photos").mkdir()
    for name in ("A", "B"):
        Path("two", name).mkdir(parents=True)
    answer = gan(*shlex.split(typed))
    assert (answer.code, answer.out, answer.err) == (2, "", f"gan: {ANSWERS[typed]}\n")
    assert not Path("outputs").exists()


def test_help_is_shown_wherever_it_is_asked_for(gan: Gan) -> None:
    for words in (["train", "--help"], ["help", "train"], ["-h", "train"], ["--help", "train"]):
        answer = gan(*words)
        assert (answer.code, answer.out) == (0, f"{verb_help('train')}\n")
    assert "model.conditioning=none" in gan("train", "model=sngan", "--help").out


def test_a_sweep_of_one_job_is_one_where_it_is_called_a_sweep(gan: Gan) -> None:
    assert "steps=x: expected a whole number" in gan("train", "-m", "steps=x", "sweep_dir=one").err


@pytest.mark.parametrize("verb", VERBS)
def test_keys_that_are_named_exist(verb: str) -> None:
    config, known = unresolved(verb, [], []), groups(verb)
    own = {name for name in config if name not in known}
    for names, answer in elsewhere.KEYS[verb].items():
        assert not own & set(names.split())
        assert not set(known) & set(names.split())
        for key in re.findall(r"\b([a-z][\w.]*)=", re.sub(r"\(.*?\)", "", answer)):
            assert key in known or missing_key(verb, config, key) is None, key
    if verb == "train":
        assert not (own | set(known)) & set(elsewhere.IMAGES.split())


def test_commands_that_are_named_exist() -> None:
    for names, answer in elsewhere.VERBS.items():
        assert not set(VERBS) & set(names.split())
        for found in re.findall(r"gan ((?:train|sample|eval|interpolate)(?: [\w.]+=\S+)*)", answer):
            verb, *words = shlex.split(found.replace(",N", "").rstrip(","))
            compose(verb, [w for w in words if "{}" not in w and not w.endswith("=N") and "," not in w])


def test_systems_that_are_named_differently_are_in_the_catalogue() -> None:
    for name in elsewhere.SYSTEMS:
        words = elsewhere.system(name)
        assert words is not None
        check("train", compose("train", words.split()))
    for name in elsewhere.ABSENT:
        assert elsewhere.system(name) is None
        assert name not in groups("train")["model"]
