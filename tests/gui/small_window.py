"""A window with nothing in it but what the tests of drops, keys and the driver look at."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app import native

TITLE = "K-Buffers test"
KEYS = ("W", "[", "Escape", "Ctrl", "Left Shift")


def main() -> None:
    """Until it is closed; every frame goes to the file of ``--ui-state``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ui-state", type=Path, required=True)
    path: Path = parser.parse_args().ui_state
    system = native.start()
    import dearpygui.dearpygui as dpg

    drops: list[list[str]] = []
    state: dict[str, Any] = {
        "writes": 0, "drops": drops, "wheel": 0, "clicks": 0, "doubles": 0,
        "presses": dict.fromkeys(KEYS, 0),
    }  # fmt: skip

    def count(name: str, amount: float = 1) -> None:
        state[name] += amount

    dpg.create_context()
    dpg.configure_app(manual_callback_management=True)
    dpg.create_viewport(title=TITLE, width=500, height=400, x_pos=30, y_pos=20, vsync=False)
    with dpg.window(tag="main"):
        dpg.add_button(tag="button", label="Press", callback=lambda: count("clicks"))
        dpg.add_slider_int(tag="slider", min_value=0, max_value=100, width=300)
        dpg.add_input_text(tag="text", width=300)
        with dpg.drawlist(100, 60, tag="red"):
            dpg.draw_rectangle((0, 0), (100, 60), fill=(255, 0, 0, 255), color=(255, 0, 0, 255))
    with dpg.handler_registry():
        dpg.add_mouse_wheel_handler(callback=lambda _, notches: count("wheel", notches))
        dpg.add_mouse_double_click_handler(
            dpg.mvMouseButton_Left, callback=lambda: count("doubles")
        )
    dpg.setup_dearpygui()
    dpg.show_viewport()
    dpg.set_primary_window("main", True)
    state["drop"] = system.attach(TITLE, drops.append)
    state["shared"] = system.shared
    held = dict.fromkeys(KEYS, False)
    while dpg.is_dearpygui_running():
        dpg.run_callbacks(dpg.get_callback_queue())
        for key in KEYS:
            down = system.key_down(key)
            state["presses"][key] += down and not held[key]
            held[key] = down
        system.poll()
        dpg.render_dearpygui_frame()
        state["writes"] += 1
        state |= {
            "held": [key for key in KEYS if held[key]],
            "control": dpg.is_key_down(dpg.mvKey_ModCtrl),
            "focused": system.focused,
            "slider": dpg.get_value("slider"),
            "text": dpg.get_value("text"),
            "size": [dpg.get_viewport_client_width(), dpg.get_viewport_client_height()],
            "rects": {
                tag: [*dpg.get_item_rect_min(tag), *dpg.get_item_rect_size(tag)]
                for tag in ("button", "slider", "text", "red")
            },
        }
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        os.replace(temporary, path)
        time.sleep(0.03)
    system.close()
    dpg.destroy_context()
    print("closed")


if __name__ == "__main__":
    main()
