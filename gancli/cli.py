"""The command line: takes the verb, composes and checks the whole configuration by Hydra, then runs it.

Exit codes: 0 done, 2 a GanError (one line that says what to type instead), 1 an error nobody foresaw, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gancli.compute import ranks
from gancli.config.flags import split
from gancli.config.help import VERBS, complete, completion_script, general_help, verb_help, version_line
from gancli.errors import ConfigError, GanError, Interrupted, RunError, plain, suggestion

LONGEST, LAST = 2000, 300  # characters of a message, and of its end where it is cut


def main(argv: Sequence[str] | None = None) -> int:
    """Run `gan ARGV`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with _printable(sys.stdout, sys.stderr):
        if ranks.several():
            return ranks.as_one(lambda say: _answer(words, say))
        return _answer(words, complain)


@contextlib.contextmanager
def _printable(*streams: Any) -> Iterator[None]:
    """While inside, characters that a terminal's encoding lacks are printed as `?` instead of ending the command."""
    strict = ("strict", "surrogateescape")
    before = [(s, s.errors) for s in streams if isinstance(s, io.TextIOWrapper) and s.errors in strict]
    for stream, _ in before:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in before:
            with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads on
                stream.reconfigure(errors=errors)


def complain(text: str) -> None:
    """One line for the person, where there still is a place to write it."""
    with contextlib.suppress(OSError):
        print(f"gan: {text}", file=sys.stderr, flush=True)


def _answer(words: list[str], say: ranks.Say) -> int:
    try:
        return _dispatch(words)
    except Interrupted:
        return 0  # saved, and said so
    except BrokenPipeError:  # `gan --help | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except GanError as error:
        say(one_line(str(error)))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Exception as error:
        if os.environ.get("GAN_TRACEBACK"):
            raise
        known = foreseen(error)
        if known:
            say(one_line(known))
            return 2
        words_of_it = " ".join(str(error).split())[:300]
        say(f"{type(error).__name__}: {words_of_it} (not foreseen; GAN_TRACEBACK=1 shows where)")
        return 1


def one_line(text: str) -> str:
    """An error as one line of printable characters, cut where it is very long.

    >>> one_line("no such\\nfile \\x00")
    'no such file \\\\x00'
    """
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST - LAST - 5]} ... {line[-LAST:]}"  # what is wrong with a long text stands behind it


def foreseen(error: Exception) -> str | None:
    """Words for errors of Python's own that any file name or size can cause; None for all others.

    >>> foreseen(FileNotFoundError(2, "No such file or directory", "x"))
    'No such file or directory: x'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, UnicodeEncodeError):
        return "this locale has no such characters in file names: set LC_ALL=C.UTF-8 (or PYTHONUTF8=1)"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "this needs more memory than there is: type smaller numbers"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "a path begins with ~ and the name of a person who has no home directory here: write it in full"
    return None


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(general_help())
        return 0
    if words[0] in ("--version", "-V"):
        print(version_line())
        return 0
    if words[0] == "--completion":
        print(completion_script(words[1] if len(words) > 1 else "bash"))
        return 0
    if words[0] == "--complete":
        print("\n".join(complete(words[1] if len(words) > 1 else "")))
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        raise ConfigError(f"{verb!r} is not a verb: {suggestion(verb, VERBS)}; gan --help explains them")
    if "-h" in rest or "--help" in rest:
        print(_help(verb, [word for word in rest if word not in ("-h", "--help")]))
        return 0
    return _run(verb, rest)


def _help(verb: str, words: list[str]) -> str:
    """A verb's help for what these words would run; what only a sweep reads, or a resumed run, stays as it is."""
    from gancli.config import answers
    from gancli.config.compose import quote

    flags, overrides, folders = split(words, verb)
    sweep = "-m" in flags or "--multirun" in flags
    overrides = quote(overrides, sweep, folders)
    problem = answers.syntax(overrides, verb, folders)
    if problem:
        raise ConfigError(problem)
    if verb == "train" and sweep:
        from gancli.sweeps.sweep import divide

        overrides = divide(overrides, folders)[1]
    return verb_help(verb, answers.single(overrides) if sweep else overrides, folders)


def _run(verb: str, words: list[str]) -> int:
    """Compose and check every job first, so that a wrong word writes nothing; then run them one after the other."""
    from gancli.config import answers
    from gancli.config.choices import listed
    from gancli.config.compose import compose, expand, quote, value_of
    from gancli.config.pinned import pinned
    from gancli.config.sealed import refuse_addresses

    flags, overrides, folders = split(words, verb)
    sweep = "-m" in flags or "--multirun" in flags
    shown = any(flag in ("--cfg", "-c") for flag in flags)
    if sweep and shown:
        raise ConfigError("-m runs jobs and --cfg shows one: leave one of them out")
    if sweep and (ranks.several() or ranks.job()):
        raise ConfigError("-m runs jobs one after the other and torchrun runs one job on many ranks: leave one out")
    overrides = quote(overrides, sweep, folders)
    problem = answers.syntax(overrides, verb, folders)
    if problem:
        raise ConfigError(problem)
    overrides = listed(verb, overrides, folders) if sweep else overrides
    if verb == "train":
        from gancli.sweeps import sweep as sweeps

        if sweep:
            sweeps.run(overrides, folders, lambda config: check(verb, config))
            return 0
        sweeps.refuse_alone(overrides)
        own = overrides
        overrides, folders = _with_recorded(overrides, folders)
    jobs = expand(overrides) if sweep else [overrides]
    typed = not (verb == "train" and value_of("resume", overrides))
    configs = [compose(verb, job, folders, typed=typed) for job in jobs]
    if not typed:
        refuse_addresses(configs[0], own)
    package = flags[flags.index("--package") + 1] if "--package" in flags[:-1] else "_global_"
    if package != "_global_" and package.split(".")[0] not in configs[0]:
        raise ConfigError(f"--package {package}: {suggestion(package, configs[0])}")
    if shown:
        _show(verb, flags, overrides, folders)
        return 0
    for config, job in zip(configs, jobs, strict=True):
        check(verb, config, job)
    jobs_done = _Jobs(_verb(verb), folders)
    for config, words in zip(configs, jobs, strict=True):
        jobs_done.run(config, [*words, *(pinned(words, folders) if typed and verb == "train" else [])])
    jobs_done.report()
    return 0


def check(verb: str, config: dict[str, Any], typed: Sequence[str] = ()) -> None:
    """Check a composed job's keys and types, and that of the typed ones none is idle. Raises ConfigError."""
    from gancli.config import build, idle, settings

    kinds = {"train": settings.TrainSettings, "sample": settings.SampleSettings, "eval": settings.EvalSettings}
    checked = build.make_as(kinds.get(verb, settings.InterpolateSettings), config, "")
    if isinstance(checked, settings.TrainSettings):
        from gancli.train.checks import check_sections

        check_sections(checked)
    if isinstance(checked, settings.EvalSettings):
        build.check(checked.extractor, "extractor")
        for name, node in checked.metrics.items():
            if node is not None:
                build.check(node, f"metrics.{name}")
    if isinstance(checked, settings.DrawSettings):
        idle.refuse(checked, idle.typed_keys(typed))


def _with_recorded(overrides: list[str], folders: list[Path]) -> tuple[list[str], list[Path]]:
    """A resumed run starts from the command line it was started with; what is given now comes after."""
    from gancli.config.compose import of_choices, value_of

    resumed = value_of("resume", overrides)
    if not resumed:
        return overrides, folders
    from gancli.verbs.resume import recorded_overrides

    given = {o.partition("=")[0].lstrip("+") for o in overrides}
    _, recorded, places = split(recorded_overrides(resumed))
    gone = [place for place in places if not place.is_dir()]
    if gone and not folders:
        raise RunError(
            f"resume={resumed}: the run's --config-dir {gone[0]} is gone: type where it is, --config-dir PATH"
        )
    places = [place for place in places if place not in gone]  # what is given now stands in for them
    kept = [o for o in recorded if o.partition("=")[0].lstrip("+") not in given]
    kept = of_choices("train", kept, overrides, [*places, *folders])
    return [*kept, *overrides], [*places, *folders]


def _verb(verb: str) -> Callable[[dict[str, Any], Sequence[str]], Path]:
    """A verb's function; its module, and torch with it, is imported only now."""
    module = importlib.import_module(f"gancli.verbs.{'evaluate' if verb == 'eval' else verb}")
    run: Callable[[dict[str, Any], Sequence[str]], Path] = module.run
    return run


class _Jobs:
    """Runs jobs and keeps their errors for the end, so that one that fails does not keep the others from running."""

    def __init__(self, verb: Callable[[dict[str, Any], Sequence[str]], Path], folders: Sequence[Path]):
        self.verb = verb
        self.places = [f"--config-dir={folder.resolve()}" for folder in folders]
        self.count = 0
        self.failed: list[tuple[list[str], GanError]] = []
        self.stop: BaseException | None = None

    def run(self, config: dict[str, Any], typed: list[str]) -> None:
        """One job: its composed configuration as plain values, and the overrides that made it, as they were typed."""
        from gancli.compute.device import settings_kept

        if self.stop is not None:
            return
        self.count += 1
        try:
            with settings_kept():
                ranks.join(config.get("device") or {})
                self.verb(config, [*self.places, *typed])
        except (Interrupted, KeyboardInterrupt) as stop:
            self.stop = stop
        except GanError as error:
            self.failed.append((typed, error))
        except Exception as error:
            self.stop = error

    def report(self) -> None:
        """Raise what is to be said at the end: why it was stopped, the one job's error, or which jobs failed."""
        if self.stop is not None:
            raise self.stop
        if self.failed and self.count == 1:
            raise self.failed[0][1]
        if self.failed:
            each = "; ".join(f"[{' '.join(typed)}] {error}" for typed, error in self.failed)
            raise GanError(f"{len(self.failed)} of {self.count} jobs failed: {each}")


def _show(verb: str, flags: list[str], overrides: list[str], folders: list[Path]) -> None:
    """--cfg, which is Hydra's own."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gancli.config.composition import search_path
    from gancli.config.files import conf_dir

    def nothing(config: Any) -> None:  # Hydra asks for a function
        raise AssertionError("Hydra was asked to show, not to run")

    before = sys.argv
    sys.argv = ["gan", *flags, *search_path(folders), *overrides]
    full = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors then, instead of printing them over many lines
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(nothing)()
    except (HydraException, OmegaConfBaseException) as error:
        flag = f" {' '.join(flags)}"
        raise ConfigError(f"{verb}{flag} cannot be shown ({plain(error)}); gan {verb} --help lists the flags") from None
    except SystemExit as end:
        if end.code:
            raise ConfigError(
                f"Hydra could not make sense of {' '.join(flags)}; gan {verb} --help lists the flags"
            ) from None
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        os.environ.update({} if full is None else {"HYDRA_FULL_ERROR": full})
