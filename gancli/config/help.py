"""Help, completion and version, read from the files of conf/ without importing torch."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gancli.config import files as conffiles
from gancli.config.build import shown
from gancli.config.compose import Composed, composed
from gancli.config.files import comments, default_choices, dotted, file_of, groups, headline, keys
from gancli.errors import ConfigError
from gancli.version import __version__

VERBS = {
    "train": "train a GAN and write a run directory",
    "sample": "draw images from a trained generator",
    "eval": "measure a run, or a folder of images: FID, KID, precision and recall, Inception Score",
    "interpolate": "draw images along paths between latents, as a sheet or an animation",
}

REFERENCE = {
    "gan --guide [TOPIC]": "list the guide's pages, or show one, as in: gan --guide photos",
    "gan --systems [NAME]": "list every GAN with paper, size and command, or show one, as in: gan --systems biggan",
}

EXAMPLES = {
    "train": [
        ("gan train model=dcgan loss=hinge dataset=fashion steps=3000", "clothes in some minutes of CPU"),
        ("gan train model=biggan loss=hinge", "emoji by class, with networks narrow enough for a CPU"),
        ("gan train experiment=photos dataset.root=~/photos", "your own images, half an hour of one CPU core"),
        ("gan train resume=last steps=6000", "continue the last run up to step 6000"),
        (
            "gan train -m loss=hinge,ns seed=1,2,3 observers.scores.every=1000 observers.scores.metrics=[swd] rank=swd",
            "six runs, ranked by a metric; resume_sweep=last continues",
        ),
        ("gan train -m search=optuna 'optimizer.G.lr=interval(1e-5,1e-3)' rank=loss_G", "search for a learning rate"),
    ],
    "sample": [
        ("gan sample", "64 images of the last run as one grid"),
        ("gan sample run=last seeds=0-15 truncation=0.7", "sixteen seeds, with less variety and higher quality"),
        ("gan sample run=last classes=all", "one row per class, from the same latents"),
        ("gan sample run=last attention=true", "attention maps of some points of each image"),
        ("gan sample run=last serve=true", "a page with sliders for seeds, truncation, classes and paths"),
        ("gan sample run=last input='photos/*.jpg' direction=A2B", "translate your own images"),
        ("gan sample run=last project=photo.png", "the styles of a generator that make this image"),
        ('gan sample run=last arithmetic="3,7,11 - 1,2,5 + 8,9,10"', "sums and differences of mean latents"),
        (
            "gan sample run=outputs/train/RUN checkpoint=2000 n=500 format=png",
            "one file per image, from an earlier checkpoint",
        ),
    ],
    "eval": [
        ("gan eval run=last", "FID, KID, precision and recall against the run's data set"),
        ("gan eval run=last checkpoint=0 n=5000 metrics=[fid,is]", "two metrics at step 0, before training"),
        ("gan eval run=last truncation=[0.5,0.7,1.0,1.5,null]", "a table and a chart over truncation thresholds"),
        ("gan eval run=last metrics=[class_accuracy]", "how often a classifier finds the class a sample was made for"),
        ("gan eval input=my_images reference=real_images", "compare two folders of images"),
        ("gan eval run='outputs/train/2026-*'", "several runs in one table, with confidence intervals"),
    ],
    "interpolate": [
        ("gan interpolate", "eight paths of the last run as one sheet"),
        ("gan interpolate run=last rows=16 frames=30 format=gif", "an animation"),
        ("gan interpolate axis=class classes=0,3,5", "from class to class with a fixed latent"),
        ("gan interpolate axis=direction1", "samples moved along a direction of their styles"),
        ("gan interpolate mode=lerp seed=7", "straight lines, between other latents"),
    ],
}


def version_line() -> str:
    """Return what `gan --version` prints."""
    return f"gan {__version__}"


def general_help() -> str:
    """Return what `gan --help` prints."""
    verbs = "\n".join(f"  gan {verb:12} {words}" for verb, words in VERBS.items())
    first = "\n".join(f"  {EXAMPLES[verb][0][0]:64} {EXAMPLES[verb][0][1]}" for verb in VERBS)
    reference = "\n".join(f"  {command:24} {words}" for command, words in REFERENCE.items())
    return (
        "gan: train, sample, evaluate and compare generative adversarial networks\n\n"
        f"usage: gan VERB key=value ...\n\nverbs\n{verbs}\n\nexamples\n{first}\n\nreference\n{reference}\n\n"
        "gan VERB --help lists a verb's keys and choices; gan --version; gan --completion bash|zsh|fish prints a\n"
        'script for the shell (in bash: eval "$(gan --completion bash)").'
    )


def verb_help(verb: str, overrides: Sequence[str] = (), folders: Sequence[Path] = ()) -> str:
    """Return what `gan VERB ... --help` prints: keys with their values for these overrides, choices, examples.

    overrides: quoted. Raises ConfigError for overrides that do not compose.
    """
    made = composed(verb, overrides, folders)
    width = max(100, min(120, shutil.get_terminal_size().columns))
    rows, lists = _key_rows(verb, made), _group_rows(verb, made, folders, width)
    if verb == "train":
        sweep = composed("sweep", ())
        lists += ["", "sweeps, with -m", *_key_rows("sweep", sweep), *_group_rows("sweep", sweep, folders, width)]
        for group, choice in PARTS:
            known = conffiles.leaves(group, choice)
            lists += [f"{'':15}{key}={shown(known[key])}  {words}" for key, words in comments(group, choice).items()]
    examples = [f"  {command}\n      {words}" for command, words in EXAMPLES[verb]]
    flags = [
        ("-m", "run one job for each value: gan VERB -m seed=1,2,3"),
        ("--cfg job", "show the whole configuration"),
        ("--config-dir PATH", "a folder of group files of your own"),
        ("KEY=VALUE --help", "help with the values of these overrides, as in gan train model=sngan --help"),
    ]
    return "\n".join(
        [
            f"gan {verb}: {VERBS[verb]}",
            "",
            f"usage: gan {verb} key=value ...",
            "",
            "keys",
            *rows,
            "",
            "groups: GROUP=CHOICE, and GROUP.key=value inside",
            *lists,
            "",
            "flags",
            *(f"  {flag:20} {words}" for flag, words in flags),
            "",
            "examples",
            *examples,
        ]
    )


PARTS = (
    ("launcher", "process"),
    ("launcher", "slurm"),
    ("search", "optuna"),
)  # whose keys are listed beside the defaults'


def _key_rows(name: str, made: Composed) -> list[str]:
    values = made.config | dotted(made.config)
    return [f"  {f'{key}={shown(values[key])}':24} {words}" for key, _, words in keys(name)]


def _group_rows(name: str, made: Composed, folders: Sequence[Path], width: int) -> list[str]:
    """Rows for each group of conf/NAME.yaml: the choice and its keys, then all choices with their headlines."""
    rows = []
    for group, choices in groups(name, folders).items():
        chosen = conffiles.names(made.choices[group])
        values = dotted(made.config)
        rows.append(f"  {group:12} {shown(chosen) if len(chosen) != 1 else chosen[0]}")
        for key, words in comments(group, made.choices[group], folders).items():
            if "." in key and key in values:
                rows.append(f"{'':15}{key}={shown(values[key])}  {words}")
        wide = max(map(len, choices), default=0)
        for choice in choices:
            file = file_of(group, choice, folders)
            words = headline(file) if file else ""
            rows.append(textwrap.shorten(words, width - wide - 8, placeholder=" ..."))
            rows[-1] = f"{'':6}{choice:{wide}} {rows[-1]}".rstrip()
    return rows


def complete(line: str) -> list[str]:
    """Return the completions of a command line: verbs, groups, keys, choices, guide topics, names of systems.

    >>> complete("gan sam")
    ['sample']
    >>> "loss=hinge" in complete("gan train loss=h")
    True
    """
    words = line.split()
    last = "" if line.endswith(" ") or not words else words[-1]
    if len(words) <= 1 or (len(words) == 2 and last):
        return [v for v in [*VERBS, "--guide", "--systems", "--help", "--version"] if v.startswith(last)]
    verb = words[1]
    if verb in ("--guide", "--systems"):
        return [name for name in _topics(verb) if name.startswith(last) and len(words) == (3 if last else 2)]
    if verb not in VERBS:
        return []
    known = groups(verb) | (groups("sweep") if "-m" in words else {})
    group, equals, start = last.partition("=")
    if equals:
        before = start[: max(start.rfind("["), start.rfind(",")) + 1]  # complete the last entry of a list
        fits = [choice for choice in known.get(group, []) if choice.startswith(start[len(before) :])]
        return [f"{group}={before}{choice}" for choice in fits]
    own = [k for k, _, _ in keys("sweep")] if "-m" in words else []
    names = [f"{n}=" for n in [*(k for k, _, _ in keys(verb)), *own, *known]]
    if "." in last:
        chosen = {g: c for g, e, c in (w.partition("=") for w in words[2:]) if e and g in known}
        names += [f"{leaf}=" for leaf in leaves(verb, last.split(".")[0], chosen)]
    return sorted({n for n in [*names, "--help", "--cfg"] if n.startswith(last)})


def _topics(flag: str) -> list[str]:
    """What may follow --guide or --systems."""
    from gancli.guide import pages, systems

    return pages.topics() if flag == "--guide" else systems.keys()


def leaves(verb: str, group: str, chosen: dict[str, str]) -> list[str]:
    """Return the dotted keys inside a group, of the choice on the command line or of the default.

    >>> "optimizer.G.lr" in leaves("train", "optimizer", {})
    True
    """
    defaults = default_choices(verb)
    if group not in defaults:
        return []
    found = conffiles.leaves(group, chosen.get(group, defaults[group]))
    return [leaf for leaf in found if leaf.startswith(f"{group}.") and not leaf.endswith("._target_")]


def completion_script(shell: str) -> str:
    """Return a shell's script that completes verbs, groups and keys. Raises ConfigError for an unknown shell."""
    scripts = {
        "bash": "_gan() { local IFS=$'\\n'; COMPREPLY=($(gan --complete \"${COMP_LINE:0:$COMP_POINT}\")); }\n"
        "COMP_WORDBREAKS=${COMP_WORDBREAKS//=}\ncomplete -o nospace -o default -F _gan gan",
        "zsh": '_gan() { compadd -S "" -- ${(f)"$(gan --complete "${(j: :)words[1,CURRENT]}")"} }\ncompdef _gan gan',
        "fish": "complete -c gan -f -a '(gan --complete (commandline -cp))'",
    }
    if shell not in scripts:
        raise ConfigError(f"--completion {shell}: there is a script for bash, zsh and fish")
    return scripts[shell]
