"""The exception that a command turns into a single line and exit code 2."""


class UserError(Exception):
    """What the caller can put right: a wrong name, path, option or file. The text is one line."""


class SaidElsewhere(UserError):
    """A UserError that another process of the same run has printed already."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its class's name if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
