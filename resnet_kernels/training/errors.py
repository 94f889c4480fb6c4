"""The one exception that a command turns into a single line and exit code 2."""


class UserError(Exception):
    """What the caller can put right: a wrong name, path, option or file. The text is one line."""
