"""PSNR and SSIM against scikit-image, losses against their definitions, LPIPS without network."""

from __future__ import annotations

import math
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from render.training import losses
from render.training.metrics import load_lpips, psnr, ssim, ssim_map


def pair(height: int, width: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    rows = torch.linspace(0, 6, height)[:, None, None]
    columns = torch.linspace(0, 9, width)[None, :, None]
    phase = torch.tensor([0.0, 1.0, 2.0])
    image = 0.5 + 0.25 * torch.sin(rows + phase) + 0.25 * torch.cos(columns * phase)
    other = image + noise * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1), other.clamp(0, 1)


@pytest.mark.parametrize(
    ("height", "width", "noise"), [(64, 64, 0.05), (37, 90, 0.2), (11, 11, 0.5), (12, 40, 0.0)]
)
def test_agree_with_scikit_image(height: int, width: int, noise: float) -> None:
    image, target = pair(height, width, noise)
    expected = structural_similarity(
        target.double().numpy(),
        image.double().numpy(),
        channel_axis=-1,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(image, target) == pytest.approx(expected, abs=1e-5)
    if noise > 0:
        expected = peak_signal_noise_ratio(
            target.double().numpy(), image.double().numpy(), data_range=1.0
        )
        assert psnr(image, target) == pytest.approx(expected, abs=1e-6)
    else:
        assert psnr(image, target) == math.inf


def test_ssim_of_tiny_images() -> None:
    image, target = pair(10, 40, 0.1)
    assert math.isnan(ssim(image, target))
    with pytest.raises(ValueError, match="11x11"):
        ssim_map(image, target)


def test_dssim_is_one_minus_ssim_and_its_gradient_is_right() -> None:
    image, target = pair(13, 12, 0.1)
    assert float(losses.dssim(image, target)) == pytest.approx(1 - ssim(image, target), abs=1e-5)
    image = image.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: losses.dssim(a, target.double()), (image,), atol=1e-6, fast_mode=True
    )


def test_losses_follow_their_definitions() -> None:
    image, target = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.5, 0.5, 0.5])
    assert float(losses.l1(image, target)) == pytest.approx(1 / 3)
    assert float(losses.mse(image, target)) == pytest.approx(0.5 / 3)
    value = float(losses.charbonnier(image, target, epsilon=0.1))
    assert value == pytest.approx((2 * math.hypot(0.5, 0.1) + 0.1) / 3)


def test_lpips_without_weights_is_left_out_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model, sentence = load_lpips("alex", torch.device("cpu"))
    assert model is None
    assert sentence.startswith("LPIPS is left out")


def test_lpips_with_torn_weights_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("lpips") is None:
        pytest.skip("LPIPS is not installed")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"torn")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model, sentence = load_lpips("alex", torch.device("cpu"))
    assert model is None
    assert "failed" in sentence
