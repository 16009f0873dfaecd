"""Makes the bundled scene: ``python assets/generator/make_lego.py`` (needs numba, scipy, pillow).

Writes photos, poses, points and true depth in NeRF-Synthetic layout, the same bytes every time
on the same versions of the libraries. Takes a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from cameras import (
    CAMERA_ANGLE_X,
    FOCAL,
    SIZE,
    pixel_rays,
    test_poses,
    training_poses,
    validation_poses,
)
from fire_engine import build_fire_engine
from numpy.typing import NDArray
from PIL import Image
from points import photo_colors, visible_surface, write_ply
from shading import render
from shapes import Builder
from street import build_street
from tracer import MISS, World, first_surface, make_world

SEED = 20
STUD = 0.130  # scene units between studs
ORIGIN = (0.08, 0.0, 3.5)  # the point, in studs, that the cameras look at
SAMPLES, SKY_RAYS, SUN_RAYS = 6, 5, 3  # SAMPLES^2 a pixel; rays a sample
DEPTH_SCALE = 1e-4  # scene units in one step of a depth PNG
DEPTH_VIEWS = (0, 4, 8, 12, 16)
POINT_SPACING = 0.0152


def build_world() -> World:
    """The model, ready to be traced."""
    builder = Builder()
    build_street(builder)
    build_fire_engine(builder)
    return make_world(builder.freeze(STUD, ORIGIN))


def photograph(world: World, pose: NDArray[np.float64], seed: int) -> NDArray[np.uint8]:
    """RGBA picture [SIZE, SIZE, 4], straight colour; black where nothing is covered."""
    image = render(world, pose, FOCAL, SIZE, SAMPLES, SKY_RAYS, SUN_RAYS, seed)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def true_depth(world: World, pose: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Camera z [SIZE, SIZE] of the first surface at pixel centres, in DEPTH_SCALE; 0 = none."""
    origins, directions = pixel_rays(pose)
    distance, _ = first_surface(world, origins, directions, 50.0)
    depth = distance * (directions @ -pose[:3, 2])
    steps = np.where(distance < MISS, np.round(depth / DEPTH_SCALE), 0)
    return steps.reshape(SIZE, SIZE).astype(np.uint16)


def main() -> None:
    """Write the whole scene into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parents[1] / "scenes" / "lego"
    parser.add_argument("--out", type=Path, default=default, help="folder of the scene")
    out: Path = parser.parse_args().out
    began = time.perf_counter()
    rng = np.random.default_rng(SEED)
    splits = {
        "train": training_poses(60, rng),
        "val": validation_poses(10, rng),
        "test": test_poses(20),
    }
    world = build_world()
    train_images = []
    for number, (split, poses) in enumerate(splits.items()):
        (out / split).mkdir(parents=True, exist_ok=True)
        frames = []
        for i, pose in enumerate(poses):
            image = photograph(world, pose, SEED + 1000 * number + i)
            Image.fromarray(image).save(out / split / f"r_{i}.png", optimize=True)
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": pose.tolist()})
            if split == "train":
                train_images.append(image)
            print(f"{time.perf_counter() - began:6.1f} s  {split} {i + 1}/{len(poses)}")
        content = {"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}
        (out / f"transforms_{split}.json").write_text(json.dumps(content, indent=1) + "\n")
    points, normals = visible_surface(world, splits["train"], POINT_SPACING, rng)
    colors = photo_colors(world, splits["train"], train_images, points, normals)
    write_ply(out / "points.ply", points, normals, colors)
    (out / "depth").mkdir(exist_ok=True)
    for i in DEPTH_VIEWS:
        depth = Image.fromarray(true_depth(world, splits["test"][i]))
        depth.save(out / "depth" / f"test_r_{i}.png", optimize=True)
    about = {"scale": DEPTH_SCALE, "views": [f"test/r_{i}" for i in DEPTH_VIEWS]}
    (out / "depth" / "depth.json").write_text(json.dumps(about) + "\n")
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6
    print(f"{time.perf_counter() - began:6.1f} s  {len(points)} points, {size:.2f} MB in {out}")


if __name__ == "__main__":
    main()
