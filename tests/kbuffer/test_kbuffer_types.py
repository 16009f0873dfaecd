"""KBuffer: layers, gathering with gradients, unique primitives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from render.kbuffer.types import KBuffer


def make(index: list, weight: list | None = None) -> KBuffer:
    """A K-buffer of the given ids whose depth is the slot number."""
    ids = torch.tensor(index, dtype=torch.int32)
    slots = torch.arange(ids.shape[-1]).expand(ids.shape).float()
    depth = torch.where(ids >= 0, slots, -1.0)
    w = None if weight is None else torch.tensor(weight)
    return KBuffer(ids, depth, torch.where(ids >= 0, 0.5, -1.0), w)


@pytest.fixture
def buffer() -> KBuffer:  # [2, 2, 3]
    return make([[[4, 1, -1], [-1, -1, -1]], [[1, 4, 2], [2, -1, -1]]])


def test_mask_and_counts(buffer: KBuffer) -> None:
    assert buffer.k == 3
    assert buffer.count().tolist() == [[2, 0], [3, 1]]
    assert torch.equal(buffer.valid, buffer.index != -1)


def test_gather_fills_the_empty(buffer: KBuffer) -> None:
    values = torch.arange(10.0).view(5, 2)
    out = buffer.gather(values, fill=-7.0)  # [2, 2, 3, 2]
    assert out.shape == (2, 2, 3, 2)
    assert out[0, 0].tolist() == [[8, 9], [2, 3], [-7, -7]]
    assert (out[~buffer.valid] == -7).all()
    assert torch.equal(out[buffer.valid], values[buffer.index[buffer.valid].long()])


def test_gather_gradient(buffer: KBuffer) -> None:
    values = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(buffer.gather, (values,))
    buffer.gather(values).sum().backward()
    assert values.grad is not None
    assert values.grad[:, 0].tolist() == [0, 2, 2, 0, 2]  # how often each id occurs


def test_gather_from_an_empty_buffer() -> None:
    empty = make([[[-1, -1]] * 3] * 2)
    values = torch.randn(0, 4, requires_grad=True)
    out = empty.gather(values, fill=1.0)
    assert out.shape == (2, 3, 2, 4)
    assert (out == 1).all()
    ids, inverse, first = empty.unique()
    assert ids.numel() == inverse.numel() == first.numel() == 0


def test_unique_is_row_major(buffer: KBuffer) -> None:
    ids, inverse, first = buffer.unique()
    assert ids.tolist() == [1, 2, 4]
    assert torch.equal(ids[inverse], buffer.index[buffer.valid].long())
    assert first.tolist() == [0, 2, 0]  # row * W + column of the first pixel that shows the id


def test_unique_on_random_buffers() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        index = torch.randint(-1, 12, (5, 7, 3), generator=g).int()
        found = make(index.tolist())
        ids, inverse, first = found.unique()
        assert torch.equal(ids[inverse], index[index >= 0].long())
        for i, pixel in zip(ids.tolist(), first.tolist(), strict=True):
            rows = (index.flatten(0, 1) == i).any(-1).nonzero()[:, 0]
            assert pixel == int(rows[0])


def test_ids_beyond_float32() -> None:
    """Ids above 2^24 are not representable in float32: nothing on the way may go through it."""
    base = 2**24
    buffer = make([[[base + 1, base + 3], [base + 2, -1]]])
    values = torch.arange(base + 4, dtype=torch.int32)[:, None]
    assert buffer.gather(values)[..., 0].tolist() == [[[base + 1, base + 3], [base + 2, 0]]]
    ids, inverse, first = buffer.unique()
    assert ids.tolist() == [base + 1, base + 2, base + 3]
    assert inverse.tolist() == [0, 2, 1]
    assert first.tolist() == [0, 1, 0]


def test_take_keeps_the_nearest(buffer: KBuffer) -> None:
    two = buffer.take(2)
    assert two.index.tolist() == [[[4, 1], [-1, -1]], [[1, 4], [2, -1]]]
    assert two.depth[1, 0].tolist() == [0, 1]
    assert two.index.is_contiguous()
    assert buffer.take(3) is buffer
    assert buffer.take(9) is buffer
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        buffer.take(0)


def test_take_keeps_the_heaviest_in_depth_order() -> None:
    weights = [[[0.1, 0.4, 0.2, 0.3], [0.5, 0.2, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2]]]
    buffer = make([[[7, 8, 9, 6], [3, 5, -1, -1], [1, 2, 3, 4]]], weights)
    two = buffer.take(2)
    assert two.index.tolist() == [[[8, 6], [3, 5], [1, 2]]]  # of equals the nearer
    assert two.weight is not None
    assert two.weight[0, 0].tolist() == pytest.approx([0.4, 0.3])
    three = buffer.take(3)
    assert three.index.tolist() == [[[8, 9, 6], [3, 5, -1], [1, 2, 3]]]
    assert_sorted(three.depth)


def assert_sorted(depth: Tensor) -> None:
    pairs = (depth[..., :-1] >= 0) & (depth[..., 1:] >= 0)
    assert (depth[..., :-1] < depth[..., 1:])[pairs].all()


def test_layer(buffer: KBuffer) -> None:
    last = buffer.layer(2)
    assert last.k == 1
    assert last.index[..., 0].tolist() == [[-1, -1], [2, -1]]
    weighted = make([[[1, 2]]], [[[0.3, 0.1]]]).layer(1)
    assert weighted.weight is not None
    assert weighted.weight.flatten().tolist() == pytest.approx([0.1])
