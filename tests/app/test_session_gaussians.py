"""Gaussians in a session: counts, refinements, styles, export, and the end of a headless run."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import main
import render.gaussians.ply
from app import products
from app.export import NO_GAUSSIANS, export_gaussians
from app.options import Options
from app.progress import count_curve
from app.session import Session
from app.snapshot import CurvePoint, Refinement, Snapshot, State, ViewRequest, ViewResult
from render.camera import Camera
from render.errors import UserError
from render.export.styles import Style, cloud_of
from render.gaussians.ply import from_points, is_splat_cloud, write_ply
from render.sampling import Sampling
from render.scenes.clouds.pointcloud import read_point_cloud
from tests.gaussians.case import Case

pytestmark = pytest.mark.usefixtures("fake_method")
SECONDS = 30  # far more than anything here takes
SETTINGS = ("points=150", "refine_from=2", "refine_every=3", "coarse_steps=1")
CAMERA = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=30, height=20)


def opened(options: Options) -> Session:
    session = Session(options, autostart=False)
    session.open()
    snapshot = session.wait([State.READY, State.FAILED], SECONDS)
    assert snapshot.state is State.READY, snapshot.error
    return session


def closed(session: Session) -> Snapshot:
    session.stop()
    assert session.join(SECONDS)
    return session.snapshot()


def view(session: Session, request: ViewRequest) -> ViewResult:
    session.request_view(request)
    snapshot = session.wait_for(
        lambda s: s.view is not None and s.view.request.number == request.number, SECONDS
    )
    assert snapshot.view is not None and snapshot.view.request.number == request.number
    return snapshot.view


@pytest.fixture
def options(tiny_scene: Path) -> Options:
    return Options(
        scene=str(tiny_scene), method="gaussians", k=3, device="cpu", eval_every="never",
        settings=SETTINGS,
    )  # fmt: skip


@pytest.fixture
def splats(tmp_path: Path) -> Path:
    """A file of 40 Gaussians."""
    path = tmp_path / "splats.ply"
    write_ply(path, Case().cloud)
    return path


# ---------------------------------------------------------------------------- what is told
def test_counts_and_refinements_travel_through_the_snapshot(options: Options) -> None:
    session = opened(options)
    start = session.snapshot()
    assert start.gaussians == 150 and start.refinements == ()
    assert start.gaussian_bytes == 150 * 4 * (3 + 4 + 3 + 1 + 3 + 8 * 3)
    session.step(10)
    session.wait([State.PAUSED], SECONDS)
    snapshot = session.snapshot()
    events = snapshot.refinements
    assert [event.step for event in events] == [2, 5, 8]
    assert events[0].before == 150 and events[-1].after == snapshot.gaussians > 150
    assert all(a.after == b.before and a.seconds < b.seconds for a, b in pairwise(events))
    assert 0 < events[0].seconds <= snapshot.seconds and "added" in events[0].note
    assert snapshot.gaussian_bytes / snapshot.gaussians == 4 * 38
    closed(session)


def test_models_of_another_kind_have_none(tiny_scene: Path) -> None:
    session = opened(Options(scene=str(tiny_scene), method="fake", device="cpu"))
    session.step(3)
    snapshot = session.wait([State.PAUSED], SECONDS)
    assert (snapshot.gaussians, snapshot.gaussian_bytes, snapshot.refinements) == (0, 0, ())
    plain = view(session, ViewRequest(CAMERA, (3,), (3,), number=1))
    request = ViewRequest(CAMERA, (3,), (3,), number=2, style=Style(0.5), values=("normal",))
    other = view(session, request)
    assert torch.equal(plain.renders[3].rgb, other.renders[3].rgb), "a style means nothing here"
    assert "normal" not in other.insides[3].extra
    future = session.submit(export_gaussians)
    with pytest.raises(UserError, match=NO_GAUSSIANS):
        future.result(SECONDS)
    closed(session)


def test_the_curve_of_counts_is_made_of_stairs() -> None:
    curve = (CurvePoint(1, 0.1, 1.0, 9.0), CurvePoint(9, 4.0, 0.5, 12.0))
    assert count_curve(Snapshot(curve=curve)) == [[], []]
    assert count_curve(Snapshot(gaussians=7)) == [[], []]
    assert count_curve(Snapshot(curve=curve, gaussians=7)) == [[0.1, 4.0], [7, 7]]
    events = (Refinement(2, 1.0, 5, 6, ""), Refinement(4, 2.0, 6, 8, ""))
    now = Snapshot(curve=curve, gaussians=8, refinements=events, seconds=4.5)
    assert count_curve(now) == [[0.1, 1.0, 2.0, 4.5], [5, 6, 8, 8]]


# ---------------------------------------------------------------------------- pictures
@pytest.mark.parametrize("kind", ["method", "file"])
def test_pictures_in_a_style_with_values(options: Options, splats: Path, kind: str) -> None:
    session = opened(options if kind == "method" else Options(scene=str(splats), k=3))
    bench = session.bench
    assert bench is not None
    plain = view(session, ViewRequest(CAMERA, (1, 3), (3,), number=1))
    style = ViewRequest(
        CAMERA, (1, 3), (3,), sweep=True, number=2,
        style=Style(0.5, "ellipse"), values=("normal", "opacity"),
    )  # fmt: skip
    result = view(session, style)
    inside = result.insides[3]
    assert inside.extra["normal"].shape == (20, 30, 3, 3)
    lengths = inside.extra["normal"].norm(dim=-1)[inside.kbuffer.valid]
    assert len(lengths) and torch.allclose(lengths, torch.ones(()), atol=1e-5)
    assert inside.extra["opacity"].shape == (20, 30, 3, 1)
    assert (result.renders[3].rgb - plain.renders[3].rgb).abs().max() > 0.05
    snapshot = session.wait_for(lambda s: s.view is not None and s.view.sweep is not None, SECONDS)
    assert snapshot.view is not None and snapshot.view.sweep is not None
    assert len(snapshot.view.sweep.psnr) == 3 and min(snapshot.view.sweep.psnr) > 20
    again = view(session, ViewRequest(CAMERA, (1, 3), (3,), number=3))
    for k in (1, 3):
        assert torch.equal(again.renders[k].rgb, plain.renders[k].rgb), "bit for bit"
    assert again.insides[3].extra == {} and session.snapshot().error is None
    closed(session)


# ---------------------------------------------------------------------------- export
def test_pictures_of_a_moving_camera_have_one_sample(splats: Path, tmp_path: Path) -> None:
    cloud = from_points(read_point_cloud(splats))
    cloud.sampling = Sampling(0.1, 2)
    write_ply(tmp_path / "sampled.ply", cloud)
    session = opened(Options(scene=str(tmp_path / "sampled.ply"), k=3))
    still = view(session, ViewRequest(CAMERA, ks=(3,), number=1))
    moving = view(session, ViewRequest(CAMERA, ks=(3,), number=2, moving=True))
    again = view(session, ViewRequest(CAMERA, ks=(3,), number=3))
    closed(session)
    assert float(still.renders[3].rgb.std()) > 0.01
    assert not torch.equal(still.renders[3].rgb, moving.renders[3].rgb)
    assert torch.equal(still.renders[3].rgb, again.renders[3].rgb)


def test_what_is_exported_opens_again_as_it_was(options: Options, tmp_path: Path) -> None:
    session = opened(options)
    session.step(3)
    session.wait([State.PAUSED], SECONDS)
    path = tmp_path / "new" / "mine.ply"
    said = session.submit(lambda bench: export_gaussians(bench, path)).result(SECONDS)
    count = session.snapshot().gaussians
    assert said == f"Wrote {count} Gaussians to {path}."
    assert session.bench is not None
    cloud = cloud_of(session.bench.renderer)
    assert cloud is not None
    points = read_point_cloud(path)
    assert is_splat_cloud(points)
    for name, tensor in from_points(points).tensors().items():
        assert torch.equal(tensor.detach(), cloud.tensors()[name].detach()), name
    said = session.submit(export_gaussians).result(SECONDS)
    folder = session.snapshot().folder
    assert folder is not None and (Path(folder) / "export" / "gaussians.ply").is_file()
    closed(session)


def test_a_full_disk_is_a_sentence_and_the_old_file_stays(
    splats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(Options(scene=str(splats)))
    path = tmp_path / "mine.ply"
    path.write_text("older")

    class Full(render.gaussians.ply.PlyData):
        def write(self, stream: str) -> None:
            Path(stream).write_bytes(b"ply, half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(render.gaussians.ply, "PlyData", Full)
    future = session.submit(lambda bench: export_gaussians(bench, path))
    with pytest.raises(UserError, match=r"mine\.ply: .*No space left on device.*another place\.$"):
        future.result(SECONDS)
    assert path.read_text() == "older" and len(list(tmp_path.glob("*mine*"))) == 1
    assert session.snapshot().state is State.READY
    closed(session)


@pytest.mark.parametrize("name", ["file.txt/gaussians.ply", "a\0b.ply"])
def test_places_that_cannot_be_written(splats: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("")
    session = opened(Options(scene=str(splats)))
    future = session.submit(lambda bench: export_gaussians(bench, tmp_path / name))
    with pytest.raises(UserError, match="could not be written"):
        future.result(SECONDS)
    closed(session)


@pytest.mark.parametrize("method", ["gaussians", "kbuffer"])
def test_a_headless_run_ends_with_its_gaussians(
    method: str,
    tiny_scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "ORBIT_FRAMES", 2)
    out = tmp_path / "out"
    line = (
        f"--headless --device cpu --scene {tiny_scene} --method {method} --steps 4 "
        f"--eval-every never --set points=100 --out {out}"
    )
    assert main.main(line.split()) == 0
    printed = "".join(capsys.readouterr().out.split())
    path = out / "export" / "gaussians.ply"
    assert f"Wrote100Gaussiansto{path}" in printed and "export/gaussians.ply" in printed
    assert f"Wrote 100 Gaussians to {path}" in (out / "log.txt").read_text()
    assert ("without the network" in (out / "log.txt").read_text()) == (method == "kbuffer")
    assert len(read_point_cloud(path)) == 100


def test_a_file_that_is_no_whole_degree_is_a_sentence(splats: Path, tmp_path: Path) -> None:
    header, body = splats.read_bytes().split(b"end_header\n", 1)
    bad = tmp_path / "half degree.ply"
    bad.write_bytes(header.replace(b"property float f_rest_23\n", b"property float extra\n")
                    + b"end_header\n" + body)  # fmt: skip
    session = Session(Options(scene=str(bad)))
    session.open()
    snapshot = session.wait([State.READY, State.FAILED], SECONDS)
    assert snapshot.state is State.FAILED and snapshot.error is not None
    assert "half degree.ply" in snapshot.error and "f_rest" in snapshot.error
    closed(session)
