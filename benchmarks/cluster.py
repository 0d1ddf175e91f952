"""Times the building of a data set by one and by two workers of a Dask cluster on this machine, with a core each.

    pip install --constraint=constraints.txt --editable '.[beam]' 'apache-beam[dask]'
    python benchmarks/cluster.py

Makes synthetic photographs, links each of them several times, and prints a table in Markdown. A
worker has built a small data set before it is timed, so the import of TensorFlow is only that of the program itself.
"""

import contextlib
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import synthetic
from absl import app, flags

_SHARDS = 32
_CHILD_ENVIRONMENT = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


def define_flags():
    flags.DEFINE_integer("rounds", 2, "Number of times that each cluster builds, in turn.")
    flags.DEFINE_integer("photos", 256, "Number of photographs.")
    flags.DEFINE_integer("links", 24, "Number of files with the same photograph.")


def make_photos(folder, photos, links):
    synthetic.write_photos(folder / "val", 8)
    for path in synthetic.write_photos(folder / "train", photos):
        for link in range(1, links):
            path.with_name(f"{path.stem}-{link}.jpg").hardlink_to(path)


@contextlib.contextmanager
def cluster(workers, folder):
    """Yields the address of a scheduler whose workers run on a core each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    processes = []

    def start(cores, *command):
        with (folder / "cluster.log").open("a") as log:
            command = ["taskset", "-c", cores, sys.executable, "-m", *command, "--no-dashboard"]
            processes.append(subprocess.Popen(command, env=_CHILD_ENVIRONMENT, stdout=log, stderr=log, cwd=folder))

    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    try:
        start(",".join(cores), "distributed.cli.dask_scheduler", f"--host={host}", f"--port={port}")
        for core in cores[:workers]:
            start(core, "distributed.cli.dask_worker", f"tcp://{address}", "--nthreads=1", "--no-nanny")
        yield f"tcp://{address}"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def build(source, data_dir, address):
    """Builds a data set; returns the seconds that it took."""
    begin = time.perf_counter()
    arguments = [f"--source=folder:{source}", f"--data_dir={data_dir}", f"--num_train_shards={_SHARDS}"]
    arguments += ["--runner=DaskRunner", "--", f"--dask_client_address={address}", f"--dask_npartitions={_SHARDS}"]
    command = [sys.executable, "-m", "alexnet_tf.tfrecords.build", *arguments]
    subprocess.run(command, env=_CHILD_ENVIRONMENT, check=True, capture_output=True)
    return time.perf_counter() - begin


def main(argv):
    flag = flags.FLAGS
    if len(os.sched_getaffinity(0)) < 2:
        raise ValueError("Two cores are needed, one for each worker.")
    seconds = {workers: {"few": [], "photos": []} for workers in (1, 2)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        make_photos(folder / "few", 32, 1)
        make_photos(folder / "photos", flag.photos, flag.links)
        for number in range(flag.rounds):
            for workers, timed in seconds.items():
                with cluster(workers, folder) as address:
                    build(folder / "few", folder / f"warm-{number}-{workers}", address)
                    for name, of_name in timed.items():
                        of_name.append(build(folder / name, folder / f"{name}-{number}-{workers}", address))
                        print(f"{workers} workers, {name}: {of_name[-1]:.1f} s", flush=True)
    medians = {
        workers: {name: statistics.median(each) for name, each in timed.items()} for workers, timed in seconds.items()
    }
    print(
        f"\n| workers, a core each | 32 images, s | {flag.photos * flag.links:,} images, s | share of one's time "
        "| without that of 32 images |\n|---|---|---|---|---|"
    )
    for workers, of_some in medians.items():
        shares = [
            of_some["photos"] / medians[1]["photos"],
            (of_some["photos"] - of_some["few"]) / (medians[1]["photos"] - medians[1]["few"]),
        ]
        print(f"| {workers} | {of_some['few']:.1f} | {of_some['photos']:.1f} | {shares[0]:.2f} | {shares[1]:.2f} |")


if __name__ == "__main__":
    define_flags()
    app.run(main)
