"""The page's box for one image: a row of data or an uploaded file, its translation, and the true output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nicegui import run, ui
from nicegui.events import UploadEventArguments

from gancli.data import imagefile
from gancli.serve import parts
from gancli.serve.latest import Latest
from gancli.serve.service import LARGEST_UPLOAD, One, Service, SheetRequest

SIDE = 240  # width of a picture in pixels


class OneImage:
    """Input, output and true output side by side. wish: returns the page's seed, direction and class."""

    def __init__(self, service: Service, folder: Path, wish: Callable[[], SheetRequest]):
        self.service, self.folder, self.wish = service, folder, wish
        self.file: tuple[bytes, str] | None = None  # the uploaded file; None: the row
        self.found: One | None = None
        self.redraw = Latest(self._draw)

    def build(self) -> None:
        """Build the box."""
        with parts.card("One image"):
            with ui.row().classes("w-full items-center gap-4"):
                self.row = parts.number(
                    "Row", 0, 0, self.service.most(1 << 30, self.wish().direction) - 1, "row", self._to_row
                )
                self.row.style("width: 120px").set_visibility(not self.service.lack)
                pick = ui.button("Your own image", icon="upload").props("outline no-caps")
                save = ui.button("The output", icon="image", on_click=self._download)
                save.props("outline no-caps data-ask=output")
            upload = ui.upload(
                auto_upload=True,
                max_file_size=LARGEST_UPLOAD,
                on_upload=self._take,
                on_rejected=lambda: self._refused(f"files may have at most {LARGEST_UPLOAD >> 20} MiB"),
            )
            upload.on("failed", lambda: self._refused("the upload failed"))
            upload.props(f'accept="{",".join(sorted(imagefile.SUFFIXES))}"').style("height: 0; overflow: hidden")
            upload.classes("absolute opacity-0")
            # Runs in the browser, which opens a file dialog only in response to a click.
            pick.on("click", js_handler=f"() => runMethod({upload.id}, 'pickFiles', [])")
            with ui.row().classes("w-full items-end gap-6"):
                self.pictures: dict[str, tuple[ui.interactive_image, ui.column]] = {}
                for name in ("input", "output", "truth"):
                    with ui.column().classes("items-center gap-1") as column:
                        self.pictures[name] = parts.picture(name, SIDE), column
                        ui.label(name).classes("soft")
            self.said = ui.label().classes("soft").props("data-show=said")

    def bound(self, direction: str | None) -> None:
        """Limit the row field to the rows of a direction. Raises GanError."""
        self.row.max = self.service.most(1 << 30, direction) - 1

    async def _to_row(self) -> None:
        self.file = None
        await self.redraw()

    async def _take(self, event: UploadEventArguments) -> None:
        event.sender.reset()  # type: ignore[attr-defined]
        self.file = await event.file.read(), event.file.name
        await self.redraw()

    async def _draw(self) -> None:
        with parts.told():
            wish, file = self.wish(), self.file
            label = wish.classes[0] if len(wish.classes) == 1 else None
            pair = wish.seed, parts.whole(self.row)
            if file is None and self.service.lack:
                self.said.text = self.service.lack
                return
            if file is None:
                found = await run.io_bound(self.service.row, pair, wish.direction, label)
            else:
                self.file = None  # an unusable file is not tried again
                found = await run.io_bound(self.service.upload, *file, wish)
                self.file = self.file or file
            if found is not None:
                self._show(found)

    def _show(self, found: One) -> None:
        self.found = found
        for name, png in (("input", found.given), ("output", found.made), ("truth", found.truth)):
            picture, column = self.pictures[name]
            column.set_visibility(png is not None)
            if png is not None:
                picture.source = parts.address(png)
        own = [] if self.file is None else [self.file[1]]
        self.said.text = "; ".join([*own, *found.changes])

    def _download(self) -> None:
        if self.found is not None:
            with parts.told():
                ui.download.file(imagefile.write(self.folder / "output", self.found.name, self.found.image))

    def _refused(self, message: str) -> None:
        ui.notify(message, type="warning")
