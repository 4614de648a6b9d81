"""One tiny trained run that the tests of verbs share, and a working directory of each test's own."""

from __future__ import annotations

import io
import os
import signal

# Tiny tensors are slower on several threads, and far slower where other processes, such as a second worker's, use the
# cores; what tests start inherits it. A number from outside wins. Said before torch is imported, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

TINY = [
    "model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[1,8,8]", "dataset.n=24", "batch_size=4",
    "observers.progress=null", "observers.grid.n=4", "observers.report=null", "device=cpu", "model.ema.decay=0.5",
]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As many threads in this process as in those that tests start, whatever a test before set."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def signals_heard() -> None:
    """Under nohup, and in the background of a script, signals arrive ignored; tests are about those that are not."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands keep in the person's cache directory goes to one of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_hurry() -> Iterator[None]:
    """What takes long depends on the machine: no test is told of it, or has a rehearsal cut short, unless it asks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gancli.waiting.MOMENT", 1e6)
        for name in ("TRIED", "COUNTED"):
            patch.setattr(f"gancli.train.rehearsal.{name}", 60.0)
        yield


@dataclass
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


Gan = Callable[..., Answer]


@pytest.fixture
def gan(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gan:
    """Run `gan WORDS` in this process, in a directory of the test's own."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Answer:
        from gancli.cli import main

        capsys.readouterr()
        code = main(list(words))
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps: `outputs/train/...` in a directory that no test writes to."""
    from gancli.cli import main

    top = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(top)
    try:
        keys = ["observers.checkpoints.every=2", "observers.grid.every=2", "observers.metrics.every=1"]
        assert main(["train", *TINY, *keys, "steps=6", f"run_dir={top / 'run'}"]) == 0
    finally:
        os.chdir(before)
    return top / "run"


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps of a conditional generator with attention: 16×16 colour noise in three classes."""
    from gancli.cli import main

    run = tmp_path_factory.mktemp("labelled") / "run"
    keys = ["model=sngan", "model.ch=4", "model.conditioning=projection", "model.attention=[8]", "model.latent.dim=8"]
    keys += ["dataset=random", "dataset.size=[3,16,16]", "dataset.classes=3", "dataset.n=24", "game.d_steps=1"]
    keys += ["batch_size=4", "observers.progress=null", "observers.grid.n=4", "device=cpu", "model.ema.decay=0.5"]
    assert main(["train", *keys, "steps=4", f"run_dir={run}"]) == 0
    return run


def _empty_file() -> io.BytesIO:
    file = io.BytesIO()
    torch.save({}, file)
    file.seek(0)
    return file


@pytest.fixture(scope="session")
def random_state() -> dict[str, Tensor]:
    """An Inception's weights that keep the size of the activations, so that features differ between images."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        """torch-fidelity's network as constructed, whatever the file holds."""

        def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
            return None

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Untrained("untrained", ["2048"], feature_extractor_weights_path=_empty_file())
        for name, weight in net.named_parameters():
            if weight.dim() == 4:
                torch.nn.init.kaiming_normal_(weight)
            elif name == "fc.weight":
                torch.nn.init.normal_(weight, std=0.1)
    return dict(net.state_dict())


@pytest.fixture(scope="session")
def weights_file(random_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random weights as a file."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_state, path)
    return path
