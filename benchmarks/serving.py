"""How a served model bears load: 1, 8 and 32 clients at once, photographs of real size, a tenth of them damaged.

    pip install alexnet-tf[serving] psutil
    python benchmarks/serving.py --served=served/alexnet

Starts the tests' server (tests/model_server.py) over the newest version in --served, as a process of its own, and asks
it by gRPC over loopback, each client with one image at a time, as soon as the last is answered. What a good image must
be answered was asked of the SavedModel directly before. Prints a table in Markdown last, and fails if an answer was
wrong.
"""

import dataclasses
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import tensorflow as tf
from absl import app, flags
from reading import make_photo

from alexnet_tf.serving import remote_model

_SERVER = pathlib.Path(__file__).parent.parent / "tests" / "model_server.py"
_PHOTOS = 200
_TOLERANCE = 1e-4  # of a probability: in a larger batch sums are taken in another order


def define_flags():
    flags.DEFINE_string("served", None, "TF Serving's base path of the model.", required=True)
    flags.DEFINE_list("clients", ["1", "8", "32"], "How many clients ask at once.")
    flags.DEFINE_float("seconds", 200, "How long each number of clients asks.")
    flags.DEFINE_enum("protocol", "grpc", ["grpc", "http"], "How they ask.")


@dataclasses.dataclass
class Asked:
    """What one image must be answered: a `remote_model.Answer`."""

    content: bytes
    expected: remote_model.Answer


def make_images(folder):
    """Photographs and damaged ones, nine to one, and what the model says of them when it is asked alone."""
    saved = tf.saved_model.load(str(folder))
    random = np.random.default_rng(0)
    asked = []
    for number in range(_PHOTOS):
        content = make_photo(number)
        if number % 10 == 9:  # cut off, or no image from the first byte on, or empty
            content = (content[: len(content) // 2], random.bytes(len(content)), b"")[number // 10 % 3]
        outputs = saved.signatures["serving_default"](images=tf.constant([content]))
        valid = bool(outputs["valid"][0])
        assert valid == (number % 10 != 9)
        names = tuple(name.decode() for name in outputs["class_names"][0].numpy()) if valid else ()
        best = tuple(map(float, outputs["probabilities"][0].numpy())) if valid else ()
        asked.append(Asked(content, remote_model.Answer(valid, names, best)))
    return asked


def is_right(answer, expected):
    """Whether an answer is the expected one, but for rounding."""
    if answer.valid != expected.valid:
        return False
    near = np.allclose(answer.probabilities, expected.probabilities, atol=_TOLERANCE)
    gaps = -np.diff(expected.probabilities)
    return near and (answer.class_names == expected.class_names or bool(np.any(gaps < 2 * _TOLERANCE)))


def load(address, model, asked, clients, seconds, server):
    """Asks for some time; returns latencies in seconds, wrong and failed answers, and the server's memory over time."""
    latencies, wrong, failed, megabytes = [], [], [], []
    end = time.monotonic() + seconds

    def ask(number):
        random = np.random.default_rng(number)
        connection = remote_model.connect(address, model)
        while time.monotonic() < end:
            image = asked[random.integers(len(asked))]
            begin = time.perf_counter()
            try:
                (answer,) = remote_model.ask_persistently(connection, [image.content], 60)
            except remote_model.RequestFailed as error:
                failed.append(str(error))
                continue
            latencies.append(time.perf_counter() - begin)
            if not is_right(answer, image.expected):
                wrong.append((answer, image.expected))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        megabytes.append(server.memory_info().rss / 1e6)
        time.sleep(min(1, max(0, end - time.monotonic())))
    for thread in threads:
        thread.join()
    return latencies, wrong, failed, megabytes


def main(argv):
    flag = flags.FLAGS
    base = pathlib.Path(flag.served)
    newest = max((path for path in base.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    asked = make_images(newest)
    sizes = [len(image.content) for image in asked if image.expected.valid]
    print(f"{len(sizes)} photographs of {np.mean(sizes):,.0f} bytes, {len(asked) - len(sizes)} damaged ones.")
    lines = [
        "| clients | images/s | p50, ms | p99, ms | answers | wrong | failed | server's memory, MB |",
        "|---" * 8 + "|",
    ]
    command = [sys.executable, str(_SERVER), str(base), base.name, "0", "0"]
    bad = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            ports = dict(zip(("grpc", "http"), process.stdout.readline().split(), strict=True))
            address = f"{flag.protocol}://localhost:{ports[flag.protocol]}"
            server = psutil.Process(process.pid)
            load(address, base.name, asked, 32, min(10, flag.seconds), server)  # buffers for the largest batch
            for clients in map(int, flag.clients):
                results = load(address, base.name, asked, clients, flag.seconds, server)
                latencies, wrong, failed, megabytes = results
                bad += len(wrong) + len(failed)
                p50, p99 = 1000 * np.percentile(latencies, [50, 99])
                tenth = max(1, len(megabytes) // 10)
                memory = f"{np.mean(megabytes[:tenth]):,.0f} to {np.mean(megabytes[-tenth:]):,.0f}, at most "
                lines.append(
                    f"| {clients} | {len(latencies) / flag.seconds:.1f} | {p50:.0f} | {p99:.0f} | {len(latencies):,} | "
                    f"{len(wrong)} | {len(failed)} | {memory}{max(megabytes):,.0f} |"
                )
                print(lines[-1], flush=True)
                for example in [*wrong[:3], *failed[:3]]:
                    print(example)
        finally:
            process.terminate()
    print("\n".join(["", *lines]))
    sys.exit(bad != 0)


if __name__ == "__main__":
    define_flags()
    app.run(main)
