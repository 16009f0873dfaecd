"""For all tests: the process settings of the program, before torch is imported."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runtime import prepare_process

prepare_process()


@pytest.fixture(autouse=True)
def _thread_counts() -> Iterator[None]:
    """A run sets the threads of the whole process; the next test starts from the defaults."""
    import torch

    from render.kbuffer.threads import set_kernel_threads

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    set_kernel_threads(None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For pictures and networks so small that threads only wait for each other."""
    import torch

    torch.set_num_threads(1)
    yield  # `_thread_counts` undoes it


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the project; tests that need it are skipped where it is missing."""
    root = Path(os.environ.get("KBUFFERS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not root.is_dir():
        pytest.skip(f"no shared data at {root}")
    return root
