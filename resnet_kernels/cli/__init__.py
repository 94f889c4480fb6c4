"""The command `resnet-kernels`.

Exit codes: 0 done, 1 a check failed, 2 a wrong input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; a wrong input is one line on stderr."""
    try:
        import click
        import rich  # noqa: F401
    except ImportError as error:
        print(
            f"error: the command line needs {error.name}: pip install {error.name}", file=sys.stderr
        )
        return 2

    from ..training.errors import SaidElsewhere, UserError
    from .commands import cli

    try:
        result = cli.main(args=argv, prog_name="resnet-kernels", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        if os.environ.get("RANK", "0") == "0":  # under torchrun all have the same arguments
            print(f"error: {error.format_message()}", file=sys.stderr)
        return 2
    except SaidElsewhere:
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0
