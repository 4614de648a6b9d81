"""Loggers: send numbers, pictures and alarms of a run to TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gancli.draw.pictures import Pixels
from gancli.errors import ConfigError, RunError
from gancli.observers.observer import Alarm, Event, Lines, Observer, Picture, RunView, Values
from gancli.report.record import flat
from gancli.store.files import read_json, write_json
from gancli.store.rundir import RunDir

TICKET = "logger.json"  # in the run directory: the logger's run id, for resuming


class Log(Observer):
    """Logs each row's numbers, each sheet of samples and each alarm of the observers before it.

    pictures: whether to log sheets, as pictures or as lines of text. Raises ConfigError if the logger's package is
    missing.
    """

    package: str  # the module to import
    extra: str  # the extra to install

    def __init__(self, pictures: bool = True):
        self.pictures = pictures
        try:
            self.module = importlib.import_module(self.package)
        except ImportError:
            raise ConfigError(
                f"logger={self.extra} needs a package that is not installed: type pip install 'gancli[{self.extra}]'"
            ) from None

    def open(self, view: RunView) -> None:
        """Start logging, or resume."""
        self.begin(view.folder, flat(RunDir(view.folder).config()), view.step)

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Log the events in `view.events`."""
        for event in view.events:
            if isinstance(event, Values):
                self.numbers(view.step, numbers(event.values))
            elif isinstance(event, Picture) and self.pictures:
                self.picture(view.step, _named(event.name), event.image)
            elif isinstance(event, Lines) and self.pictures:
                self.lines(view.step, _named(event.name), event.lines)
            elif isinstance(event, Alarm):
                self.words(view.step, event.name, event.text)
        return iter(())

    def close(self) -> None:
        """Flush and close."""
        self.end()

    @abstractmethod
    def begin(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        """Called before this process's first step; config by dotted keys."""

    @abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step, by name."""

    @abstractmethod
    def picture(self, step: int, name: str, image: Pixels) -> None:
        """Log a picture [H, W, 3] of a step."""

    @abstractmethod
    def lines(self, step: int, name: str, lines: Sequence[str]) -> None:
        """Log text samples of a step, one per line."""

    @abstractmethod
    def words(self, step: int, name: str, text: str) -> None:
        """Log an alarm."""

    @abstractmethod
    def end(self) -> None:
        """Finish logging."""


class TensorBoard(Log):
    """Event files in RUN/tensorboard; `tensorboard --logdir outputs/train` shows all runs."""

    package, extra = "torch.utils.tensorboard", "tensorboard"

    def begin(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        """Open the event file; events of an earlier process after `step` are purged."""
        self._writer = self.module.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        if step == 0:
            table = "\n".join(f"| {key} | {value} |" for key, value in config.items())
            self._writer.add_text("config", f"| key | value |\n| --- | --- |\n{table}", 0)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Pixels) -> None:
        """Log an image."""
        self._writer.add_image(name, image, step, dataformats="HW" if image.ndim == 2 else "HWC")

    def lines(self, step: int, name: str, lines: Sequence[str]) -> None:
        """Log text as a code block, so that Markdown in it has no effect."""
        self._writer.add_text(name, "\n".join(f"    {line}" for line in lines), step)

    def words(self, step: int, name: str, text: str) -> None:
        """Log text."""
        self._writer.add_text(f"alarm/{name}", text, step)

    def end(self) -> None:
        """Close the file."""
        if hasattr(self, "_writer"):
            self._writer.close()


class WandB(Log):
    """Logs to Weights & Biases; mode `offline` writes to RUN/wandb, for `wandb sync`."""

    package, extra = "wandb", "wandb"

    def __init__(self, project: str = "gan", mode: str = "online", pictures: bool = True):
        super().__init__(pictures)
        if mode not in ("online", "offline"):
            raise ConfigError(f"observers.logger.mode={mode}: type online or offline")
        self.project, self.mode = project, mode

    def begin(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        """Start a run with the directory's name, or resume the earlier one."""
        known = ticket(folder, "wandb") if step else None
        options = {"id": known, "resume": "must" if self.mode == "online" else None} if known else {}
        where = {"project": self.project, "name": folder.resolve().name, "dir": str(folder), "mode": self.mode}
        self._run = self.module.init(**where, config=dict(config), **options)
        keep(folder, "wandb", str(self._run.id))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log a row."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: Pixels) -> None:
        """Log an image."""
        self._run.log({name: self.module.Image(image)}, step=step)

    def lines(self, step: int, name: str, lines: Sequence[str]) -> None:
        """Log a table of one column."""
        self._run.log({name: self.module.Table(columns=[name], data=[[line] for line in lines])}, step=step)

    def words(self, step: int, name: str, text: str) -> None:
        """Send an alert."""
        self._run.alert(title=name, text=f"step {step}: {text}")

    def end(self) -> None:
        """Finish the run."""
        if hasattr(self, "_run"):
            self._run.finish()


class MLflow(Log):
    """Logs to MLflow; uri null: a database in ./mlruns.db."""

    package, extra = "mlflow", "mlflow"

    def __init__(self, experiment: str = "gan", uri: str | None = None, pictures: bool = True):
        super().__init__(pictures)
        self.experiment, self.uri = experiment, uri or "sqlite:///mlruns.db"

    def begin(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        """Start a run with the directory's name, or resume the earlier one."""
        self._client = self.module.MlflowClient(self.uri)
        known = ticket(folder, "mlflow") if step else None
        if known is None:
            found = self._client.get_experiment_by_name(self.experiment)
            number = found.experiment_id if found else self._client.create_experiment(self.experiment)
            known = str(self._client.create_run(number, run_name=folder.resolve().name).info.run_id)
            for name, value in config.items():
                self._client.log_param(known, name.replace("@", "_"), str(value)[:500])
            keep(folder, "mlflow", known)
        self._id = known

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics in one call."""
        entity, stamp = self.module.entities.Metric, _now()
        self._client.log_batch(self._id, metrics=[entity(name, value, stamp, step) for name, value in values.items()])

    def picture(self, step: int, name: str, image: Pixels) -> None:
        """Log an image file."""
        self._client.log_image(self._id, image, artifact_file=f"{name}-{step:08d}.png")

    def lines(self, step: int, name: str, lines: Sequence[str]) -> None:
        """Log a text file."""
        self._client.log_text(self._id, "".join(f"{line}\n" for line in lines), f"{name}-{step:08d}.txt")

    def words(self, step: int, name: str, text: str) -> None:
        """Log a text file."""
        self._client.log_text(self._id, f"step {step}: {text}\n", f"alarm-{name}-{step:08d}.txt")

    def end(self) -> None:
        """Mark the run as finished."""
        if hasattr(self, "_id"):
            self._client.set_terminated(self._id)


def _named(sheet: str) -> str:
    """Return a sheet's name in the logger: samples for the sheets of steps, else its own."""
    return "samples" if sheet.isdigit() else sheet


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a row, without its step.

    >>> numbers({"step": 3, "loss_D": 0.5, "spectra": {}, "loss_G": None})
    {'loss_D': 0.5}
    """
    found = {k: float(v) for k, v in values.items() if isinstance(v, (int, float)) and k != "step"}
    return {k: v for k, v in found.items() if math.isfinite(v)}


def ticket(folder: Path, logger: str) -> str | None:
    """Read the logger's id of this run; None if it was not logged before."""
    try:
        known = read_json(folder / TICKET).get(logger)
    except (RunError, AttributeError):
        return None
    return known if isinstance(known, str) else None


def keep(folder: Path, logger: str, known: str) -> None:
    """Write the logger's id of this run."""
    write_json(folder / TICKET, {logger: known})


def _now() -> int:
    import time

    return round(time.time() * 1000)
