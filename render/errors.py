"""The one exception type that a user is meant to read."""

_LONGEST = 1600  # characters


class UserError(Exception):
    """A mistake that the user can mend, told in one sentence.

    The sentence names the file, what was expected, what was found and what to do.
    ``main.py`` prints it without a traceback and exits with code 1.

    Names and contents of files may hold anything: line breaks and other control characters are
    shown as escapes, so that they neither break the sentence nor reach the terminal, and what is
    far too long loses its middle.
    """

    def __init__(self, sentence: str) -> None:
        text = "".join(map(_shown, sentence))
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 4 :]}"
        super().__init__(text)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()
