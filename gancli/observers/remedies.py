"""What an alarm means, in words, with what its game would take against it."""

from __future__ import annotations

from gancli.games.game import Game

MEANINGS = {
    "saturated": "{critic} is sure of every sample, so {learner} hardly learns",
    "collapse": "{learner} draws less and less variety (mode collapse)",
    "vanishing": "{learner}'s gradient has all but vanished",
}


def players(game: Game) -> tuple[str, str]:
    """Who makes samples, and who tells them from data, by name where the game names them."""
    return game.diagnostics().learner or "the generator", next(iter(game.discriminators()), "the discriminator")


def remedy(alarm: str, game: Game) -> str:
    """What an alarm means, and what this game would take against it."""
    cures = game.remedies(alarm)
    joined = f": {', '.join(cures[:-1])}{' or ' if cures[1:] else ''}{cures[-1]}" if cures else ""
    learner, critic = players(game)
    return f"{MEANINGS[alarm].format(learner=learner, critic=critic)}{joined}"
