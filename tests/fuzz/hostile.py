# ruff: noqa: E501
"""Lines for one kind of fault each, most of which have a known end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from hypothesis import strategies as st

from gancli.config.compose import compose, groups
from tests.fuzz.case import Case, Line
from tests.fuzz.damage import BASES
from tests.fuzz.inputs import ARCHIVES, FOLDERS, REFERENCES, SMALL_EXTRACTOR
from tests.fuzz.lines import DATA, SMALL

# Tables of many short entries, which are read by rows.
# fmt: off

POINTS = ["train", "model=mlp", "model.hidden=[8]", "dataset=ring", "dataset.n=50", "batch_size=4", "observers=none", "device=cpu"]
IMAGES = ["train", "model=dcgan", "model.ch=4", "batch_size=2", "observers=none", "device=cpu"]
JOBS = ["train", "-m", *DATA, *SMALL["dcgan"], "observers=none"]
OF_RUN = "outputs/train/points"
MODES = ["eval", f"run={OF_RUN}", "metrics=[modes]", "n=10", "device=cpu"]
FOLDER_EVAL = ["eval", "metrics=[swd]", "n=3", "device=cpu"]
BLANK = st.sampled_from(["", "", "", "''", '""', "' '", "\t"])


def case(group: str, words: Line, **known: Any) -> Case:
    """A case of one group."""
    return Case(group, words, **known)


# --- empty values

PATHS: list[tuple[str, Line]] = [
    *((key, ["train", *DATA, *SMALL["dcgan"], "steps=0"]) for key in ("resume", "init", "run_dir", "observers.scores.weights")),
    *(("dataset.root", [*IMAGES, "steps=0", f"dataset={name}"]) for name in ("folder", "zip", "npz", "webdataset", "hub", "mnist", "cifar10", "celeba")),
    *((key, [*JOBS, "steps=0", "seed=1,2"]) for key in ("sweep_dir", "resume_sweep")),
    *((key, [verb, "device=cpu"]) for verb in ("sample", "interpolate") for key in ("run", "run_dir")),
    *((key, ["eval", "metrics=[modes]", "n=10"]) for key in ("run", "run_dir", "export_reference", "extractor.weights")),
    ("input", [*FOLDER_EVAL, "reference=pics"]), ("reference", [*FOLDER_EVAL, "input=pics"]),
    ("reference", [*FOLDER_EVAL, "run=outputs/train/full"]), ("run", [*FOLDER_EVAL, "n=4"]), ("checkpoint", MODES),
    ("metrics.ppl.lpips", [*MODES, "metrics=[ppl]"]), ("metrics.ppl.vgg16", [*MODES, "metrics=[ppl]"]),
    ("--config-dir", [*POINTS, "steps=0"]), ("resume_sweep", ["train", "-m"]), ("run", ["sample"]),
]


@st.composite
def empty(draw: st.DrawFn) -> Case:
    """A path that was meant to come from a variable which is not set."""
    key, line = draw(st.sampled_from(PATHS))
    value = draw(BLANK)
    prefix = draw(st.sampled_from(["", "", "", "++"])) if key[0] != "-" else ""
    return case("empty", [*line, f"{prefix}{key}={value if key[0] != '-' else ''}"], refused=True)


# --- numbers

NEVER = ["inf", "-inf", "nan", "NaN", "1e999", "-1e999", ".inf", ".nan", "Infinity", "+inf"]
ODD = ["-1", "-0.5", "0", "1e308", "-1e308", "1e-320", "1e30", str(10**15), str(2**31), str(2**63), str(-(2**63)), "9" * 400, "-" + "9" * 400, "1" + "0" * 400, "0.5", "1e1000000000"]
# Keys whose huge values are only long work, which is what was asked for.
LONG = ("steps", "standing_stats", "game.d_steps", "observers.scores.standing_stats", "metrics.kid.subsets", "metrics.swd.projections", "dataset.limit")
NULLS = ["micro_batch", "max_time", "dataset.limit", "optimizer.clip", "device.threads", "loss.noise_until", "observers.scores.every", "observers.checkpoints.keep", "augment.target", "n", "truncation", "n_real", "extractor.batch_size", "metrics.ppl.epsilon", "launcher.jobs", "launcher.memory"]


def _bases() -> list[Line]:
    small = [["train", *DATA, *words] for words in SMALL.values()]
    dcgan = ["train", *DATA, *SMALL["dcgan"]]
    parts = [f"{group}={choice}" for group in ("loss", "penalty", "augment", "optimizer", "ramp", "game") for choice in groups("train")[group]]
    observed = ["train", *[w for w in DATA if not w.startswith("observers")], *SMALL["dcgan"], "observers=spectra"]
    return [
        *small, *([*dcgan, part] for part in parts if part not in ("penalty=none", "game=semisup")), *[observed] * 8,
        *[["train", *POINTS[1:-2], "device=cpu", "observers.progress=null", "observers.report=null"]] * 3,
        *([*POINTS, f"dataset={name}"] for name in ("grid", "swissroll", "gauss1d")),
        *[["sample", "run=outputs/train/labelled", "n=2", "device=cpu"]] * 4, *[["interpolate", f"run={OF_RUN}", "rows=2", "frames=2", "device=cpu"]] * 3,
        *([*MODES, f"metrics=[{name}]"] for name in ("modes", "divergences", "parzen")),
        *[["eval", "run=outputs/train/full", "n=4", "n_real=4", "device=cpu", "metrics=[swd,ms_ssim,ppl,dc]"]] * 3,
        *[["eval", "input=pics", "reference=classes", "n=3", "device=cpu", "metrics=[fid,kid,prc]", *SMALL_EXTRACTOR]] * 3,
        *[[*JOBS, "steps=0", "optimizer.G.lr=interval(1e-4,1e-3)", "search=optuna", "search.trials=1"]] * 2,
    ]


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@cache
def _numeric(words: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Keys of a line's configuration that take numbers, with their values."""
    verb, *rest = words
    found = list(_leaves(compose(verb, [w for w in rest if w != "-m" and "interval" not in w and not w.startswith("search")])))
    if "-m" in rest:
        found = [(key, value) for key, value in _leaves(compose("sweep", ["search=optuna"])) if key.startswith("search")]
    lists = [(k, v) for k, v in found if isinstance(v, list) and v and all(map(_number, v))]
    return [*((k, v) for k, v in found if _number(v) or (v is None and k in NULLS)), *lists]


@st.composite
def numbers(draw: st.DrawFn) -> Case:
    """A key that takes numbers, with one that no such key takes, or with an odd one."""
    line = draw(st.sampled_from(_bases()))
    key, old = draw(st.sampled_from(_numeric(tuple(line))))
    never = draw(st.booleans())
    value = draw(st.sampled_from(NEVER if never else ODD))
    if not never and key in LONG and len(value) > 4:
        value = "-1"
    shown = f"[{','.join([value, *map(str, old[1:])])}]" if isinstance(old, list) else value
    tail = ["max_time=0"] if key == "steps" else [f"steps={draw(st.sampled_from([0, 1]))}"] if line[0] == "train" and "-m" not in line else []
    return case("numbers", [*line, *tail, f"{key}={shown}"], refused=never)


@st.composite
def huge_steps(draw: st.DrawFn) -> Case:
    """As many steps as no run will ever take; it is stopped at once."""
    value = draw(st.sampled_from([str(10**15), str(2**63), "9" * 400, "1e308", "1" + "0" * 400]))
    return case("numbers", [*draw(st.sampled_from([POINTS, ["train", *DATA, *SMALL["dcgan"]]])), f"steps={value}", "max_time=0"])


COUNTS: list[tuple[Line, list[str]]] = [
    (["sample", "run=outputs/train/full", "device=cpu"], ["n=1000000000000", "n=1000000000", "seeds=0-1000000000000", "seeds=0-3000000000", "seeds=[0-10000000000,3]"]),
    (["sample", "run=outputs/train/labelled", "classes=all", "device=cpu"], ["n=1000000000000", "n=3000000000"]),
    (["sample", "run=outputs/train/full", "format=png", "device=cpu"], ["n=1000000000000"]),
    (["sample", "run=outputs/train/full", "format=npz", "device=cpu"], ["n=1000000000000", "n=9999999999999999999999"]),
    (["sample", f"run={OF_RUN}", "device=cpu"], ["n=1000000000000"]),
    (["interpolate", "run=outputs/train/full", "device=cpu"], ["rows=1000000000", "frames=1000000000", "rows=10000000000000", "rows=9999999999999999999999"]),
    (["interpolate", "run=outputs/train/full", "format=gif", "device=cpu"], ["frames=1000000000"]),
    (["interpolate", "run=outputs/train/full", "device=cpu", "rows=100000"], ["frames=1000000"]),
    (["eval", "run=outputs/train/full", "device=cpu", "metrics=[swd]"], ["n=1000000000000", "n=9999999999999999999999"]),
    (["eval", f"run={OF_RUN}", "device=cpu", "metrics=[divergences]"], ["n=1000000000000"]),
    ([*POINTS, "steps=1"], ["batch_size=1000000000", "batch_size=1000000000000000", "dataset.n=1000000000000", "model.hidden=[1000000000]", "model.latent.dim=1000000000000"]),
    ([*POINTS, "steps=0"], ["batch_size=1000000000000000", "dataset.n=1000000000000"]),
    (["train", *DATA, *SMALL["dcgan"], "steps=1"], ["batch_size=1000000000", "observers.grid.n=1000000000", "model.ch=1000000000", "dataset.n=1000000000000", "dataset.size=[1,65536,65536]", "observers.alarms.n=1000000000000"]),
    ([*POINTS[:-2], "device=cpu", "observers.progress=null", "observers.report=null", "steps=1"], ["observers.plane.n=1000000000000"]),
    ([*JOBS, "steps=0"], ["seed=range(1,1000000000)", "seed=range(1,100000000000000)", "seed=range(0,1,1e-12)"]),
    ([*JOBS, "steps=0", "seed=range(0,100000)"], ["optimizer.G.lr=range(0,100000)"]),
]
COUNT_CASES = [case("counts", [*line, word], refused=True) for line, words in COUNTS for word in words]


# --- sweeps

CHOICES = [
    "seed=1,2", "loss=hinge,ns", "seed=range(1,3)", "seed=choice(1,2)", "optimizer.G.lr=1e-4,1e-3", "seed=glob(*)", "loss=glob(h*)", "seed=shuffle(1,2)",
    "optimizer.G.lr=interval(1e-5,1e-3)", "seed=1", "penalty=r1,[r1,ortho]", "note=a,b", "note='a,b'", "seed=sort(2,1)", "seed=int(1.5),2", "seed=", "loss=",
    "seed=interval(1,3)", "seed=range(3,1)", "seed=range(1,3,0)", "dataset.size=[1,8,8],[1,16,16]", "model=dcgan,mlp", "~loss", "+x=1,2", "experiment=none,demo",
]
WRONG_JOBS = ["seed=-1,-2", "loss=hinje,nz", "steps=-1,nan", "batch_size=0,-1", "nope=1,2", "optimizer.G.lr=inf,nan", "model.ch=0,-4", "dataset.n=-1,0", "seed=a,b", "steps=1.5,x"]
LATE_JOBS = ["dataset=folder", "dataset.root=nowhere,in/none"], ["init=nowhere,pics"], ["dataset=folder", "dataset.root=in/pipe,in/nothing"], ["dataset=npz", "dataset.root=nope.npz,in/cut.npz"]
KEYS_OF_SWEEP = [
    "rank=loss_G", "rank=nope", "rank=", "better=low", "better=x", "retry=true", "retry=x", "launcher=local", "launcher=process launcher.jobs=0", "launcher=joblib launcher.jobs=-1",
    "launcher=slurm", "launcher=nope", "search=optuna", "search=optuna search.trials=0", "search=optuna search.trials=-1", "search=optuna search.trials=2 search.sampler=x", "search=grid",
    "resume_sweep=last", "sweep_dir=new", "run_dir=x", "resume=last", "sweep_dirr=x", "search=optuna search.trials=1 rank=nope", "launcher.jobs=2", "hydra.sweep.dir=x", "hydra/launcher=basic",
]


@st.composite
def sweeps(draw: st.DrawFn) -> Case:
    """Sweeps: right, of wrong jobs only, of jobs that fail when they begin, and in all ways of choosing."""
    how = draw(st.sampled_from(["choices", "choices", "keys", "wrong", "late", "again"]))
    if how == "wrong":
        return case("sweeps", [*JOBS, "steps=0", draw(st.sampled_from(WRONG_JOBS))], refused=True)
    if how == "late":
        return case("sweeps", [*IMAGES, "steps=0", "-m", *draw(st.sampled_from(LATE_JOBS))], refused=True)
    if how == "again":
        where = draw(st.sampled_from(["last", "outputs/sweeps/two", "./outputs/../outputs/sweeps/two/", "outputs/train/points", "nowhere", "a_file", "a_pipe", "empty", "foreign", "gone", "loop", "outputs/sweeps"]))
        more = draw(st.sampled_from([[], [], ["retry=true"], ["seed=3"], ["steps=5"], ["rank=loss_D"], ["better=high"], ["launcher=slurm"], ["sweep_dir=x"], ["search=optuna"], ["launcher.setup=[x]"]]))
        return case("sweeps", ["train", "-m", f"resume_sweep={where}", *more])
    chosen = draw(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=2, unique_by=lambda word: word.partition("=")[0]))
    keys = draw(st.sampled_from(KEYS_OF_SWEEP)).split() if how == "keys" else []
    return case("sweeps", [*JOBS, "steps=0", *chosen, *keys])


# --- going on with what is there

SPELLED = ["outputs/train/{}", "./outputs/train/{}/", "outputs/../outputs/train/{}", "{top}/outputs/train/{}", "outputs/train/./{}", "outputs/train/{}/checkpoints/00000000.pt"]
KEPT = ["seed=5", "loss=hinge", "batch_size=8", "dataset=swissroll", "optimizer.G.lr=0.1", "model.latent.dim=3", "penalty=r1", "game.d_steps=3", "model.ema.decay=0.25", "dataset.n=60", "optimizer=sgd", "model.hidden=[9]"]
FREE = ["note=x", "device=cpu", "max_time=0", "micro_batch=2", "observers=none", "precision=fp32", "run_dir=new", "init=last", "compile=false", "observers.metrics.every=1"]
ELSE = ["~loss", "+x=1", "model=dcgan", "experiment=demo", "steps=nan", "steps=-1", "resume=last", "seed=", "dataset=nope", "logger=nope", "dataset=folder", "dataset=random", "-m", "--cfg", "checkpoint=0", "n=3", "dataset.root=pics", "dataset=mnist", "+optimizer.G.lr=3"]
NO_RUNS = ["nowhere", "pics", "a_file", "empty", "foreign", "gone", "loop", "net.pth", "in/text.pt", "in/laughs.pt", "in/other.pt", "/etc/passwd", "outputs/sweeps/two", "outputs/train", "outputs/train/full/run.json", "outputs/train/full/metrics.jsonl", "no_run.json", "~nobody/x", "l\udce9", "x" * 300, "a\nb", "/dev/null", "/proc/self", "outputs/train/full/samples/00000002.png", "good.npz", "drawn"]
PIPES = ["a_pipe", "in/pipe.pt", "in/pipe.npz", "a_pipe.png"]


@st.composite
def resumes(draw: st.DrawFn) -> Case:
    """resume= and init= of runs by several spellings, with other keys, and of what is no run."""
    verb = draw(st.sampled_from(["resume", "resume", "resume", "init"]))
    if draw(st.integers(0, 3)) == 0:
        which = draw(st.sampled_from([*NO_RUNS, *PIPES]))
        line = [*POINTS, "steps=0"] if verb == "init" else ["train"]
        return case("resumes", [*line, f"{verb}={which}", *draw(st.sampled_from([[], ["steps=9"]]))], refused=True)
    name = draw(st.sampled_from(["points", "points", "points", "full", "labelled", "pictures"]))
    run = draw(st.sampled_from(SPELLED)).replace("{top}", ".").format(name)
    steps = draw(st.sampled_from([["steps=6"], ["steps=6"], ["steps=1"], ["steps=0"], [], ["steps=4"]]))
    more = draw(st.sampled_from([[], KEPT, FREE, FREE, ELSE]))
    word = [draw(st.sampled_from(more))] if more else []
    if verb == "init":
        line = [*POINTS, "steps=1"] if name == "points" else [*IMAGES, "dataset=random", "dataset.n=8", "steps=0"]
        return case("resumes", [*line, f"init={run}", *word])
    refused = more is KEPT or (name == "points" and steps[:1] in (["steps=1"], ["steps=0"]) and not run.endswith("00.pt"))
    return case("resumes", ["train", f"resume={run}", *steps, *word], refused=refused)


# --- data, input, references

SPECIAL_PATHS = ["a_pipe", "gone", "loop", "a_file", "/dev/zero", "/dev/null", "empty", "nowhere", "x" * 300, "a\nb", "/proc/self/mem", "/dev/stdin", "~nobody/x", "in/pipe.npz", "a_pipe.png", "https://localhost/x.zip", "/"]
READERS: dict[str, Line] = {
    "dataset.root": [*IMAGES, "steps=0"], "input": [*FOLDER_EVAL, "reference=pics"], "reference": [*FOLDER_EVAL, "input=pics"], "run": ["sample", "device=cpu"],
    "extractor.weights": ["eval", "input=pics", "reference=classes", "n=3", "metrics=[fid]", "device=cpu", *SMALL_EXTRACTOR], "--config-dir": [*POINTS, "steps=0"],
    "observers.scores.weights": ["train", *DATA, *SMALL["dcgan"], "steps=1", "observers.scores.every=1", "observers.scores.metrics=[fid]", "observers.scores.n=4"],
}


def _special() -> list[Case]:
    found = []
    for key, line in READERS.items():
        for path in SPECIAL_PATHS:
            if path == "/":  # all of the machine
                continue
            datasets = [f"dataset={name}" for name in ("folder", "zip", "npz", "webdataset")] if key == "dataset.root" else [""]
            for dataset in datasets:
                found.append(case("inputs", [*line, *filter(None, [dataset]), f"{key}={path}"], refused=True))
    return found


def _data() -> list[Case]:
    found = []
    for name, named in FOLDERS.items():
        root = f"in/{name}"
        for store in ("raw", "encoded"):
            found.append(case("inputs", [*IMAGES, "steps=1", "dataset=folder", f"dataset.root={root}", f"dataset.store={store}"], named=named))
        seen = [] if name.startswith("stylegan") else named  # labels are none of its business
        found.append(case("inputs", [*FOLDER_EVAL, f"input={root}", "reference=pics"], named=seen))
        found.append(case("inputs", [*FOLDER_EVAL, f"reference={root}", "input=pics"], named=seen))
    for name, (reader, named) in ARCHIVES.items():
        found.append(case("inputs", [*IMAGES, "steps=1", f"dataset={reader}", f"dataset.root=in/{name}"], named=named))
        found.append(case("inputs", [*FOLDER_EVAL, f"input=in/{name}", "reference=pics"], named=named))
    for name in REFERENCES:
        line = ["eval", "input=pics", "n=3", "device=cpu", f"metrics=[{'fid' if name < 'm' else 'kid'}]", *SMALL_EXTRACTOR, "metrics.kid.subset_size=2"]
        found.append(case("inputs", [*(w for w in line if "kid." not in w or "[kid]" in line[4]), f"reference=in/{name}"], refused=True))
        found.append(case("inputs", [*(w for w in line if "kid." not in w or "[kid]" in line[4]), f"extractor.weights=in/{name}", "reference=classes"], refused=True))
    for name in ("good.npz", "good.zip", "drawn/samples.npz", "drawn"):
        found.append(case("inputs", [*FOLDER_EVAL, f"input={name}", "reference=pics"]))
    return found


INPUT_CASES = [*_data(), *_special()]


# --- where to write

TAKEN = ["foreign", ".", "..", "../outside/project", "~", "pics", "outputs", "outputs/train", "outputs/train/points", "to_foreign", "a_file", "a_pipe", "gone", "loop", "in", "drawn", "good.npz", "outputs/sweeps/two", "./foreign/", "foreign/../foreign", "../outside", "outputs/sweeps/two/01-seed1", "in/cut/../cut", "x" * 300, "a\x00b", "/dev/null", "/proc/self", "foreign/samples"]
FREE_PLACES = ["new", "a/b/c", "empty", "to_empty", "a b", "caf\udce9", "a\nb", "[x]", "${seed}", "é日本", "'quoted'", "-x", "..new", "outputs/inside", "a=b", "<!--<script>", "x;touch pwned", "$(touch pwned)"]


@st.composite
def targets(draw: st.DrawFn) -> Case:
    """run_dir= and sweep_dir= of folders with other things in them, of odd names, and of places that are free."""
    line, key = draw(
        st.sampled_from(
            [
                ([*POINTS, "steps=1"], "run_dir"), (["train", *DATA, *SMALL["dcgan"], "steps=1"], "run_dir"), ([*POINTS, "steps=0"], "run_dir"),
                (["sample", "run=outputs/train/full", "n=1", "device=cpu"], "run_dir"), (["sample", "run=outputs/train/full", "n=2", "format=png", "device=cpu"], "run_dir"),
                (["sample", "run=outputs/train/full", "n=2", "format=npz", "device=cpu"], "run_dir"), (["interpolate", "run=outputs/train/full", "rows=1", "frames=2", "device=cpu"], "run_dir"),
                (MODES, "run_dir"), (["eval", "run=[outputs/train/points,outputs/train/points]", "metrics=[modes]", "n=10", "device=cpu"], "run_dir"),
                ([*JOBS, "steps=0", "seed=1,2"], "sweep_dir"), ([*POINTS, "steps=0", "-m", "seed=1,2"], "sweep_dir"),
            ]
        )
    )
    if draw(st.integers(0, 3)):
        return case("targets", [*line, f"{key}={draw(st.sampled_from(TAKEN))}"], refused=True)
    return case("targets", [*line, f"{key}={draw(st.sampled_from(FREE_PLACES))}"])


# --- words

WORDS: list[tuple[Line, bool]] = [
    *((["train", *flag.split()], True) for flag in ("--seed 3", "--batch-size=64", "--lr 0.1", "--epochs 3", "-n 4", "--steps=3", "--seed", "-seed=3", "--dataset fashion", "--no-ema", "--batch_size 4", "--G.lr 3", "-b 3")),
    *(([verb, *flag.split()], True) for verb in ("sample", "eval", "interpolate") for flag in ("--n 4", "--run last", "-n=4", "--seed=3")),
    *(([*POINTS, "steps=0", word], True) for word in ("~loss", "~model", "~dataset", "~steps", "~optimizer.G", "~game.d_steps", "~optimizer", "~penalty=none", "optimizer.G=[1]", "optimizer=[1]", "model=3", "loss=_objective", "penalty=r1,ortho", "loss=hinge,ns", "steps=${hydra:job.num}", "steps=${nope}", "steps=${steps}", "seed=${a}", "steps=???", "resume=/etc/passwd", "dataset={a:1}", "optimizer.G.lr=[1,2]", "observers={}", "model.G=null", "game=null", "optimizer.G.betas=0.5", "optimizer.G.betas=[a,b]", "steps={a:1}", "model.hidden=8,8", "++a.b.c=1", "+loss=ns", "loss@x=ns", "model/x=1", "steps==3", "steps 3", "seed: 3", "steps=3 4", "note")),
    *(([*MODES, word], True) for word in ("metrics=[[swd]]", "metrics=[[[modes]]]", "metrics=swd,kid", "metrics=[nope]", "metrics={a:1}", "metrics=[]", "metrics=null", "metrics=[modes,[swd]]", "run=[]", "run=[[last]]", "run=[last,3]", "run=[null]", "run={a:1}", "truncation=[]", "truncation=[0]", "truncation=[[1]]", "checkpoint=[0]", "extractor=nope", "n=[3]", "run=[outputs/train/points,nowhere]", "run='outputs/nope/*'", "run=[outputs/train/points,a_pipe]")),
    *((["eval", f"run=[{a},{b}]", f"metrics=[{m}]", "n=10", "device=cpu"], a != b) for a, b in (("outputs/train/full", "outputs/train/points"), ("outputs/train/points", "outputs/train/full"), ("outputs/train/labelled", "outputs/train/points"), ("outputs/train/full", "outputs/train/pictures")) for m in ("modes", "swd") if (b, m) != ("outputs/train/pictures", "swd")),
    *((["eval", f"run={pattern}", "metrics=[swd]", "n=4", "device=cpu"], False) for pattern in ("outputs/train/*", "outputs/train/f*", "outputs/*/*", "**", "outputs/train/[f]*", "outputs/sweeps/two/*")),
    *(([*POINTS, "steps=0", f"note={text}"], False) for text in ("caf\udce9", "\udcff\udcfe", "a\nb", "x" * 5000, "${oc.env:HOME}", "<!--<script>", "'", '"', "\\", "[a,b]", "{a}", "a=b", "\x1b[31m", "")),
    *((["sample", "run=outputs/train/full", "n=2", "device=cpu", word], False) for word in ("seeds=3-1", "seeds=a", "seeds=1,,2", "seeds=[1,[2]]", "classes=0", "classes=all", "arithmetic=1+", "arithmetic=3 - 1,2", "arithmetic=-", "points=[[0.5,0.5]]", "points=[[1]]", "attention=true", "host=x", "port=99999", "truncation=0", "checkpoint=best", "checkpoint=99", "checkpoint=x", "seeds=1-1000000,", "format=gif", "seeds=٣", "seeds=-1", "n=2.5", "seeds=0-3")),
    *(([*IMAGES, "steps=0", "dataset=folder", f"dataset.root={name}"], False) for name in ("l\udce9", "in/latin", "./pics/", "pics/../pics", "classes", "in/newline", "in/numbers")),
    *((["sample", "run=outputs/train/labelled", "device=cpu", f"classes={value}", "n=2"], False) for value in ("9", "-1", "[0,5]", "x", "0,0", "[all]", "[null]", "0-2", "[1.5]", "1e400", "9" * 400)),
]
# What is left out or comes too late is said, or refused.
SAID: list[tuple[Line, list[str]]] = [
    (["sample", "run=outputs/train/full", "n=5", "seeds=1-3", "device=cpu"], ["seeds"]),
    ([*POINTS, "steps=2", "optimizer.schedule.kind=linear", "optimizer.schedule.start=100"], ["schedule"]),
    (["eval", "input=pics", "reference=classes", "metrics=[swd]", "n=50", "device=cpu"], ["3 samples", "3 images"]),
    (["eval", "input=pics", "reference=classes", "metrics=[swd]", "n=3", "n_real=50", "device=cpu"], ["3 real"]),
]
WORD_CASES = [
    *(case("words", line, refused=refused) for line, refused in WORDS),
    *(case("words", line, named=named) for line, named in SAID),
]


# --- damaged runs and sweeps

ON_RUNS: list[tuple[str, Line]] = [
    *[("gan", ["train", "resume={run}", "steps=6"])] * 5,
    ("gan", ["train", "resume={run}"]),
    ("gan", ["train", "resume={run}/checkpoints/00000002.pt", "steps=6"]),
    ("gan", [*IMAGES, "dataset=random", "dataset.size=[1,16,16]", "dataset.n=8", "init={run}", "steps=0"]),
    *[("gan", ["sample", "run={run}", "n=2", "device=cpu"])] * 2,
    ("gan", ["sample", "run={run}", "n=2", "format=png", "device=cpu", "checkpoint=best"]),
    ("gan", ["sample", "run={run}", "n=2", "format=npz", "device=cpu", "checkpoint=0"]),
    ("gan", ["sample", "run={run}/checkpoints/00000004.pt", "n=2", "device=cpu"]),
    ("gan", ["interpolate", "run={run}", "rows=2", "frames=2", "device=cpu"]),
    *[("gan", ["eval", "run={run}", "metrics=[swd]", "n=4", "device=cpu"])] * 2,
    ("gan", ["eval", "run={run}", "metrics=[swd]", "n=4", "device=cpu", "checkpoint=best"]),
    ("gan", ["eval", "run=[{run},outputs/train/full]", "metrics=[swd]", "n=4", "device=cpu"]),
    ("gan", ["eval", "run=hurt/*", "metrics=[swd]", "n=4", "device=cpu"]),
    *[("report", ["{run}"])] * 4,
    *[("report", ["{run}", "outputs/train/full"])] * 2,
    *[("load", ["{run}"])] * 2,
    ("load", ["{run}", "best"]),
]
ON_POINTS: list[tuple[str, Line]] = [
    ("gan", ["train", "resume={run}", "steps=6"]),
    ("gan", ["sample", "run={run}", "n=2", "device=cpu"]),
    ("gan", ["eval", "run={run}", "metrics=[modes]", "n=10", "device=cpu"]),
    ("report", ["{run}"]),
    ("load", ["{run}"]),
]
ON_SWEEPS: list[tuple[str, Line]] = [
    *[("gan", ["train", "-m", "resume_sweep={run}"])] * 4,
    ("gan", ["train", "-m", "resume_sweep={run}", "retry=true"]),
    ("gan", ["train", "-m", "resume_sweep={run}", "rank=loss_D"]),
    *[("report", ["{run}"])] * 3,
    ("gan", ["eval", "run={run}/*", "metrics=[modes]", "n=10", "device=cpu"]),
    ("gan", ["eval", "run=hurt/*/*", "metrics=[modes]", "n=10", "device=cpu"]),
    ("gan", ["sample", "run={run}/01-seed1", "n=2", "device=cpu"]),
    ("report", ["{run}/01-seed1", "{run}/02-seed2"]),
]


def damaged(count: int) -> list[Case]:
    """As many damaged directories, each with a command that meets it: half of them of a full run, a third of a sweep."""
    tables = {"full": ON_RUNS, "two": ON_SWEEPS, "points": ON_POINTS, "labelled": ON_POINTS}
    assert set(tables) == set(BASES)
    order = ["full", "two", "full", "two", "full", "points", "full", "two", "full", "labelled"]
    found = []
    for seed in range(count):
        base = order[seed % len(order)]
        call, words = tables[base][(seed // len(order) * 3 + seed) % len(tables[base])]
        if base == "labelled" and "metrics=[modes]" in words:
            words = [w.replace("[modes]", "[swd]").replace("n=10", "n=4") for w in words]
        found.append(Case("damaged", words, call=call, base=base, seed=seed))
    return found
