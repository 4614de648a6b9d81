"""The meaning of each alarm, and the remedies of the game."""

from __future__ import annotations

from gancli.games.game import Game

MEANINGS = {
    "saturated": "{critic} separates real samples and fakes too well, so {learner} hardly learns",
    "collapse": "{learner}'s samples have lost diversity (mode collapse)",
    "vanishing": "{learner}'s gradient is close to 0",
}


def players(game: Game) -> tuple[str, str]:
    """Return the names of the game's generator and discriminator, else "the generator" and "the discriminator"."""
    return game.diagnostics().learner or "the generator", next(iter(game.discriminators()), "the discriminator")


def remedy(alarm: str, game: Game) -> str:
    """Return the meaning of an alarm, and this game's remedies."""
    cures = game.remedies(alarm)
    joined = f": {', '.join(cures[:-1])}{' or ' if cures[1:] else ''}{cures[-1]}" if cures else ""
    learner, critic = players(game)
    return f"{MEANINGS[alarm].format(learner=learner, critic=critic)}{joined}"
