"""Inputs that the fuzzer found once, and healthy ones, replayed without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import GROUPS, Feeder

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.fixture(params=sorted(GROUPS))
def feeder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Feeder]:
    return request.param, Feeder(request.param, tmp_path / "scenes")


def test_healthy_files_are_read(feeder: tuple[str, Feeder]) -> None:
    for number, seed in enumerate(feeder[1].seeds()):
        scene, file = feeder[1].places[number]
        target = feeder[1].targets[number]
        file.write_bytes(target.wrap(seed[1:]))
        target.use(scene)


def test_the_corpus_ends_in_sentences(feeder: tuple[str, Feeder]) -> None:
    group, feed = feeder
    for path in FILES:
        if path.parent.name == group:
            feed.feed(path.read_bytes())


def test_the_corpus_is_small_and_belongs_to_groups() -> None:
    assert {path.parent.name for path in FILES} <= set(GROUPS)
    assert sum(path.stat().st_size for path in FILES) < 64_000
