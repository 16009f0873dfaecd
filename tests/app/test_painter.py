"""Paintings: which side is where, what is kept, what is said; and the thread that makes them."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

import app.paintbox
from app.look import Look, Side
from app.paintbox import Paintbox, Painting, PaintJob
from app.painter import Painter
from app.snapshot import ViewRequest, ViewResult
from render.camera import Camera
from render.errors import UserError
from render.export.layers import LayerPictures
from render.kbuffer import KBuffer
from render.methods.base import Inspection, Render
from render.scenes.types import View

HEIGHT, WIDTH = 12, 20
BACKGROUND = torch.tensor([0.1, 0.6, 0.3])


def camera(width: int = WIDTH, height: int = HEIGHT) -> Camera:
    return Camera.look_at((3.0, 0, 0), (0.0, 0, 0), width=width, height=height)


def inside(k: int) -> Inspection:
    g = torch.Generator().manual_seed(k)
    index = torch.randint(0, 99, (HEIGHT, WIDTH, k), generator=g, dtype=torch.int32)
    depth = (1 + torch.rand(HEIGHT, WIDTH, k, generator=g)).cumsum(-1)
    weight = torch.rand(HEIGHT, WIDTH, k, generator=g) / k
    color = torch.rand(HEIGHT, WIDTH, k, 3, generator=g)
    return Inspection(KBuffer(index, depth, torch.zeros_like(depth), weight), color, weight)


def result(ks: tuple[int, ...] = (1, 3), inspected: tuple[int, ...] = (3,)) -> ViewResult:
    g = torch.Generator().manual_seed(9)
    renders = {k: Render(torch.rand(HEIGHT, WIDTH, 3, generator=g)) for k in ks}
    insides = {k: inside(k) for k in inspected}
    return ViewResult(ViewRequest(camera()), renders, insides, BACKGROUND, 0, 0.0)


def photograph(width: int = WIDTH, height: int = HEIGHT, alpha: int | None = None) -> View:
    g = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (height, width, 4), generator=g, dtype=torch.uint8)
    if alpha is not None:
        pixels[..., 3] = alpha
    return View(camera(width, height), lambda: pixels, "photo")


def paint(look: Look, photo: View | None = None, **changes: Any) -> Painting:
    return Paintbox().paint(PaintJob(replace(result(), **changes), look, photo))


def rgb(painting: Painting) -> Tensor:
    """[H, W, 3] after the checks that hold for every picture."""
    picture = painting.picture
    assert picture.dtype == np.float32 and picture.flags.c_contiguous
    assert picture.shape[2] == 4 and bool((picture[..., 3] == 1).all())
    assert bool(np.isfinite(picture).all()) and picture.min() >= 0 and picture.max() <= 1
    return torch.from_numpy(picture[..., :3])


# ------------------------------------------------------------------ sides
def test_the_picture_of_k_layers() -> None:
    for k in (1, 3):
        painting = paint(Look(Side(k=k)))
        assert torch.equal(rgb(painting), result().renders[k].rgb)
        assert painting.legend is painting.psnr is painting.note is painting.atlas is None


@pytest.mark.parametrize("wipe", [0.0, 0.26, 0.5, 1.0, -3.0, 7.0])
def test_wipe_columns_come_from_their_sides(wipe: float) -> None:
    painting = paint(Look(Side(k=3), Side(k=1), wipe))
    column = min(max(round(wipe * WIDTH), 0), WIDTH)
    picture, renders = rgb(painting), result().renders
    assert torch.equal(picture[:, :column], renders[3].rgb[:, :column])
    assert torch.equal(picture[:, column:], renders[1].rgb[:, column:])


def test_layers_with_their_legend_and_range() -> None:
    look = Look(Side(mode="depth", k=3, layer=2), Side(mode="count", k=3), 0.5)
    pictures = LayerPictures(inside(3), BACKGROUND)
    for given in (None, (2.0, 5.0)):
        painting = paint(replace(look, depth_range=given, percentiles=(5.0, 95.0)))
        span = given or pictures.span((5.0, 95.0))
        expected = pictures.picture("depth", 2, span)
        assert expected is not None and painting.depth_range == span
        assert torch.equal(rgb(painting)[:, :10], expected[:, :10])
        legend = pictures.legend("depth", span)
        assert legend is not None and painting.legend is not None
        assert painting.legend.ticks == legend.ticks and painting.other_legend is not None
        assert painting.other_legend.title == "Filled layers"
    assert paint(Look(Side(mode="color", k=3))).depth_range is None


def test_cumulative_stands_on_the_background_of_the_result() -> None:
    part = inside(3)
    expected = (part.weight[..., None] * part.color)[:, :, :2].sum(2)
    expected = expected + (1 - part.weight[..., :2].sum(-1))[..., None] * BACKGROUND
    picture = rgb(paint(Look(Side(mode="cumulative", k=3, layer=2))))
    assert torch.allclose(picture, expected, atol=1e-6)


# ------------------------------------------------------------------ photograph
def test_psnr_is_that_of_scikit_image_over_the_background() -> None:
    photo = photograph()
    painting = paint(Look(Side("difference", k=1), Side(k=3)), photo)
    target = photo.target(BACKGROUND).double().numpy()
    for k, value in ((1, painting.psnr), (3, painting.other_psnr)):
        image = result().renders[k].rgb.double().numpy()
        expected = peak_signal_noise_ratio(target, image, data_range=1)
        assert value == pytest.approx(expected, abs=1e-5)
    assert painting.legend is not None and painting.legend.title.startswith("Mean absolute")


def test_psnr_clamps_and_has_no_limit() -> None:
    photo = photograph(alpha=255)
    same = {3: Render(photo.target(BACKGROUND))}
    assert paint(Look(Side(k=3)), photo, renders=same).psnr == math.inf
    bright = View(camera(), lambda: torch.full((HEIGHT, WIDTH, 4), 255, dtype=torch.uint8), "b")
    above = {3: Render(torch.full((HEIGHT, WIDTH, 3), 1.5))}
    assert paint(Look(Side(k=3)), bright, renders=above).psnr == math.inf


def test_the_photo_has_no_psnr_of_its_own() -> None:
    photo = photograph()
    painting = paint(Look(Side("photo")), photo)
    assert torch.equal(rgb(painting), photo.target(BACKGROUND)) and painting.psnr is None
    assert paint(Look(Side(mode="depth", k=3)), photo).psnr is None


def test_a_larger_photo_is_averaged_and_not_measured() -> None:
    photo = photograph(3 * WIDTH, 2 * HEIGHT)
    blocks = photo.target(BACKGROUND).view(HEIGHT, 2, WIDTH, 3, 3).mean((1, 3))
    look = Look(Side("photo"), Side("difference", k=3), 0.5)
    painting = paint(look, photo)
    assert torch.allclose(rgb(painting)[:, :10], blocks[:, :10], atol=1e-6)
    assert painting.psnr is None and painting.other_psnr is None
    small = paint(look, photograph(WIDTH // 2, HEIGHT // 2))
    assert rgb(small).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("source", ["photo", "difference"])
def test_without_a_photo_it_says_so(source: Any) -> None:
    painting = paint(Look(Side(source, k=3)))
    assert painting.note == "There is no photograph of this camera." and painting.psnr is None
    rgb(painting)


# ------------------------------------------------------------------ what is missing
def test_the_nearest_k_stands_in() -> None:
    painting = paint(Look(Side(k=2)))
    assert torch.equal(rgb(painting), result().renders[3].rgb)
    assert painting.note == "K 2 is still being rendered, this is K 3."
    painting = paint(Look(Side(mode="depth", k=5, layer=5), Side(k=8)))
    notes = "K 5 is still being rendered, this is K 3. K 8 is still being rendered, this is K 3."
    assert painting.note == notes
    expected = LayerPictures(inside(3), BACKGROUND).picture("depth", 3)
    assert expected is not None and torch.equal(rgb(painting)[:, :10], expected[:, :10])


def test_pictures_and_layers_stand_in_for_each_other() -> None:
    painting = paint(Look(Side(mode="depth", k=3)), insides={})
    assert torch.equal(rgb(painting), result().renders[3].rgb)
    assert painting.note == "The layers are still being rendered." and painting.legend is None
    painting = paint(Look(Side(k=3)), renders={})
    all_of_them = LayerPictures(inside(3), BACKGROUND).picture("cumulative", 3)
    assert all_of_them is not None and torch.equal(rgb(painting), all_of_them)
    assert painting.note == "The picture is still being rendered."
    for side in (Side(), Side(mode="id"), Side("difference")):
        painting = paint(Look(side), renders={}, insides={})
        assert painting.note is not None and rgb(painting).shape == (HEIGHT, WIDTH, 3)


def test_no_features_are_said_and_the_colours_shown() -> None:
    painting = paint(Look(Side(mode="features", k=3, layer=2)))
    assert painting.note is not None and "This method has no features." in painting.note
    assert torch.equal(rgb(painting), inside(3).color[:, :, 1])


@pytest.mark.parametrize("mode", ["picture", "depth", "color", "contribution", "cumulative"])
def test_not_a_number_never_reaches_the_screen(mode: Any) -> None:
    broken = result()
    part = broken.insides[3]
    for values in (part.kbuffer.depth, part.weight, part.color, broken.renders[3].rgb):
        values[0], values[1] = math.nan, math.inf
    painting = Paintbox().paint(PaintJob(broken, Look(Side(mode=mode, k=3)), None, 300, 60))
    rgb(painting)
    assert painting.atlas is not None and bool(np.isfinite(painting.atlas).all())


# ------------------------------------------------------------------ thumbnails
def test_thumbnails_follow_the_mode_and_fit() -> None:
    job = PaintJob(result(), Look(Side(mode="id", k=3)), None, 3 * WIDTH + 8, HEIGHT)
    painting = Paintbox().paint(job)
    assert painting.atlas is not None and painting.atlas.flags.c_contiguous
    assert painting.atlas.shape == (HEIGHT, 3 * WIDTH + 8, 4)
    pictures = LayerPictures(inside(3), BACKGROUND)
    for layer, (x, y, w, h) in enumerate(painting.tiles, 1):
        expected = pictures.picture("id", layer)
        assert expected is not None
        tile = painting.atlas[y : y + h, x : x + w]
        assert np.array_equal(tile[..., :3], expected.numpy()) and bool((tile[..., 3] == 1).all())
    assert bool((painting.atlas[:, WIDTH : WIDTH + 4, 3] == 0).all())


def test_thumbnails_only_where_they_are_wanted() -> None:
    look = Look(Side(k=3))
    for job in (
        PaintJob(result(), replace(look, atlas=False), None, 300, 60),
        PaintJob(result(), look, None, 300, 0),
        PaintJob(result(inspected=()), look, None, 300, 60),
    ):
        painting = Paintbox().paint(job)
        assert painting.atlas is None and painting.tiles == ()
    painting = Paintbox().paint(PaintJob(result(), Look(Side(mode="features", k=3)), None, 300, 60))
    assert painting.atlas is not None and len(painting.tiles) == 3  # the colours stand in


# ------------------------------------------------------------------ what is kept
def test_a_wipe_drag_colours_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = LayerPictures.picture

    def counted(self: LayerPictures, mode: Any, *rest: Any) -> Tensor | None:
        calls.append(mode)
        return real(self, mode, *rest)

    monkeypatch.setattr(LayerPictures, "picture", counted)
    box, drawn = Paintbox(), result()
    look = Look(Side(mode="depth", k=3), Side(mode="id", k=3))
    arrays = []
    for wipe in (0.2, 0.5, 0.8):
        # The sweep comes later and makes another result of the same pictures.
        job = PaintJob(replace(drawn, sweep=None), replace(look, wipe=wipe), None, 300, 60)
        arrays.append(box.paint(job).picture)
    assert calls == ["depth", "id"]
    assert len({array.ctypes.data for array in arrays}) == 3
    box.paint(PaintJob(result(), look, None, 300, 60))
    assert calls == ["depth", "id"] * 2


def test_another_result_or_photo_is_seen() -> None:
    box, look = Paintbox(), Look(Side(k=3), Side("photo"), 0.5)
    first = box.paint(PaintJob(result(), look, photograph()))
    darker = result()
    darker.renders[3].rgb.mul_(0.5)
    second = box.paint(PaintJob(darker, look, photograph(alpha=0)))
    assert torch.allclose(rgb(second)[:, :10], 0.5 * rgb(first)[:, :10])
    assert torch.allclose(rgb(second)[:, 10:], BACKGROUND.expand(HEIGHT, 10, 3))
    white = replace(darker, background=torch.ones(3), renders=dict(darker.renders))
    third = box.paint(PaintJob(white, look, second.job.photo))
    assert bool((rgb(third)[:, 10:] == 1).all())


# ------------------------------------------------------------------ the thread
def wait_for(condition: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)


def test_the_newest_job_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that come while one is painted are dropped for the last of them."""
    begun, go_on = threading.Event(), threading.Event()
    painted: list[int] = []
    real = Paintbox.paint

    def slow(self: Paintbox, job: PaintJob) -> Painting:
        begun.set()
        assert go_on.wait(5)
        painted.append(job.atlas_width)
        return real(self, job)

    monkeypatch.setattr(Paintbox, "paint", slow)
    woken = threading.Semaphore(0)
    painter = Painter(woken.release)
    painter.start()
    jobs = [PaintJob(result(), Look(Side(k=3)), None, number) for number in range(5)]
    painter.submit(jobs[0])
    assert begun.wait(5) and painter.take() is None
    for job in jobs[1:]:
        painter.submit(job)
    go_on.set()
    assert woken.acquire(timeout=5) and woken.acquire(timeout=5)
    painter.close()
    assert painted == [0, 4]
    painting = painter.take()
    assert painting is not None and painting.job is jobs[4]
    assert painter.take() is None  # once


def test_an_error_is_a_sentence_and_the_thread_lives_on() -> None:
    def unreadable() -> Tensor:
        raise UserError("photo.png: expected a picture, found none.")

    painter = Painter()
    painter.start()
    view = View(camera(), unreadable, "photo")
    painter.submit(PaintJob(result(), Look(Side("photo")), view))
    wait_for(lambda: painter.error is not None)
    assert painter.error == "photo.png: expected a picture, found none."
    assert painter.take() is None
    painter.submit(PaintJob(result(), Look(Side(k=3)), None))
    wait_for(lambda: painter.error is None)
    assert painter.take() is not None
    painter.close()


def test_close_ends_the_thread_with_a_job_waiting() -> None:
    painter = Painter()
    painter.submit(PaintJob(result(), Look()))
    painter.start()
    painter.close()
    assert "painter" not in {thread.name for thread in threading.enumerate()}
    Painter().close()  # never started


def test_few_sides_are_kept() -> None:
    box, drawn = Paintbox(), result()
    for layer in (1, 2, 3):
        for mode in ("depth", "color", "id"):
            box.paint(PaintJob(drawn, Look(Side(mode=mode, k=3, layer=layer))))
            assert len(box._sides) <= app.paintbox._KEPT
