"""What a run logs to TensorBoard: the numbers, and the pages as a browser shows them."""

import base64
import json
import re
import shutil
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from browser import open_chromium
from event_files import entries, profiled, profiled_steps
from programs import ENVIRONMENT, run_well, train_flags

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@pytest.fixture(scope="module")
def log_dir(data_dir, run_dir, tmp_path_factory):
    """The logs of two runs, as `tensorboard --logdir` takes them: `first` is uninterrupted, `second` is profiled."""
    folder = tmp_path_factory.mktemp("logs")
    flags = ("--epochs=1", "--learning_rate=0.05", "--log_every=7", "--profile_steps=10,12")
    run_well("train", *train_flags(data_dir, folder / "second", *flags))
    shutil.copytree(run_dir / "tensorboard", folder / "first" / "tensorboard")
    return folder


@pytest.mark.slow
class TestTensorBoardLogger:
    def test_scalars_are_written_at_the_steps_asked_for_and_at_the_end(self, log_dir):
        train = entries(log_dir / "second" / "tensorboard" / "train")
        expected = {"step/loss", "step/top1_error", "step/top5_error", "step/learning_rate"}
        expected |= {"speed/images_per_second", "speed/step_ms", "speed/waiting_for_input_ms"}
        expected |= {f"{kind}_norm/{layer}" for kind in ("gradient", "weight") for layer in LAYERS}
        assert {tag for tag in train if tag.startswith(("step/", "speed/", "gradient_", "weight_"))} == expected
        for tag in expected:
            assert list(train[tag]) == [7, 14, 21, 28, 35, 42, 49, 56, 60], tag
            assert all(np.isfinite(value) and value > 0 for value in train[tag].values()), tag
        means = np.average(list(train["step/loss"].values()), weights=[7] * 8 + [4])
        np.testing.assert_allclose(means, train["epoch/loss"][60], rtol=1e-5)  # of 60 steps, in parts
        # The rate of a cosine over one epoch, in the step that is the 21st.
        np.testing.assert_allclose(train["step/learning_rate"][21], 0.05 * (1 + np.cos(np.pi * 20 / 60)) / 2, rtol=1e-5)

    def test_validation_has_the_tags_of_training_and_a_complete_confusion_matrix(self, log_dir, run_dir):
        folder = log_dir / "first" / "tensorboard"
        train, validation = entries(folder / "train"), entries(folder / "validation")
        tags = {"epoch/loss", "epoch/top1_error", "epoch/top5_error"}
        assert {tag for tag in validation if tag != "confusion matrix"} == tags
        assert all(list(written[tag]) == [60, 120] for written in (train, validation) for tag in tags)
        summary = json.loads((run_dir / "training.json").read_text())
        np.testing.assert_allclose(validation["epoch/top1_error"][120], summary["val_top1_error"], rtol=1e-6)
        assert list(validation["confusion matrix"]) == [60, 120]

    def test_images_histograms_graph_and_texts_are_of_this_run(self, log_dir):
        train = entries(log_dir / "first" / "tensorboard" / "train")
        width, height, png = train["augmented inputs"][0]
        assert (int(width), int(height)) == (4 * 56, 2 * 56)
        assert len(np.unique(tf.io.decode_png(png))) > 50
        assert list(train["conv1 kernels"]) == list(train["activations"]) == [60, 120]
        assert b"--variant=testing" in train["flags"][0]
        assert b"train: 3,000 images" in train["data"][0] and b"Ankle boot" in train["data"][0]
        kernels = keras.models.load_model(log_dir / "second" / "model.keras").get_layer("fc7").kernels
        histograms = entries(log_dir / "second" / "tensorboard" / "train")
        for number, kernel in enumerate(kernels, 1):
            left, right, counts = histograms[f"fc7/kernel_{number}"][60].T
            assert counts.sum() == np.size(kernel)
            np.testing.assert_allclose([left[0], right[-1]], [np.min(kernel), np.max(kernel)], rtol=1e-5)
        groups = {node.name.split("/")[0] for node in train["graph"] if "/" in node.name}
        assert groups >= {*LAYERS, "mean_image", "relu1", "norm1", "pool1", "drop6", "softmax"}
        names = {node.name for node in train["graph"]}
        assert all(source.split(":")[0] in names for node in train["graph"] for source in node.input)

    def test_profiler_records_the_steps_asked_for(self, log_dir):
        assert profiled_steps(log_dir / "second") == [10, 11, 12]
        names = {e.name for plane in profiled(log_dir / "second").planes for e in plane.event_metadata.values()}
        assert any("conv2" in name and "Conv2D" in name for name in names)
        assert any("gradient_tape" in name and "fc6" in name for name in names)

    def test_resumed_run_writes_at_the_same_steps(self, data_dir, run_dir, tmp_path):
        shutil.copytree(run_dir, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "00000120")  # which leaves that of step 116
        run_well("train", *train_flags(data_dir, tmp_path / "run", "--epochs=2"))
        expected, resumed = (entries(folder / "tensorboard" / "train") for folder in (run_dir, tmp_path / "run"))
        assert list(resumed["step/loss"]) == list(expected["step/loss"]) == [20, 40, 60, 80, 100, 120]
        for tag in ("gradient_norm/conv1", "weight_norm/fc6"):
            np.testing.assert_array_equal(resumed[tag][120], expected[tag][120])
        flags = entries(tmp_path / "run" / "tensorboard")
        assert "_hparams_/session_end_info" in flags

    @pytest.mark.long
    @pytest.mark.parametrize("strategy", ["one", "mirrored"])
    def test_slow_input_is_shown(self, strategy, data_dir, tmp_path):
        script = textwrap.dedent("""
            import sys, time
            import tensorflow as tf
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            from alexnet_tf import train
            from alexnet_tf.tfrecords import reader
            make = reader.make_training_dataset
            def make_slow(*args, **kwargs):
                def slow(number, batch):
                    pause = tf.where(number % 50 < 30, 0.0, 0.15)  # half as long for each of two replicas
                    pause = tf.cast(pause / kwargs["share"].replicas, tf.float32)
                    with tf.control_dependencies([tf.py_function(lambda s: time.sleep(float(s)), [pause], [])]):
                        return tf.nest.map_structure(tf.identity, batch)
                return make(*args, **kwargs).enumerate().map(slow)
            reader.make_training_dataset = make_slow
            train.run()
        """)
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=1", f"--strategy={strategy}", "--log_every=5")
        command = [sys.executable, "-c", script, *flags]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        train = entries(tmp_path / "run" / "tensorboard" / "train")
        step, waiting = (train[f"speed/{name}_ms"] for name in ("step", "waiting_for_input"))
        first_slow = 30 if strategy == "one" else 15  # the pauses are counted in batches of a replica
        assert all(waiting[at] < 0.5 * step[at] for at in (10, first_slow - 5))
        assert all(waiting[at] > 0.5 * step[at] for at in (first_slow + 5, first_slow + 10))
        assert all(0 <= waiting[at] <= step[at] for at in step)


@pytest.fixture(scope="module")
def tensorboard(log_dir):
    """The address of the real TensorBoard on the two runs' logs."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={log_dir}", "--port=0", "--host=localhost"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        address = re.search(r"http://\S+", line)
        if "Press CTRL+C" in line and address:
            break
    else:
        pytest.fail("TensorBoard ended by itself")
    yield address[0]
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    # The projector draws by WebGL.
    arguments = ("--enable-unsafe-swiftshader", "--window-size=1500,1000")
    with open_chromium(tmp_path_factory.mktemp("chromium"), *arguments) as chrome:
        yield chrome


# TensorBoard's pages are nested shadow trees and frames, which Selenium's own search does not enter.
_WALK = """
    const found = [];
    (function walk(node) {
        if (['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(node.tagName)) return;
        if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) found.push(node.textContent.trim());
        if (node.tagName === 'IMG') found.push(node);
        if (node.tagName === 'IFRAME' && node.contentDocument?.body) walk(node.contentDocument.body);
        if (node.shadowRoot) walk(node.shadowRoot);
        node.childNodes.forEach(walk);
    })(document.body);
"""


def open_page(browser, address, page, *expected, seconds=60):
    """Opens a page and waits for texts to stand in it; returns all texts of it, a line each."""
    browser.get("about:blank")
    browser.get(address + page)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = browser.execute_script(_WALK + "return found.filter(t => typeof t === 'string').join('\\n')")
        if all(each in text for each in expected):
            return text
        time.sleep(0.5)
    pytest.fail(f"{page} does not show {[each for each in expected if each not in text]}. It shows:\n{text}")


@pytest.mark.slow
class TestPages:
    def test_scalars_show_the_last_values(self, browser, tensorboard, log_dir):
        train = entries(log_dir / "second" / "tensorboard" / "train")
        loss = f"{train['step/loss'][60]:.4f}".rstrip("0")
        row = rf"second/tensorboard/train\n[\d.]+\n{re.escape(loss)}\n60\n"  # run, smoothed value, value, step
        text = open_page(browser, tensorboard, "?tagFilter=step%2Floss#timeseries", "Tags matching filter", loss)
        assert re.search(row, text), text

    def test_images_are_those_that_were_logged(self, browser, tensorboard, log_dir):
        browser.set_window_size(1500, 4000)  # an image is loaded when it comes into view
        open_page(browser, tensorboard, "#images&tagFilter=.", "Tags matching", "conv1 kernels", "activations")
        wanted = {
            tag: {png for _, _, png in entries(folder)[tag].values()}
            for folder, tag in (
                (log_dir / "first" / "tensorboard" / "train", "augmented inputs"),
                (log_dir / "first" / "tensorboard" / "train", "conv1 kernels"),
                (log_dir / "first" / "tensorboard" / "train", "activations"),
                (log_dir / "first" / "tensorboard" / "validation", "confusion matrix"),
            )
        }
        script = """
            const done = arguments[0];
            const read = blob => new Promise(resolve => {
                const reader = new FileReader();
                reader.onload = () => resolve(reader.result.split(',')[1]);
                reader.readAsDataURL(blob);
            });
            const shown = found.filter(i => i.naturalWidth && i.src.includes('/data/plugin/images'));
            Promise.all(shown.map(i => fetch(i.src).then(r => r.blob()).then(read))).then(done);
        """
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            shown = {base64.b64decode(each) for each in browser.execute_async_script(_WALK + script)}
            missing = [tag for tag, pictures in wanted.items() if not pictures & shown]
            if not missing:
                return
            time.sleep(0.5)
        pytest.fail(f"Not shown: {missing}")

    def test_graph_shows_the_layers(self, browser, tensorboard):
        text = open_page(browser, tensorboard, "#graphs&run=first/tensorboard/train", "Main Graph", "softmax", "conv5")
        assert {*LAYERS, "norm1", "pool5", "relu7", "drop7", "mean_image"} <= set(text.splitlines())

    def test_histograms_are_there_for_every_layer(self, browser, tensorboard):
        open_page(browser, tensorboard, "#histograms", "conv1/kernel_1", *LAYERS)

    def test_hparams_compare_both_runs(self, browser, tensorboard, run_dir, log_dir):
        errors = [
            json.loads((folder / "training.json").read_text())["val_top1_error"]
            for folder in (run_dir, log_dir / "second")
        ]
        names = [str(run_dir), str(log_dir / "second")]
        text = open_page(browser, tensorboard, "#hparams", *names, *(f"{error:.5g}" for error in errors)).splitlines()
        assert {"learning_rate", "batch_size", "epochs", "top-1 error", "images/s"} <= set(text)
        assert {"0.10000", "0.050000"} <= set(text)

    @pytest.mark.long
    def test_projector_shows_fc7_with_classes_and_thumbnails(self, browser, tensorboard):
        text = open_page(browser, tensorboard, "#projector", "400x32", "fc7", "class", "predicted class")
        assert "first/tensorboard" in text
        deadline = time.monotonic() + 300
        while True:  # till the thumbnails are drawn
            pixels = tf.io.decode_png(browser.get_screenshot_as_png(), channels=3).numpy()[150:800, 350:1150]
            if len(np.unique(pixels)) > 200 and np.mean(pixels.min(axis=2) < 250) > 0.01:
                return
            assert time.monotonic() < deadline, "the projector is empty"
            time.sleep(0.5)

    def test_texts_show_flags_and_data(self, browser, tensorboard):
        open_page(browser, tensorboard, "#text", "--variant=testing", "train: 3,000 images", "Ankle boot")
