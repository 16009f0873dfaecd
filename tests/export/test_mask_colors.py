"""A photograph under its mask, and the light that reaches a layer."""

from __future__ import annotations

import torch

from render.export.layers import LayerPictures
from render.export.legend import light_legend, mask_legend
from render.export.mask_colors import ADDED, LOST, mask_picture, resized_mask
from render.kbuffer import KBuffer
from render.methods.base import Inspection


def test_tints_say_what_a_mask_adds_and_loses() -> None:
    image = torch.full((1, 4, 3), 0.5)
    own = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    used = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    outside, inside, added, lost = mask_picture(image, own, used)[0]
    torch.testing.assert_close(inside, image[0, 0])
    assert float(outside.max()) < 0.2
    for pixel, color in ((added, ADDED), (lost, LOST)):
        assert int((pixel - 0.5).argmax()) == int(color.argmax())
        assert float((pixel - color).abs().sum()) < float((image[0, 0] - color).abs().sum())
    same = mask_picture(image, own, own)[0]
    assert bool((same.amax(1) == same.amin(1)).all())  # no tint without a difference
    legend = mask_legend()
    assert [text for _, text in legend.ticks] == ["object", "added", "lost", "background"]
    assert len(legend.colors) == 4 and torch.equal(legend.colors[1], ADDED)


def test_masks_are_averaged_when_they_shrink() -> None:
    mask = torch.tensor([[0, 255], [255, 255]], dtype=torch.uint8)
    assert float(resized_mask(mask, (1, 1))) == 0.75
    assert resized_mask(mask, (2, 2)).tolist() == [[0, 1], [1, 1]]
    assert resized_mask(mask, (4, 6)).shape == (4, 6)


def layers(extra: dict[str, torch.Tensor]) -> LayerPictures:
    index = torch.tensor([[[4, 2, 9]]], dtype=torch.int32)
    weight = torch.tensor([[[0.5, 0.25, 0.25]]])
    kbuffer = KBuffer(index, torch.ones(1, 1, 3), torch.zeros(1, 1, 3), weight)
    return LayerPictures(Inspection(kbuffer, torch.zeros(1, 1, 3, 3), weight, extra=extra), BLACK)


BLACK = torch.zeros(3)


def test_light_follows_from_the_shares_or_is_told() -> None:
    """Half of the light passes the first layer, a quarter the second."""
    legend = light_legend()
    told = torch.tensor([[[[0.0], [1.0], [0.0]]]])
    for extra, expected in (({}, (1.0, 0.5, 0.25)), ({"transmittance": told}, (0.0, 1.0, 0.0))):
        for layer, light in enumerate(expected, 1):
            color = layers(extra).picture("light", layer)
            assert color is not None
            place = min(int(light * len(legend.colors)), len(legend.colors) - 1)
            torch.testing.assert_close(color[0, 0], legend.colors[place], atol=0.03, rtol=0)
