"""The page of `alexnet-export --format=web`, as Chromium shows it."""

import dataclasses
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from browser import (
    SETTLED,
    canvas_pixels,
    choose,
    choose_unit,
    open_chromium,
    output,
    pixels_of,
    serve,
    shown_number,
    text,
    wait_for,
)
from made_photos import exif, noisy_photo, write_photos
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import structure
from alexnet_tf.serving import browser_runtime, classifier, exporter, formats, preprocessing, web_page
from alexnet_tf.tfrecords import crops, schema

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
SIDE = 56


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """The npm package onnxruntime-web, as `npm pack` writes it."""
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", "--prefer-offline", f"onnxruntime-web@{browser_runtime.VERSION}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"npm or its registry is not there, so neither is onnxruntime-web: {error}")
    return next(folder.glob("*.tgz"))


@pytest.fixture(scope="module")
def page_dir(untrained, data_dir, runtime, tmp_path_factory):
    """The page of a small network with random weights."""
    config = formats.ExportConfig(format="web", precision="int8", data_dir=data_dir, num_images=100, runtime=runtime)
    return exporter.export_model(*untrained, tmp_path_factory.mktemp("page"), config)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with open_chromium(tmp_path_factory.mktemp("chromium"), "--window-size=1360,900", *camera) as chrome:
        yield chrome


@pytest.fixture(scope="module")
def served(page_dir):
    with serve(page_dir) as address_and_requests:
        yield address_and_requests


@pytest.fixture
def page(browser, served):
    """The page with its first example shown."""
    browser.get(served[0])
    wait_for(browser, f"globalThis.alexnet && {SETTLED}")
    return browser


def network(page_dir, pixels, gates=(1, 1)):
    session = onnxruntime.InferenceSession(page_dir / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = np.float32(pixels).reshape(-1, SIDE, SIDE, 3)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels, "gates": np.float32([gates])}), strict=True))


@pytest.mark.slow
class TestPixelsAndAnswers:
    @pytest.mark.parametrize("count", [16, pytest.param(200, marks=pytest.mark.long)])
    def test_pixels_and_top1_equal_those_of_alexnet_predict(self, count, page, untrained_dir, tmp_path, capsys):
        classify, differences, same = classifier.open_classifier(untrained_dir), [], []
        for path in write_photos(tmp_path, count):
            encoded = path.read_bytes()
            expected = crops.center_crop(preprocessing.decode_square(tf.constant(encoded), 64), SIDE).numpy()
            choose(page, path)
            shown = pixels_of(page).reshape(expected.shape)
            differences.append(np.abs(shown.astype(int) - expected).max())
            names, _ = classify(encoded)
            same.append(page.find_element(By.CSS_SELECTOR, "#top li span").text == names[0])
        with capsys.disabled():
            print(f"\nlargest difference of a pixel {max(differences)}, same top-1 {np.mean(same):.1%}")
        assert max(differences) <= 1
        assert np.mean(same) >= 0.99

    def test_warped_pixels_equal_those_of_training(self, browser, page_dir, tmp_path):
        shutil.copytree(page_dir, tmp_path / "page")
        settings = json.loads((page_dir / "page.json").read_text())
        assert settings["resize"] == "crop"
        (tmp_path / "page" / "page.json").write_text(json.dumps(settings | {"resize": "warp"}))
        (photograph, *_) = write_photos(tmp_path, 1)
        encoded = tf.constant(photograph.read_bytes())
        expected = crops.center_crop(preprocessing.decode_square(encoded, 64, resize="warp"), SIDE).numpy()
        with serve(tmp_path / "page") as (address, _):
            browser.get(address)
            wait_for(browser, f"globalThis.alexnet && {SETTLED}")
            choose(browser, photograph)
            shown = pixels_of(browser).reshape(expected.shape)
        assert np.abs(shown.astype(int) - expected).max() <= 1

    def test_answers_equal_the_models_for_each_image(self, page, page_dir, untrained, tmp_path):
        self.check_answers(page, page_dir, untrained)
        before = text(page, "knows")
        noisy_photo(np.random.default_rng(4), 70, 60).save(tmp_path / "another.png")
        choose(page, tmp_path / "another.png")
        self.check_answers(page, page_dir, untrained)
        assert text(page, "knows") != before

    def check_answers(self, page, page_dir, untrained):
        pixels = pixels_of(page)
        expected = network(page_dir, pixels)
        for name, values in expected.items():
            np.testing.assert_allclose(
                output(page, name), values.ravel(), atol=1e-3 * np.abs(values).max(), err_msg=name
            )
        best = np.argsort(-expected["probabilities"][0])[:5]
        shown = [each.text for each in page.find_elements(By.CSS_SELECTOR, "#top li span")]
        assert shown == [untrained[1].class_names[label] for label in best]
        halves = page.execute_script("return alexnet.halves.map(each => [...each])")
        for gates, half in zip(((1, 1), (1, 0), (0, 1)), halves, strict=True):
            np.testing.assert_allclose(half, network(page_dir, pixels, gates)["probabilities"][0], atol=1e-3)
        status = page.find_element(By.ID, "status")
        assert status.get_attribute("role") == "status" and shown[0] in status.text

    def test_only_the_pages_files_are_requested(self, page, served, tmp_path):
        address, requests = served
        noisy_photo(np.random.default_rng(1), 90, 60).save(tmp_path / "secret.png")
        choose(page, tmp_path / "secret.png")
        asked = page.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
        assert asked and all(each.startswith((address, "data:")) for each in asked)
        assert {method for method, _ in requests} == {"GET"}
        assert not any("secret" in path or "?" in path for _, path in requests)
        assert "no image is sent anywhere" in text(page, "nowhere") and "works offline" in text(page, "offline")


@pytest.mark.slow
class TestInput:
    def test_dropped_image_is_shown(self, page, tmp_path):
        path = tmp_path / "dropped.png"
        Image.new("RGB", (80, 60), (200, 30, 60)).save(path)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            page.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 300, "data": data})
        wait_for(page, f"alexnet.pixels[0] === 200 && {SETTLED}")
        np.testing.assert_array_equal(pixels_of(page), np.tile((200, 30, 60), SIDE**2))

    def test_second_click_takes_the_photograph(self, page):
        page.execute_script("alexnet.pixels = null")
        button = page.find_element(By.ID, "photograph")
        button.click()
        wait_for(page, "document.getElementById('photograph').textContent === 'Take it'")
        button.click()
        wait_for(page, f"alexnet.pixels && {SETTLED}")
        assert len(np.unique(pixels_of(page))) > 3  # Chromium's fake camera shows a green field with a clock
        assert button.text == "Photograph" and not page.find_element(By.ID, "video").is_displayed()

    def test_drawing_is_classified_after_each_stroke(self, page, page_dir):
        page.find_element(By.ID, "draw").click()
        wait_for(page, "alexnet.pixels.every(value => value === 255)")
        image = page.find_element(By.ID, "image")
        ActionChains(page).move_to_element_with_offset(image, -60, -60).click_and_hold().move_by_offset(
            120, 120
        ).release().perform()
        wait_for(page, f"alexnet.pixels[0] === 255 && alexnet.pixels.some(value => value === 0) && {SETTLED}")
        drawn = pixels_of(page)
        assert 0.02 < (drawn < 128).mean() < 0.3
        page.execute_async_script("setTimeout(arguments[0], 300)")
        expected = network(page_dir, drawn)["probabilities"][0]
        np.testing.assert_allclose(output(page, "probabilities"), expected, atol=1e-3)

    def test_switch_turns_off_a_column(self, page, page_dir):
        before = output(page, "probabilities")
        page.find_element(By.ID, "column-2").click()
        wait_for(page, "document.getElementById('status').textContent.startsWith('Column 1 alone')")
        expected = network(page_dir, pixels_of(page), (1, 0))
        np.testing.assert_allclose(output(page, "probabilities"), expected["probabilities"][0], atol=1e-3)
        assert np.abs(before - expected["probabilities"][0]).max() > 0.01
        colors = "const c = document.getElementById(arguments[0]); const { data } = c.getContext('2d')" \
            ".getImageData(0, 0, c.width, c.height); return new Set(new Uint32Array(data.buffer)).size"  # fmt: skip
        assert page.execute_script(colors, "conv3-1") > 10
        assert page.execute_script(colors, "conv3-2") <= 2  # the plate and the gaps

    def test_map_under_the_pointer_is_shown_and_a_click_holds_it(self, page, page_dir):
        assert text(page, "map-caption").startswith("conv5, feature map ")  # the strongest of the last maps
        canvas = page.find_element(By.ID, "conv1-2")  # 4 maps, 2 x 2
        width, height = canvas.size["width"], canvas.size["height"]
        ActionChains(page).move_to_element_with_offset(canvas, width // 4, -height // 4).perform()
        values = network(page_dir, pixels_of(page))["relu1"][0, 5]
        caption = text(page, "map-caption")
        assert caption.startswith(f"conv1, feature map 5 in column 2: strongest {values.max():.3g}"[:-1])
        assert "A unit sees 7 \u00d7 7 pixels" in caption
        assert canvas_pixels(page, "map")[..., 0].argmin() == values.argmax()  # the darkest color
        row, column = np.unravel_index(values.argmax(), values.shape)
        field = page.find_element(By.ID, "field")
        assert field.is_displayed()
        style = field.get_attribute("style")
        for name, pixels in (("top", 2 * row), ("left", 2 * column), ("width", 7), ("height", 7)):
            assert float(style.split(f"{name}: ")[1].split("%")[0]) == pytest.approx(100 * pixels / SIDE, abs=0.01)
        wait_for(page, "document.querySelectorAll('#strongest canvas').length === 5")
        other = page.find_element(By.ID, "conv4-1")
        ActionChains(page).click(canvas).move_to_element(other).perform()
        assert "conv1, feature map" in text(page, "map-caption")
        ActionChains(page).click(canvas).move_to_element(other).perform()
        assert "conv4, feature map" in text(page, "map-caption")

    def test_image_unlike_the_training_images_is_flagged(self, page, tmp_path):
        assert not page.find_element(By.ID, "unusual").is_displayed()
        assert "Trained on 10 classes of Fashion-MNIST" in text(page, "trained")
        Image.new("RGB", (60, 60), (250, 60, 60)).save(tmp_path / "red.png")
        choose(page, tmp_path / "red.png")
        assert "it has more color" in text(page, "unusual")
        Image.new("RGB", (60, 60), "white").save(tmp_path / "white.png")
        choose(page, tmp_path / "white.png")
        assert "its edges are brighter" in text(page, "unusual") and "color" not in text(page, "unusual")
        page.find_element(By.CSS_SELECTOR, "#examples button").click()
        wait_for(page, "document.getElementById('unusual').hidden")

    def test_keyboard_selects_maps_and_moves_the_square(self, page):
        page.find_element(By.ID, "conv3-1").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
        columns = page.execute_script("return alexnet.selected.layer.columns")
        assert f"conv3, feature map {columns + 1} in column 1" in text(page, "map-caption") == text(page, "status")
        before = pixels_of(page)
        page.find_element(By.ID, "image").send_keys(Keys.ARROW_LEFT)
        wait_for(page, "alexnet.covered && document.getElementById('status').textContent === 'A spot is covered.'")
        script = "return [...document.getElementById('image').getContext('2d').getImageData(24, 28, 1, 1).data]"
        assert page.execute_script(script) == [128, 128, 128, 255]
        page.find_element(By.ID, "image").send_keys(Keys.ESCAPE)
        wait_for(page, "!alexnet.covered && document.getElementById('status').textContent !== 'A spot is covered.'")
        np.testing.assert_array_equal(pixels_of(page), before)

    def test_occlusion_map_equals_the_models_probabilities(self, page, page_dir):
        pixels, best = pixels_of(page).reshape(SIDE, SIDE, 3), int(output(page, "probabilities").argmax())
        button = page.find_element(By.ID, "occlusion")
        place = button.location
        button.click()
        wait_for(page, "document.getElementById('progress').value > 0")
        assert button.location == place  # nothing moves under the pointer
        found = np.reshape(wait_for(page, "alexnet.occlusion && [...alexnet.occlusion]", 60), (14, 14))
        for row, column in ((0, 0), (7, 3), (13, 13)):
            covered = pixels.copy()
            top, left = (round(4 * place + 2 - 4) for place in (row, column))  # 8 pixels around 4 x place + 2
            covered[max(top, 0) : top + 8, max(left, 0) : left + 8] = 128
            expected = network(page_dir, covered)["probabilities"][0, best]
            assert found[row, column] == pytest.approx(expected, abs=1e-3)
        assert page.find_element(By.ID, "heat").is_displayed()
        assert "Red marks where covering costs most" in text(page, "status")

    def test_occlusion_map_can_be_stopped(self, page):
        page.find_element(By.ID, "occlusion").click()
        page.find_element(By.ID, "occlusion").click()
        assert text(page, "occlusion") == "Occlusion map"
        page.execute_async_script("setTimeout(arguments[0], 500)")
        assert not page.execute_script("return alexnet.occlusion")


@pytest.mark.slow
class TestSteps:
    @pytest.mark.parametrize(
        ("layer", "map", "row", "column", "gates"),
        [
            ("conv1", 5, 26, 25, (1, 1)),  # reads zeros past the edges
            ("conv1", 3, 7, 9, (1, 1)),
            ("conv2", 9, 0, 12, (1, 1)),  # only the maps of its column
            ("conv3", 2, 3, 3, (1, 1)),  # the maps of both columns
            ("conv3", 2, 3, 3, (1, 0)),  # those of one, doubled
        ],
    )
    def test_steps_equal_numpy(self, page, page_dir, untrained, layer, map, row, column, gates):
        if not gates[1]:
            page.find_element(By.ID, "column-2").click()
            wait_for(page, "alexnet.resultGates[1] === 0")
        steps = {step["kind"]: step for step in choose_unit(page, layer, map, row, column)}
        tensors, network_layer = network(page_dir, pixels_of(page), gates), untrained[0].get_layer(layer)
        number = layer[-1]
        below = {"conv1": "mean_image", "conv2": "pool1", "conv3": "pool2"}[layer]
        maps = tensors[below][0] * (2 / sum(gates) if layer == "conv3" else 1)
        box, map_in_box = divmod(map, network_layer.column_filters)
        if layer == "conv2":
            maps = np.split(maps, 2)[box]
        kernel = network_layer.kernels[box].numpy()[..., map_in_box].transpose(2, 0, 1)
        bias = network_layer.biases[box].numpy()[map_in_box]
        size, stride = network_layer.kernel_size, network_layer.strides
        before = 0 if layer == "conv1" else size // 2
        padded = np.pad(maps, ((0, 0), (before, 3), (before, 3)))
        inputs = padded[:, row * stride : row * stride + size, column * stride : column * stride + size]
        found = steps["convolution"]
        np.testing.assert_allclose(found["inputs"], inputs.ravel(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found["kernel"], kernel.ravel(), rtol=1e-3, atol=1e-6)
        scale = float(np.abs(inputs * kernel).sum())
        np.testing.assert_allclose(found["products"], (inputs * kernel).ravel(), atol=1e-3 * scale)
        convolved = (inputs * kernel).sum() + bias
        assert found["sum"] + found["bias"] == pytest.approx(convolved, abs=1e-3 * scale)
        assert found["value"] == pytest.approx(convolved, abs=1e-3 * scale)  # the network's own tensor
        relu = max(0, found["value"]) * gates[box]
        assert steps["activation"]["value"] == pytest.approx(relu, rel=1e-4)
        shown = text(page, "steps")
        assert f"max(0, {shown_number(found['value'])}) = {shown_number(steps['activation']['value'])}" in shown
        assert ("(silent)" in shown) == (found["value"] <= 0)
        if layer != "conv3":
            self.check_normalization_and_pooling(steps, np.split(tensors[f"relu{number}"][0], 2)[box], map_in_box)

    def check_normalization_and_pooling(self, steps, maps, map_in_box):
        """Against the paper's formulas, section 3.3 and 3.4."""
        squares = np.array([np.sum(maps[max(0, i - 2) : i + 3] ** 2, axis=0) for i in range(len(maps))])
        normalized = maps[map_in_box] / (2 + 1e-4 * squares[map_in_box]) ** 0.75
        found = steps["normalization"]
        row, column = found["position"]["row"], found["position"]["column"]
        neighbors = maps[max(0, map_in_box - 2) : map_in_box + 3, row, column]
        np.testing.assert_allclose([each["value"] for each in found["neighbors"]], neighbors, rtol=1e-4)
        assert found["value"] == pytest.approx(normalized[row, column], rel=1e-3)
        found = steps["pooling"]
        top, left = 2 * found["position"]["row"], 2 * found["position"]["column"]
        assert top <= row < top + 3 or row >= 24
        window = normalized[top : top + 3, left : left + 3]
        np.testing.assert_allclose(found["values"], window.ravel(), rtol=1e-3, atol=1e-6)
        assert found["value"] == pytest.approx(window.max(), rel=1e-3)

    def test_classifier_is_a_layer_with_its_sums_and_probabilities(self, page, page_dir):
        best = int(output(page, "probabilities").argmax())
        steps = choose_unit(page, "fc8", best, 0, 0)
        tensors = network(page_dir, pixels_of(page))
        assert steps[0]["value"] == pytest.approx(tensors["fc8"][0, best], abs=1e-2)
        assert steps[0]["inputs"] == 32 and "32 products and the bias add up to" in text(page, "steps")
        probability = np.exp(tensors["fc8"][0, best]) / np.exp(tensors["fc8"][0]).sum()
        assert steps[1]["value"] == pytest.approx(probability, abs=2e-3)
        assert page.execute_script("return alexnet.page.classes[arguments[0]]", best) in text(page, "map-caption")

    def test_numbers_of_a_product_are_under_the_pointer(self, page):
        (found, *_) = choose_unit(page, "conv2", 1, 4, 4)
        products = page.find_elements(By.CSS_SELECTOR, ".mosaic")[2]
        page.execute_script(
            "arguments[0].scrollIntoView(); const { left, top } = arguments[0].getBoundingClientRect();"
            "arguments[0].dispatchEvent(new PointerEvent('pointermove', { clientX: left + 2, clientY: top + 2 }))",
            products,
        )
        numbers = [shown_number(found[name][0]) for name in ("inputs", "kernel", "products")]
        assert text(page, "readout") == "map 0, row 0, column 0: {} \u00d7 {} = {}".format(*numbers)

    def test_arrow_keys_move_from_unit_to_unit(self, page):
        choose_unit(page, "conv2", 1, 4, 4)
        page.find_element(By.ID, "map").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP)
        assert page.execute_script("return alexnet.steps[0].position") == {"row": 3, "column": 5}

    def test_kernel_colors_show_the_signs(self, page, untrained):
        choose_unit(page, "conv2", 1, 0, 0)
        kernel = untrained[0].get_layer("conv2").kernels[0].numpy()[..., 0, 1]
        page.execute_script("document.querySelectorAll('.mosaic')[1].id = 'kernel'")
        drawn = canvas_pixels(page, "kernel")[:5, :5, :3].astype(int)
        redness = drawn[..., 0] - drawn[..., 2]  # orange excites, blue inhibits
        assert redness[kernel == kernel.max()] > 30 and redness[kernel == kernel.min()] < 0
        assert np.corrcoef(redness.ravel(), kernel.ravel())[0, 1] > 0.9


@pytest.mark.slow
class TestErrors:
    def test_broken_image_is_named_and_the_next_is_shown(self, page, tmp_path):
        noisy_photo(np.random.default_rng(2), 60, 60).save(tmp_path / "good.png")
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
        choose(page, tmp_path / "broken.jpg")
        problem = page.find_element(By.ID, "problem")
        assert problem.text == "broken.jpg can't be shown: it is not an image that this browser can read."
        assert problem.get_attribute("role") == "alert"
        choose(page, tmp_path / "good.png")
        assert not problem.is_displayed()

    def test_browser_without_webassembly_gets_an_error(self, served, tmp_path):
        with open_chromium(tmp_path, "--js-flags=--jitless") as chrome:
            chrome.get(served[0])
            wait_for(chrome, "!document.getElementById('problem').hidden")
            assert "This browser has no WebAssembly" in text(chrome, "problem")

    def test_runtime_from_another_host_is_verified(self, browser, page_dir, tmp_path):
        folder = shutil.copytree(page_dir, tmp_path / "page")
        (folder / "runtime").rename(tmp_path / "dist")
        described = json.loads((folder / "page.json").read_text())
        with serve(folder) as (address, _), serve(tmp_path, to_all_origins=True) as (cdn, requests):
            described["runtime"] = [
                {"url": f"{cdn}dist/{name}", "integrity": integrity}
                for name, integrity in browser_runtime.FILES.items()
            ]
            (folder / "page.json").write_text(json.dumps(described))
            browser.get(address)
            wait_for(browser, f"globalThis.alexnet && {SETTLED}")
            asked_for = sorted(path for _, path in requests)  # the page asks for all of them at once
            assert asked_for == sorted(f"/dist/{name}" for name in browser_runtime.FILES)
            assert "is loaded from 127.0.0.1" in text(browser, "offline")
            described["runtime"][0]["integrity"] = described["runtime"][1]["integrity"]
            written = (folder / "page.json").stat()
            (folder / "page.json").write_text(json.dumps(described))
            os.utime(folder / "page.json", (written.st_atime, written.st_mtime))  # as if in the same second
            browser.get("about:blank")
            browser.get(address)
            wait_for(browser, "!document.getElementById('problem').hidden")
            assert "ort.wasm.bundle.min.mjs could not be loaded" in text(browser, "problem")

    def test_missing_and_modified_files_are_named(self, browser, page_dir, tmp_path):
        folder = shutil.copytree(page_dir, tmp_path / "page")
        (folder / "runtime" / "ort-wasm-simd-threaded.wasm").write_bytes(b"changed")
        with serve(folder) as (address, _):
            browser.get(address)
            wait_for(browser, "!document.getElementById('problem').hidden")
            assert "runtime/ort-wasm-simd-threaded.wasm could not be loaded" in text(browser, "problem")
        (folder / "model.onnx").unlink()
        shutil.copytree(page_dir / "runtime", folder / "runtime", dirs_exist_ok=True)
        with serve(folder) as (address, _):
            browser.get(address)
            wait_for(browser, "!document.getElementById('problem').hidden")
            assert "model.onnx could not be loaded: 404" in text(browser, "problem")


@pytest.mark.slow
class TestLooks:
    def test_focusable_elements_have_names(self, page):
        nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        focusable = [
            node
            for node in nodes
            if not node.get("ignored")
            and any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", []))
        ]
        assert len(focusable) > 20
        assert [node for node in focusable if not node.get("name", {}).get("value")] == []

    def test_page_fits_the_window(self, page):
        try:
            for width in (360, 800, 1360):
                metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
                page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                assert page.execute_script("return document.documentElement.scrollWidth") <= width
                image = page.find_element(By.ID, "conv1-1").rect
                assert image["width"] > 40 and image["x"] + image["width"] <= width
                sizes = page.execute_script(
                    "return [...document.querySelectorAll('button, .button, .switch')].filter(each => each.offsetWidth)"
                    ".map(each => [each.textContent, each.offsetWidth, each.offsetHeight])"
                )
                assert [size for size in sizes if min(size[1:]) < 24] == []  # WCAG 2.2
        finally:
            page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def test_colors_follow_the_systems_scheme(self, page):
        shades = {}
        script = "return getComputedStyle(document.body)[arguments[0]].match(/[0-9]+/g).slice(0, 3).map(Number)"
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            shades[scheme] = [np.mean(page.execute_script(script, name)) for name in ("backgroundColor", "color")]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        assert shades["light"][0] > 200 > shades["light"][1]
        assert shades["dark"][0] < 60 < shades["dark"][1]


@pytest.mark.slow
def test_network_with_one_column_and_without_data(browser, runtime, tmp_path):
    model = build_alexnet("four_layer_tanh", 3)
    description = schema.DatasetDescription(
        ("a", "b", "c"), 40, False, "png", splits={}, settings={"exif_orientation": False}
    )
    config = formats.ExportConfig(format="web", precision="float16", runtime=runtime)
    folder = exporter.export_model(model, description, tmp_path / "page", config)
    noisy_photo(np.random.default_rng(3), 60, 90).save(tmp_path / "photo.jpg", exif=exif(6))
    with serve(folder) as (address, _):
        browser.get(address)
        wait_for(browser, "document.getElementById('loading').hidden")
        choose(browser, tmp_path / "photo.jpg")
        pixels = pixels_of(browser).reshape(1, 32, 32, 3)
        # The data set was built without `exif_orientation`.
        encoded = tf.constant((tmp_path / "photo.jpg").read_bytes())
        expected = crops.center_crop(preprocessing.decode_square(encoded, 40, exif_orientation=False), 32).numpy()
        np.testing.assert_allclose(pixels[0].astype(int), expected, atol=2)
        np.testing.assert_allclose(output(browser, "probabilities"), model.predict(pixels, verbose=0)[0], atol=1e-3)
        name, layer_output, count = browser.execute_script(
            "const { name, output, maps } = alexnet.page.layers[0]; return [name, output, maps]"
        )
        maps = output(browser, layer_output).reshape(count, -1)
        strongest = maps[np.arange(count), np.abs(maps).argmax(axis=1)]
        negative = 1 + int(np.flatnonzero(strongest[1:] < 0)[0])  # after tanh
        canvas = browser.find_element(By.ID, f"{name}-1")
        for _ in range(negative):
            canvas.send_keys(Keys.ARROW_RIGHT)
        shown = text(browser, "map-caption").split("strongest ")[1].split(". ")[0]
        assert float(shown.replace("\u2212", "-")) == pytest.approx(strongest[negative], rel=0.01)
        assert browser.find_elements(By.CSS_SELECTOR, ".switch") == []
        assert len(browser.find_elements(By.CSS_SELECTOR, ".layer canvas")) == 4
        assert f"tanh({shown_number(browser.execute_script('return alexnet.steps[0].value'))[:-1]}" in text(
            browser, "steps"
        )
        assert not browser.find_element(By.ID, "halves").is_displayed()
        assert not browser.find_element(By.ID, "problem").is_displayed()


class TestFiles:
    @pytest.mark.slow
    def test_strongest_images_equal_the_layers(self, page_dir, untrained, data_dir):
        described = json.loads((page_dir / "page.json").read_text())
        assert described["data"]["searched"] == 100
        from alexnet_tf.serving import parity

        model, _ = untrained
        images, labels = parity.read_images(data_dir, schema.load_description(data_dir), "train", model, 100)
        tables = np.frombuffer((page_dir / "strongest.bin").read_bytes(), "<u2")
        for layer in described["layers"]:
            network = structure.features(model, [layer["output"]])
            values = network.predict(images, verbose=0)[layer["output"]]
            peaks = values.max(axis=(1, 2)) if values.ndim == 4 else values
            order = np.argsort(-peaks, axis=0, kind="stable")[:5].T
            table = tables[layer["strongest"]["offset"] :][: 10 * layer["maps"]].reshape(layer["maps"], 5, 2)
            np.testing.assert_array_equal(table[..., 1], labels[order])
            cells = order if layer["side"] == 1 else np.arange(order.size).reshape(order.shape)
            np.testing.assert_array_equal(table[..., 0], cells)
        sprite = np.asarray(Image.open(page_dir / "strongest" / "images.jpg").convert("RGB"))
        thumbnail = np.asarray(Image.fromarray(images[41]).resize((40, 40), Image.Resampling.BILINEAR))
        shown = sprite[40:80, 40:80]  # the second in the second row of 40
        assert np.abs(shown.astype(int) - thumbnail).mean() < 6

    @pytest.mark.slow
    def test_checksums_match_the_package(self, runtime, tmp_path):
        described = browser_runtime.write(tmp_path, runtime)
        assert [each["integrity"] for each in described] == list(browser_runtime.FILES.values())
        assert (tmp_path / described[0]["url"]).stat().st_size > 10_000


class TestExamples:
    def test_folder_comes_before_the_data_set(self, untrained, tiny_data_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(web_page.conversion, "write_with_activations", lambda folder, *_: _touch(folder))
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "README.md").write_text("licenses")
        Image.new("RGB", (80, 60), "red").save(tmp_path / "photos" / "cat.jpg")
        config = formats.ExportConfig(format="web", data_dir=tiny_data_dir, examples=str(tmp_path / "photos"))
        images = np.zeros((2, SIDE, SIDE, 3), "uint8"), np.zeros(2, int)
        (tmp_path / "page").mkdir()
        web_page.write(tmp_path / "page", *untrained, config, images)
        examples = json.loads((tmp_path / "page" / "page.json").read_text())["examples"]
        assert [each["title"] for each in examples] == ["cat", "even", "odd"]
        with Image.open(tmp_path / "page" / examples[0]["url"]) as cat:
            assert cat.size == (64, 64) and cat.getpixel((32, 32))[0] > 250

    def test_files_of_any_name_are_prepared_as_for_training(self, untrained, tmp_path):
        (tmp_path / "page" / "examples").mkdir(parents=True)
        (tmp_path / "photos").mkdir()
        for name, color in (("1?#.jpg", "red"), ("1?#.png", "blue")):
            wide = Image.new("RGB", (128, 64), "white")
            wide.paste(color, (0, 0, 32, 64))
            wide.save(tmp_path / "photos" / name)
        description = untrained[1]
        warped = dataclasses.replace(description, settings=description.settings | {"resize": "warp"})
        examples = web_page._write_example_files(tmp_path / "page", tmp_path / "photos", warped)
        assert [each["url"] for each in examples] == ["examples/file-1.png", "examples/file-2.png"]
        for each, channel in zip(examples, (0, 2), strict=True):
            with Image.open(tmp_path / "page" / each["url"]) as prepared:
                pixels = np.asarray(prepared)[32]
            assert pixels[:14, channel].min() > 240 > 15 > pixels[:14, 1].max() and pixels[18:].min() > 240

    @pytest.mark.parametrize(
        "given, message", [("missing", "must be a folder of images"), (".", "is for --format=web")]
    )
    def test_wrong_folder_or_format(self, given, message):
        with pytest.raises(ValueError, match=f"`examples` {message}"):
            formats.ExportConfig(format="web" if given == "missing" else "savedmodel", examples=given)


def _touch(folder):
    (folder / "model.onnx").touch()
