"""The implementations that the benchmarks compare: this project, plain Keras, PyTorch, onnxruntime, a matrix product.

    python benchmarks/contestants.py "this project"

runs one contestant. It reads lines such as `train 32 3` (mode, batch size, number of calls) from stdin and answers each
with a line of JSON: the seconds of every call and the peak memory. `benchmarks/speed.py` starts one process per
contestant and alternates between them; `benchmarks/gpu.py` runs them on a GPU, one after another.

Each contestant is a function that returns a function `make_call(mode, batch_size)`. This returns a function without
arguments, which runs one "train" step (forward, backward, update) or one "infer" call (probabilities or logits of a
batch in memory).
"""

import contextlib
import functools
import gc
import json
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

IMAGE_PX, CLASSES = 224, 1000
RATE, MOMENTUM, DECAY = 1e-4, 0.9, 5e-4  # a learning rate so small that the weights hardly change
TRAINING_GFLOP, INFERENCE_GFLOP = 4.13, 1.449  # per image: two operations per multiply-add of `alexnet-describe`
_PRODUCT_SIDE = 2048


def random_batch(batch_size):
    """Returns pixels, uint8 (batch_size, 224, 224, 3), and labels, int32 (batch_size,)."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (batch_size, IMAGE_PX, IMAGE_PX, 3)).astype("uint8")
    return pixels, generator.integers(0, CLASSES, batch_size).astype("int32")


def _keras_call(model, mode, inputs, labels):
    """Returns a function that runs a training step as `fit` does, or the compiled model."""
    import tensorflow as tf

    if mode == "train":
        model.make_train_function()
        batches = tf.data.Dataset.from_tensors((inputs, labels)).repeat()
        if tf.config.list_physical_devices("GPU"):  # like the batches of the other contestants
            batches = batches.apply(tf.data.experimental.prefetch_to_device("/GPU:0"))
        batches = iter(batches)
        return lambda: model.train_function(batches)
    infer = tf.function(functools.partial(model, training=False), jit_compile=model.jit_compile)
    inputs = tf.nest.map_structure(tf.constant, inputs)
    return lambda: infer(inputs).numpy()


def this_project(precision="float32", jit="auto"):
    import keras
    import tensorflow as tf

    from alexnet_tf import model
    from alexnet_tf.distribution import strategies
    from alexnet_tf.networks import precision as precisions
    from alexnet_tf.training import compilation, optimizers

    keras.config.set_dtype_policy(precision)
    alexnet = model.build_alexnet("paper", CLASSES)
    trained = model.with_color_offset(alexnet)
    jit = strategies.use_jit(jit, strategies.make_strategy("one"))
    compilation.compile_model(trained, optimizers.PaperMomentum(RATE, MOMENTUM, DECAY), jit)

    def make_call(mode, batch_size):
        pixels, labels = random_batch(batch_size)
        if mode == "infer":  # as it is exported
            served = precisions.stored_in_bfloat16(alexnet) if precision == "mixed_bfloat16" else alexnet
            served.compile(jit_compile=jit)
            return _keras_call(served, mode, pixels, None)
        return _keras_call(trained, mode, {"image": pixels, "color_offset": tf.zeros((batch_size, 3))}, labels)

    return make_call


def plain_keras_network():
    """The same network in Keras's own layers and TensorFlow's own LRN, as users write it: dropout rescales."""
    import keras
    import tensorflow as tf
    from keras import layers

    def normalize(x):
        y = tf.cast(x, tf.float32)  # a CPU has it in no other type
        return tf.cast(tf.nn.local_response_normalization(y, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75), x.dtype)

    def split(x):
        return x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]

    image = keras.Input((IMAGE_PX, IMAGE_PX, 3))
    x = layers.ZeroPadding2D(((0, 3), (0, 3)))(image)
    x = layers.Conv2D(96, 11, strides=4, activation="relu", name="conv1")(x)
    columns = []
    for number, column in enumerate(split(x), 1):
        x = layers.MaxPooling2D(3, 2)(layers.Lambda(normalize)(column))
        x = layers.Conv2D(128, 5, padding="same", activation="relu", name=f"conv2_{number}")(x)
        columns.append(layers.MaxPooling2D(3, 2)(layers.Lambda(normalize)(x)))
    x = layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3")(layers.concatenate(columns))
    columns = []
    for number, column in enumerate(split(x), 1):
        x = layers.Conv2D(192, 3, padding="same", activation="relu", name=f"conv4_{number}")(column)
        x = layers.Conv2D(128, 3, padding="same", activation="relu", name=f"conv5_{number}")(x)
        columns.append(layers.MaxPooling2D(3, 2)(x))
    x = layers.Flatten()(layers.concatenate(columns))
    for name in ("fc6", "fc7"):
        x = layers.Dropout(0.5)(layers.Dense(4096, activation="relu", name=name)(x))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", dtype="float32", name="fc8")(x))


def plain_keras(precision="float32", jit=False):
    import keras

    keras.config.set_dtype_policy(precision)
    model = plain_keras_network()
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM, weight_decay=DECAY)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit)

    def make_call(mode, batch_size):
        pixels, labels = random_batch(batch_size)
        return _keras_call(model, mode, np.float32(pixels) - 128, labels)

    return make_call


def torch_network():
    """The independent PyTorch implementation of the tests."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
    import torch_reference

    return torch_reference.build("paper", CLASSES)


def pytorch(compiled=False, precision="float32", device="cpu"):
    import torch

    network = torch_network().to(device)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (its stubs lack it)
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    dtype = getattr(torch, precision.removeprefix("mixed_"))
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    run = torch.compile(network, dynamic=False) if compiled else network

    def forward(images):
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return run(images)

    def make_call(mode, batch_size):
        torch._dynamo.reset()  # otherwise it compiles eight cases and runs the others eagerly
        pixels, labels = random_batch(batch_size)
        images = torch.from_numpy(np.float32(pixels) - 128).permute(0, 3, 1, 2).to(device)
        images, labels = images.to(memory_format=torch.channels_last), torch.from_numpy(labels).long().to(device)

        def train():
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.item()

        def infer():
            with torch.inference_mode():
                return forward(images).float().cpu().numpy()

        network.train(mode == "train")
        return train if mode == "train" else infer

    return make_call


def onnx_runtime():
    """The PyTorch network, exported to ONNX; inference only."""
    import onnxruntime
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        image = torch.zeros(1, 3, IMAGE_PX, IMAGE_PX)
        options = {"dynamic_axes": {"image": {0: "batch"}}, "dynamo": False}
        torch.onnx.export(torch_network().eval(), (image,), path, input_names=["image"], **options)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def make_call(mode, batch_size):
        pixels = (random_batch(batch_size)[0].astype("float32") - 128).transpose(0, 3, 1, 2).copy()
        return lambda: session.run(None, {"image": pixels})

    return make_call


def in_int8(model_format):
    """This project's export in int8, calibrated on random pixels; inference only."""
    from alexnet_tf import model
    from alexnet_tf.serving import conversion, formats

    with tempfile.TemporaryDirectory() as folder:
        conversion.write(folder, model.build_alexnet("paper", CLASSES), model_format, "int8", random_batch(8)[0])
        predict = formats.open_predictor(folder)
    gc.collect()  # what the conversion to ONNX left

    def make_call(mode, batch_size):
        pixels = random_batch(batch_size)[0].astype("float32")
        return lambda: predict(pixels)

    return make_call


def matrix_product(dtype="float32"):
    """As many operations as the network's, in matrix products of size 2048: an upper limit for this machine."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((_PRODUCT_SIDE, _PRODUCT_SIDE)), dtype)
    product = tf.function(lambda: tf.matmul(matrix, matrix))

    def make_call(mode, batch_size):
        gflop = batch_size * (TRAINING_GFLOP if mode == "train" else INFERENCE_GFLOP)
        products = gflop / (2 * _PRODUCT_SIDE**3 / 1e9)

        def call():
            count = max(1, round(products))
            begin = time.perf_counter()
            for _ in range(count):
                product()
            return (time.perf_counter() - begin) * products / count  # scaled to the exact number of operations

        return call

    return make_call


CONTESTANTS = {
    "this project": this_project,
    "plain Keras": plain_keras,
    "plain Keras with XLA": functools.partial(plain_keras, jit=True),
    "PyTorch": pytorch,
    "PyTorch compiled": functools.partial(pytorch, compiled=True),
    "onnxruntime": onnx_runtime,
    "matrix product": matrix_product,
}
BFLOAT16 = {
    "this project, bfloat16": functools.partial(this_project, "mixed_bfloat16"),
    "plain Keras, bfloat16": functools.partial(plain_keras, "mixed_bfloat16"),
    "PyTorch, bfloat16": functools.partial(pytorch, precision="mixed_bfloat16"),
    "PyTorch compiled, bfloat16": functools.partial(pytorch, compiled=True, precision="mixed_bfloat16"),
    "matrix product, bfloat16": functools.partial(matrix_product, "bfloat16"),
}
INT8 = {
    "onnxruntime, int8": functools.partial(in_int8, "onnx"),
    "OpenVINO, int8": functools.partial(in_int8, "openvino"),
}


def main():
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print
        make_call = (CONTESTANTS | BFLOAT16 | INT8)[sys.argv[1]]()
    calls = {}
    for line in sys.stdin:
        mode, batch_size, repeats = line.split()
        if (mode, batch_size) not in calls:
            calls = {(mode, batch_size): make_call(mode, int(batch_size))}  # frees the memory of the previous one
            calls[mode, batch_size]()
        call, seconds = calls[mode, batch_size], []
        for _ in range(int(repeats)):
            begin = time.perf_counter()
            result = call()
            seconds.append(result if sys.argv[1].startswith("matrix product") else time.perf_counter() - begin)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}), flush=True)


if __name__ == "__main__":
    main()
