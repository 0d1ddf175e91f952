"""The two columns on separate devices: where each operation runs, which tensors are copied, and equal results.

Logical CPU devices represent GPUs: CPU:0 for the host, CPU:1 and CPU:2 for the paper's two. Each test runs in a
separate process: the number of logical devices is fixed when TensorFlow starts.
"""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from programs import ENVIRONMENT, run_well, train_flags

from alexnet_tf.distribution import strategies
from alexnet_tf.model import build_alexnet, load_model

THREE_DEVICES = """
import sys
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
)
import keras
from alexnet_tf import model
from alexnet_tf.networks import variants
from alexnet_tf.training import compilation, optimizers

def build(name, devices):
    keras.utils.set_random_seed(0)
    return model.build_alexnet(name, 10, initializer="he_normal", input_scale=0.0125, column_devices=devices)

def compiled(alexnet):
    training_model = model.with_color_offset(alexnet)
    compilation.compile_model(training_model, optimizers.PaperMomentum(0.01), jit=False)
    return training_model

def batch(name, count):
    side, random = variants.VARIANTS[name].image_px, np.random.default_rng(0)
    image = random.integers(0, 256, (count, side, side, 3)).astype("uint8")
    return {"image": image, "color_offset": np.float32(random.normal(size=(count, 3)))}, np.arange(count) % 10
"""


def run_script(script, *arguments, environment=None):
    """Runs Python code after THREE_DEVICES; returns its standard output."""
    command = [sys.executable, "-c", THREE_DEVICES + textwrap.dedent(script), *map(str, arguments)]
    result = subprocess.run(command, env=ENVIRONMENT | (environment or {}), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["testing", pytest.param("paper", marks=pytest.mark.long)])
def test_devices_exchange_only_the_papers_tensors(variant):
    output = run_script(
        """
        from tensorflow.python.eager import context
        name = sys.argv[1]
        training_model = compiled(build(name, ["CPU:1", "CPU:2"]))
        for variable in [*training_model.weights, *training_model.optimizer.variables]:
            print("variable", variable.path, variable.value.device[-1])

        @tf.function
        def step(image, color_offset, labels):
            return training_model.train_step(({"image": image, "color_offset": color_offset}, labels))

        inputs, labels = batch(name, 4)
        arguments = [tf.constant(a) for a in (inputs["image"], inputs["color_offset"], labels)]
        concrete = step.get_concrete_function(*arguments)
        context.enable_run_metadata()
        concrete(*arguments)
        for graph in context.export_run_metadata().partition_graphs:
            for node in graph.node:
                if node.op in ("_Send", "_HostSend"):
                    ends = [node.attr[end].s.decode()[-1] for end in ("send_device", "recv_device")]
                    print("copy", *ends, node.attr["tensor_name"].s.decode().split("_", 2)[2])
                elif any(kind in node.op for kind in ("Conv2D", "MatMul", "MaxPool", "Relu", "KerasMomentum")):
                    print("op", node.op, node.device[-1])
        """,
        variant,
    )
    lines = [line.split() for line in output.splitlines() if line.startswith(("variable", "copy", "op"))]

    variables = {path: device for kind, path, device in (line for line in lines if line[0] == "variable")}
    for path, device in variables.items():
        column = {"1": "1", "2": "2"}.get(path.removesuffix("_momentum")[-1])
        if "fc8" in path:
            column = "1"
        expected = column if (column and ("kernel" in path or "bias" in path)) or "fc8" in path else "0"
        assert device == expected, (path, device)

    operations = [line[1:] for line in lines if line[0] == "op"]
    count = {device: sum(d == device for _, d in operations) for device in "012"}
    assert count["0"] == 0
    # The second column does the same as the first, except the classifier's product, its two gradients and updates.
    assert count["2"] >= 5 * 3 + 2 * 3 + 3 + 7 + 14, operations  # convolutions, dense, pooling, ReLU, updates
    assert count["1"] - count["2"] == 5, operations

    copies = {tuple(line[1:]) for line in lines if line[0] == "copy"}
    between_columns = {(a, b, *layer_of(name)) for a, b, name in copies if {a, b} == {"1", "2"}}
    both_ways = [(layer, direction) for layer in ("conv3", "fc6", "fc7") for direction in ("forward", "backward")]
    assert between_columns == {
        *((a, b, *copy) for a, b in (("1", "2"), ("2", "1")) for copy in both_ways),
        ("2", "1", "drop7", "forward"),  # into fc8, which is on the first device
        ("1", "2", "fc8", "backward"),
    }
    # With the host: the image, the logits and their gradient; and the scalars of the update rule.
    with_host = {
        (a, b, *layer_of(name))
        for a, b, name in copies
        if "0" in (a, b) and not name.startswith(("paper_momentum", "GroupCrossDeviceControlEdges"))
    }
    assert with_host == {
        ("0", "1", "mean_image", "forward"),
        ("0", "2", "mean_image", "forward"),
        ("1", "0", "fc8", "forward"),
        ("0", "1", "compile_loss", "backward"),
    }


def layer_of(name):
    """("conv3", "backward") for "gradient_tape/alexnet_paper_1/conv3_1/Slice_2"."""
    scopes = name.split("/")
    backward = scopes[0] == "gradient_tape"
    scopes = [scope for scope in scopes[backward:] if not scope.startswith("alexnet")]
    return scopes[0].removesuffix("_1"), "backward" if backward else "forward"


EQUALITY = """
    name, steps, count = sys.argv[1], 5, 8
    inputs, labels = batch(name, count)
    data = tf.data.Dataset.from_tensors((inputs, labels)).repeat()
    pinned = build(name, ["CPU:1", "CPU:2"])
    if sys.argv[2] == "same form":
        pinned.save(sys.argv[3])
        unpinned = keras.models.load_model(sys.argv[3])
        assert not any(layer.devices for layer in unpinned.layers if hasattr(layer, "devices"))
    else:
        unpinned = build(name, None)
    weights = []
    for alexnet in (pinned, unpinned):
        for number, name in enumerate(("drop6", "drop7")):
            for column, generator in enumerate(alexnet.get_layer(name).seed_generators):
                generator.state.assign(np.uint32([number, column]))
        compiled(alexnet).fit(data, steps_per_epoch=steps, verbose=0)
        weights.append(alexnet.get_weights())
    print("difference", max(np.abs(a - b).max() for a, b in zip(*weights, strict=True)))
    print("moved", min(np.abs(a - b).max() for a, b in zip(build(sys.argv[1], None).get_weights()[1:], weights[0][1:])))
"""


@pytest.mark.slow
class TestSameWeights:
    # oneDNN's gradient of max-pooling rounds differently for 96 maps in one tensor than for 48 in each of two.
    @pytest.mark.parametrize(
        "variant, form, onednn",
        [
            ("testing", "same form", "1"),
            *(
                pytest.param(*case, marks=pytest.mark.long)
                for case in (
                    ("testing", "one tensor", "0"),
                    ("paper", "same form", "1"),
                    ("original", "one tensor", "0"),
                    ("independent_columns", "one tensor", "0"),
                )
            ),
        ],
    )
    def test_steps_are_bit_identical_without_devices(self, variant, form, onednn, tmp_path):
        environment = {"TF_ENABLE_ONEDNN_OPTS": onednn}
        output = run_script(EQUALITY, variant, form, tmp_path / "model.keras", environment=environment)
        result = dict(line.split() for line in output.splitlines() if line.startswith(("difference", "moved")))
        assert float(result["difference"]) == 0
        assert float(result["moved"]) > 0


def train_on_two(*flags):
    """Runs alexnet-train with three logical devices."""
    script = """
    from alexnet_tf import train
    sys.argv = ["alexnet-train", *sys.argv[1:]]
    train.run()
    """
    return run_script(script, *flags)


class TestTrain:
    @pytest.mark.slow
    @pytest.mark.long
    def test_run_moves_between_one_device_and_two(self, data_dir, tmp_path):
        flags = train_flags(data_dir, tmp_path / "run")
        devices = "--column_devices=CPU:1,CPU:2"
        train_on_two(*flags, "--epochs=1", devices)
        weights = load_model(tmp_path / "run").get_weights()
        run_well("evaluate", f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}", "--noten_views")
        errors = json.loads((tmp_path / "run" / "evaluation.json").read_text())["center_crop"]
        summary = json.loads((tmp_path / "run" / "training.json").read_text())
        assert errors["top1_error"] == pytest.approx(summary["val_top1_error"], abs=0.0015)
        run_well("export", f"--model={tmp_path / 'run'}", f"--export_dir={tmp_path / 'served'}")
        assert b"CPU:1" not in (tmp_path / "served" / "1" / "saved_model.pb").read_bytes()
        figures = ["--figure=strongest", "--layers=pool2", "--maps=2", "--images=2", f"--output_dir={tmp_path}"]
        run_well("paper_figures", *figures, f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}")

        # The same command resumes without devices, and then with them again. (More epochs change a cosine's rates.)
        flags = (*flags, "--allow_changed")
        output = run_well("train", *flags, "--epochs=2")
        assert "Resuming after step 60," in output
        output = train_on_two(*flags, "--epochs=3", devices)
        assert "Resuming after step 120," in output
        after = load_model(tmp_path / "run")
        assert all(not np.array_equal(a, b) for a, b in zip(weights[1:], after.get_weights()[1:], strict=True))
        assert json.loads((tmp_path / "run" / "training.json").read_text())["val_top1_error"] < 0.8  # chance is 0.9


class TestBuildAlexnet:
    @pytest.mark.parametrize(
        "variant, arguments, message",
        [
            ("paper", {"column_devices": ["CPU:0", "CPU:7"]}, "must name different devices of this machine"),
            ("paper", {"column_devices": ["CPU:0", "CPU:0"]}, "must name different devices"),
            ("paper", {"column_devices": ["CPU:0"]}, "paper has 2. Received: column_devices="),
            ("one_column", {"column_devices": ["CPU:0", "CPU:1"]}, "one_column has 1"),
            ("caffe", {"column_devices": ["CPU:0", "CPU:1"]}, "caffe has 1"),
            ("batch_norm", {"column_devices": ["CPU:0", "CPU:1"], "merge_columns": False}, "`column_devices` must"),
        ],
    )
    def test_invalid_devices_raise(self, variant, arguments, message):
        with pytest.raises(ValueError, match=message):
            build_alexnet(variant, 10, **arguments)


class TestUseJit:
    def test_xla_with_column_devices_raises(self):
        strategy = strategies.make_strategy("one")
        with pytest.raises(ValueError, match="`jit` must not be true"):
            strategies.use_jit("true", strategy, ["GPU:0", "GPU:1"])
        assert not strategies.use_jit("auto", strategy, ["GPU:0", "GPU:1"])

    def test_mirrored_columns_raise(self):
        with pytest.raises(ValueError, match=r"can't be combined with a distribution strategy.*GPU:0,GPU:1"):
            strategies.use_jit("auto", strategies.make_strategy("mirrored"), ["GPU:0", "GPU:1"])
