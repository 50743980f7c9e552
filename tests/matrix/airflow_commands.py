"""``airflow`` commands in one process: each in its own would import Airflow, which takes seconds of a core.

It reads a JSON list of words per line (``["dags", "trigger", "d"]``, or ``["-c", "some Python"]``), and answers each
with a line on standard output: a JSON text, empty or the reason why the command failed. What a command prints is a log.
"""

from __future__ import annotations

import json
import os
import sys
import traceback


def carry_out(words: list[str]) -> str:
    """Run a command; return why it failed, or nothing."""
    from airflow.__main__ import main

    try:
        if words[0] == "-c":
            exec(words[1], {})  # noqa: S102 - the tests' own lines
            return ""
        sys.argv = ["airflow", *words]
        main()
    except SystemExit as end:
        return f"It exited with {end.code}." if end.code else ""
    except BaseException:  # noqa: BLE001 - the process that asked tells
        return traceback.format_exc()
    return ""


def serve() -> None:
    """Carry out what standard input asks for, until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Airflow's own words do not mix with the answers
    for line in sys.stdin:
        answers.write(json.dumps(carry_out(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
