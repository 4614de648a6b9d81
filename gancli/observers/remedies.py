"""What may be done about an alarm: the words of each remedy, and whether a run's parts would take it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from gancli.games.game import Game
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import Minimax
from gancli.nets.layers.together import MinibatchDiscrimination

Fits = Callable[[NoiseGame], bool]


def _any_game(game: NoiseGame) -> bool:
    return True


def _unbounded(game: NoiseGame) -> bool:
    """Nothing bounds D's slope yet, and its norm mixes no images or can give way."""
    bounded = any(penalty.lipschitz for penalty in game.penalties.values())
    return not bounded and (not game.d_has_batch_norm or _takes(game, "norm"))


def _single(game: NoiseGame) -> bool:
    """D judges one sample at a time and knows no classes, so that it could judge several."""
    return game.pack == 1 and not game.labelled and "pack" in inspect.signature(type(game).__init__).parameters


def _plain_images(game: NoiseGame) -> bool:
    """Images, not points, and shown to D as they are."""
    return game.augment is None and len(getattr(game.nets["G"], "shape", (1, 1, 1))) == 3


def _blind_to_others(game: NoiseGame) -> bool:
    """D could compare the images of a batch and does not."""
    compares = any(isinstance(module, MinibatchDiscrimination) for module in game.nets["D"].modules())
    return _takes(game, "minibatch") and not compares


def _takes(game: NoiseGame, key: str) -> bool:
    return key in inspect.signature(type(game.nets["D"]).__init__).parameters


SLOPE = ("add penalty=r1 (beside model.D.norm=auto, where D has batch norm)", _unbounded)
REMEDIES: dict[str, tuple[str, tuple[tuple[str, Fits], ...]]] = {
    "saturated": (
        "D is sure of every image, so G hardly learns",
        (
            ("lower optimizer.D.lr", _any_game),
            SLOPE,
            ("set loss.noise=0.1", lambda game: not game.loss.noise),
            ("take augment=diffaugment where images are few", _plain_images),
        ),
    ),
    "collapse": (
        "G draws less and less variety (mode collapse)",
        (
            ("lower optimizer.G.lr", _any_game),
            SLOPE,
            ("set game.pack=2", _single),
            ("add penalty=mode_seeking", lambda game: "mode_seeking" not in game.penalties),
            ("set model.D.minibatch=100", _blind_to_others),
        ),
    ),
    "vanishing": (
        "G's gradient has all but vanished",
        (
            ("lower optimizer.D.lr", _any_game),
            ("take loss=ns or loss=hinge", lambda game: isinstance(game.loss, Minimax)),
            SLOPE,
        ),
    ),
}


def remedy(name: str, game: Game) -> str:
    """What an alarm means, and what this game would take against it."""
    meaning, cures = REMEDIES[name]
    taken = [words for words, fits in cures if fits is _any_game or (isinstance(game, NoiseGame) and fits(game))]
    return f"{meaning}: {', '.join(taken[:-1])}{' or ' if taken[1:] else ''}{taken[-1]}"
