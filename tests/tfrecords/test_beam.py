"""The Apache Beam builder against the local one."""

import subprocess
import sys
import time

import numpy as np
import pytest
from made_photos import save_image
from made_records import contents
from programs import ENVIRONMENT, program, run_well

import alexnet_tf.tfrecords
from alexnet_tf.tfrecords import dataset_builder, schema

FASHION_MNIST_FLAGS = ("--source=fashion_mnist", "--image_px=48")
BEAM_FLAGS = ("--runner=DirectRunner", "--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.fixture(scope="module")
def fashion_mnist(tmp_path_factory):
    """The files that the local builder writes for `FASHION_MNIST_FLAGS`."""
    folder = tmp_path_factory.mktemp("local") / "data"
    dataset_builder.build_dataset("fashion_mnist", folder, image_px=48, num_processes=1)
    return contents(folder)


@pytest.fixture
def image_folder(tmp_path):
    """30 images in 2 classes, 3 of them unreadable."""
    random = np.random.default_rng(0)
    for number in range(30):
        pixels = random.integers(0, 256, (20 + number, 30, 3)).astype("uint8")
        save_image(tmp_path / "images" / "ab"[number % 2] / f"{number}.png", pixels)
    for name in ("a/0.png", "b/1.png", "b/21.png"):
        (tmp_path / "images" / name).write_bytes(b"text, not an image")
    return tmp_path / "images"


def build_small(source, data_dir, **arguments):
    defaults = {"image_px": 16, "num_train_shards": 5, "num_validation_shards": 1, "max_bad_fraction": 0.9}
    return dataset_builder.build_dataset(source, data_dir, **defaults | arguments)


class TestBuildDataset:
    """In this process: Beam's default."""

    def test_bytes_equal_the_local_builders(self, image_folder, tmp_path):
        description = build_small(f"folder:{image_folder}", tmp_path / "beam", runner="DirectRunner")
        assert sum(len(split.skipped) for split in description.splits.values()) == 3
        assert build_small(f"folder:{image_folder}", tmp_path / "local", num_processes=1) == description
        assert contents(tmp_path / "beam") == contents(tmp_path / "local")

    def test_too_many_unreadable_images_stop_the_build(self, image_folder, tmp_path):
        for path in (image_folder / "a").iterdir():
            path.write_bytes(b"text, not an image")
        errors = []
        for name, arguments in (("local", {"num_processes": 1}), ("beam", {"runner": "DirectRunner"})):
            with pytest.raises(ValueError, match=r"/images/\w/\d+\.png \(") as caught:
                build_small(f"folder:{image_folder}", tmp_path / name, max_bad_fraction=0.0, **arguments)
            errors.append(str(caught.value).partition(": ")[0])
            built = [path for path in (tmp_path / name).iterdir() if path.name.startswith(".part-")]
            assert 0 < len(built) < 6
            assert not (tmp_path / name / schema.DATASET_FILE).exists()
        assert errors == ["More than 0.00% of the 26 train images can't be read (--max_bad_fraction)"] * 2

    def test_either_builder_resumes_the_other(self, image_folder, tmp_path):
        for order in (("beam", "local"), ("local", "beam")):
            folder = tmp_path / order[0]
            how = {"local": {"num_processes": 1}, "beam": {"runner": "DirectRunner"}}
            with pytest.raises(ValueError, match="max_bad_fraction"):
                build_small(f"folder:{image_folder}", folder, max_bad_fraction=0.0, **how[order[0]])
            build_small(f"folder:{image_folder}", folder, **how[order[1]])
        assert contents(tmp_path / "beam") == contents(tmp_path / "local")

    def test_arguments_reach_beam(self, image_folder, tmp_path, capsys):
        with pytest.raises(SystemExit):
            build_small(
                f"folder:{image_folder}",
                tmp_path / "data",
                runner="DirectRunner",
                runner_arguments=["--direct_running_mode=nothing"],
            )
        assert "invalid choice: 'nothing'" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"runner": "Nothing"}, r"`runner` must be .*Received: runner='Nothing': .*SparkRunner"),
            (
                {"runner": "DirectRunner", "num_processes": 2},
                r"`num_processes` can't be combined .*: num_processes=2",
            ),
        ],
        ids=["unknown runner", "processes"],
    )
    def test_wrong_arguments_are_named(self, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message):
            dataset_builder.build_dataset("fashion_mnist", tmp_path / "data", **arguments)

    def test_missing_beam_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "apache_beam", None)
        monkeypatch.delitem(sys.modules, "alexnet_tf.tfrecords.beam_pipeline")
        monkeypatch.delattr(alexnet_tf.tfrecords, "beam_pipeline")
        with pytest.raises(ValueError, match=r"pip install --editable '\.\[beam\]'"):
            dataset_builder.build_dataset("fashion_mnist", tmp_path / "data", runner="DirectRunner")


class TestRun:
    """The program, with workers in their own processes."""

    @pytest.mark.slow
    @pytest.mark.long
    def test_bytes_equal_the_local_builders(self, fashion_mnist, tmp_path):
        run_well("tfrecords.build", *FASHION_MNIST_FLAGS, f"--data_dir={tmp_path / 'beam'}", *BEAM_FLAGS)
        assert contents(tmp_path / "beam") == fashion_mnist


class TestDask:
    """A scheduler and two workers in network namespaces, like two machines."""

    @pytest.fixture
    def cluster(self, linked_namespaces, tmp_path):
        """The scheduler's address, the prefix of commands on its machine, and the processes of the workers."""
        (first, address), (second, _) = linked_namespaces
        scheduler, processes = f"tcp://{address}:8786", []

        def start(namespace, module, *arguments):
            command = ["ip", "netns", "exec", namespace, sys.executable, "-m", f"distributed.cli.{module}", *arguments]
            log = (tmp_path / f"{len(processes)}.log").open("w")
            processes.append(subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, cwd=tmp_path))
            return processes[-1]

        try:
            start(first, "dask_scheduler", f"--host={address}", "--port=8786", "--no-dashboard")
            workers = [
                start(namespace, "dask_worker", scheduler, "--nthreads=1", "--no-nanny", "--no-dashboard")
                for namespace in (first, second)
            ]
            yield scheduler, ["ip", "netns", "exec", first], workers
        finally:
            for process in processes:
                process.kill()
                process.wait()

    @pytest.mark.slow
    @pytest.mark.long
    def test_killed_worker_does_not_change_bytes(self, cluster, fashion_mnist, tmp_path):
        scheduler, prefix, workers = cluster
        data_dir = tmp_path / "dask"
        flags = ("--runner=DaskRunner", "--", f"--dask_client_address={scheduler}", "--dask_npartitions=20")
        command = program("tfrecords.build", *FASHION_MNIST_FLAGS, f"--data_dir={data_dir}", *flags)
        builder = subprocess.Popen([*prefix, *command], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 240
        while len(list(data_dir.glob(".part-*.npz"))) < 2 and builder.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert builder.poll() is None, builder.stderr.read()
        workers[1].kill()
        _, errors = builder.communicate(timeout=300)
        assert builder.returncode == 0, errors
        assert contents(data_dir) == fashion_mnist
