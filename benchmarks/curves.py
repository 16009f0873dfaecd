"""Held-out PSNR against training time as a picture, from files of ``time_to_quality --json``.

python -m benchmarks.curves runs/*.json --out docs/images/time_to_quality.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import tyro

matplotlib.use("Agg")  # no window

from matplotlib import pyplot

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito


def curves(files: list[Path]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Points (seconds, dB) by scene and by label, in the order of the files."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for path in files:
        data = json.loads(path.read_text())
        of_scene = found.setdefault(str(data.get("title") or data["scene"]), {})
        for result in data["results"]:
            of_scene.setdefault(_label(result), []).extend(
                (row["seconds"], row["psnr"]) for row in result["rows"]
            )
    return found


def _label(result: dict[str, Any]) -> str:
    settings = ", ".join(result.get("set", []))
    return f"{result['method']} K={result['k']}" + (f" ({settings})" if settings else "")


def main(files: Annotated[list[Path], tyro.conf.Positional], out: Path) -> None:
    """Draw one panel a scene.

    Args:
        files: written by ``benchmarks.time_to_quality --json``.
        out: the picture, PNG or SVG.
    """
    scenes = curves(files)
    figure, panels = pyplot.subplots(
        1, len(scenes), figsize=(6.4 * len(scenes), 4.4), squeeze=False, layout="constrained"
    )
    for panel, (scene, lines) in zip(panels[0], scenes.items(), strict=True):
        for color, (label, points) in zip(COLORS * 3, lines.items(), strict=False):
            points = [p for p in sorted(points) if p[0] > 0]  # no logarithm of the start
            seconds, psnr = zip(*points, strict=True)
            panel.plot(seconds, psnr, marker="o", markersize=4, color=color, label=label)
        panel.set_xscale("log")
        ticks = sorted({s for points in lines.values() for s, _ in points if s > 0})
        panel.set_xticks(ticks, [f"{s:g}" for s in ticks])
        panel.minorticks_off()
        panel.set(title=scene, xlabel="seconds of training", ylabel="held-out PSNR (dB)")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    tyro.cli(main)
