"""`gan train -m`: create or resume a sweep, launch its jobs, and rank their results."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from gancli.config.build import make, make_as
from gancli.config.commands import command, shell, word
from gancli.config.compose import compose, defaults_lines, groups
from gancli.config.files import keys
from gancli.config.settings import SweepSettings
from gancli.config.untrusted import refuse_addresses
from gancli.errors import ConfigError, GanError, Interrupted, RunError, nearest
from gancli.store import rundir
from gancli.store.files import remove
from gancli.store.rundir import RunDir
from gancli.sweeps import launchers, objective, outcome, record
from gancli.sweeps import words as job_words
from gancli.sweeps.job import stopping_signals
from gancli.sweeps.launchers import Launcher, Local
from gancli.sweeps.objective import refuse_rank
from gancli.sweeps.outcome import say
from gancli.sweeps.record import OVER, Job, Sweep, stop_file, write_state
from gancli.sweeps.results import Findings, chosen, findings, is_low, scores
from gancli.sweeps.search import PROBES, Past, Search, swept

Check = Callable[[dict[str, Any]], None]  # raises ConfigError for an invalid job config


@dataclass
class Plan:
    """A sweep about to run."""

    sweep: Sweep
    settings: SweepSettings
    launcher: Launcher
    search: Search
    new: bool = True  # whether this command created it
    problem: GanError | None = None  # why a search cannot continue
    begun: set[int] = field(default_factory=set)


def run(overrides: Sequence[str], folders: Sequence[Path], check: Check) -> None:
    """Run a sweep to its end, and report its jobs' results. overrides: all arguments of the command line, quoted.

    Raises GanError that names failed jobs; Interrupted if the user stopped it. All jobs are checked before anything is
    written, and a sweep in which no job can start leaves no files.
    """
    _refuse(overrides)
    given, typed = divide(overrides, folders)
    reopened = _reopened(settings_of([o for o in given if _root(o) in PLACES], folders), typed)
    words, own = typed, folders
    if reopened is not None:
        given = [*followed(reopened, given), *given]
        typed, folders = reopened.overrides, list(folders) or [Path(p) for p in reopened.places]
        reopened.places = [str(f.resolve()) for f in folders]
        reopened.keys = [o for o in given if _root(o) not in PLACES]
    settings = settings_of(given, own)
    launcher: Launcher = make(settings.launcher, "launcher")
    search: Search = make(settings.search, "search")
    probes = (
        _checked_new(search, typed, folders, check) if reopened is None else _checked(reopened, search, words, check)
    )
    refuse_rank(settings.rank, swept(typed), search.guided, probes, {} if reopened is None else found_in(reopened))
    sweep = reopened or _new(settings, search, given, typed, folders)
    plan = Plan(sweep, settings, launcher, search, new=reopened is None)
    place = RunDir(sweep.path)
    place.lock()
    try:
        _open(plan)
        _launch(plan)
        if plan.new and not outcome.began(sweep):
            place.unlock()
            record.withdraw(sweep.path, sweep.made)
            raise outcome.all_wrong(sweep)
        if plan.problem is not None:
            raise plan.problem
        outcome.report(sweep, settings.rank, settings.better)
    finally:
        place.unlock()


def _checked_new(search: Search, typed: Sequence[str], folders: Sequence[Path], check: Check) -> list[dict[str, Any]]:
    """Compose and check the jobs of a new sweep. Raises ConfigError for the first invalid one."""
    found = [compose("train", job, folders, typed=True) for job in search.probes(typed)]
    for config in found:
        check(config)
    return found


def _checked(sweep: Sweep, search: Search, words: Sequence[str], check: Check) -> list[dict[str, Any]]:
    """Compose and check the unfinished jobs of a resumed sweep. words: the jobs' overrides typed now.

    Raises GanError for the first invalid job, with the command for settings that a directory may not contain.
    """
    left = [(f"job {job.number}", job.overrides) for job in sweep.jobs if job.status != "finished"]
    if len(sweep.jobs) < getattr(search, "trials", 0):
        left += [("later jobs", [*job, *sweep.pins]) for job in search.probes(sweep.overrides)]
    reaching = bool(sweep.places) or any(name in o for _, job in left for o in job for name in ("logger", "uri"))
    found, which = [], ""
    try:
        for each in left if reaching else left[:PROBES]:
            which, job = each
            found.append(compose("train", job, [Path(p) for p in sweep.places]))
            refuse_addresses(found[-1], words)
            check(found[-1])
    except ConfigError as error:
        hint = "" if words else f"; or repeat the sweep's original command, with {word('sweep_dir', sweep.path)}"
        raise RunError(f"{sweep.path / record.NAME}, {which}: {error}{hint}") from None
    return found


# The sweep's keys that are accepted from its directory: none that names a program, a queue or a command.
FOLLOWED: dict[str, tuple[str, ...] | None] = {
    "launcher": ("local", "process", "joblib"),
    "search": ("grid", "optuna"),
    **dict.fromkeys(
        ("launcher.jobs", "search.trials", "search.startup", "search.sampler", "search.seed", "rank", "better")
    ),
}


def followed(sweep: Sweep, given: Sequence[str]) -> list[str]:
    """The recorded keys of a resumed sweep, without those given now; another launcher drops the old launcher's keys.

    Raises RunError for recorded keys that are only accepted on the command line.
    """
    named = {o.partition("=")[0] for o in given}
    kept = [k for k in sweep.keys if not {k.partition("=")[0], _root(k)} & named]
    refused = []
    for each in kept:
        key, _, value = each.partition("=")
        allowed = FOLLOWED.get(key)
        if key not in FOLLOWED or "${" in value or (allowed is not None and value not in allowed):
            refused.append(shell(each[:100]))
    if refused:
        raise RunError(
            f"{sweep.path / record.NAME}: the recorded {' '.join(refused)} is not accepted, since a directory may not"
            " choose what is run on this machine: type it again, or launcher=local"
        )
    return kept


PLACES = ("sweep_dir", "resume_sweep", "retry")  # keys of one command, not of the sweep


def words() -> set[str]:
    """The keys and groups of a sweep."""
    return {name for name, _, _ in keys("sweep")} | {line.strip()[2:].split(":")[0] for line in defaults_lines("sweep")}


def _root(override: str) -> str:
    """The first part of an override's key."""
    return override.partition("=")[0].lstrip("+~").split("@")[0].split(".")[0]


def refuse_alone(overrides: Sequence[str]) -> None:
    """Raise ConfigError for a sweep's key in a command without -m."""
    for override in overrides:
        if _root(override) in words():
            raise ConfigError(f"{override}: {_root(override)} is a key of sweeps: add -m")


def divide(overrides: Sequence[str], folders: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The overrides of the sweep, and those of its jobs. Raises ConfigError for a misspelled key of the sweep."""
    own, other = words(), {name for name, _, _ in keys("train")} | set(groups("train", folders))
    for override in overrides:
        root = _root(override)
        if root not in own | other and nearest(root, own | other) in own:
            raise ConfigError(
                f"unknown key {root}: did you mean {nearest(root, own)}? (gan train --help lists the keys)"
            )
    given = [o for o in overrides if _root(o) in own]
    return given, [o for o in overrides if _root(o) not in own]


def settings_of(given: Sequence[str], folders: Sequence[Path]) -> SweepSettings:
    """Compose and check a sweep's own keys, from the command line or `followed`. Raises ConfigError."""
    try:
        return make_as(SweepSettings, compose("sweep", given, folders, typed=True), "")
    except ConfigError as error:
        text = str(error).replace("gan sweep --help", "gan train --help")
        raise ConfigError(text.replace("add -m to run each of them, or quote the value", "a sweep has one")) from None


def _refuse(overrides: Sequence[str]) -> None:
    """Raise ConfigError for settings that no sweep accepts."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "-m: a sweep starts its own processes: run it without torchrun (launcher=process runs several jobs at once)"
        )
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.startswith(("hydra/", "hydra.")):
            raise ConfigError(
                f"{override}: sweeps are set with launcher=process, search=optuna and sweep_dir=PATH instead"
            )
        if key == "run_dir":
            raise ConfigError("run_dir= would be shared by all jobs of the sweep: leave it out, or use sweep_dir=")
        if key == "resume":
            raise ConfigError("resume= resumes one run: leave -m out; resume_sweep=last resumes a sweep")


def _reopened(settings: SweepSettings, typed: Sequence[str]) -> Sweep | None:
    """The sweep to resume, or None for a new one. Raises GanError if the command line does not match it."""
    if settings.resume_sweep is not None:
        if settings.sweep_dir is not None:
            raise ConfigError("resume_sweep= continues in the sweep's own directory: leave sweep_dir out")
        which = word("resume_sweep", settings.resume_sweep)
        others = [o for o in typed if o.lstrip("+").partition("=")[0] != "dataset.root"]
        if others:
            raise ConfigError(f"{which} has its jobs already: leave {others[0]} out; only dataset.root= may change")
        found = record.find(settings.resume_sweep)
        if typed:
            job_words.moved(found, typed, which)
        return found
    chosen_dir = None if settings.sweep_dir is None else rundir.real(Path(settings.sweep_dir).expanduser())
    if chosen_dir is None:
        return None
    if not (chosen_dir / record.NAME).exists():
        rundir.refuse_taken(settings.sweep_dir, "sweep_dir")
        return None
    there = record.load(chosen_dir)
    if there.overrides != list(typed):
        before, now = set(there.overrides), set(typed)
        differs = ", ".join([*(f"without {o}" for o in sorted(before - now)), *sorted(now - before)])
        raise ConfigError(
            f"sweep_dir={settings.sweep_dir} contains a sweep with other jobs ({differs or 'in another order'}):"
            f" {word('resume_sweep', settings.sweep_dir or '')} resumes that one; or choose another directory"
        )
    return there


def _new(
    settings: SweepSettings, search: Search, given: Sequence[str], typed: Sequence[str], folders: Sequence[Path]
) -> Sweep:
    """Create a sweep and its directory, with the jobs known so far."""
    pins = job_words.pins(search, typed, folders) if search.guided else []
    first = [(job_words.of_new(overrides, folders), choices) for overrides, choices in search.first(typed)]
    name = "-".join(key.lstrip("+").rpartition(".")[2] for key in swept(typed))
    path, made = record.new_directory(name[:60] or "sweep", settings.sweep_dir)
    kept = [o for o in given if _root(o) not in PLACES]
    sweep = Sweep(path, list(typed), kept, [str(f.resolve()) for f in folders])
    for overrides, choices in first:
        sweep.add(overrides, choices)
    sweep.pins, sweep.folder, sweep.made = pins, str(Path.cwd()), made
    sweep.save()
    return sweep


def _open(plan: Plan) -> None:
    """Determine each job's status, and print a summary."""
    sweep = plan.sweep
    record.refuse_links(sweep.path)
    remove(stop_file(sweep.path))
    sweep.settle_killed()
    if plan.settings.retry:
        for job in sweep.jobs:
            if job.status == "failed":
                write_state(sweep.path, job.number, status="interrupted")
        sweep.take_stock()
    sweep.save()
    done = sum(job.status in OVER for job in sweep.jobs)
    say(f"sweep {sweep.path} · " + (f"{done} of {_total(plan)} jobs done" if done else f"{_total(plan)} jobs"))
    if isinstance(plan.launcher, Local) and len(launchers.gpus()) > 1:
        say(f"one job at a time, on the first GPU: launcher=process runs {len(launchers.gpus())} at once")


def _total(plan: Plan) -> int:
    return max(len(plan.sweep.jobs), getattr(plan.search, "trials", 0))


def _launch(plan: Plan) -> None:
    """Run the remaining jobs, and record each when it ends."""
    sweep = plan.sweep
    with _stoppable(plan):
        for number in plan.launcher.run(sweep.path, _numbers(plan)):
            sweep.take_stock()
            sweep.save()
            job = sweep.jobs[number - 1]
            detail = f": {job.reason}" if job.reason else f" after {job.seconds:.0f} s"
            say(f"{job.run} {job.status}{detail}")
    sweep.take_stock()
    sweep.save()
    if sweep.stopping:
        say(f"stopped; resume with: {command('train', '-m', word('resume_sweep', sweep.path))}")
        raise Interrupted("the sweep was stopped")


def _numbers(plan: Plan) -> Iterator[int]:
    """Yield the jobs to run; the next is determined when it is requested."""
    sweep = plan.sweep
    while not sweep.stopping:
        with sweep.guard:
            job = _next(plan)
        if job is None:
            return
        say(f"job {job.number} of {_total(plan)}: {job.title()}")
        yield job.number


def _next(plan: Plan) -> Job | None:
    """The first unfinished job, or one more suggested by the search."""
    sweep, search = plan.sweep, plan.search
    for job in sweep.jobs:
        if job.status not in OVER and job.number not in plan.begun:
            plan.begun.add(job.number)
            return job
    if not search.guided:
        return None
    try:
        proposal = search.further(sweep.overrides, *_past(plan))
        if proposal is None:
            return None
        overrides, choices = proposal
        place = Path(sweep.folder) if sweep.folder else None
        overrides = job_words.with_paths([*overrides, *sweep.pins], [Path(p) for p in sweep.places], place=place)
    except GanError as error:  # not raised here, since a launcher may call this in another thread
        plan.problem = error
        return None
    job = sweep.add(overrides, choices)
    plan.begun.add(job.number)
    sweep.save()
    return job


def found_in(sweep: Sweep) -> dict[int, Findings]:
    """The results of the finished jobs' runs, by job."""
    return {job.number: findings(sweep.run_of(job)) for job in sweep.jobs if job.status == "finished"}


def _past(plan: Plan) -> tuple[list[Past], bool]:
    """A search's earlier jobs, and whether low results are better. Raises ConfigError if there is no result to use."""
    sweep, settings = plan.sweep, plan.settings
    sweep.take_stock()
    found = found_in(sweep)
    name = chosen(found, settings.rank, not objective.swept(swept(sweep.overrides)))
    if found and name is None:
        raise ConfigError("search: no finished run has a result to use; observers.metrics writes rows of training")
    values = scores(found, name) if name else {}
    past: list[Past] = [(j.choices, values[j.number].value if j.number in values else None) for j in sweep.jobs]
    return past, name is None or is_low(name, settings.better)


@contextmanager
def _stoppable(plan: Plan) -> Iterator[None]:
    """In this context, Ctrl-C and SIGTERM let running jobs save and start no others; a second Ctrl-C ends at once."""
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1 and number == signal.SIGINT:
            raise KeyboardInterrupt
        record.ask_to_stop(plan.sweep.path)
        launchers.end_running(plan.sweep.path, iter(sorted(plan.begun)))

    before: dict[Any, Any] = {s: signal.signal(s, stop) for s in stopping_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
