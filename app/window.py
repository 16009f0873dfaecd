"""The window: layout, frame loop, shortcuts, files dropped on it, and a clean end.

One Dear PyGui viewport: picture and layer strip left, panels right, status line below. The loop
sleeps until something happens (input, a new picture, a dropped file), so that training keeps the
processor.
"""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Event

import dearpygui.dearpygui as dpg

from app import plates, popups
from app.actions import Actions
from app.desk import Desk
from app.guard import Guard
from app.lost_display import on_lost_display
from app.native import Native
from app.options import Options
from app.panels import Panel
from app.panels.buffers import BuffersPanel
from app.panels.camera import CameraPanel
from app.panels.compare import ComparePanel
from app.panels.log import LogPanel
from app.panels.probe import ProbePanel
from app.panels.scene import ScenePanel
from app.panels.training import TrainingPanel
from app.panels.tune import TunePanel
from app.preview import Preview
from app.settings import Settings, load, save
from app.shortcuts import KeyState
from app.signals import interruptions
from app.status import status_line
from app.theme import Theme
from app.ui_state import StateFile
from app.viewport import Viewport
from app.widgets import publish, set_text, typing

TITLE = "K-Buffers"
PANEL_SECONDS = 0.1  # between two updates of the panels
WATCHED_FPS = 30  # of frames, panels and --ui-state at least, where somebody waits for the state
BUSY_FPS = 60  # while something moves
UPLOAD_FRAMES = 2  # until a new picture is on the screen, see app/texture.py
IDLE_FPS = 2  # while nothing does; input and new pictures end the wait at once
STATUS_HEIGHT = 26
GAP = 6
NARROWEST_PANEL, WIDEST_PANEL = 300, 640
LOWEST_ATLAS, HIGHEST_ATLAS = 60, 320


def run(options: Options, native: Native) -> int:
    """Open the window and stay until it closes.

    Args:
        options: what to open.
        native: the started windowing system.

    Returns:
        0.
    """
    with interruptions() as interrupted:
        settings, note = load()
        window = Window(options, native, settings)
        on_lost_display(window.desk.keep)
        if note:
            window.desk.messages.add(note, "warning")
        try:
            window.loop(interrupted)
        finally:
            ended = window.close()
    if not ended:
        print("Ended in the middle of a long piece of work.", file=sys.stderr)
    return 0


class Window:
    """See the module's text."""

    def __init__(self, options: Options, native: Native, settings: Settings) -> None:
        self.options, self.native = options, native
        self._dropped: SimpleQueue[list[str]] = SimpleQueue()
        self._size = (0, 0)
        self._panels_shown = True
        self._dragging: str | None = None  # which splitter
        self._grabbed = 0.0  # its size less the distance of the mouse when it was taken
        watched = options.ui_state is not None
        self._idle_fps = WATCHED_FPS if watched else IDLE_FPS
        self._panel_seconds = 0.5 / WATCHED_FPS if watched else PANEL_SECONDS
        self._panel_time = 0.0
        self._start = self._last = time.perf_counter()
        self._busy_until = 0.0
        self._frames_due = 0  # that must not wait
        self._frame_ms = 0.0
        self._keys = KeyState()
        preview = None
        if native.hidden is not None:
            preview = Preview(native.hidden)
            preview.point_size = settings.point_size
            preview.start()
        dpg.create_context()
        dpg.configure_app(manual_callback_management=True)
        self.theme = Theme(settings.theme, native.content_scale * settings.font_scale)
        dpg.create_viewport(
            title=TITLE,
            width=settings.width,
            height=settings.height,
            vsync=False,
            x_pos=max(settings.x or 0, 0),
            y_pos=max(settings.y or 0, 0),
            min_width=900,
            min_height=600,
            clear_color=self.theme.palette.window,
        )
        self.desk = Desk(settings, preview, native.wake)
        self._guard = Guard(self.desk.messages, options.debug)
        self.actions = Actions(self.desk, self)
        self._build()
        dpg.setup_dearpygui()
        dpg.show_viewport()
        dpg.set_primary_window("main", True)
        self.desk.messages.add(native.attach(TITLE, self._dropped.put))
        self.state = StateFile(options.ui_state, self) if options.ui_state else None
        if options.scene is not None or options.resume is not None:
            self.desk.open(options)

    @property
    def settings(self) -> Settings:
        """Of the user."""
        return self.desk.settings

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the inside in pixels."""
        return self._size

    # ------------------------------------------------------------------ layout
    def _build(self) -> None:
        desk, theme = self.desk, self.theme
        with dpg.window(tag="main", no_scrollbar=True, no_scroll_with_mouse=True):
            popups.menu(self)
            with dpg.group(horizontal=True, tag="columns"):
                with dpg.group(tag="left"):
                    self.viewport = Viewport(
                        desk, theme, desk.viewing.set_layer, self.native.drag_position
                    )
                with dpg.child_window(tag=publish("panels"), border=False):
                    self._build_panels()
            dpg.add_text("", tag=publish("status"))
        self.card = plates.CloudCard(desk, theme)
        self.error = plates.ErrorPopup(desk, theme)
        self.welcome = plates.Welcome(self)

    def _build_panels(self) -> None:
        desk, theme, width = self.desk, self.theme, self._panel_width()
        self.training = TrainingPanel(desk, theme)
        dpg.add_separator()
        self.buffers = BuffersPanel(desk, theme, width)
        dpg.add_separator()
        with dpg.tab_bar(tag="tabs"):
            with self._tab("Camera"):
                camera = CameraPanel(desk, theme)
            with self._tab("Compare"):
                compare = ComparePanel(desk, theme)
            with self._tab("Probe"):
                self.probe = ProbePanel(desk, theme, width)
            with self._tab("Model"):
                self.tune = TunePanel(desk, theme, self.confirm)
            with self._tab("Scene"):
                scene = ScenePanel(desk, theme, self.open_file, self.open_folder)
            with self._tab("Log"):
                log = LogPanel(desk, theme)
        self.panels: tuple[Panel, ...] = (
            self.training,
            self.buffers,
            camera,
            compare,
            self.probe,
            self.tune,
            scene,
            log,
        )

    @staticmethod
    @contextlib.contextmanager
    def _tab(label: str) -> Iterator[None]:
        """A tab that scrolls on its own, so that the controls above always stay in sight."""
        with (
            dpg.tab(label=label, tag=publish(f"tab_{label.lower()}")),
            dpg.child_window(border=False, height=-1),
        ):
            yield

    def _panel_width(self) -> int:
        return self.theme.px(self.settings.panel_width) - 1

    def _lay_out(self) -> None:
        """Sizes of everything from the size of the window."""
        px, settings = self.theme.px, self.settings
        width, height = dpg.get_viewport_client_width(), dpg.get_viewport_client_height()
        self._size = (width, height)
        gap = px(GAP)
        panel = px(settings.panel_width) if self._panels_shown else 0
        atlas = px(settings.atlas_height)
        top = popups.menu_height(self.theme)
        inner = height - top - px(STATUS_HEIGHT) - 3 * gap
        left = max(64, width - 2 * px(8) - (panel + gap if panel else 0))
        dpg.configure_item("panels", width=panel, height=inner, show=self._panels_shown)
        self.viewport.resize((left, max(64, inner - atlas - gap)), (left, atlas))
        content = self._panel_width()
        self.buffers.resize(content)
        self.probe.resize(content)

    def toggle_panels(self) -> None:
        """Hide the panels for a larger picture, or show them again."""
        self._panels_shown = not self._panels_shown
        self._lay_out()

    def set_theme(self, name: str) -> None:
        """``dark`` or ``light``."""
        self.settings.theme = "light" if name == "light" else "dark"
        self.theme.use(self.settings.theme)
        dpg.set_viewport_clear_color(list(self.theme.palette.window))

    def set_font_scale(self, scale: float) -> None:
        """Size of texts and controls, from the next start on."""
        self.settings.font_scale = scale
        self.desk.messages.add("The new size counts from the next start of the program.")

    # ------------------------------------------------------------------ loop
    def loop(self, interrupted: Event) -> None:
        """Until the window closes, Ctrl-C or ``--exit-after`` is over."""
        end = self.options.exit_after
        while dpg.is_dearpygui_running() and not interrupted.is_set():
            if end is not None and time.perf_counter() - self._start > end:
                break
            self.frame()

    def frame(self) -> None:
        """Wait for something to happen, then one round of everything."""
        now = time.perf_counter()
        busy = now < self._busy_until or self._frames_due > 0
        fps = BUSY_FPS if busy else self._idle_fps
        self._frames_due -= 1
        rest = max(0.0, self._last + 1 / fps - now)
        self.native.wait(rest)
        self.native.poll()
        start = time.perf_counter()
        if start < now + rest:  # input: widgets answer a frame after it
            self._frames_due = max(self._frames_due, 1)
        dt = min(start - self._last, 0.25)
        self._last = start
        desk, call = self.desk, self._guard.call
        for job in dpg.get_callback_queue() or ():
            call(dpg.run_callbacks, [job])
        call(self._take_drops)
        call(self._fit)
        call(self._splitters)
        call(self._handle_keys, dt)
        call(self.viewport.mouse)
        fresh = call(desk.tick, dt, self.viewport.area, self.viewport.tiles_area)
        call(self.viewport.update)
        if self.viewport.busy or desk.viewing.moving or self._keys.held:
            self._busy_until = start + 0.3
        if fresh:
            self._frames_due = UPLOAD_FRAMES
        call(self.probe.point, self.viewport.pointed)
        said = desk.messages.collect()
        if said or start - self._panel_time > self._panel_seconds:
            self._panel_time = start
            for part in (*self.panels, self.card, self.welcome, self.error):
                call(part.update)
            call(lambda: set_text("status", status_line(desk)))
            if self.state is not None:
                call(self.state.write)
        dpg.render_dearpygui_frame()
        self._frame_ms += 0.1 * (1000 * (time.perf_counter() - start) - self._frame_ms)
        self.tune.upload_ms = self._frame_ms

    def _take_drops(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self.desk.drops.take(self._dropped.get_nowait())

    def _fit(self) -> None:
        """Lay out anew when the window has another size."""
        size = (dpg.get_viewport_client_width(), dpg.get_viewport_client_height())
        if size != self._size:
            self._lay_out()

    def _handle_keys(self, dt: float) -> None:
        asked = popups.any_open()  # then Escape is the only answer by key
        for action in self._keys.update(self.native.key_down, typing(), self.native.focused):
            if not asked or action == "cancel":
                self.actions.run(action)
        if self._keys.held and not asked:
            self.actions.fly(self._keys.held, dt, self._keys.factor)

    def _splitters(self) -> None:
        """Drag the gap between picture and panels, or between picture and layers."""
        mouse = dpg.get_mouse_pos(local=False)
        down = dpg.is_mouse_button_down(dpg.mvMouseButton_Left)
        if self._dragging is None:
            over = self._splitter_at(mouse)
            if over and dpg.is_mouse_button_clicked(dpg.mvMouseButton_Left):
                self._dragging, settings = over, self.settings
                size = settings.panel_width if over == "panel" else settings.atlas_height
                self._grabbed = size - self._size_at(over, mouse)
            return
        if not down:
            self._dragging = None
            return
        settings, size = self.settings, self._size_at(self._dragging, mouse) + self._grabbed
        if self._dragging == "panel":
            settings.panel_width = round(min(max(size, NARROWEST_PANEL), WIDEST_PANEL))
        else:
            settings.atlas_height = round(min(max(size, LOWEST_ATLAS), HIGHEST_ATLAS))
        self._lay_out()

    def _size_at(self, splitter: str, mouse: Sequence[float]) -> float:
        """From the mouse to the far edge of the window, in pixels at scale 1."""
        axis = 0 if splitter == "panel" else 1
        return (self._size[axis] - mouse[axis]) / self.theme.scale

    def _splitter_at(self, mouse: Sequence[float]) -> str | None:
        corner = dpg.get_item_rect_min("view")
        right = corner[0] + self.viewport.area[0]
        bottom = corner[1] + self.viewport.area[1]
        gap = self.theme.px(GAP) + 2
        if right <= mouse[0] <= right + gap and mouse[1] > corner[1] and self._panels_shown:
            return "panel"
        if bottom <= mouse[1] <= bottom + gap and corner[0] < mouse[0] < right:
            return "atlas"
        return None

    # ------------------------------------------------------------------ dialogs
    def confirm(self, title: str, question: str, yes: Callable[[], None]) -> None:
        """Ask before something is lost."""
        popups.confirm(self.theme, title, question, yes)

    def open_file(self) -> None:
        """Dialog for files."""
        popups.file_dialog(self.theme, self.desk.drops.take, folders=False)

    def open_folder(self) -> None:
        """Dialog for folders."""
        popups.file_dialog(self.theme, self.desk.drops.take, folders=True)

    def export_gaussians(self) -> None:
        """Dialog for the file that they go to."""
        popups.export_gaussians(self.theme, self.desk)

    def help(self) -> None:
        """All shortcuts."""
        popups.help_page(self.theme)

    # ------------------------------------------------------------------ end
    def close(self) -> bool:
        """Save settings and checkpoints; false when some thread was still busy after 3 s."""
        position = dpg.get_viewport_pos()
        self.settings.x, self.settings.y = int(position[0]), int(position[1])
        if self._size[0] > 0:
            self.settings.width = dpg.get_viewport_width()
            self.settings.height = dpg.get_viewport_height()
        problem = save(self.settings)
        if problem:
            print(problem, file=sys.stderr)
        ended = self.desk.close()
        if self.state is not None:
            self._guard.call(self.state.write)
        if ended:  # else the preview may still be drawing in the hidden window
            self.native.close()
            dpg.destroy_context()
        return ended
