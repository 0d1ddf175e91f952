"""Compares the speed of training and inference on a GPU with that of the same network in PyTorch.

    pip install --editable '.[bench]' 'tensorflow[and-cuda]' 'jax[cuda13]'   # and a PyTorch build that supports the GPU
    python benchmarks/gpu.py                                # prints its table last
    python benchmarks/gpu.py --quick                        # two images, also on a CPU: only checks that it runs

Times training and inference in float32 (as TF32), bfloat16 and float16 for several batch sizes: this project on
TensorFlow, with and without XLA, and on Keras's JAX and PyTorch backends; PyTorch eager and compiled, channels last,
with autocast. Each runs in a process of its own, one after another, since two programs can't share a GPU's memory well;
the sequence is repeated.

Contestants whose framework (TensorFlow, JAX or PyTorch) is not installed are skipped. Without TensorFlow:
`pip install --no-deps --editable .` and `pip install keras`, and a JAX or PyTorch that supports the GPU.

In addition to images/s the table has the utilization of the GPU's arithmetic throughput (`--peak_tflops`, for each
dtype, from the vendor's table).

So far it has run only with --quick, on CPUs: no GPU was available when it was written.
"""

import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

import contestants
import numpy as np
from absl import app, flags

# The framework of each contestant.
CONTESTANTS = {
    "this project": "tensorflow",
    "this project with XLA": "tensorflow",
    "this project on JAX": "jax",
    "this project on PyTorch": "torch",
    "PyTorch": "torch",
    "PyTorch compiled": "torch",
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def define_flags():
    flags.DEFINE_boolean("quick", False, "Two images, one round and float32.")
    flags.DEFINE_list("batch_sizes", ["128", "256", "512", "1024", "2048", "4096"], "Images per step.")
    flags.DEFINE_list("contestants", list(CONTESTANTS), "The contestants to time, if installed.")
    flags.DEFINE_list("precisions", list(PRECISIONS), "Keras dtype policies.")
    flags.DEFINE_integer("rounds", 3, "How often the sequence is repeated.")
    flags.DEFINE_integer("steps", 20, "Timed calls per round.")
    flags.DEFINE_list(
        "peak_tflops", ["494", "989", "989"], "The GPU's dense TFLOP/s for each dtype; default: H100 or H200."
    )
    flags.DEFINE_string("contestant", None, "The settings of this process, as JSON. Set by this program.")


def this_project_on_another_backend(precision="float32"):
    """This project's network and update rule on the backend KERAS_BACKEND, as `fit` runs them: "jax" compiles the step
    with XLA, "torch" runs it eagerly."""
    import keras

    from alexnet_tf import model
    from alexnet_tf.training import optimizers

    keras.config.set_dtype_policy(precision)
    alexnet = model.build_alexnet("paper", contestants.CLASSES)
    trained = model.with_color_offset(alexnet)
    optimizer = optimizers.PaperMomentum(contestants.RATE, contestants.MOMENTUM, contestants.DECAY)
    metrics = [keras.metrics.SparseCategoricalAccuracy(), keras.metrics.SparseTopKCategoricalAccuracy(5)]
    trained.compile(optimizer, "sparse_categorical_crossentropy", metrics=metrics)
    call = _jax_call if keras.backend.backend() == "jax" else _torch_call

    def make_call(mode, batch_size):
        pixels, labels = (keras.ops.convert_to_tensor(array) for array in contestants.random_batch(batch_size))
        if mode == "infer":
            return call(alexnet, mode, pixels, None)
        inputs = {"image": pixels, "color_offset": keras.ops.zeros((batch_size, 3))}
        first = {name: keras.ops.convert_to_numpy(tensor[:1]) for name, tensor in inputs.items()}
        trained.train_on_batch(first, np.zeros(1, "int32"))  # creates the variables of the optimizer and the metrics
        return call(trained, mode, inputs, labels)

    return make_call


def _jax_call(model, mode, inputs, labels):
    import jax

    weights = model.trainable_variables, model.non_trainable_variables
    if mode == "infer":
        values = [[variable.value for variable in variables] for variables in weights]
        infer = jax.jit(lambda values, pixels: model.stateless_call(*values, pixels, training=False)[0])
        return lambda: np.asarray(infer(values, inputs))
    # Copies, since a step overwrites its arguments.
    state = tuple(
        [jax.numpy.copy(variable.value) for variable in variables]
        for variables in (*weights, model.optimizer.variables, model.metrics_variables)
    )
    step = jax.jit(model.train_step, donate_argnums=0)

    def train():
        nonlocal state
        logs, state = step(state, (inputs, labels))
        return logs

    return train


def _torch_call(model, mode, inputs, labels):
    import torch

    def infer():
        with torch.inference_mode():
            return model(inputs, training=False).cpu().numpy()

    return infer if mode == "infer" else lambda: model.train_step((inputs, labels))


def make_contestant(name, precision, device):
    """Returns the `make_call` of a contestant. float32 means TF32 for all, which is TensorFlow's default.

    Raises:
        RuntimeError: if the framework does not see the GPU: it would be timed on the CPU, for hours.
    """
    visible = True
    if CONTESTANTS[name] == "tensorflow":
        import tensorflow as tf

        visible = tf.config.list_physical_devices("GPU")
    if CONTESTANTS[name] == "torch":
        import torch

        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        visible = torch.cuda.is_available()
    if CONTESTANTS[name] == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
        visible = jax.default_backend() == "gpu"
    if device == "cuda" and not visible:
        raise RuntimeError(f"{name}: {CONTESTANTS[name]} does not see the GPU.")
    if name.startswith("PyTorch"):
        return contestants.pytorch("compiled" in name, precision, device)
    if CONTESTANTS[name] == "tensorflow":
        return contestants.this_project(precision, "true" if "XLA" in name else "false")
    return this_project_on_another_backend(precision)


def time_contestant(name, precision, batch_sizes, steps, device):
    """Prints a line of JSON after each case: [mode, batch size, median seconds]. The seconds are null if the memory is
    too small."""
    make_call = make_contestant(name, precision, device)
    for mode in ("train", "infer"):
        for batch_size in batch_sizes:
            try:
                call = None  # frees its memory
                call = make_call(mode, batch_size)
                for _ in range(3):
                    result = call()
                seconds = []
                for _ in range(steps):
                    begin = time.perf_counter()
                    result = call()
                    if isinstance(result, dict):  # Keras returns its logs before the device has finished
                        [float(value) for value in result.values()]
                    seconds.append(time.perf_counter() - begin)
                print(json.dumps([mode, batch_size, statistics.median(seconds)]), flush=True)
            except Exception as error:  # each framework has its own out-of-memory error
                print(f"{name}, {precision}, {mode} {batch_size}: {type(error).__name__}: {error}", file=sys.stderr)
                print(json.dumps([mode, batch_size, None]), flush=True)


def table(results, peak_tflops):
    """Returns the table as lines of Markdown, one per dtype, contestant and case."""
    lines = ["| dtype | mode | batch | contestant | images/s | / PyTorch's best | share of TFLOP/s |", "|---" * 7 + "|"]
    for (precision, mode, batch_size, name), rounds in sorted(results.items()):
        times = [seconds for seconds in rounds if seconds]
        if not times:
            lines.append(f"| {precision} | {mode} | {batch_size} | {name} | did not run | | |")
            continue
        seconds = statistics.median(times)
        rivals = [results.get((precision, mode, batch_size, n), []) for n in CONTESTANTS if n.startswith("PyTorch")]
        best = min((statistics.median([s for s in r if s]) for r in rivals if any(r)), default=None)
        gflop = contestants.TRAINING_GFLOP if mode == "train" else contestants.INFERENCE_GFLOP
        arithmetic = gflop * batch_size / seconds / 1000 / peak_tflops[precision]
        ratio = f"{best / seconds:.2f}" if best else ""
        lines.append(
            f"| {precision} | {mode} | {batch_size} | {name} | {batch_size / seconds:,.1f} | {ratio} | "
            f"{arithmetic:.1%} |"
        )
    return lines


def main(argv):
    del argv
    flag = flags.FLAGS
    if flag.contestant:
        time_contestant(**json.loads(flag.contestant))
        return
    device, batch_sizes, precisions = "cuda", [int(size) for size in flag.batch_sizes], flag.precisions
    rounds, steps = flag.rounds, flag.steps
    # By default JAX uses three quarters of the GPU's memory, the others all of it.
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_CLIENT_MEM_FRACTION": "0.95"}
    for name, allowed in (("contestants", CONTESTANTS), ("precisions", PRECISIONS)):
        unknown = set(flag[name].value or ()) - set(allowed)
        if unknown:
            raise app.UsageError(f"--{name} must be among {', '.join(allowed)}. Received: {', '.join(unknown)}")
    installed = {name for name in set(CONTESTANTS.values()) if importlib.util.find_spec(name)}
    names = [name for name in flag.contestants if CONTESTANTS[name] in installed]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("keras", *sorted(installed)))
    for name in sorted(set(CONTESTANTS.values()) - installed):
        versions += f"; {name} is not installed"
    if flag.quick:
        device, batch_sizes, precisions, rounds, steps = "cpu", [2], ["float32"], 1, 1
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    results = {}
    for _ in range(rounds):
        for precision in precisions:
            for name in names:
                settings = {"name": name, "precision": precision, "batch_sizes": batch_sizes}
                settings |= {"steps": steps, "device": device}
                command = [sys.executable, __file__, f"--contestant={json.dumps(settings)}"]
                variables = os.environ | environment | {"KERAS_BACKEND": CONTESTANTS[name]}
                process = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=False)
                for mode in ("train", "infer"):  # a process that dies leaves rows that say "did not run"
                    for batch_size in batch_sizes:
                        results.setdefault((precision, mode, batch_size, name), [])
                for line in process.stdout.splitlines():
                    print(name, precision, line, flush=True)
                    if line.startswith("["):
                        mode, batch_size, seconds = json.loads(line)
                        results[precision, mode, batch_size, name].append(seconds)
    lines = table(results, dict(zip(PRECISIONS, map(float, flag.peak_tflops), strict=True)))
    print("\n".join(["", f"{device}; {versions}", "", *lines]))


if __name__ == "__main__":
    define_flags()
    app.run(main)
