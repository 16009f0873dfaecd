"""The pictures of the window in docs/window.md and README.md, made by driving it.

    python -m benchmarks.gallery
    python -m benchmarks.gallery --steps 400 --out /tmp/pictures

Trains the bundled scene in the window on a virtual screen and takes its picture in the states that
the documentation talks about.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

from tests.display import virtual_display
from tests.driver import ROOT, WindowDriver
from tests.window_steps import choose_in_menu

LEGO = ROOT / "assets" / "scenes" / "lego"
MOST_BYTES = 300_000


@dataclass(frozen=True)
class Options:
    """How long to train, and where the pictures go."""

    steps: int = 2500  # before the pictures: the network starts at 1000
    run: Path | None = None  # a run of the bundled scene to continue; default: a new one
    out: Path = ROOT / "docs" / "images"


class Gallery:
    """Takes the pictures of one window."""

    def __init__(self, driver: WindowDriver, out: Path) -> None:
        self.driver, self.out = driver, out
        out.mkdir(parents=True, exist_ok=True)

    def settle(self) -> None:
        """Wait until the camera stands, its sharp picture is there, and its bars."""
        self.driver.until(
            lambda s: s["picture"] and not (s["moving"] or s["picture"]["moving"]), 60
        )
        self.driver.until(lambda s: s["preview"] or s["sweep"], 60)
        time.sleep(1.0)
        self.driver.frames(4)

    def shot(self, name: str) -> None:
        """Write ``window_NAME.png``."""
        path = self.out / f"window_{name}.png"
        image = Image.fromarray(self.driver.screenshot())
        image.save(path, optimize=True)
        if path.stat().st_size > MOST_BYTES:
            image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size // 1024} KiB")

    def orbit(self, across: float, down: float) -> None:
        """Drag by shares of the picture."""
        self.driver.drag(
            self.driver.center("view", 0.5, 0.9),
            self.driver.center("view", 0.5 + across, 0.9 + down),
        )

    def training(self, steps: int) -> None:
        """From a free camera, with curves."""
        self.orbit(0.16, 0.04)
        self.driver.wheel("view", 1)
        self.driver.until(lambda s: s["step"] >= steps, 1200)
        self.driver.move(self.driver.center("status"))
        self.settle()
        self.shot("training")
        self.driver.key("t")
        self.driver.until(lambda s: s["state"] == "paused")

    def wipe(self) -> None:
        """All layers against one, on the same camera."""
        self.driver.click("tab_compare")
        self.driver.click("wipe_k")
        self.driver.until(lambda s: s["other"])
        self.driver.move(self.driver.center("status"))
        self.settle()
        self.shot("wipe")
        self.driver.key("v")

    def layers(self) -> None:
        """The depths of the third layer, chosen by its thumbnail."""
        self.driver.click("tab_camera")
        self.driver.click("mode_depth")
        self.driver.until(lambda s: s["mode"] == "depth")
        self.settle()
        self.driver.click(self.driver.center("atlas", 2.5 / 8, 0.55))
        self.driver.until(lambda s: s["layer"] == 3)
        self.driver.move(self.driver.center("status"))
        self.settle()
        self.shot("layers")
        self.driver.click("mode_picture")

    def probe(self) -> None:
        """What lies behind one pixel."""
        self.driver.click("tab_probe")
        self.driver.move(self.driver.center("view", 0.42, 0.42))
        self.settle()
        self.driver.move(self.driver.center("view", 0.425, 0.425))
        self.driver.until(lambda s: s["probe"] and s["probe"]["ids"])
        time.sleep(0.5)
        self.shot("probe")

    def cameras(self) -> None:
        """All photographs' cameras from outside."""
        self.driver.click("tab_camera")
        self.driver.key("c")
        self.driver.wheel("view", -7)
        self.driver.move(self.driver.center("status"))
        self.settle()
        self.shot("cameras")
        self.driver.key("c")
        self.driver.wheel("view", 7)

    def drop(self) -> None:
        """A point cloud on the window, before it is decided what becomes of it."""
        self.driver.drop(LEGO / "points.ply", at="view")
        self.driver.until(lambda s: s["card"], 60)
        self.driver.move(self.driver.center("status"))
        self.settle()
        self.shot("drop")
        self.driver.click("card_back")
        self.driver.until(lambda s: not s["card"])

    def light(self) -> None:
        """The light theme, at a held-out photograph, with the difference to it."""
        choose_in_menu(self.driver, "menu_view", "theme_light")
        self.driver.until(lambda s: s["theme"] == "light")
        self.driver.click("tab_compare")
        self.driver.key("shift+bracketright")
        self.driver.click("difference")
        self.driver.until(lambda s: s["source"] == "difference")
        self.driver.move(self.driver.center("status"))
        self.settle()
        self.shot("light")


def main(options: Options) -> None:
    """Train, then one picture after the other."""
    arguments = ["--scene", "lego"]
    if options.run is not None:
        arguments = ["--resume", str(options.run.resolve())]
    with (
        tempfile.TemporaryDirectory(prefix="gallery_") as folder,
        virtual_display("1280x800") as display,
        WindowDriver(arguments, Path(folder), display, start=120) as driver,
    ):
        driver.until(lambda state: state["step"] > 10, 120)
        gallery = Gallery(driver, options.out)
        gallery.training(options.steps)
        rest: tuple[Callable[[], None], ...] = (
            gallery.wipe,
            gallery.layers,
            gallery.probe,
            gallery.cameras,
            gallery.drop,
            gallery.light,
        )
        for picture in rest:
            picture()


if __name__ == "__main__":
    main(tyro.cli(Options))
