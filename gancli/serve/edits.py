"""The page's box of directions: a sample, and sliders that move its styles along the first ones."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import run, ui

from gancli.draw.directions import STRENGTH
from gancli.serve import parts
from gancli.serve.latest import Latest
from gancli.serve.service import Edit, Service

STEP = 0.25  # of the sliders, in units of w


class Edits:
    """The image at the path's start, moved along directions. wish: returns its seed and number, truncation and class.

    The sliders move together: their steps are added.
    """

    def __init__(self, service: Service, wish: Callable[[tuple[float, ...]], Edit], left: Callable[[], bool]):
        self.service, self.wish, self.left = service, wish, left
        self.redraw = Latest(self._draw)

    def build(self) -> None:
        """Build the box."""
        with parts.card("Directions"), ui.row().classes("w-full no-wrap items-center gap-6"):
            self.picture = parts.picture("edited", 240)
            with ui.column().classes("grow gap-1"):
                self.sliders = [self._slider(k) for k in range(1, self.service.edits + 1)]
                zero = ui.button("Reset", on_click=self._reset).props("outline no-caps data-ask=reset")
                zero.classes("mt-2")
                hint = "The image at the path's start, moved as by gan interpolate axis=direction1, in all layers."
                ui.label(hint).classes("soft")

    def _slider(self, number: int) -> ui.slider:
        with ui.row().classes("w-full no-wrap items-center gap-4"):
            ui.label(f"{number}").classes("soft").style("width: 16px")
            most = 2 * STRENGTH
            slider = ui.slider(min=-most, max=most, step=STEP, value=0, on_change=self.redraw)
            shown = ui.label().classes("soft").style("width: 48px")
            shown.bind_text_from(slider, "value", lambda value: f"{value:+.2f}" if value else "0")
        return slider.props(f"data-ask=direction{number}")

    def _reset(self) -> None:
        for slider in self.sliders:
            slider.value = 0  # each change redraws, as one

    async def _draw(self) -> None:
        with parts.told():
            steps = tuple(float(slider.value) for slider in self.sliders)
            made = await run.io_bound(self.service.edited, self.wish(steps))
            if made is not None and not self.left():
                self.picture.source = parts.address(made)
