"""`point-radiance` in a session: stages, what is told of the layers, masks, export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.export import export_gaussians
from app.look import Look, Side
from app.messages import Messages
from app.options import Options
from app.paintbox import Paintbox, PaintJob
from app.panels.timeline import caption, places
from app.session import Session
from app.snapshot import Snapshot, State, ViewRequest, ViewResult
from app.viewing import Viewing
from render.gaussians.ply import from_points, is_splat_cloud
from render.methods.base import StageSpan
from render.methods.point_radiance import PointRadianceMethod
from render.scenes.clouds.pointcloud import read_point_cloud

pytestmark = pytest.mark.usefixtures("fake_method")
SECONDS = 30  # far more than anything here takes
SETTINGS = (
    "points=300", "epoch=4", "base_epochs=1", "sh_epochs=1", "refine_n=1", "refine_epochs=1",
    "pc_jitter_amount=0.05", "filter_consistency_ratio=0.5",
)  # fmt: skip
PLAN = (StageSpan("a", 0, 4), StageSpan("b", 4, 4), StageSpan("c", 8, 8))


@pytest.fixture
def session(tiny_scene: Path) -> Iterator[Session]:
    options = Options(
        scene=str(tiny_scene), method="point-radiance", k=4, device="cpu", eval_every="never",
        settings=SETTINGS, steps=10,
    )  # fmt: skip
    session = Session(options, autostart=False)
    session.open()
    snapshot = session.wait([State.READY, State.FAILED], SECONDS)
    assert snapshot.state is State.READY, snapshot.error
    yield session
    session.stop()
    assert session.join(SECONDS)


def view(session: Session, number: int, *, mask: bool = True) -> ViewResult:
    assert session.bench is not None
    camera = session.bench.scene.views[number].camera
    request = ViewRequest(camera, (4,), (4,), view=number, number=number + 1, mask=mask)
    session.request_view(request)
    snapshot = session.wait_for(
        lambda s: s.view is not None and s.view.request.number == request.number, SECONDS
    )
    assert snapshot.view is not None
    return snapshot.view


def test_stages_and_refinements_are_told(session: Session) -> None:
    ready = session.snapshot()
    assert [s.name for s in ready.plan] == ["base colours", "view dependence", "refinement 1"]
    assert ready.layer_values == ("opacity", "transmittance")
    assert ready.exported == 300 and ready.gaussians == 0 and ready.sizes["points"] == 300
    session.start()
    done = session.wait([State.FINISHED, State.FAILED], SECONDS)
    assert done.state is State.FINISHED, done.error
    assert [event.step for event in done.refinements] == [3, 7]
    assert done.exported == done.refinements[-1].after


def test_the_mask_of_the_hull_comes_with_the_picture(session: Session) -> None:
    assert session.bench is not None and isinstance(session.bench.method, PointRadianceMethod)
    train = session.bench.scene.splits["train"][0]
    found = view(session, train)
    expected = session.bench.method.hull_mask(session.bench.scene.views[train])
    assert found.mask is not None and expected is not None and torch.equal(found.mask, expected)
    assert view(session, session.bench.scene.splits["test"][0]).mask is None
    assert view(session, train + 1, mask=False).mask is None


def test_the_mask_is_painted_over_the_photograph(session: Session) -> None:
    assert session.bench is not None
    number = session.bench.scene.splits["train"][0]
    found, photo = view(session, number), session.bench.scene.views[number]
    look = Look(Side("mask", k=4), atlas=False)
    painting = Paintbox().paint(PaintJob(found, look, photo))
    own = Paintbox().paint(PaintJob(replace(found, mask=None), look, photo))
    assert painting.legend is not None and painting.legend.title == "Mask"
    assert (painting.picture != own.picture).any()  # what was made wrong is tinted
    bare = Paintbox().paint(PaintJob(found, look, None))
    assert bare.note == "There is no photograph of this camera."
    maskless = replace(photo, has_alpha=False)
    assert Paintbox().paint(PaintJob(found, look, maskless)).note == "This photograph has no mask."


def test_layers_are_painted_by_opacity_and_light(session: Session) -> None:
    found = view(session, 0)
    inside = found.insides[4]
    assert {"opacity", "transmittance"} <= inside.extra.keys()
    for mode in ("opacity", "light"):
        painting = Paintbox().paint(PaintJob(found, Look(Side(mode=mode, k=4), atlas=False)))
        assert painting.legend is not None and painting.note is None


def test_export_opens_as_gaussians(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "discs.ply"
    said = session.submit(lambda bench: export_gaussians(bench, path)).result(SECONDS)
    assert "Wrote 300 Gaussians" in said
    cloud = read_point_cloud(path)
    assert is_splat_cloud(cloud)
    assert session.bench is not None and isinstance(session.bench.method, PointRadianceMethod)
    points = session.bench.method.points
    found = from_points(cloud)
    torch.testing.assert_close(found.means.detach(), points.xyz.detach())
    radius = points.radius.detach().exp()
    torch.testing.assert_close(2 * found.log_scales.detach().exp()[:, 0], radius)
    assert found.sh_rest.shape == (300, 8, 3)


# ---------------------------------------------------------------------------- pieces of the window
def test_modes_of_discs_are_offered_for_discs_only(session: Session) -> None:
    assert session.bench is not None
    viewing = Viewing(Messages())
    scene = session.bench.scene
    viewing.enter(scene, 4, keep_camera=False, values=("opacity", "transmittance"))
    viewing.set_mode("light")
    assert viewing.look.main.mode == "light"
    viewing.set_mode("normal")  # only Gaussians have one
    assert viewing.look.main.mode == "light"
    viewing.enter(scene, 4, keep_camera=True, values=("opacity", "transmittance"))
    assert viewing.look.main.mode == "light"
    viewing.enter(scene, 4, keep_camera=True)
    assert viewing.look.main.mode == "color"


def test_the_timeline_counts_steps() -> None:
    assert places(Snapshot()) == () and caption(Snapshot()) == ""
    found = places(Snapshot(plan=PLAN, step=6))
    assert [(p.begin, p.end) for p in found] == [(0, 0.25), (0.25, 0.5), (0.5, 1)]
    assert [p.done for p in found] == [0.25, 0.375, 0.5]
    assert caption(Snapshot(plan=PLAN, step=6)) == "Stage 2 of 3: b, 2 of 4 steps"
    assert caption(Snapshot(plan=PLAN, step=4)).startswith("Stage 2 of 3: b, 0 of")
    late = Snapshot(plan=PLAN, step=1000)
    assert caption(late) == "Stage 3 of 3: c, 992 steps"
    assert [p.done for p in places(late)] == [0.25, 0.5, 1]
