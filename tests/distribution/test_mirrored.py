"""What the replicas of a mirrored strategy do."""

import pathlib
import subprocess
import sys

import pytest
from programs import ENVIRONMENT


@pytest.mark.slow
def test_replicas_on_two_devices():
    # TensorFlow fixes the number of logical devices when it starts, so the tests have a process of their own.
    path = pathlib.Path(__file__).with_name("on_two_devices.py")
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", str(path)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout
    assert "6 passed" in result.stdout
