"""Flags that are the fields of a dataclass."""

import dataclasses
from collections.abc import Mapping

import programs
import pytest
from absl import flags

from alexnet_tf import options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    needed_option: str = options.option(dataclasses.MISSING, "A required flag.")
    pair_option: tuple[int, int] | None = options.option(None, "Two numbers.")
    rates_option: Mapping[str, float] = options.option({}, "Numbers by name.")
    kind_option: str = options.option("a", "A choice.", choices=("a", "b"))
    count_option: int = options.option(1, "A number.", minimum=1)


@pytest.fixture(scope="module")
def read():
    with programs.flag_reader(Options) as read:
        yield read


def test_values_have_the_types_of_the_fields(read):
    assert read("--needed_option=x") == Options(needed_option="x")
    given = read("--needed_option=x", "--pair_option=1,2", "--rates_option=a=0.5,b/c=2", "--kind_option=b")
    assert given == Options(needed_option="x", pair_option=(1, 2), rates_option={"a": 0.5, "b/c": 2.0}, kind_option="b")


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--pair_option=1", "`pair_option` must be 2 numbers such as 1,2. Received: 1"),
        ("--pair_option=1,b", "`pair_option` must be 2 numbers such as 1,2. Received: 1,b"),
        ("--rates_option=a", "must be a list such as NAME=0.1,OTHER=2. Received: 'a'"),
        ("--rates_option==1", "Received: '=1'"),
        ("--rates_option=a=nan", "Received: 'a=nan'"),
        ("--rates_option=a=1,b=2,a=1", "must have each name only once. Received: a=1,b=2,a=1"),
    ],
)
def test_malformed_lists_are_refused(argument, message, read):
    with pytest.raises(ValueError, match=message):
        read("--needed_option=x", argument)


@pytest.mark.parametrize("argument", ["--kind_option=c", "--count_option=0", "--count_option=1.5"])
def test_values_out_of_range_are_refused(argument, read):
    with pytest.raises(flags.IllegalFlagValueError):
        read("--needed_option=x", argument)


def test_required_flag_must_be_given(read):
    with pytest.raises(flags.IllegalFlagValueError, match="needed_option"):
        read()
