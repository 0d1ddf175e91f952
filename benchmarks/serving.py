"""Load test of a served model: 1, 8 and 32 concurrent clients, photographs of real size, a tenth of them damaged.

    pip install --constraint=constraints.txt --editable '.[serving]' psutil
    python benchmarks/serving.py --served=served/alexnet

Starts the tests' server (tests/model_server.py) with the newest version in --served, as a process of its own, and sends
requests by gRPC over loopback: each client one image at a time, the next as soon as the last is classified. The
expected predictions are computed before, by the SavedModel directly. Prints a table in Markdown last, and fails if a
prediction was wrong.
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
from synthetic import make_photo

from alexnet_tf.serving import remote_model

_SERVER = pathlib.Path(__file__).parent.parent / "tests" / "model_server.py"
_PHOTOS = 200
_TOLERANCE = 1e-4  # of a probability: in a larger batch sums are taken in another order


def define_flags():
    flags.DEFINE_string("served", None, "TF Serving's base path of the model.", required=True)
    flags.DEFINE_list("clients", ["1", "8", "32"], "Numbers of concurrent clients.")
    flags.DEFINE_float("seconds", 200, "Seconds for each number of clients.")
    flags.DEFINE_enum("protocol", "grpc", ["grpc", "http"], "Protocol of the requests.")


@dataclasses.dataclass
class Case:
    """An encoded image and the prediction that is expected for it."""

    content: bytes
    expected: remote_model.Prediction


def make_cases(folder):
    """Photographs and damaged ones, nine to one, each with the prediction of the model for it alone."""
    saved = tf.saved_model.load(str(folder))
    random = np.random.default_rng(0)
    cases = []
    for number in range(_PHOTOS):
        content = make_photo(number)
        if number % 10 == 9:  # cut off, or no image from the first byte on, or empty
            content = (content[: len(content) // 2], random.bytes(len(content)), b"")[number // 10 % 3]
        outputs = saved.signatures["serving_default"](images=tf.constant([content]))
        valid = bool(outputs["valid"][0])
        assert valid == (number % 10 != 9)
        names = tuple(name.decode() for name in outputs["class_names"][0].numpy()) if valid else ()
        best = tuple(map(float, outputs["probabilities"][0].numpy())) if valid else ()
        cases.append(Case(content, remote_model.Prediction(valid, names, best)))
    return cases


def is_right(prediction, expected):
    """Whether a prediction is the expected one, up to rounding."""
    if prediction.valid != expected.valid:
        return False
    near = np.allclose(prediction.probabilities, expected.probabilities, atol=_TOLERANCE)
    gaps = -np.diff(expected.probabilities)
    return near and (prediction.class_names == expected.class_names or bool(np.any(gaps < 2 * _TOLERANCE)))


def load(address, model, cases, clients, seconds, server):
    """Sends requests for some time.

    Returns: latencies in seconds, wrong predictions, failures, and the server's memory in MB over time.
    """
    latencies, wrong, failed, megabytes = [], [], [], []
    end = time.monotonic() + seconds

    def send(number):
        random = np.random.default_rng(number)
        connection = remote_model.connect(address, model)
        while time.monotonic() < end:
            case = cases[random.integers(len(cases))]
            begin = time.perf_counter()
            try:
                (prediction,) = remote_model.predict_with_retries(connection, [case.content], 60)
            except remote_model.RequestFailed as error:
                failed.append(str(error))
                continue
            latencies.append(time.perf_counter() - begin)
            if not is_right(prediction, case.expected):
                wrong.append((prediction, case.expected))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
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
    cases = make_cases(newest)
    sizes = [len(case.content) for case in cases if case.expected.valid]
    print(f"{len(sizes)} photographs of {np.mean(sizes):,.0f} bytes, {len(cases) - len(sizes)} damaged ones.")
    lines = [
        "| clients | images/s | p50, ms | p99, ms | predictions | wrong | failed | server's memory, MB |",
        "|---" * 8 + "|",
    ]
    command = [sys.executable, str(_SERVER), str(base), base.name]
    bad = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            addresses = dict(zip(("grpc", "http"), process.stdout.readline().split(), strict=True))
            address = addresses[flag.protocol]
            server = psutil.Process(process.pid)
            load(address, base.name, cases, 32, min(10, flag.seconds), server)  # buffers for the largest batch
            for clients in map(int, flag.clients):
                results = load(address, base.name, cases, clients, flag.seconds, server)
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
