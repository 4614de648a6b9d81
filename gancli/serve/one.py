"""The page's box for one image: a row of data or a file of the visitor's, what is made of it, and the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nicegui import run, ui
from nicegui.events import UploadEventArguments

from gancli.data import imagefile
from gancli.serve import parts
from gancli.serve.desk import LARGEST_UPLOAD, Desk, One, Wish
from gancli.serve.latest import Latest

SIDE = 240  # pixels that a picture is wide


class OneImage:
    """Input, output and truth side by side. wish: the page's seed, direction and class."""

    def __init__(self, desk: Desk, folder: Path, wish: Callable[[], Wish]):
        self.desk, self.folder, self.wish = desk, folder, wish
        self.file: tuple[bytes, str] | None = None  # of the visitor's; None: the row
        self.found: One | None = None
        self.redraw = Latest(self._draw)

    def build(self) -> None:
        """Lay it out."""
        with parts.card("One image"):
            with ui.row().classes("w-full items-center gap-4"):
                self.row = parts.number(
                    "Row", 0, 0, self.desk.most(1 << 30, self.wish().direction) - 1, "row", self._to_row
                )
                self.row.style("width: 120px").set_visibility(not self.desk.lack)
                pick = ui.button("Your own image", icon="upload").props("outline no-caps")
                save = ui.button("The output", icon="image", on_click=self._download)
                save.props("outline no-caps data-ask=output")
            upload = ui.upload(
                auto_upload=True,
                max_file_size=LARGEST_UPLOAD,
                on_upload=self._take,
                on_rejected=lambda: self._refused(f"a page takes files of at most {LARGEST_UPLOAD >> 20} MiB"),
            )
            upload.on("failed", lambda: self._refused("the file did not arrive"))
            upload.props(f'accept="{",".join(sorted(imagefile.SUFFIXES))}"').style("height: 0; overflow: hidden")
            upload.classes("absolute opacity-0")
            # In the browser itself, which opens a list of files at a person's click alone.
            pick.on("click", js_handler=f"() => runMethod({upload.id}, 'pickFiles', [])")
            with ui.row().classes("w-full items-end gap-6"):
                self.pictures: dict[str, tuple[ui.interactive_image, ui.column]] = {}
                for name in ("input", "output", "truth"):
                    with ui.column().classes("items-center gap-1") as column:
                        self.pictures[name] = parts.picture(name, SIDE), column
                        ui.label(name).classes("soft")
            self.said = ui.label().classes("soft").props("data-show=said")

    def bound(self, direction: str | None) -> None:
        """Take as many rows as a direction has. Raises GanError."""
        self.row.max = self.desk.most(1 << 30, direction) - 1

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
            if file is None and self.desk.lack:
                self.said.text = self.desk.lack
                return
            if file is None:
                found = await run.io_bound(self.desk.row, pair, wish.direction, label)
            else:
                self.file = None  # a file that cannot be used is not tried again
                found = await run.io_bound(self.desk.upload, *file, wish)
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

    def _refused(self, words: str) -> None:
        ui.notify(words, type="warning")
