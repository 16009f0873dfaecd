"""Plain torch twins of ``gaussians.py``: the oracle of the tests, and the last resort.

Every Gaussian meets every pixel in dense [N, H * W] matrices, in the dtype of the input (float64
for gradcheck). Never optimise this file: its worth is that it can be read against the formulas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from render.camera import Camera, quat_to_rotation
from render.kbuffer.types import KBuffer

ALPHA_MIN = 1.0 / 255.0
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
SH0 = 0.28209479177387814


def project(
    means: Tensor,
    quats: Tensor,
    log_scales: Tensor,
    logits: Tensor,
    sh0: Tensor,
    sh_rest: Tensor,
    camera: Camera,
    *,
    near: float = 0.01,
    eps2d: float = 0.3,
    antialias: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Splats [N, 6], depth [N], extent [N, 2], rgb [N, 3]; see ``gaussians.project``."""
    # What is not finite is replaced before any arithmetic, else 0 * NaN would reach the gradients.
    tensors = (means, quats, log_scales, logits, sh0, sh_rest)
    rows = [means, quats, log_scales, logits[:, None], sh0, sh_rest.flatten(1)]
    finite = torch.cat(rows, 1).isfinite().all(1)  # [N]
    means, quats, log_scales, logits, sh0, sh_rest = (
        torch.where(finite.view(-1, *[1] * (t.ndim - 1)), t, torch.ones_like(t)) for t in tensors
    )
    p = camera.to_camera(means)  # [N, 3]
    (fx, fy), (cx, cy) = camera.focal.to(means), camera.center.to(means)
    z = torch.where(p[:, 2] >= near, p[:, 2], torch.ones_like(p[:, 2]))
    wide_x, wide_y = 0.15 * camera.width / fx, 0.15 * camera.height / fy
    sx = (p[:, 0] / z).clamp(-(cx / fx + wide_x), (camera.width - cx) / fx + wide_x)
    sy = (p[:, 1] / z).clamp(-(cy / fy + wide_y), (camera.height - cy) / fy + wide_y)
    zero = torch.zeros_like(z)
    # Jacobian of (u, v) by p at the held point: [N, 2, 3].
    J = torch.stack([fx / z, zero, -fx * sx / z, zero, fy / z, -fy * sy / z], -1).view(-1, 2, 3)
    M = quat_to_rotation(quats) * log_scales.exp()[:, None, :]  # [N, 3, 3]
    B = J @ camera.world_to_camera[:3, :3].to(means) @ M
    cov0 = B @ B.transpose(1, 2)  # [N, 2, 2]
    cov = cov0 + eps2d * torch.eye(2).to(means)
    # det(B B^T) as the squared cross product of B's rows: no cancellation for thin footprints.
    det0 = torch.linalg.cross(B[:, 0], B[:, 1]).square().sum(-1)
    det = det0 + eps2d * (cov0[:, 0, 0] + cov0[:, 1, 1] + eps2d)
    opacity = logits.sigmoid()
    if antialias:
        opacity = opacity * (det0 / det).clamp(min=2.5e-5).sqrt()
    seen = finite & (p[:, 2] >= near) & (p[:, 2] < 1e12) & (quats.norm(dim=1) > 1e-12)
    seen = seen & (opacity >= ALPHA_MIN) & (det > 1e-12) & (det < 1e24)
    conic = torch.stack([cov[:, 1, 1], -cov[:, 0, 1], cov[:, 0, 0]], -1) / det[:, None]
    uv = torch.stack([fx * p[:, 0] / z + cx, fy * p[:, 1] / z + cy], -1)
    splats = torch.cat([uv, conic, opacity[:, None]], -1)  # [N, 6]
    unseen = torch.tensor([0.0, 0, 1, 0, 1, 0]).to(means)
    splats = torch.where(seen[:, None], splats, unseen)
    with torch.no_grad():
        rim = 2 * (opacity / ALPHA_MIN).clamp(min=1).log()
        extent = torch.stack([rim * cov[:, 0, 0], rim * cov[:, 1, 1]], -1).sqrt() + 1e-3
        extent = torch.where(seen[:, None], extent, torch.zeros_like(extent))
        depth = torch.where(seen, p[:, 2], torch.zeros_like(z))
        directions = torch.nn.functional.normalize(means - camera.position.to(means), dim=-1)
        basis = sh_basis(directions, sh_rest.shape[1])  # [N, B]
    rgb = 0.5 + SH0 * sh0 + (basis[:, :, None] * sh_rest).sum(1)
    rgb = torch.where(seen[:, None], rgb.clamp(min=0), torch.zeros_like(rgb))
    return splats, depth, extent, rgb


def sh_basis(d: Tensor, count: int) -> Tensor:
    """Real spherical harmonics of unit directions [N, 3] without the constant, [N, count]."""
    x, y, z = d.unbind(-1)
    values = [
        -0.48860251 * y, 0.48860251 * z, -0.48860251 * x,
        1.09254843 * x * y, -1.09254843 * y * z, 0.31539157 * (3 * z * z - 1),
        -1.09254843 * x * z, 0.54627422 * (x * x - y * y),
        -0.59004359 * y * (3 * x * x - y * y), 2.89061144 * x * y * z,
        -0.45704580 * y * (5 * z * z - 1), 0.37317633 * z * (5 * z * z - 3),
        -0.45704580 * x * (5 * z * z - 1), 1.44530572 * z * (x * x - y * y),
        -0.59004359 * x * (x * x - 3 * y * y),
    ]  # fmt: skip
    return torch.stack(values, -1)[:, :count]


def _contributions(
    projected: tuple[Tensor, Tensor, Tensor, Tensor], width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Depth order [M], alpha, weight and sigma / rim of each contribution [M, P], final T [P]."""
    splats, depth, extent, _ = projected
    order = depth.argsort(stable=True)
    order = order[extent[order, 0] > 0]
    s = splats[order]
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centers = torch.stack([u, v], -1).reshape(-1, 2).to(s) + 0.5  # [P, 2]
    dx = s[:, None, 0] - centers[None, :, 0]
    dy = s[:, None, 1] - centers[None, :, 1]  # [M, P]
    a, b, c = (s[:, i, None] for i in (2, 3, 4))
    sigma = 0.5 * a * dx * dx + b * dx * dy + 0.5 * c * dy * dy
    alpha = (s[:, 5, None] * (-sigma.clamp(min=0)).exp()).clamp(max=ALPHA_MAX)
    alpha = torch.where((sigma < 15) & (alpha >= ALPHA_MIN), alpha, torch.zeros_like(alpha))
    # A pixel takes contributions while more than TRANSMITTANCE_MIN shines through.
    T_in = _transmittance(alpha)[:-1]
    alpha = torch.where(T_in >= TRANSMITTANCE_MIN, alpha, torch.zeros_like(alpha))
    T = _transmittance(alpha)
    rim = (s[:, 5, None] / ALPHA_MIN).log().clamp(min=1e-12)
    return order, alpha, alpha * T[:-1], (sigma / rim).detach(), T[-1]


def _transmittance(alpha: Tensor) -> Tensor:
    """What shines through the first 0 ... M contributions, [M + 1, P]."""
    return torch.cat([alpha.new_ones(1, alpha.shape[1]), (1 - alpha).cumprod(0)])


def _heaviest(
    projected: tuple[Tensor, Tensor, Tensor, Tensor], width: int, height: int, k: int
) -> tuple[KBuffer, Tensor, Tensor, Tensor]:
    """K-buffer, rank [P, K] of its slots (-1 empty), all alphas [M, P] and final T [P]."""
    order, alpha, weight, ratio, T = _contributions(projected, width, height)
    pixels = width * height
    w = torch.zeros(k, pixels).to(weight)
    rank = torch.full((k, pixels), -1, dtype=torch.int64)
    kept = min(k, weight.shape[0])
    if kept:
        # Stable: of equal weights the nearer one is kept.
        best = weight.detach().argsort(dim=0, descending=True, stable=True)[:kept]
        best = torch.where(weight.gather(0, best) > 0, best, weight.shape[0]).sort(0).values
        rank[:kept] = torch.where(best < weight.shape[0], best, -1)
        w[:kept] = weight.gather(0, rank[:kept].clamp(min=0)) * (rank[:kept] >= 0)
    rank = rank.T  # [P, K]
    valid = rank >= 0
    padded = torch.cat([order, order.new_full((1,), -1)])
    index = padded[rank].int()

    def shaped(x: Tensor, fill: float) -> Tensor:
        return torch.where(valid, x, torch.full_like(x, fill)).reshape(height, width, k)

    depth = torch.cat([projected[1][order], projected[1].new_zeros(1)])[rank]
    empty = ratio.new_zeros(1, pixels)
    distance = torch.cat([ratio, empty]).gather(0, rank.T.clamp(min=0)).T.clamp(0, 1 - 1e-7)
    buffer = KBuffer(
        index.reshape(height, width, k),
        shaped(depth, -1.0),
        shaped(distance, -1.0),
        w.T.detach().reshape(height, width, k),
    )
    return buffer, rank, alpha, T


def splat(
    projected: tuple[Tensor, Tensor, Tensor, Tensor],
    values: Tensor,
    width: int,
    height: int,
    k: int,
) -> tuple[Tensor, Tensor, KBuffer]:
    """Image [H, W, C] of all contributions, alpha [H, W], K-buffer; see ``gaussians.splat``."""
    order, _, weight, _, T = _contributions(projected, width, height)
    image = (weight.T @ values[order]).reshape(height, width, -1)
    buffer = _heaviest(projected, width, height, k)[0]
    return image, (1 - T).reshape(height, width), buffer


def splat_layers(
    projected: tuple[Tensor, Tensor, Tensor, Tensor],
    values: Tensor,
    width: int,
    height: int,
    k: int,
    features: int = 0,
) -> tuple[Tensor, Tensor, Tensor, KBuffer, Tensor]:
    """Image, alpha, per-layer features, K-buffer and mean depth; see ``gaussians.splat_layers``.

    The contributions that were not kept are constants: their alphas are detached before the
    transmittance is formed, so autograd gives exactly the partial gradients of the kernel.
    """
    buffer, rank, alpha, _ = _heaviest(projected, width, height, k)
    order = _contributions(projected, width, height)[0]
    kept = torch.zeros_like(alpha, dtype=torch.bool)
    columns = torch.arange(rank.shape[0])[:, None].expand_as(rank)
    valid = rank >= 0
    kept[rank[valid], columns[valid]] = True
    alpha = torch.where(kept, alpha, alpha.detach())
    T = _transmittance(alpha)
    weight, A = alpha * T[:-1], 1 - T[-1]  # [M, P], [P]
    w = torch.cat([weight, 0 * A[None]])[rank, columns]  # [P, K], rank -1 is the row of zeros
    total = w.sum(1, keepdim=True)
    share = torch.where(total > 0, w * A[:, None] / total.clamp(min=1e-30), 0 * w)
    padded = torch.cat([values[order], values.new_zeros(1, values.shape[1])])
    per_layer = share[..., None] * padded[rank]  # [P, K, C]
    image = per_layer.sum(1).reshape(height, width, -1)
    weights = buffer.weight
    assert weights is not None
    depth = (weights * buffer.depth).sum(-1) / weights.sum(-1).clamp(min=1e-30)
    return (
        image,
        A.reshape(height, width),
        per_layer[..., values.shape[1] - features :].reshape(height, width, k, features),
        buffer,
        depth,
    )
