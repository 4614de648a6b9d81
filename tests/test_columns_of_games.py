"""What a game asks of its data: columns of several feeds, by kind; what networks are told; what is left unread."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.compute.rng import Rng
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.settings import TrainSettings
from gancli.data.columns import Column
from gancli.data.facts import DataFacts
from gancli.data.fields import Field, Image, Label, Tokens
from gancli.data.source import Source, Sources, lone, table
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Batch, Game, Move, Outcome
from gancli.train import assemble, checks, streams
from tests.conftest import TINY, Gan


class Reader(nn.Module):
    """Words [B, length] and a row of numbers to one number each."""

    def __init__(self, vocabulary: int, shape: tuple[int, ...], *, width: int = 4):
        super().__init__()
        self.shape = shape
        self.words, self.out = nn.Embedding(vocabulary, width), nn.Linear(width + 3, 1)

    def forward(self, words: Tensor, row: Tensor) -> Tensor:
        made: Tensor = self.out(torch.cat([self.words(words).mean(1), row], 1))
        return made


class WordGame(Game):
    """One player reads the words of one feed and the numbers of another."""

    TOLD: ClassVar[tuple[str, ...]] = (*Game.TOLD, "vocabulary")
    seen: ClassVar[list[Batch]] = []
    setups: ClassVar[list[Batch]] = []

    def __init__(self, nets: Mapping[str, nn.Module]):
        super().__init__()
        self.nets = nn.ModuleDict(nets)

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        return {"u.words": "tokens", "v.row": "table", "v.more": "vector"}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        words = fields["u.words"]
        assert isinstance(words, Tokens)
        return super().told(network, fields, latent_dim, options) | {"vocabulary": len(words.vocabulary)}

    def reads(self) -> tuple[str, ...]:
        return ("words", "v.row")

    def averaged(self) -> tuple[str, ...]:
        return ()

    def setup_rows(self, images: int) -> int:
        return min(3, images)

    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        self.setups.append(dict(real))

    def moves(self, seen: int) -> Sequence[Move]:
        return (Move("R", self.loss, ("u", "v")),)

    def loss(self, batch: Batch, rng: Rng) -> Outcome:
        self.seen.append(batch)
        return Outcome({"loss_R": self.nets["R"](batch["u.words"], batch["v.row"]).square().mean()})


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A configuration of that game, which stands in the house as long as the test runs."""
    for room, thing in (("games", WordGame), ("nets", Reader)):
        module = ModuleType(f"gancli.{room}.of_words")
        monkeypatch.setattr(thing, "__module__", module.__name__)
        setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(WordGame, "seen", [])
    monkeypatch.setattr(WordGame, "setups", [])
    found = compose("train", ["dataset=random", "dataset.n=6", "batch_size=4", "loss=none"])
    found["game"] = {"_target_": "gancli.games.of_words.WordGame"}
    found["model"] = {"name": "words", "R": {"_target_": "gancli.nets.of_words.Reader", "width": 2}}
    found["optimizer"] = {"R": found["optimizer"]["G"]}
    return found


def test_a_game_of_words_and_numbers_in_two_feeds(config: dict[str, Any]) -> None:
    settings = make_as(TrainSettings, config, "")
    checks.check_sections(settings)
    data = streams.data(settings)
    assert isinstance(data, Sources)
    facts = DataFacts.of(data)
    game = assemble.game(config, facts)
    reader: Any = game.nets["R"]
    assert (reader.shape, tuple(reader.words.weight.shape)) == ((8,), (16, 2))
    engine = assemble.engine(settings, data, game, Compute())
    engine.step()
    (batch,) = WordGame.seen
    assert {name: (str(x.dtype), tuple(x.shape)) for name, x in batch.items()} == {
        "u.words": ("torch.int64", (4, 8)),
        "v.row": ("torch.float32", (4, 3)),
    }
    assert {name: len(x) for name, x in WordGame.setups[0].items()} == {"u.words": 3, "v.row": 3}
    assert streams.unread(game, data) == ["column more of random is not read by this game"]
    assert engine.seen == 4


def test_what_a_network_is_told_is_no_key(config: dict[str, Any]) -> None:
    """Nor is what a data set is told."""
    config["model"]["R"]["vocabulary"] = 3
    with pytest.raises(ConfigError, match=r"unknown key model\.R\.vocabulary"):
        checks.check_sections(make_as(TrainSettings, config, ""))
    del config["model"]["R"]["vocabulary"]
    config["dataset"]["columns"] = {"x": "image"}
    with pytest.raises(ConfigError, match=r"unknown key dataset\.columns"):
        checks.check_sections(make_as(TrainSettings, config, ""))


def noise_game(*keys: str) -> tuple[TrainSettings, Game]:
    config = compose("train", [*TINY[:5], *keys])
    settings = make_as(TrainSettings, config, "")
    return settings, assemble.game(config, DataFacts.of(streams.data(settings)))


def test_the_noise_game_reads_samples_and_where_it_is_told_labels() -> None:
    settings, game = noise_game()
    data = lone(streams.data(settings))
    assert assemble.engine(settings, data, game, Compute()).main.columns == ("x",)
    assert streams.unread(game, data) == ["column y of random is not read by this game"]
    assert streams.unread(game, table("plain", np.zeros((4, 1, 8, 8), np.uint8))) == []
    columns = {name: Column(Image(1, 8, 8), np.zeros((4, 1, 8, 8), np.uint8)) for name in ("x", "b", "c")}
    assert streams.unread(game, Source("d", columns)) == ["columns b and c of d are not read by this game"]
    settings, told = noise_game("model=sngan", "model.conditioning=projection", "dataset.size=[1,16,16]")
    data = lone(streams.data(settings))
    assert assemble.engine(settings, data, told, Compute()).main.columns == ("x", "y")
    assert streams.unread(told, data) == []


def test_data_that_a_game_has_no_use_for_are_refused() -> None:
    settings, game = noise_game()
    images = Column(Image(1, 8, 8), np.zeros((4, 1, 8, 8), np.uint8))
    with pytest.raises(
        CombinationError, match=r"this game reads the column x, but dataset=d has a: choose another data set"
    ):
        assemble.engine(settings, Source("d", {"a": images}), game, Compute())
    both = Sources("d", {"u": Source("u", {"x": images}), "v": Source("v", {"x": images})})
    with pytest.raises(CombinationError, match=r"this game takes one table, but dataset=d has the feeds u, v"):
        assemble.engine(settings, both, game, Compute())


def test_semisup_reads_labels_of_some() -> None:
    keys = ["model=improved", "model.D.hidden=[8,8]", "dataset=random", "dataset.size=[1,8,8]", "dataset.classes=2"]
    config = compose("train", [*keys, "game.labels=4", "batch_size=4"])
    settings = make_as(TrainSettings, config, "")
    data = streams.data(settings)
    engine = assemble.engine(settings, data, assemble.game(config, DataFacts.of(data)), Compute())
    assert {feed: stream.columns for feed, stream in engine.streams.items()} == {"real": ("x",), "labelled": ("x", "y")}
    assert streams.unread(engine.game, data) == []
    assert Label(("0", "1")) in lone(data).fields.values()


def test_unread_columns_are_said_in_one_line(gan: Gan) -> None:
    answer = gan("train", *TINY, "steps=1", "run_dir=run")
    assert answer.err.splitlines().count("column y of random is not read by this game") == 1
