"""Encodings: order of the values, mathematics, zero rows."""

from __future__ import annotations

import math

import pytest
import torch

from render.nets.encodings import FrequencyEncoding, HashGrid, SphericalHarmonics


def small_grid(**kwargs: int) -> HashGrid:
    torch.manual_seed(0)
    options = {"levels": 4, "base": 4, "log2_table": 9} | kwargs
    return HashGrid(torch.tensor([-4.0, -4.0, 0.0]), torch.tensor([4.0, 4.0, 4.0]), **options)


def test_frequency_order_is_sin_then_cos_per_frequency_without_pi_or_identity() -> None:
    x = torch.tensor([[0.3, -1.2, 2.0]])
    code = FrequencyEncoding(10)(x)
    assert code.shape == (1, 60)
    for j in range(10):
        block = code[0, 6 * j : 6 * j + 6]
        expected = [f(float(v) * 2**j) for f in (math.sin, math.cos) for v in x[0]]
        torch.testing.assert_close(block, torch.tensor(expected), atol=1e-4, rtol=0)


def test_spherical_harmonics_are_orthonormal_on_the_sphere() -> None:
    n = 20000  # Fibonacci sphere: nearly uniform
    i = torch.arange(n, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / n
    phi = math.pi * (1 + 5**0.5) * i
    r = (1 - z * z).sqrt()
    values = SphericalHarmonics()(torch.stack([r * phi.cos(), r * phi.sin(), z], -1))
    gram = 4 * math.pi * values.T @ values / n
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=2e-3, rtol=0)


def test_spherical_harmonics_take_unnormalised_input_unless_told() -> None:
    d = torch.tensor([[0.6, 0.0, 0.8]])
    raw, unit = SphericalHarmonics(), SphericalHarmonics(unit=True)
    torch.testing.assert_close(unit(3 * d), raw(d))
    torch.testing.assert_close(raw(3 * d)[:, 2], 3 * raw(d)[:, 2])  # band 1 is linear


def test_hash_grid_interpolates_its_table() -> None:
    grid = small_grid(levels=1)
    side = grid.resolutions[0] + 1
    vertex = torch.tensor([1, 2, 3])
    box = grid.upper - grid.lower
    x = (grid.lower + box * vertex / grid.resolutions[0])[None]
    row = (3 * side + 2) * side + 1
    torch.testing.assert_close(grid(x)[0], grid.table[row])
    half_cell = torch.tensor([0.5, 0.0, 0.0]) * box / grid.resolutions[0]
    torch.testing.assert_close(grid(x + half_cell)[0], grid.table[row : row + 2].mean(0))


def test_hash_grid_is_alive_outside_its_bounds_and_saved() -> None:
    grid = small_grid()
    grid(torch.tensor([[100.0, -100.0, 7.0]])).sum().backward()
    assert grid.table.grad is not None and float(grid.table.grad.abs().sum()) > 0
    assert {"table", "lower", "upper"} <= grid.state_dict().keys()


def test_hash_grid_of_a_flat_box_is_finite() -> None:
    corner = torch.tensor([1.0, 2.0, 3.0])
    assert bool(HashGrid(corner, corner, levels=2, log2_table=8)(corner[None]).isfinite().all())


@pytest.mark.parametrize(
    "encoder", [FrequencyEncoding(10), SphericalHarmonics(), SphericalHarmonics(True), small_grid()]
)
def test_zero_rows_keep_the_graph(encoder: torch.nn.Module) -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    code = encoder(x)
    assert code.shape == (0, encoder.out_dim)
    code.sum().backward()
    assert x.grad is not None and x.grad.shape == (0, 3)
    for parameter in encoder.parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) == 0
