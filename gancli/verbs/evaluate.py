"""`gan eval`: numbers about a run's samples, or about a folder of images, each beside its protocol."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gancli import rundir
from gancli.build import make, make_as
from gancli.data.folder import folder as folder_source
from gancli.data.source import Source
from gancli.errors import ConfigError, DataError, MetricError
from gancli.files import write_json
from gancli.metrics.evaluation import evaluate
from gancli.metrics.extractor import Extractor
from gancli.metrics.fid import Metric
from gancli.metrics.images import ImageSet, from_sampler, from_source
from gancli.sampling import Sampler
from gancli.settings import EvalSettings
from gancli.verbs.drawing import compute, images_only, sampler


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Evaluate as configured; returns the directory that holds results.json. Raises GanError."""
    settings = make_as(EvalSettings, config, "")
    if settings.input is not None and settings.reference is None:
        raise ConfigError(f"input={settings.input}: with what shall it be compared? Type reference=FOLDER")
    metrics: list[Metric] = [make(node, f"metrics.{name}") for name, node in settings.metrics.items() if node]
    if not metrics:
        raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
    # What costs nothing to find out comes first, the extractor's download last.
    rundir.refuse_taken(settings.run_dir)
    found = None if settings.input is not None else sampler(settings)
    fake, real = _sets(settings, found)
    extractor: Extractor = make(settings.extractor, "extractor")
    extractor.to(compute(settings).device)
    began = time.perf_counter()
    result = evaluate(metrics, fake, real, extractor, progress=reporter())
    name = Path(settings.input or "").name if found is None else found.run.name
    folder = rundir.new_directory("eval", found.name if found else name, settings.run_dir)
    about = rundir.environment() | {"seconds": round(time.perf_counter() - began, 1)}
    values = result.as_json()
    values |= {"protocol_id": protocol_id(values["protocol"])} | ({"step": found.step} if found else {})
    values["protocol"] = values["protocol"] | about
    write_json(folder / "results.json", values)
    if found is not None:
        _into_run(found, values)
    _show(values, name, found)
    print(f"results with protocol: {folder / 'results.json'}")
    return folder


def _sets(settings: EvalSettings, found: Sampler | None) -> tuple[ImageSet, ImageSet]:
    """What is judged, and what it is compared with. Raises DataError or ConfigError."""
    n_real, seed = settings.n_real, settings.seed
    if found is None:
        judged = _folder("input", settings.input)
        reference = _folder("reference", settings.reference)
        count = min(settings.n, len(judged))
        real = from_source(reference, n_real or min(count, len(reference)), seed, exact=n_real is not None)
        return from_source(judged, count, seed, folder=str(settings.input)), real
    images_only(found, "eval")
    source: Source
    if settings.reference is not None:
        source = _folder("reference", settings.reference, size=list(found.shape))
    else:
        source = make(found.config["dataset"], "dataset")
        if source.fingerprint != found.facts.fingerprint:
            raise MetricError(
                f"the data set {source.name} has changed since the run was trained on it: give reference=FOLDER instead"
            )
    real = from_source(source, n_real or min(settings.n, len(source)), seed, exact=n_real is not None)
    return from_sampler(found, settings.n, seed), real


def _folder(key: str, path: str | None, **choice: Any) -> Source:
    """A folder of images; what is wrong with it is said of the key that named it."""
    try:
        return folder_source(path, **choice)
    except (DataError, ConfigError) as error:
        raise DataError(str(error).replace("dataset.root", key)) from None


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """The same for results that may be compared: all of the protocol but the step."""
    fake = {k: v for k, v in protocol["fake"].items() if k not in ("step", "seen")}
    return hashlib.sha256(json.dumps({**protocol, "fake": fake}, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _into_run(found: Sampler, values: Mapping[str, Any]) -> None:
    """Keep the results in the run too: one file a checkpoint and protocol."""
    if not (found.run / "run.json").is_file():
        return  # a checkpoint file on its own
    write_json(found.run / "eval" / f"{found.step:08d}-{values['protocol_id']}.json", dict(values))


def _show(values: Mapping[str, Any], name: str, found: Sampler | None) -> None:
    protocol = values["protocol"]
    where = f"{name} at step {found.step:,}" if found else name
    print(
        f"{where}: {protocol['n_fake']:,} samples against {protocol['n_real']:,} real images, {protocol['extractor']}"
    )
    for key, value in values.items():
        if isinstance(value, float):
            print(f"  {key:10} {value:.4f}")
    for warning in values["warnings"]:
        print(f"  note: {warning}")


def reporter(every: float = 5.0) -> Callable[[str, int, int], None]:
    """A progress callback that prints a line every so many seconds, and the first at once."""
    next_line = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal next_line
        now = time.monotonic()
        if now >= next_line:
            print(f"{what} {done}/{total}", file=sys.stderr, flush=True)
            next_line = now + every

    return report
