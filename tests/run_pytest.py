"""Runs the fast tests of the files it is given: the main program of the tests under Bazel."""

import sys

import pytest

if __name__ == "__main__":
    code = pytest.main(["-m", "not slow and not long", "-p", "no:cacheprovider", *sys.argv[1:]])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        print("All of its tests are slow: `make test-ci` runs them.")
        code = pytest.ExitCode.OK
    sys.exit(code)
