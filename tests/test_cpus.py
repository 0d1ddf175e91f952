"""The number of CPUs inside a container."""

import os

import pytest

from alexnet_tf import cpus
from alexnet_tf.tfrecords import dataset_builder, pool


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """A machine of 64 CPUs and its cgroups, of which the test writes the files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(cpus, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cpus, "_OWN_CGROUPS", tmp_path / "own")

    def write(contents):
        for name, content in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


class TestAvailableCpus:
    def test_without_cgroups_it_is_the_affinity(self, cgroups, monkeypatch):
        assert cpus.available_cpus() == 64
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
        assert cpus.available_cpus() == 2

    @pytest.mark.parametrize(
        "contents, expected",
        [
            ({"own": "0::/\n", "cpu.max": "400000 100000\n"}, 4),
            ({"own": "0::/\n", "cpu.max": "max 100000\n"}, 64),
            ({"own": "0::/\n", "cpu.max": "50000 100000\n"}, 1),
            ({"own": "0::/pods/pod\n", "pods/pod/cpu.max": "max 100000\n", "pods/cpu.max": "250000 100000\n"}, 3),
            (
                {
                    "own": "7:cpuset:/\n4:cpu,cpuacct:/docker/1f\n",
                    "cpu/cpu.cfs_quota_us": "400000\n",
                    "cpu/cpu.cfs_period_us": "100000\n",
                },
                4,
            ),
            ({"own": "4:cpu:/\n", "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ],
        ids=["v2", "v2 unlimited", "half a cpu", "parent", "v1", "v1 unlimited"],
    )
    def test_limit_of_the_container_counts(self, cgroups, contents, expected):
        cgroups(contents)
        assert cpus.available_cpus() == expected


def test_builder_starts_a_process_for_each_available_cpu(tmp_path, monkeypatch):
    started = []

    def executor(processes, *_):
        started.append(processes)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "available_cpus", lambda: 3)
    monkeypatch.setattr(pool.concurrent.futures, "ProcessPoolExecutor", executor)
    for number, expected in ((None, 3), (5, 5)):
        with pytest.raises(KeyboardInterrupt):
            dataset_builder.build_dataset("fashion_mnist", tmp_path, image_px=16, num_processes=number)
        assert started.pop() == expected
