"""What an alarm means, in words, with what its game would take against it."""

from __future__ import annotations

from gancli.games.game import Game

MEANINGS = {
    "saturated": "D is sure of every image, so G hardly learns",
    "collapse": "G draws less and less variety (mode collapse)",
    "vanishing": "G's gradient has all but vanished",
}


def remedy(alarm: str, game: Game) -> str:
    """What an alarm means, and what this game would take against it."""
    cures = game.remedies(alarm)
    joined = f": {', '.join(cures[:-1])}{' or ' if cures[1:] else ''}{cures[-1]}" if cures else ""
    return f"{MEANINGS[alarm]}{joined}"
