"""Sentences stay sentences, whatever names and contents of files they quote."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from render.errors import UserError


def test_names_that_would_break_the_sentence() -> None:
    text = str(UserError("a\nb.ply\x1b[31m: \udcff, found \t."))
    assert text == r"a\nb.ply\x1b[31m: \udcff, found \t."
    assert str(UserError(r"C:\new\tüte 漢字.ply: no.")) == r"C:\new\tüte 漢字.ply: no."


def test_a_sentence_that_quotes_too_much_keeps_its_ends() -> None:
    text = str(UserError(f"cloud.ply: found {'x' * 100_000}; write it again."))
    assert text.startswith("cloud.ply: found xxx") and text.endswith("x; write it again.")
    assert " ... " in text and len(text) < 1600


@given(st.text())
def test_one_line_that_can_be_printed(text: str) -> None:
    error = UserError(text)
    assert str(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
