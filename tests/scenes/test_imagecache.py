"""Which photographs stay in memory, and that nothing depends on it."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from render.camera import Camera
from render.errors import UserError
from render.memory import NotEnoughMemoryError
from render.scenes import types
from render.scenes.photos import images
from render.scenes.photos.imagecache import Ahead, ImageCache, decoding_threads
from render.scenes.photos.images import each, plan_memory, preload
from render.scenes.types import View

CAMERA = Camera.look_at((1, 2, 3), (0, 0, 0), width=10, height=10)
SIZE = 400  # bytes of a picture


class Shelf:
    """Views whose decodings are counted."""

    def __init__(self, count: int) -> None:
        self.decoded: list[int] = []
        self.threads: set[str] = set()
        self.views = [View(CAMERA, lambda i=i: self.decode(i), str(i)) for i in range(count)]

    def decode(self, i: int) -> torch.Tensor:
        self.decoded.append(i)
        self.threads.add(threading.current_thread().name)
        return torch.full((10, 10, 4), i, dtype=torch.uint8)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> ImageCache:
    """The cache of all views within a test: three pictures fit."""
    cache = ImageCache(3 * SIZE)
    monkeypatch.setattr(types, "CACHE", cache)
    monkeypatch.setattr(images, "CACHE", cache)
    return cache


def test_the_one_not_used_for_longest_goes(cache: ImageCache) -> None:
    shelf = Shelf(4)
    for i in (0, 1, 2, 0, 3):
        assert int(shelf.views[i].pixels()[0, 0, 0]) == i
    assert [view.decoded() for view in shelf.views] == [True, False, True, True]
    assert shelf.decoded == [0, 1, 2, 3]
    assert (cache.used, cache.forgotten) == (3 * SIZE, 1)
    shelf.views[1].pixels()
    assert shelf.decoded == [0, 1, 2, 3, 1] and not shelf.views[2].decoded()


def test_a_picture_larger_than_the_budget_is_kept_alone(cache: ImageCache) -> None:
    cache.budget = 1
    shelf = Shelf(2)
    shelf.views[0].pixels()
    assert shelf.views[0].decoded()
    shelf.views[1].pixels()
    assert not shelf.views[0].decoded() and shelf.views[1].decoded()


def test_views_that_are_gone_take_no_room(cache: ImageCache) -> None:
    shelf = Shelf(3)
    preload(shelf.views, 1)
    assert cache.used == 3 * SIZE
    del shelf
    gc.collect()
    assert cache.used == 0


def test_masks_count_too(cache: ImageCache) -> None:
    mask = torch.zeros(10, 10, dtype=torch.bool)
    view = View(CAMERA, Shelf(1).views[0].load, "a", ignored=lambda: mask)
    view.pixels()
    view.left_out()
    assert cache.used == SIZE + 100


def test_many_threads(cache: ImageCache) -> None:
    shelf = Shelf(12)
    order = [i for _ in range(20) for i in range(12)]
    found = each([shelf.views[i] for i in order], lambda v: int(v.pixels()[5, 5, 0]), threads=8)
    assert found == order
    assert cache.used == SIZE * sum(view.decoded() for view in shelf.views) <= 3 * SIZE


# ---------------------------------------------------------------------------- budgets in words
def test_all_of_them_fit(cache: ImageCache) -> None:
    assert plan_memory(Shelf(5).views, 1.0, 10**9) == []
    assert cache.budget == 10**9


def test_most_of_them_do_not_fit(cache: ImageCache) -> None:
    camera = Camera.look_at((1, 2, 3), (0, 0, 0), width=2000, height=1000)
    views = [View(camera, Shelf(1).views[0].load, "x")] * 100  # 8 MB each
    (note,) = plan_memory(views, 1.0, 200_000_000)
    assert "800 MB when decoded; 200 MB of them are kept" in note
    assert "at --downscale 2 all of them would take 200 MB" in note
    (note,) = plan_memory(views, 2.0, 200_000_000)  # their size is after that downscale
    assert "--downscale 4" in note
    with pytest.raises(NotEnoughMemoryError, match=r"67 MB may be used.*--downscale"):
        plan_memory([View(camera.resize(6000, 4000), views[0].load, "x")] * 100, 1.0, 50_000_000)


# ---------------------------------------------------------------------------- ahead of training
def test_what_comes_next_is_decoded_in_a_thread(cache: ImageCache) -> None:
    shelf = Shelf(4)
    ahead = Ahead(shelf.views, threads=1)
    ahead.want([2, 0, 1])
    shelf.views[2].pixels()
    for i in (0, 1):
        shelf.views[i].pixels()  # waits for the thread if it is at it
    assert sorted(shelf.decoded) == [0, 1, 2]
    before = len(shelf.decoded)
    ahead.want([2, 0, 1])
    assert len(shelf.decoded) == before  # all there


def test_what_cannot_be_decoded_is_told_where_it_is_needed(cache: ImageCache) -> None:
    def broken() -> torch.Tensor:
        raise UserError("r_1.png: broken")

    views = [Shelf(1).views[0], View(CAMERA, broken, "1")]
    ahead = Ahead(views, threads=1)
    ahead.want([0, 1])
    with pytest.raises(UserError, match="r_1"):
        views[1].pixels()


def test_progress_is_told_in_order_on_the_calling_thread() -> None:
    told: list[tuple[int, int, str]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total, threading.current_thread().name))

    preload(Shelf(5).views, 3, progress=progress)
    name = threading.current_thread().name
    assert told == [(i + 1, 5, name) for i in range(5)]


def test_there_is_always_a_thread() -> None:
    assert 1 <= decoding_threads(half=True) <= decoding_threads() <= 16
