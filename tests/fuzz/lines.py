# ruff: noqa: E501
"""Generated command lines: right ones, right ones with a wrong word, and noise."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from hypothesis import strategies as st

from gancli.config.compose import conf_dir, groups
from gancli.config.help import VERBS, keys, leaves
from tests.fuzz.case import Line

T = TypeVar("T")

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
SPECIAL = st.sampled_from(
    [
        "", " ", "null", "true", "false", "nan", "inf", "-inf", "1e999", "-1", "0", "-0.0", "0.5", "1", "2", "3", "8",
        "1000000000000000", "-1000000000000000000000", "1_0", "0x10", "1e-30", "٣", "²", "½", "é", "日本", "🙂", "a b",
        "[]", "[1]", "[1,2]", "[1,8,8]", "[a,b]", "[null]", "[[1,2],[3]]", "[", "]", "{", "}", "{}", "{a:1}", "{a:{b:[1,2]}}",
        "{1:2}", "{a:1,a:2}", "'", '"', "'a'", '"a b"', "'a", "\\", "\\'", "a\\", "(1,2)", "a,b", "1,2", ",", ",,", "=", "a=b",
        "a\nb", "\n", "a\tb", "a\x00b", "\x00", "\x1b[31m", "\r", "a" * 5000, "9" * 400, "[" * 60, "[" * 60 + "]" * 60, "${", "${}",
        "${seed}", "${steps}", "${nope}", "${model.ch}", "${oc.env:HOME}", "${oc.env:NOT_SET_ANYWHERE}", "${oc.env:X,1}",
        "${oc.decode:abc}", "${hydra:job.name}", "${hydra:runtime.cwd}", "${now:%Y}", "${..}", "${.a}", "???", "!!python/object:os.system",
        "range(1,3)", "choice(1,2)", "interval(0,1)", "glob(*)", "int(3)", "str(3)", "float(nan)", "bool(x)", "shuffle(1,2)", "sort(3,1)",
        "cast(3)", "extend_list(1)", "/proc/nope", "~", "/dev/null", ".", "none", "auto", "last", "os.system", "torch.optim.SGD",
        "*", "&x", "*x", "%", "@", "@a", ":", "a:b", "- a", "# a", "!a", "|", ">", "2024-01-01", "12:30:45", "yes", "on", "~null",
    ]
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 8).map(str),
    st.sampled_from([10**15, -(10**15), 10**30]).map(str),
    st.floats(-2, 2).map(str),
    st.floats(allow_nan=True).map(str),
)
NESTED = st.recursive(
    st.one_of(st.integers(-3, 8).map(str), st.sampled_from(["a", "null", "true", "0.5", "'x y'"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]"),
        st.dictionaries(st.sampled_from(["a", "b", "lr", "_target_"]), inner, max_size=2).map(
            lambda d: "{" + ",".join(f"{k}:{v}" for k, v in d.items()) + "}"
        ),
    ),
    max_leaves=5,
)
VALUES = st.one_of(SPECIAL, NUMBERS, NESTED, TEXT)
PREFIX = st.sampled_from(["", "", "", "", "+", "++", "~", "+++", "@", " ", "-", "--", "$"])

# Small enough to be built and stepped in some hundredths of a second.
DATA = ["dataset=random", "dataset.n=12", "batch_size=4", "observers.progress=null", "device=cpu"]
SMALL = {
    "mlp": ["model=mlp", "model.hidden=[8,8]", "dataset.size=[1,8,8]"],
    "dcgan": ["model=dcgan", "model.ch=4", "dataset.size=[1,8,8]"],
    "sngan": ["model=sngan", "model.ch=4", "dataset.size=[1,32,32]"],
    "sagan": ["model=sagan", "model.ch=8", "dataset.size=[1,16,16]"],
    "biggan": ["model=biggan", "model.ch=2", "dataset.size=[1,16,16]"],
    "r3gan": ["model=r3gan", "model.ch=8", "dataset.size=[1,16,16]"],
    "ebgan": ["model=ebgan", "model.ch=4", "dataset.size=[1,8,8]"],
    "improved": [
        "model=improved",
        "model.D.hidden=[8,8]",
        "dataset.size=[1,8,8]",
        "dataset.classes=2",
        "game.labels=4",
    ],
    "biggan_deep": ["model=biggan_deep", "model.ch=4", "dataset.size=[1,16,16]"],
}
# Right values that change what is built, one key at a time.
TUNED = {
    "batch_size": ["2", "4", "6"], "micro_batch": ["null", "2", "4"], "seed": ["0", "7", "123456789"], "compile": ["false"],
    "max_time": ["null", "1", "0.5"], "note": ["null", "hello", "'a, b'", "Food & Drink"], "precision": ["auto", "fp32"],
    "optimizer.G.lr": ["0", "1e-4", "0.01"], "optimizer.clip": ["null", "1"], "optimizer.schedule.kind": ["constant", "linear"],
    "model.ema.decay": ["0", "0.5", "0.999"], "model.ema.start": ["0", "3"], "model.latent.kind": ["normal", "uniform"],
    "game.d_steps": ["1", "2"], "game.g_size": ["1", "2"], "observers.grid.n": ["1", "4"], "observers": ["default", "none", "spectra"],
    "dataset.n": ["4", "12"], "dataset.seed": ["0", "5"], "dataset.flip": ["true", "false"], "augment": ["none", "ada", "diffaugment"],
    "optimizer": ["adam", "sgd", "rmsprop", "wgan_gp", "sngan"], "+optimizer.D.weight_decay": ["0", "0.1"], "device.threads": ["null", "1"],
}  # fmt: skip
DRAWN = {
    "n": ["null", "1", "3"], "seed": ["0", "5"], "seeds": ["null", "0-2", "3,7", "[1,2]"], "ema": ["true", "false"],
    "truncation": ["null", "0.5", "1.5"], "standing_stats": ["0", "1"], "format": ["grid", "png", "npz"], "classes": ["null", "all", "0", "1,2"],
    "checkpoint": ["last", "0", "2"], "run_dir": ["null", "here", "some/where"], "device": ["cpu", "auto"], "attention": ["true", "false"],
}  # fmt: skip
WALKED = {
    "rows": ["1", "2"], "frames": ["2", "3"], "axis": ["z", "class", "both"], "mode": ["slerp", "lerp"], "seed": ["0", "3"],
    "truncation": ["null", "0.7"], "format": ["png", "gif"], "classes": ["null", "0,1,2"], "ema": ["true", "false"], "standing_stats": ["0", "2"],
}  # fmt: skip
JUDGED = {
    "n": ["2", "20"], "seed": ["0", "3"], "ema": ["true", "false"], "truncation": ["null", "0.5", "[0.5,null]"], "checkpoint": ["last", "0"],
    "metrics": ["[modes]", "[divergences]", "[modes,divergences]", "[parzen]"], "standing_stats": ["0", "2"], "device": ["cpu"],
}  # fmt: skip
RUNS = ["labelled", "points", "last", "outputs/train/labelled", "outputs/train/points/checkpoints/00000002.pt"]
RUNS = [r if r == "last" or "/" in r else f"outputs/train/{r}" for r in RUNS]
FLAGS = [
    ["-m"], ["--multirun"], ["--cfg", "job"], ["--cfg", "hydra"], ["--cfg", "all"], ["-c", "job"], ["--cfg"], ["--cfg", "x"], ["--cfg=job"],
    ["--resolve"], ["--package", "model"], ["--package", "a.b"], ["-p"], ["--info"], ["--info", "all"], ["--info", "config"], ["-i", "nope"],
    ["--config-dir", "."], ["--config-dir", "nowhere"], ["--config-dir="], ["-cd", "pics"], ["--hydra-help"], ["--run"], ["-r"], ["--shell"],
    ["--config-name", "x"], ["--config-path=/"], ["--version"], ["-h"], ["--help"], ["--experimental-rerun", "x"], ["-x"], ["--"], ["-"], ["---"],
    ["--cfg", "job", "--resolve"], ["--cfg", "job", "-p", "optimizer.G"], ["--hydra-help", "--cfg", "job"], ["--cfg", "job", "--cfg", "hydra"],
]  # fmt: skip
HYDRA = [
    "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir", "hydra.output_subdir", "hydra.verbose", "hydra.mode",
    "hydra.job.name", "hydra.searchpath", "hydra/launcher", "hydra/sweeper", "hydra.sweeper.max_batch_size", "hydra/job_logging", "hydra",
    "hydra.launcher", "hydra.callbacks", "hydra/callbacks", "hydra.job.env_set", "hydra/output", "hydra.nope", "hydra.job.config_name",
    "hydra.sweeper.params", "hydra.job_logging.version", "hydra.hydra_logging", "hydra/help", "hydra.help.template", "hydra.runtime.cwd",
]  # fmt: skip


@cache
def known_keys(verb: str) -> list[str]:
    """Every key that some choice of some group has."""
    found = {name for name, _, _ in keys(verb)}
    for group, choices in groups(verb).items():
        for choice in choices:
            found |= {group, *leaves(verb, group, {group: choice})}
    return sorted(found)


def chosen(tuned: dict[str, list[str]], most: int) -> st.SearchStrategy[Line]:
    """Up to `most` keys, each with a right value."""
    one = st.sampled_from(sorted(tuned)).flatmap(lambda key: st.sampled_from(tuned[key]).map(lambda v: f"{key}={v}"))
    return st.lists(one, max_size=most, unique_by=lambda word: word.partition("=")[0])


@st.composite
def right_train(draw: st.DrawFn) -> Line:
    """A training of no or one step that should run, unless its parts exclude each other."""
    line = ["train", *DATA, *SMALL[draw(st.sampled_from(sorted(SMALL)))]]
    group = draw(st.sampled_from(["", "", "loss", "penalty", "optimizer"]))
    if group:
        line.append(f"{group}={draw(st.sampled_from(groups('train')[group]))}")
    return [*line, *draw(chosen(TUNED, 3)), f"steps={draw(st.sampled_from([0, 0, 1]))}"]


@st.composite
def right_points(draw: st.DrawFn) -> Line:
    """A training on points."""
    data = draw(st.sampled_from(["ring", "grid", "swissroll", "gauss1d"]))
    keys_of_points = {name: values for name, values in TUNED.items() if not name.startswith(("dataset", "augment"))}
    line = ["train", "model=mlp", "model.hidden=[8]", f"dataset={data}", "dataset.n=50", "observers=none", "device=cpu"]
    return [*line, *draw(chosen(keys_of_points, 2)), "steps=0"]


@st.composite
def right_shown(draw: st.DrawFn) -> Line:
    """A configuration to look at, of any size."""
    verb = draw(st.sampled_from(["train", "train", "train", "sample", "eval", "interpolate"]))
    picked = []
    for group, choices in groups(verb).items():
        if draw(st.integers(0, 3)) == 0:
            picked.append(f"{group}={draw(st.sampled_from(choices))}")
    return [verb, *picked, *draw(st.sampled_from([["--cfg", "job"], ["-c", "job"], ["--cfg=job", "--resolve"]]))]


@st.composite
def right_drawing(draw: st.DrawFn) -> Line:
    """Samples, paths and evaluations of the runs that are there."""
    verb, tuned = draw(st.sampled_from([("sample", DRAWN), ("interpolate", WALKED), ("eval", JUDGED)]))
    run = draw(st.sampled_from(RUNS))
    start = ["metrics=[modes]", "n=10", "run=outputs/train/points"] if verb == "eval" else [f"run={run}", "device=cpu"]
    return [verb, *start, *draw(chosen(tuned, 3))]


RIGHT_SWEEPS = st.sampled_from(
    [["seed=1,2"], ["loss=hinge,ns"], ["model.ema.decay=0,0.5", "seed=3"], ["optimizer=adam,sgd"], ["seed=range(1,3)"]]
).map(lambda more: ["train", *DATA, *SMALL["dcgan"], "steps=0", "observers=none", "-m", *more])

RIGHT_WORDS = st.sampled_from(
    [
        [], ["--help"], ["-h"], ["help"], ["--version"], ["-V"], ["--completion"], ["--completion", "zsh"], ["train", "--help"],
        ["sample", "-h"], ["eval", "--help", "junk"], ["--complete", "gan train loss=h"], ["--complete", "gan x"], ["--complete"],
        ["--guide"], ["--guide", "systems"], ["--guide="], ["--systems"], ["--systems", "biggan"], ["--complete", "gan --guide s"],
    ]
)  # fmt: skip


@st.composite
def wrong_word(draw: st.DrawFn) -> str:
    """A key, real or not, with a value that is probably not for it."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    key = draw(
        st.one_of(
            st.sampled_from(known_keys(verb)),
            st.sampled_from(known_keys("train")),
            st.sampled_from(known_keys("train")).flatmap(broken),
            st.sampled_from(HYDRA),
            TEXT,
        )
    )
    word = f"{draw(PREFIX)}{key}"
    return word if draw(st.integers(0, 15)) == 0 else f"{word}={draw(VALUES)}"


def broken(key: str) -> st.SearchStrategy[str]:
    """A key with a slip of the fingers."""
    places = st.integers(0, max(0, len(key) - 1))
    return st.one_of(
        places.map(lambda k: key[:k] + key[k + 1 :]),
        places.map(lambda k: key[:k] + "x" + key[k:]),
        st.sampled_from(["..", ".", "@x", "/x", ":a", "[0]", ".x", "._target_", ".0"]).map(lambda tail: key + tail),
        st.just(key.upper()),
    )


@st.composite
def wrong_choice(draw: st.DrawFn) -> str:
    """A group with any choice, list, or package."""
    group = draw(st.sampled_from(sorted(groups("train"))))
    some = st.sampled_from(sorted({f.stem for f in conf_dir().glob("*/*.yaml")}))
    value = draw(st.one_of(some, st.lists(some, max_size=3).map(lambda v: f"[{','.join(v)}]"), VALUES))
    return f"{draw(PREFIX)}{group}{draw(st.sampled_from(['', '', '', '@x', '@model.G:', '@_global_']))}={value}"


WORD = st.one_of(wrong_word(), wrong_word(), wrong_choice())


@st.composite
def spoilt(draw: st.DrawFn) -> Line:
    """A right line with a wrong word or two in it; it stays small where the words happen to be right."""
    line = draw(st.one_of(right_train(), right_drawing(), right_points()))
    words = draw(st.lists(WORD, min_size=1, max_size=2))
    tail = ["steps=0"] if line[0] == "train" else []
    extra = draw(st.sampled_from([[], [], [], [], ["-m"], ["--cfg", "job"]]))
    return [*line, *words, *tail, *extra]


@st.composite
def noise(draw: st.DrawFn) -> Line:
    """Words in any order; nothing but the configuration is made of them."""
    verb = draw(st.one_of(st.sampled_from(sorted(VERBS)), st.sampled_from(sorted(VERBS)).flatmap(broken), TEXT))
    words = draw(st.lists(st.one_of(WORD, WORD, TEXT, VALUES), max_size=4))
    flags = draw(st.lists(st.sampled_from(FLAGS), max_size=2))
    line = [*words, *(word for flag in flags for word in flag)]
    return [verb, *draw(st.permutations(line)), *(["steps=0", *DATA, *SMALL["dcgan"]] if verb == "train" else [])]
