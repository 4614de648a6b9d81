"""The command line: reads the verb, composes and validates the configuration with Hydra, runs the verb.

Exit codes: 0 success, 2 a GanError (one line with the remedy), 1 an unexpected error, 130 interrupted.
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

REFERENCE = {"--guide": "gancli.guide.pages", "--systems": "gancli.guide.systems"}  # flags, and what shows them
LONGEST, LAST = 2000, 300  # characters of a message, and of the end that a shortened message keeps


def main(argv: Sequence[str] | None = None) -> int:
    """Run `gan ARGV` and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with _printable(sys.stdout, sys.stderr):
        if ranks.several():
            return ranks.as_one(lambda say: _answer(words, say))
        return _answer(words, complain)


@contextlib.contextmanager
def _printable(*streams: Any) -> Iterator[None]:
    """Print characters that the terminal's encoding lacks as `?` instead of raising."""
    strict = ("strict", "surrogateescape")
    before = [(s, s.errors) for s in streams if isinstance(s, io.TextIOWrapper) and s.errors in strict]
    for stream, _ in before:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in before:
            with contextlib.suppress(OSError, ValueError):  # closed
                stream.reconfigure(errors=errors)


def complain(text: str) -> None:
    """Print an error on stderr, if stderr is still open."""
    with contextlib.suppress(OSError):
        print(f"gan: {text}", file=sys.stderr, flush=True)


def _answer(words: list[str], say: ranks.Say) -> int:
    try:
        return _dispatch(words)
    except Interrupted:
        return 0  # the work is saved and the message printed
    except BrokenPipeError:  # `gan --help | head`: the reader has closed the pipe
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
        say(f"{type(error).__name__}: {words_of_it} (unexpected error; GAN_TRACEBACK=1 shows the traceback)")
        return 1


def one_line(text: str) -> str:
    """Return an error as one line of printable characters, shortened if it is very long.

    >>> one_line("no such\\nfile \\x00")
    'no such file \\\\x00'
    """
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST - LAST - 5]} ... {line[-LAST:]}"  # the reason is at the end of the message


def foreseen(error: Exception) -> str | None:
    """Return the message for a built-in exception that a file name or a size can cause; None for any other.

    >>> foreseen(FileNotFoundError(2, "No such file or directory", "x"))
    'No such file or directory: x'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, UnicodeEncodeError):
        return "this locale cannot encode a file name: set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "not enough memory: type smaller numbers"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "a path begins with ~ and the name of a user without a home directory here: type the full path"
    return None


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(words[1], []) if words[1:] and words[1] in VERBS else general_help())
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
    if words[0].partition("=")[0] in REFERENCE:
        _reference(words)
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        from gancli.config import elsewhere

        raise ConfigError(f"{verb!r} is not a verb: {elsewhere.verb(words, list(VERBS))}")
    if "-h" in rest or "--help" in rest:
        print(_help(verb, [word for word in rest if word not in ("-h", "--help")]))
        return 0
    return _run(verb, rest)


def _reference(words: list[str]) -> None:
    """Print the guide or the catalogue of systems, for `--guide TOPIC` as for `--guide=TOPIC`."""
    flag, _, name = words[0].partition("=")
    asked = [word for word in (name, *words[1:]) if word not in ("", "-h", "--help")]
    importlib.import_module(REFERENCE[flag]).show(asked)


def _help(verb: str, words: list[str]) -> str:
    """Return a verb's help with the values that these overrides give; keys of sweeps keep their defaults."""
    from gancli.config import corrections
    from gancli.config.compose import quote

    flags, overrides, folders = split(words, verb)
    sweep = "-m" in flags or "--multirun" in flags
    overrides = quote(overrides, sweep, folders)
    problem = corrections.syntax(overrides, verb, folders)
    if problem:
        raise ConfigError(problem)
    if verb == "train" and sweep:
        from gancli.sweeps.sweep import divide

        overrides = divide(overrides, folders)[1]
    return verb_help(verb, corrections.single(overrides) if sweep else overrides, folders)


def _run(verb: str, words: list[str]) -> int:
    """Validate all jobs, so that an error writes nothing, then run them one after the other."""
    from gancli.config import corrections
    from gancli.config.choices import listed
    from gancli.config.compose import compose, expand, quote, value_of
    from gancli.config.resolved import pinned
    from gancli.config.untrusted import refuse_addresses

    flags, overrides, folders = split(words, verb)
    sweep = "-m" in flags or "--multirun" in flags
    shown = any(flag in ("--cfg", "-c") for flag in flags)
    if sweep and shown:
        raise ConfigError("-m runs several jobs and --cfg shows one: leave one of them out")
    if sweep and (ranks.several() or ranks.job()):
        raise ConfigError("-m runs several jobs and torchrun runs one job in several processes: leave one of them out")
    overrides = quote(overrides, sweep, folders)
    problem = corrections.syntax(overrides, verb, folders)
    if problem:
        raise ConfigError(problem)
    if sweep:
        overrides = listed(verb, overrides, folders)
        corrections.refuse_lone_sweep(verb, overrides)
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
    """Validate a composed job's keys and types; refuse typed keys that have no effect. Raises ConfigError."""
    from gancli.config import build, settings, unused

    if verb == "train":
        from gancli.train import automatic

        config = automatic.filled(config) if automatic.asked(config) else config
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
        unused.refuse(checked, unused.typed_keys(typed))


def _with_recorded(overrides: list[str], folders: list[Path]) -> tuple[list[str], list[Path]]:
    """Put a resumed run's recorded overrides and folders before those that are given now."""
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
            f"resume={resumed}: the run's --config-dir {gone[0]} does not exist: type its new place, --config-dir PATH"
        )
    places = [place for place in places if place not in gone]  # the folders given now replace them
    kept = [o for o in recorded if o.partition("=")[0].lstrip("+") not in given]
    kept = of_choices("train", kept, overrides, [*places, *folders])
    return [*kept, *overrides], [*places, *folders]


def _verb(verb: str) -> Callable[[dict[str, Any], Sequence[str]], Path]:
    """Import a verb's module, and torch with it, and return its function."""
    module = importlib.import_module(f"gancli.verbs.{'evaluate' if verb == 'eval' else verb}")
    run: Callable[[dict[str, Any], Sequence[str]], Path] = module.run
    return run


class _Jobs:
    """Runs jobs in order; errors are raised at the end, so that a failed job does not stop the others."""

    def __init__(self, verb: Callable[[dict[str, Any], Sequence[str]], Path], folders: Sequence[Path]):
        self.verb = verb
        self.places = [f"--config-dir={folder.resolve()}" for folder in folders]
        self.count = 0
        self.failed: list[tuple[list[str], GanError]] = []
        self.stop: BaseException | None = None

    def run(self, config: dict[str, Any], typed: list[str]) -> None:
        """Run one job. config: composed, as plain values. typed: the overrides that it was composed from."""
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
        """Raise why the jobs were stopped, the only job's error, or an error that lists the failed jobs."""
        if self.stop is not None:
            raise self.stop
        if self.failed and self.count == 1:
            raise self.failed[0][1]
        if self.failed:
            each = "; ".join(f"[{' '.join(typed)}] {error}" for typed, error in self.failed)
            raise GanError(f"{len(self.failed)} of {self.count} jobs failed: {each}")


def _show(verb: str, flags: list[str], overrides: list[str], folders: list[Path]) -> None:
    """Print the configuration by Hydra's own --cfg."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gancli.config.composition import search_path
    from gancli.config.files import conf_dir

    def nothing(config: Any) -> None:  # Hydra requires a function
        raise AssertionError("Hydra ran a job instead of printing its configuration")

    before = sys.argv
    sys.argv = ["gan", *flags, *search_path(folders), *overrides]
    full = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises errors instead of printing them
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(nothing)()
    except (HydraException, OmegaConfBaseException) as error:
        flag = f" {' '.join(flags)}"
        raise ConfigError(f"{verb}{flag} cannot be shown ({plain(error)}); gan {verb} --help lists the flags") from None
    except SystemExit as end:
        if end.code:
            raise ConfigError(f"Hydra cannot read {' '.join(flags)}; gan {verb} --help lists the flags") from None
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        os.environ.update({} if full is None else {"HYDRA_FULL_ERROR": full})
