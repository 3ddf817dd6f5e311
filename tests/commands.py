"""`trisect` as a person types it, but in this process: a new one takes a second of processor to import what it needs.

For commands that ask a running pipeline or are refused. What starts nodes or brokers is a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import subprocess

from nodes.cli.app import carry_out


def trisect(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Exit code and what the command printed; an error that the command does not catch is raised."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            carry_out(arguments)
        except SystemExit as left:
            code = left.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(["trisect", *arguments], code, out.getvalue(), err.getvalue())
