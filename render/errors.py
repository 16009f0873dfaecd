"""The one exception type that a user is meant to read."""


class UserError(Exception):
    """A mistake that the user can mend, told in one sentence.

    The sentence names the file, what was expected, what was found and what to do.
    ``main.py`` prints it without a traceback and exits with code 1.
    """
