"""What the readers of point clouds say about broken files."""

from __future__ import annotations

from pathlib import Path

import pytest

from render.errors import UserError
from render.scenes.clouds.pointcloud import read_point_cloud


def error_of(path: Path) -> str:
    """The one sentence that reading ``path`` ends in; it names the file."""
    with pytest.raises(UserError) as caught:
        read_point_cloud(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text
