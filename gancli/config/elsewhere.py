"""Names that other programs use for keys, verbs and systems, and what to type here instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gancli.config.commands import command, shell, word
from gancli.errors import ConfigError, suggestion

RUN_DIR = "out outdir out_dir output output_dir outputs save_dir savedir log_dir logdir result_dir results_dir workdir"
IMAGES = "data data_dir datadir data_path data_root dataroot dataset_dir dataset_path folder images_dir img_dir"
IMAGES += " path root train_dir"

# By verb: names, separated by spaces, and what to type instead. {} is the value that was given.
KEYS: dict[str, dict[str, str]] = {
    "train": {
        "epoch epochs max_epochs n_epochs num_epochs": "steps=N (training steps) or images=N (real images) for the"
        " length of a run",
        "iter iters iterations max_iter max_iters max_steps n_iter n_iters n_steps niter num_iters num_steps"
        " total_steps train_steps": "steps={}",
        "kimg": "images=N for the length of a run in real images (kimg=1 is images=1000)",
        "learning_rate lr": "optimizer.G.lr={} optimizer.D.lr={}",
        "g_lr lr_g": "optimizer.G.lr={}",
        "d_lr lr_d": "optimizer.D.lr={}",
        "batch bs minibatch mini_batch batch_gpu": "batch_size={}",
        "cuda gpu gpu_id gpu_ids gpus n_gpus ngpu num_gpus": "device=cuda, and CUDA_VISIBLE_DEVICES=NUMBER in front of"
        " gan to choose the GPU",
        RUN_DIR: "run_dir={}",
        "exp_name experiment_name run_name": "run_dir=outputs/train/{}",
        "crop_size image_size imagesize img_size imgsize imsize load_size res resolution": "dataset.size={}",
        "latent_dim latent_size noise_dim nz z_dim zdim": "model.latent.dim={}",
        "ndf ngf": "model.ch={}",
        "critic_iters d_iters n_critic n_dis": "game.d_steps={}",
        "arch architecture gan": "model={}",
        "criterion objective": "loss={}",
        "metric metrics": "observers.scores.metrics=[{}] observers.scores.every=1000",
        "manual_seed manualseed random_seed": "seed={}",
        "amp bf16 half mixed_precision": "precision=bf16",
        "fp16": "precision=fp16",
        "checkpoint ckpt load load_from restore": "resume={} to continue that run, or init={} to start a new run"
        " from its weights",
    },
    "sample": {
        "count n_images n_samples num num_images num_samples samples": "n={}",
        "ckpt g_path generator load model model_path network pkl": "run={}",
        RUN_DIR: "run_dir={}",
        "class class_idx label labels": "classes={}",
        "trunc truncation_psi": "truncation={}",
        "image images input_dir source source_dir": "input={}",
    },
    "eval": {
        "n_images n_samples num num_images num_samples": "n={}",
        "ckpt g_path generator load model model_path network pkl": "run={}",
        RUN_DIR: "run_dir={}",
        "fake fake_dir fakes folder generated": "input={}",
        "real real_dir reals ref ref_dir": "reference={}",
        "metric": "metrics=[{}]",
    },
    "interpolate": {
        "ckpt g_path generator load model model_path network pkl": "run={}",
        RUN_DIR: "run_dir={}",
        "n n_rows num paths": "rows={}",
        "n_frames n_steps num_frames steps": "frames={}",
    },
}

# What is no verb here, and the command that does it; {} is the first word that follows.
VERBS: dict[str, str] = {
    "convert img2img transfer translate": "gan sample run=last input={} after training a translation model, such as"
    " gan train model=cyclegan",
    "draw gen generate make predict infer inference samples": "gan sample",
    "benchmark fid metric metrics measure score test val valid validate": "gan eval",
    "film gif morph video walk": "gan interpolate",
    "begin fit learn run start": "gan train model=dcgan dataset=fashion",
    "continue resume": "gan train resume=last steps=N",
    "demo": "gan train experiment=demo",
    "sweep search grid tune": "gan train -m loss=hinge,ns seed=1,2,3",
    "compare rank": "gan eval 'run=[RUN,RUN]', or gan train -m loss=hinge,ns seed=1,2,3",
    "gui serve server ui web": "gan sample serve=true",
    "export onnx": "gan sample format=onnx",
    "report": "python -m gancli.report RUN",
    "docs guide manual tutorial": "gan --guide",
    "list ls models systems zoo": "gan --systems",
    "version": "gan --version",
    "completion": "gan --completion bash",
    "config configs keys options": "gan train --help",
}

# Other names of systems in the catalogue, and systems that are not in it but have nearly the name of a model.
SYSTEMS = {"cgan": "cgan-input", "nsgan": "dcgan", "projection": "cgan-projection", "rsgan": "rpgan", "vanilla": "gan"}
ABSENT = ("began", "bigan", "pix2pixhd")

# Groups in which a choice is looked up first.
FIRST = ("model", "dataset", "experiment", "loss", "penalty", "augment")

ARCHIVES = {".zip": "zip", ".npz": "npz", ".tar": "webdataset"}


def _find(table: dict[str, str], name: str) -> str | None:
    low = name.lower().replace("-", "_")
    return next((answer for names, answer in table.items() if low in names.split()), None)


def _filled(answer: str, value: str) -> str:
    """Put the value that was given into an answer, quoted for a shell."""
    return re.sub(r"([\w.]+)=([\w/]*)\{\}", lambda found: word(found[1], found[2] + value), answer).replace("{}", value)


def own_images(path: str) -> str:
    """Return the data set's overrides for a folder or an archive of images.

    >>> own_images("my photos"), own_images("faces.zip")
    ("dataset=folder dataset.root='my photos'", 'dataset=zip dataset.root=faces.zip')
    """
    place = Path(path).expanduser()
    kind = ARCHIVES.get(place.suffix.lower(), "folder")
    for a, b in (("trainA", "trainB"), ("A", "B")) if kind == "folder" else ():
        if (place / a).is_dir() and (place / b).is_dir():
            kind = "unpaired"
    return f"dataset={kind} {word('dataset.root', path)}"


def is_path(text: str) -> bool:
    """Whether a text names a folder or an archive: one that exists, or that looks like a path."""
    place = Path(text).expanduser()
    return "/" in text or "\\" in text or text.startswith("~") or place.suffix.lower() in ARCHIVES or place.is_dir()


def key(verb: str, name: str, value: str, others: Sequence[str] = ()) -> str | None:
    """Return what to type for a key of another program; None for an unknown name.

    value: what was given for it, or "". others: the command line's overrides, for a data set that they choose.

    >>> key("train", "epochs", "10")
    'steps=N (training steps) or images=N (real images) for the length of a run'
    >>> key("sample", "num-samples", "9"), key("sample", "steps", "9")
    ('n=9', None)
    """
    if verb == "train" and name.lower().replace("-", "_") in IMAGES.split():
        if any(o.startswith("dataset=") for o in others):
            return word("dataset.root", value or "FOLDER")
        from gancli.config.files import groups

        return f"dataset={value}" if value in groups("train")["dataset"] else own_images(value or "FOLDER")
    answer = _find(KEYS.get(verb, {}), name)
    return None if answer is None else _filled(answer, value or "VALUE")


def groups_of(choice: str, known: dict[str, list[str]]) -> list[str]:
    """Return the groups that have a choice of this name, the likeliest first."""
    order = {group: place for place, group in enumerate(FIRST)}
    return sorted((g for g in known if choice in known[g]), key=lambda g: (order.get(g, len(order)), g))


def system(name: str) -> str | None:
    """Return the overrides of a system or technique of the catalogue; None for an unknown name.

    >>> system("WGAN-GP"), system("began")
    ('model=dcgan loss=wasserstein penalty=wgan_gp optimizer=wgan_gp game.d_steps=5', None)
    """
    from gancli.guide.systems import find

    try:
        return find(SYSTEMS.get(name.lower(), name)).command.removeprefix("gan train ")
    except ConfigError:
        return None


def recipe(path: str) -> str:
    """Return the overrides for a first training on a folder or an archive of images."""
    own = own_images(path)
    return f"experiment=photos {word('dataset.root', path)}" if own.startswith("dataset=folder ") else own


def verb(words: Sequence[str], verbs: Sequence[str]) -> str:
    """Return what to type instead of a command line whose first word is not a verb."""
    from gancli.config.files import groups

    first, rest = words[0], list(words[1:])
    name = first.lstrip("-").partition("=")[0]
    if name in verbs:
        return f"verbs have no dashes, type {command(name, *map(shell, rest))}"
    if first.startswith("-") and "=" not in first and rest and "=" not in rest[0] and not rest[0].startswith("-"):
        first, rest = f"{first}={rest[0]}", rest[1:]
    if "=" in first:
        which = "train" if name.partition(".")[0] in groups("train") else "VERB"
        return f"the verb comes first, type {command(which, shell(first.lstrip('-')), *map(shell, rest))}"
    answer = _find(VERBS, name)
    if answer is not None:
        return f"type {_filled(answer, rest[0] if rest else 'FOLDER')}"
    known = groups("train")
    for group in FIRST:
        if name in known[group] and not Path(first).is_dir():
            return f"type {command('train', f'{group}={name}', *map(shell, rest))}"
    if (Path(first).expanduser() / "run.json").is_file():
        return f"type {command('sample', word('run', first))}"
    if is_path(first):
        return f"type gan train {recipe(first)}"
    if system(name):
        return f"type gan train {system(name)}"
    return f"{suggestion(first, verbs)}; gan --help explains them"
