"""Saved tensors are looked at before kernels, which trust their shapes, get them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def check_rows(saved: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
    """Check the per-primitive tensors of a checkpoint, whose number of rows is their own.

    Args:
        saved: by name, each [N, ...] with one N for all.
        present: the same names, dtypes and shapes, but for the rows.

    Raises:
        ValueError: it is otherwise; says which tensor.
    """
    if saved.keys() != present.keys():
        raise ValueError(f"tensors {', '.join(map(str, saved))}, not {', '.join(present)}")
    rows = None
    for name, tensor in saved.items():
        like = present[name]
        if not isinstance(tensor, Tensor) or tensor.dim() == 0 or tensor.dtype != like.dtype:
            raise ValueError(f"{name} that is no tensor of {like.dtype} with rows")
        if tensor.shape[1:] != like.shape[1:]:
            raise ValueError(f"{name} with rows of {list(tensor.shape[1:])} numbers")
        rows = tensor.shape[0] if rows is None else rows
        if tensor.shape[0] != rows:
            raise ValueError(f"{name} with {tensor.shape[0]:,} rows where others have {rows:,}")
