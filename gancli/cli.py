"""The command line: takes the verb, checks the whole configuration, then lets Hydra run it.

Exit codes: 0 done, 2 a GanError (one line that says what to type instead), 1 an error nobody foresaw, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gancli.errors import ConfigError, GanError, Interrupted, suggestion
from gancli.help import VERBS, complete, completion_script, general_help, verb_help, version_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run `gan ARGV`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except Interrupted:
        return 0  # saved, and said so
    except BrokenPipeError:  # `gan --help | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except GanError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except Exception as error:
        if os.environ.get("GAN_TRACEBACK"):
            raise
        words_of_it = " ".join(str(error).split())[:300]
        _complain(f"{type(error).__name__}: {words_of_it} (not foreseen; GAN_TRACEBACK=1 shows where)")
        return 1


def _complain(text: str) -> None:
    """One line for the person; a name out of a stranger's file must not move the cursor, nor a full disk stop us."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    with contextlib.suppress(OSError):
        print(f"gan: {line}", file=sys.stderr, flush=True)


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
        print(verb_help(verb))
        return 0
    return _run(verb, rest)


def _run(verb: str, words: list[str]) -> int:
    """Compose and check every job first, so that a wrong word writes nothing; then hand over to Hydra."""
    from gancli.config import compose, expand, quote

    flags, overrides, folders = split(words)
    sweep = "-m" in flags or "--multirun" in flags
    shown = any(flag in ("--cfg", "-c", "--info", "-i") for flag in flags)
    if sweep and shown:
        raise ConfigError("-m runs jobs and --cfg shows one: leave one of them out")
    overrides = quote(overrides, sweep)
    if verb == "train":
        overrides, folders = _with_recorded(overrides, folders)
    jobs = expand(overrides) if sweep else [overrides]
    configs = [compose(verb, job, folders) for job in jobs]
    if len(jobs) > 1 and verb == "train" and any(o.startswith("run_dir=") for o in overrides):
        raise ConfigError("run_dir= would be shared by all jobs of the sweep: leave it out")
    package = flags[flags.index("--package") + 1] if "--package" in flags[:-1] else "_global_"
    if package != "_global_" and package.split(".")[0] not in configs[0]:
        raise ConfigError(f"--package {package}: {suggestion(package, configs[0])}")
    if not shown:
        for config in configs:
            check(verb, config)
    task = _Task(_verb(verb), folders)
    _hydra(verb, flags, overrides, folders, task)
    task.report()
    return 0


def check(verb: str, config: dict[str, Any]) -> None:
    """Check a composed job's keys and types. Raises ConfigError."""
    from gancli import build, settings

    kinds = {"train": settings.TrainSettings, "sample": settings.SampleSettings, "eval": settings.EvalSettings}
    checked = build.make_as(kinds.get(verb, settings.InterpolateSettings), config, "")
    if isinstance(checked, settings.TrainSettings):
        from gancli.assemble import check_sections

        check_sections(checked)
    if isinstance(checked, settings.EvalSettings):
        build.check(checked.extractor, "extractor")
        for name, node in checked.metrics.items():
            if node is not None:
                build.check(node, f"metrics.{name}")


def split(words: Sequence[str]) -> tuple[list[str], list[str], list[Path]]:
    """Hydra's flags, the overrides, and the folders of --config-dir. Raises ConfigError for an unknown flag."""
    with_value = {
        "--cfg": "cfg",
        "-c": "cfg",
        "--package": "package",
        "-p": "package",
        "--config-dir": "dir",
        "-cd": "dir",
        "--info": "info",
        "-i": "info",
    }
    plain = ("-m", "--multirun", "--resolve", "--hydra-help")
    flags, overrides, folders = [], [], []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name, equals, value = word.partition("=")
        if name in with_value and word.startswith("-"):
            if not equals:
                value = queue.pop(0) if queue and not queue[0].startswith("-") and "=" not in queue[0] else ""
            if with_value[name] == "dir":
                if not value:
                    raise ConfigError(f"{name}: name a folder of group files, as in {name} my_conf")
                folders.append(Path(value).expanduser())
            elif with_value[name] == "cfg" and value not in ("job", "hydra", "all"):
                raise ConfigError(f"{name} {value}: write --cfg job, --cfg hydra or --cfg all")
            else:
                flags += [name, value] if value else [name]
        elif word in plain:
            flags.append(word)
        elif word.startswith("-"):
            raise ConfigError(f"unknown flag {word}: {suggestion(name, [*with_value, *plain, '--help'])}")
        else:
            overrides.append(word)
    return flags, overrides, folders


def _with_recorded(overrides: list[str], folders: list[Path]) -> tuple[list[str], list[Path]]:
    """A resumed run starts from the command line it was started with; what is given now comes after."""
    from gancli.config import refuse_plugins, value_of

    resumed = value_of("resume", overrides)
    if not resumed:
        return overrides, folders
    from gancli.verbs.resume import recorded_overrides, refuse_resolvers

    given = {o.partition("=")[0].lstrip("+") for o in overrides}
    _, recorded, places = split(recorded_overrides(resumed))
    kept = [o for o in recorded if o.partition("=")[0].lstrip("+") not in given]
    refuse_resolvers(kept, resumed)
    refuse_plugins(kept, places)
    return [*kept, *overrides], [*places, *folders]


def _verb(verb: str) -> Callable[[dict[str, Any], Sequence[str]], Path]:
    """A verb's function; its module, and torch with it, is imported only now."""
    module = importlib.import_module(f"gancli.verbs.{'evaluate' if verb == 'eval' else verb}")
    run: Callable[[dict[str, Any], Sequence[str]], Path] = module.run
    return run


class _Task:
    """What Hydra calls for every job; it keeps errors for the end, since Hydra would print a traceback."""

    def __init__(self, run: Callable[[dict[str, Any], Sequence[str]], Path], folders: Sequence[Path]):
        self.run = run
        self.places = [f"--config-dir={folder.resolve()}" for folder in folders]
        self.jobs = 0
        self.failed: list[tuple[list[str], GanError]] = []
        self.stop: BaseException | None = None

    def __call__(self, config: Any) -> None:
        """One job: the composed configuration as plain values, and the overrides that made it, as they were typed."""
        import torch
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        self.jobs += 1
        if self.stop is not None:
            return
        plain = OmegaConf.to_container(config, resolve=True)
        typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        assert isinstance(plain, dict)
        assert isinstance(typed, list)
        threads = torch.get_num_threads()
        try:
            self.run({str(k): v for k, v in plain.items()}, [*self.places, *map(str, typed)])
        except (Interrupted, KeyboardInterrupt) as stop:
            self.stop = stop
        except GanError as error:
            self.failed.append(([str(o) for o in typed], error))
        except Exception as error:
            self.stop = error
        finally:
            torch.set_num_threads(threads)  # a job's device.threads is its own

    def report(self) -> None:
        """Raise what is to be said at the end: why it was stopped, the one job's error, or which jobs failed."""
        if self.stop is not None:
            raise self.stop
        if self.failed and self.jobs == 1:
            raise self.failed[0][1]
        if self.failed:
            each = "; ".join(f"[{' '.join(typed)}] {error}" for typed, error in self.failed)
            raise GanError(f"{len(self.failed)} of {self.jobs} jobs failed: {each}")


def _hydra(verb: str, flags: list[str], overrides: list[str], folders: list[Path], task: _Task) -> None:
    import hydra

    from gancli.config import conf_dir, search_path

    def job(config: Any) -> None:  # Hydra asks for a function
        task(config)

    before = sys.argv
    sys.argv = ["gan", *flags, *search_path(folders), *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(job)()
    except SystemExit as end:
        if end.code:
            raise ConfigError(
                f"Hydra could not make sense of {' '.join(flags)}; gan {verb} --help lists the flags"
            ) from None
    finally:
        sys.argv = before
