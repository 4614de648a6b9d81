"""The page's user interface elements: boxes, fields, pictures and error notifications."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from nicegui import ui

from gancli.errors import GanError, Interrupted


@contextmanager
def told() -> Iterator[None]:
    """Show errors of the body as notifications; the page stays usable."""
    try:
        yield
    except Interrupted:
        return
    except GanError as error:
        ui.notify(str(error), type="warning", multi_line=True)
    except Exception as error:
        ui.notify(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", type="negative", multi_line=True)


def card(title: str, shown: bool = True) -> ui.column:
    """A box with a title; elements created in its context are added to it."""
    with ui.card().classes("w-full p-5") as card, ui.column().classes("w-full gap-3") as inside:
        card.set_visibility(shown)
        ui.label(title).classes("text-base font-semibold")
    return inside


def number(
    label: str, value: int, least: int, most: int, ask: str, change: Callable[[], Awaitable[None]] | None = None
) -> ui.number:
    """A field for a whole number within bounds."""
    field = ui.number(label, value=value, min=least, max=most, precision=0, step=1, on_change=change)
    return field.props(f"outlined dense debounce=300 data-ask={ask}")


def whole(field: ui.number) -> int:
    """A field's number, clamped to its bounds; an empty field is 0 before clamping."""
    return int(min(max(field.value or 0, field.min), field.max))


def picture(show: str, width: int) -> ui.interactive_image:
    image = ui.interactive_image(sanitize=False).classes("pixels").props(f"data-show={show}")
    return image.style(f"width: {width}px")


def address(png: bytes) -> str:
    """A picture as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
