"""What tests in several folders share."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def run_python():
    """Run Python in a process of its own: run_python(*command, **environment) -> what it printed.

    Triton must be told before anybody imports it whether to interpret; a failure there is ours.
    """

    def python(*command: str, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            env=os.environ | {"TRITON_DEFAULT_FP_FUSION": "1"} | env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    return python
