"""The page's user interface, built with NiceGUI; its scripts and fonts are local, so it works without a network."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from fastapi import FastAPI
from nicegui import run, ui
from nicegui.events import MouseEventArguments

from gancli.draw import pictures
from gancli.errors import Interrupted
from gancli.serve import parts
from gancli.serve.edits import Edits
from gancli.serve.latest import Latest
from gancli.serve.limit import Limited
from gancli.serve.one import OneImage
from gancli.serve.origin import OwnOrigin
from gancli.serve.service import (
    FRAMES,
    LARGEST_UPLOAD,
    MOST,
    MOST_FILES,
    Edit,
    Service,
    Sheet,
    SheetRequest,
    Walk,
    facts,
)

BLUE, AMBER = "#2563eb", "#d97706"  # of a path's start and end
EVENLY, EVERY = -1, -2  # choices in addition to the classes
LARGEST = 2**31 - 1  # largest seed of the fields
LARGEST_BODY = LARGEST_UPLOAD + (1 << 16)  # bytes of a request: a file and the form around it
STYLE = """
body { background: #f4f5f8; color: #1b1f27; }
.q-card { box-shadow: none; border: 1px solid #e2e5ec; border-radius: 10px; }
.pixels img { image-rendering: pixelated; border-radius: 4px; }
.head { background: white; border-bottom: 1px solid #e2e5ec; }
.soft { color: #667085; font-size: 13px; }
"""


def application(service: Service, first: SheetRequest, folder: Path, local: bool, named: str = "") -> FastAPI:
    """Build the page as an ASGI application; downloads are stored in `folder`.

    local: whether only this machine can reach it. named: the value of `host` (gancli/serve/origin.py).
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Limited, most=LARGEST_BODY)
    app.add_middleware(OwnOrigin, local=local, named=named)  # runs before `Limited`

    def root() -> None:
        Page(service, first, folder).build()

    ui.run_with(
        app, root=root, title=service.title, favicon="🎲", binding_refresh_interval=None, show_welcome_message=False
    )
    return app


class Page:
    """One visitor's page: its controls, and their requests to the service."""

    def __init__(self, service: Service, first: SheetRequest, folder: Path):
        self.service, self.first = service, first
        self.sheet: Sheet | None = None
        self.frames: list[bytes] = []
        self.share = 0.0  # progress of an archive
        self.redraw, self.rewalk = Latest(self._draw_sheet), Latest(self._draw_walk)
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.left = False

    def build(self) -> None:
        """Build the page, and draw its first samples."""
        ui.add_css(STYLE)
        ui.colors(primary=BLUE)
        ui.query(".nicegui-content").classes("p-0 gap-0")
        ui.context.client.on_delete(self._leave)
        with ui.row().classes("w-full items-baseline gap-x-4 gap-y-0 px-6 py-4 head"):
            ui.label(self.service.title).classes("text-xl font-semibold")
            ui.label(" · ".join(facts(self.service.sampler))).classes("soft").props("data-show=facts")
        with ui.row().classes("w-full no-wrap items-start gap-5 p-6 mx-auto").style("max-width: 1280px"):
            with ui.column().classes("gap-5 shrink-0").style("width: 290px"):
                self._controls()
                self._downloads()
            with ui.column().classes("gap-5 grow").style("min-width: 0"):
                self._sheet()
                self.one = (
                    OneImage(self.service, self.folder, lambda: self._wish(1)) if self.service.translates else None
                )
                if self.one is not None:
                    self.one.build()
                self._path()
                self.edits = Edits(self.service, self._edit, lambda: self.left) if self.service.edits else None
                if self.edits is not None:
                    self.edits.build()
        ui.timer(0, self.redraw, once=True)
        ui.timer(0, self.rewalk, once=True)

    def _controls(self) -> None:
        first = self.first
        with parts.card("Samples"):
            with ui.row().classes("w-full no-wrap items-center gap-2"):
                self.seed = parts.number("Seed", first.seed, 0, LARGEST, "seed", self.redraw).classes("grow")
                ui.button("next", on_click=self._next_seed).props("outline no-caps data-ask=next")
            most = self.service.most(MOST, first.direction)
            self.n = parts.number("Images", first.n, 1, most, "n", self.redraw).classes("w-full")
            self.n.set_visibility(not self.service.lack)
            several = len(first.classes) > 1
            self.rows = first.classes if several else tuple(range(len(self.service.classes)))
            chosen = EVERY if several else next(iter(first.classes), EVENLY)
            directions = self.service.directions
            self.direction = ui.select(
                list(directions), label="Direction", value=first.direction or self.service.sampler.direction
            )
            self.direction.on_value_change(self._other_direction).props("outlined dense data-ask=direction")
            self.direction.classes("w-full").set_visibility(len(directions) > 1)
            self.classes = ui.select(self._choices(), label="Class", value=chosen, on_change=self._other_class)
            self.classes.classes("w-full").props("outlined dense data-ask=class")
            self.classes.set_visibility(bool(self.service.classes))
            with ui.row().classes("w-full no-wrap items-center") as row:
                row.set_visibility(self.service.truncates)
                self.cut = ui.switch("Truncation", value=first.truncation is not None, on_change=self._other_cut)
                self.cut.props("data-ask=cut")
                self.shown_cut = ui.label().classes("soft grow text-right")
            widest = max(2.5, first.truncation or 0)
            self.threshold = ui.slider(min=0.05, max=widest, step=0.05, value=first.truncation or 1.0)
            self.threshold.on_value_change(self._other_cut).props("data-ask=truncation").classes("px-2")
            self.threshold.set_visibility(self.service.truncates)
            self._say_cut()

    def _downloads(self) -> None:
        with parts.card("Download", not self.service.lack):
            text = "Images 0 to N - 1 of the seed" + (", for each class with a row" if self.service.classes else "")
            few, most = (self.service.most(n, self.first.direction) for n in (100, MOST_FILES))
            self.count = parts.number("N", few, 1, most, "count").classes("w-full")
            ui.label(text).classes("soft")
            self.zip = ui.button("PNG files in a zip", icon="folder_zip", on_click=self._download_zip)
            self.zip.classes("w-full").props("unelevated no-caps data-ask=zip")
            self.progress = ui.linear_progress(0, show_value=False).classes("w-full").props("instant-feedback")
            self.progress.set_visibility(False)
            self.watch = ui.timer(0.3, lambda: self.progress.set_value(self.share), active=False)
            save = ui.button("This sheet as a PNG", icon="image", on_click=self._download_sheet)
            save.classes("w-full").props("outline no-caps data-ask=png")

    def _sheet(self) -> None:
        with parts.card("Sheet", not self.service.lack):
            self.picture = ui.interactive_image(on_mouse=self._pick, events=["click"], sanitize=False)
            self.picture.classes("pixels cursor-pointer self-center").style("width: min(100%, 720px)").props(
                "data-show=sheet"
            )
            hint = ui.label("Click an image to start the path below there, Shift-click to end it.")
            hint.classes("soft").set_visibility(self.service.column is not None)
            with ui.row().classes("w-full no-wrap items-center gap-2"):
                self.command = ui.label().classes("font-mono text-xs grow bg-gray-100 rounded px-3 py-2")
                self.command.style("overflow-wrap: anywhere").props("data-show=command")
                copy = ui.button(icon="content_copy", on_click=lambda: ui.clipboard.write(self.command.text))
                copy.props("flat dense aria-label='copy the command'")

    def _path(self) -> None:
        if self.service.column is None:
            return
        seed = self.first.seed
        with parts.card("Path"):
            with ui.row().classes("w-full no-wrap items-center justify-center gap-6"):
                self.start, self.start_picture = self._end("start", BLUE, (seed, 0))
                self.between = parts.picture("between", 240)
                self.end, self.end_picture = self._end("end", AMBER, (seed, 1))
            with ui.row().classes("w-full no-wrap items-center gap-4 px-2"):
                step = 1 / (FRAMES - 1)
                self.t = ui.slider(min=0, max=1, step=step, value=0.5, on_change=self._show_frame).props("data-ask=t")
                self.shown_t = ui.label().classes("soft").style("width: 64px").props("data-show=t")
            names = dict(enumerate(self.service.classes))
            self.label = ui.select(names, label="Class", value=self.service.label((seed, 0)), on_change=self.rewalk)
            self.label.props("outlined dense data-ask=label").style("width: 240px").set_visibility(bool(names))
            ui.label("Spherical interpolation between two latents, as in gan interpolate.").classes("soft")

    def _end(
        self, name: str, colour: str, pair: tuple[int, int]
    ) -> tuple[tuple[ui.number, ui.number], ui.interactive_image]:
        """Build one end of the path: its picture, and the fields for seed and number."""
        with ui.column().classes("items-center gap-2 shrink-0").style("width: 190px"):
            ui.label(name.capitalize()).classes("font-semibold").style(f"color: {colour}")
            picture = parts.picture(name, 118).style(f"border: 3px solid {colour}; border-radius: 6px")
            with ui.row().classes("no-wrap gap-2"):
                seed = parts.number("Seed", pair[0], 0, LARGEST, f"{name}-seed", self.rewalk)
                number = parts.number("Image", pair[1], 0, LARGEST, f"{name}-image", self.rewalk)
        return (seed, number), picture

    def _edit(self, steps: tuple[float, ...]) -> Edit:
        seed, number = self.start
        return Edit((parts.whole(seed), parts.whole(number)), steps, self._truncation(), self.label.value)

    def _choices(self) -> dict[int, str]:
        """The class field's choices; several classes given on the command line replace `all`."""
        names, chosen = self.service.classes, {EVENLY: "random"}
        if 0 < len(self.rows) <= MOST:
            every = len(self.rows) == len(names)
            chosen[EVERY] = ("all" if every else ", ".join(names[c] for c in self.rows)) + ", one row each"
        return chosen | dict(enumerate(names))

    def _wish(self, n: int) -> SheetRequest:
        chosen = int(self.classes.value)
        classes = self.rows if chosen == EVERY else () if chosen == EVENLY else (chosen,)
        return SheetRequest(parts.whole(self.seed), n, self._truncation(), classes, self.direction.value or None)

    def _truncation(self) -> float | None:
        return round(float(self.threshold.value), 4) if self.cut.value else None

    def _say_cut(self) -> None:
        cut = self._truncation()
        self.threshold.set_enabled(cut is not None)
        self.shown_cut.text = "off" if cut is None else f"± {cut:.2f}"

    async def _other_cut(self) -> None:
        self._say_cut()
        await self.redraw()
        await self.rewalk()

    def _next_seed(self) -> None:
        self.seed.value = min(LARGEST, parts.whole(self.seed) + 1)  # the change redraws

    async def _other_direction(self) -> None:
        """Redraw, with at most as many images as the direction has rows."""
        with parts.told():
            direction = self.direction.value or None
            self.n.max, self.count.max = self.service.most(MOST, direction), self.service.most(MOST_FILES, direction)
            if self.one is not None:
                self.one.bound(direction)
            self.n.value, self.count.value = parts.whole(self.n), parts.whole(self.count)
        await self.redraw()

    async def _other_class(self) -> None:
        """Redraw; when one row per class is switched on or off, also reset the number of images."""
        each = self.classes.value == EVERY
        if each != (self.sheet is not None and self.sheet.each):
            self.n.value = (
                max(1, min(pictures.ROW, MOST // len(self.rows)))
                if each
                else self.service.usual(self.direction.value or None)
            )
        await self.redraw()

    async def _draw_sheet(self) -> None:
        with parts.told():
            if self.service.lack:
                await self._draw_one()
                return
            wish = self._wish(parts.whole(self.n))
            sheet = await run.io_bound(self.service.sheet, wish)
            if sheet is None or self.left:
                return
            self.sheet = sheet
            self.picture.source = parts.address(sheet.png)
            self.command.text = self.service.command(wish)
            self._mark()
        await self._draw_one()

    async def _draw_one(self) -> None:
        if self.one is not None:
            await self.one.redraw()

    async def _draw_walk(self) -> None:
        if self.service.column is None:
            return
        if self.edits is not None:
            await self.edits.redraw()
        with parts.told():
            ends = [(parts.whole(seed), parts.whole(number)) for seed, number in (self.start, self.end)]
            walk = Walk(ends[0], ends[1], self._truncation(), self.label.value)
            frames = await run.io_bound(self.service.walk, walk)
            if frames is None or self.left:
                return
            self.frames = frames
            self.start_picture.source, self.end_picture.source = parts.address(frames[0]), parts.address(frames[-1])
            self._show_frame()
            self._mark()

    def _show_frame(self) -> None:
        if self.frames:
            k = round(self.t.value * (FRAMES - 1))
            self.between.source = parts.address(self.frames[k])
            self.shown_t.text = f"t = {k / (FRAMES - 1):.2f}"

    def _mark(self) -> None:
        """Frame the path's ends in the sheet."""
        if self.service.column is None:
            return
        frames = []
        for (seed, number), colour in ((self.start, BLUE), (self.end, AMBER)):
            pair = (parts.whole(seed), parts.whole(number))
            if self.sheet is not None and pair in self.sheet.pairs:
                x, y = self.sheet.corner(self.sheet.pairs.index(pair))
                height, width = (side - self.sheet.gap for side in self.sheet.cell)
                frames.append(
                    f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{colour}"'
                    ' stroke-width="4" rx="2" />'
                )
        self.picture.content = "".join(frames)

    async def _pick(self, event: MouseEventArguments) -> None:
        """Make the image under the mouse an end of the path; the path takes the class of its start."""
        k = self.sheet.at(event.image_x, event.image_y) if self.sheet is not None else None
        if self.sheet is None or k is None or self.service.column is None:
            return
        seed, number = self.end if event.shift else self.start
        seed.value, number.value = self.sheet.pairs[k]
        if self.sheet.labels is not None and not event.shift:
            self.label.value = self.sheet.labels[k]
        await self.rewalk()

    async def _download_zip(self) -> None:
        self._busy(True)
        with parts.told():
            wish = self._wish(parts.whole(self.count))
            for old in self.folder.glob("*.zip"):
                old.unlink()
            target = self.folder / f"{self.service.sampler.name}-seed{wish.seed}.zip"
            await run.io_bound(self.service.archive, wish, target, lambda drawn: self._advance(drawn / wish.size))
            ui.download.file(target)
        self._busy(False)

    def _busy(self, busy: bool) -> None:
        """Show the archive's progress, and disable the button meanwhile."""
        self.share = 0.0
        self.progress.value = 0.0
        self.progress.set_visibility(busy)
        self.watch.active = busy
        self.zip.props("loading") if busy else self.zip.props(remove="loading")

    def _advance(self, share: float) -> None:
        """Called between chunks. Raises Interrupted if the visitor has left."""
        if self.left:
            raise Interrupted("the visitor left")
        self.share = share

    def _download_sheet(self) -> None:
        if self.sheet is not None:
            ui.download.content(self.sheet.png, f"{self.service.sampler.name}-seed{parts.whole(self.seed)}.png")

    def _leave(self) -> None:
        self.left = True
        shutil.rmtree(self.folder, ignore_errors=True)
