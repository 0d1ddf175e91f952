"""Runs the fast tests of the files it is given: the main program of the tests under Bazel."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-m", "not slow", "-p", "no:cacheprovider", *sys.argv[1:]]))
