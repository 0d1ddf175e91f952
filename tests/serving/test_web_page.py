"""What the page of `alexnet-export --format=web` computes, as Chromium shows it."""

import numpy as np
import pytest
import tensorflow as tf
from browser import (
    canvas_pixels,
    choose,
    choose_unit,
    output,
    pixels_of,
    serve,
    shown_number,
    text,
    wait_for,
)
from made_photos import exif, noisy_photo, write_photos
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from alexnet_tf.model import build_alexnet
from alexnet_tf.serving import classifier, exporter, formats, preprocessing
from alexnet_tf.tfrecords import crops, schema

SIDE = 56


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

    def test_answers_equal_the_models_and_nothing_is_sent(self, page, served, network, untrained, tmp_path):
        address, requests = served
        before = text(page, "knows")
        noisy_photo(np.random.default_rng(4), 70, 60).save(tmp_path / "another.png")
        choose(page, tmp_path / "another.png")
        assert text(page, "knows") != before
        pixels = pixels_of(page)
        expected = network(pixels)
        for name, values in expected.items():
            np.testing.assert_allclose(
                output(page, name), values.ravel(), atol=1e-3 * np.abs(values).max(), err_msg=name
            )
        best = np.argsort(-expected["probabilities"][0])[:5]
        shown = [each.text for each in page.find_elements(By.CSS_SELECTOR, "#top li span")]
        assert shown == [untrained[1].class_names[label] for label in best]
        halves = page.execute_script("return alexnet.halves.map(each => [...each])")
        for gates, half in zip(((1, 1), (1, 0), (0, 1)), halves, strict=True):
            np.testing.assert_allclose(half, network(pixels, gates)["probabilities"][0], atol=1e-3)
        said = [f"{untrained[1].class_names[np.argmax(half)]}, {100 * max(half):.1f} %" for half in halves]
        assert [each.text for each in page.find_elements(By.CSS_SELECTOR, "#knows dd")] == said
        assert len({np.argmax(half) for half in halves}) > 1
        first = page.find_element(By.CSS_SELECTOR, "#top li")
        assert first.find_element(By.CSS_SELECTOR, "b").text == f"{100 * max(halves[0]):.1f} %"
        widths = [bar.get_attribute("style") for bar in first.find_elements(By.CSS_SELECTOR, ".bars i")]
        widths = [float(style.split("width: ")[1].split("%")[0]) for style in widths]
        assert widths == pytest.approx([100 * half[best[0]] for half in halves], abs=0.01)
        status = page.find_element(By.ID, "status")
        assert status.get_attribute("role") == "status" and shown[0] in status.text
        asked = page.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
        assert asked and all(each.startswith((address, "data:")) for each in asked)
        assert {method for method, _ in requests} == {"GET"}
        assert not any("another" in path or "?" in path for _, path in requests)
        assert "no image is sent anywhere" in text(page, "nowhere") and "works offline" in text(page, "offline")


@pytest.mark.slow
class TestSteps:
    @pytest.mark.parametrize(
        ("layer", "map", "row", "column", "gates"),
        [
            ("conv1", 5, 26, 25, (1, 1)),  # reads zeros past the edges
            ("conv2", 9, 0, 4, (1, 1)),  # only the maps of its column; two windows have the unit
            ("conv3", 2, 3, 3, (1, 1)),  # the maps of both columns
            ("conv3", 2, 3, 3, (1, 0)),  # those of one, doubled
        ],
    )
    def test_steps_equal_numpy(self, page, network, untrained, layer, map, row, column, gates):
        if not gates[1]:
            page.find_element(By.ID, "column-2").click()
            wait_for(page, "alexnet.resultGates[1] === 0")
        steps = {step["kind"]: step for step in choose_unit(page, layer, map, row, column)}
        tensors, network_layer = network(pixels_of(page), gates), untrained[0].get_layer(layer)
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
        first = [min(max(0, (at - 1) // 2), normalized.shape[0] // 2 - 1) for at in (row, column)]
        assert [found["position"][name] for name in ("row", "column")] == first  # of the windows with the unit
        top, left = 2 * first[0], 2 * first[1]
        window = normalized[top : top + 3, left : left + 3]
        np.testing.assert_allclose(found["values"], window.ravel(), rtol=1e-3, atol=1e-6)
        assert found["value"] == pytest.approx(window.max(), rel=1e-3)

    def test_classifier_is_a_layer_with_its_sums_and_probabilities(self, page, network):
        best = int(output(page, "probabilities").argmax())
        steps = choose_unit(page, "fc8", best, 0, 0)
        tensors = network(pixels_of(page))
        assert steps[0]["value"] == pytest.approx(tensors["fc8"][0, best], abs=1e-2)
        assert steps[0]["inputs"] == 32 and "32 products and the bias add up to" in text(page, "steps")
        probability = np.exp(tensors["fc8"][0, best]) / np.exp(tensors["fc8"][0]).sum()
        assert steps[1]["value"] == pytest.approx(probability, abs=2e-3)
        assert page.execute_script("return alexnet.page.classes[arguments[0]]", best) in text(page, "map-caption")

    def test_numbers_of_a_product_are_under_the_pointer(self, page):
        (found, *_) = choose_unit(page, "conv2", 1, 4, 4)
        products, size = page.find_elements(By.CSS_SELECTOR, ".mosaic")[2], found["size"]
        page.execute_script(
            "arguments[0].scrollIntoView(); const { left, top, width } = arguments[0].getBoundingClientRect();"
            "const [x, y] = [1, 2].map((at) => ((arguments[at] + 0.5) * width) / arguments[0].width);"
            "arguments[0].dispatchEvent(new PointerEvent('pointermove', { clientX: left + x, clientY: top + y }))",
            products,
            size + 1 + 3,  # column 3 of the second map
            2,
        )
        numbers = [shown_number(found[name][size**2 + 2 * size + 3]) for name in ("inputs", "kernel", "products")]
        shown = f"map {found['firstMap'] + 1}, row 2, column 3: "
        assert text(page, "readout") == shown + "{} \u00d7 {} = {}".format(*numbers)

    def test_arrow_keys_move_from_unit_to_unit(self, page):
        choose_unit(page, "conv2", 1, 4, 4)
        page.find_element(By.ID, "map").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP)
        assert page.execute_script("return alexnet.steps[0].position") == {"row": 3, "column": 5}

    def test_tables_show_the_neighbors_and_the_window(self, page):
        steps = {step["kind"]: step for step in choose_unit(page, "conv2", 9, 0, 12)}
        neighbors, found = page.find_elements(By.CSS_SELECTOR, ".neighbors tr"), steps["normalization"]["neighbors"]
        shown = [[each.text for each in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in neighbors]
        assert shown == [[str(each["map"]), "", shown_number(each["value"])] for each in found]
        own = page.find_element(By.CSS_SELECTOR, ".neighbors .own th").text
        assert own == "9" and [each["map"] for each in found] == [8, 9, 10, 11]  # column 2 begins at 8
        bars = [bar.get_attribute("style") for bar in page.find_elements(By.CSS_SELECTOR, ".neighbors i")]
        values = np.abs([each["value"] for each in found])
        widths = [float(style.split("width: ")[1].split("%")[0]) for style in bars]
        assert widths == pytest.approx(100 * values / (values.max() or 1), abs=0.01)
        window = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, ".window td")]
        assert window == ["\u2013" if value is None else shown_number(value) for value in steps["pooling"]["values"]]
        largest = page.find_element(By.CSS_SELECTOR, ".window .own").text
        assert largest == shown_number(steps["pooling"]["value"])
        last_of_column_1 = {step["kind"]: step for step in choose_unit(page, "conv2", 7, 0, 12)}
        assert [each["map"] for each in last_of_column_1["normalization"]["neighbors"]] == [5, 6, 7]

    def test_graph_of_the_nonlinearity_rises(self, page):
        choose_unit(page, "conv2", 1, 4, 4)
        (graph,) = page.find_elements(By.CSS_SELECTOR, "#steps svg path:not(.axes)")
        heights = [-float(point.split()[1]) for point in graph.get_attribute("d")[1:].split("L")]
        assert heights == sorted(heights) and heights[0] == 0 and heights[-1] == 40  # of ReLU

    def test_kernel_colors_show_the_signs(self, page, untrained):
        choose_unit(page, "conv2", 1, 0, 0)
        kernel = untrained[0].get_layer("conv2").kernels[0].numpy()[..., 0, 1]
        page.execute_script("document.querySelectorAll('.mosaic')[1].id = 'kernel'")
        drawn = canvas_pixels(page, "kernel")[:5, :5, :3].astype(int)
        redness = drawn[..., 0] - drawn[..., 2]  # orange excites, blue inhibits
        assert redness[kernel == kernel.max()] > 30 and redness[kernel == kernel.min()] < 0
        assert np.corrcoef(redness.ravel(), kernel.ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_network_with_one_column_of_warped_images_without_data(browser, runtime, tmp_path):
    model = build_alexnet("four_layer_tanh", 3)
    description = schema.DatasetDescription(
        ("a", "b", "c"), 41, False, "png", splits={}, settings={"exif_orientation": False, "resize": "warp"}
    )
    config = formats.ExportConfig(format="web", precision="float16", runtime=runtime)
    folder = exporter.export_model(model, description, tmp_path / "page", config)
    noisy_photo(np.random.default_rng(3), 60, 90).save(tmp_path / "photo.jpg", exif=exif(6))
    with serve(folder) as (address, _):
        browser.get(address)
        wait_for(browser, "document.getElementById('loading').hidden")
        choose(browser, tmp_path / "photo.jpg")
        pixels = pixels_of(browser).reshape(1, 32, 32, 3)
        encoded = tf.constant((tmp_path / "photo.jpg").read_bytes())
        expected = crops.center_crop(
            preprocessing.decode_square(encoded, 41, exif_orientation=False, resize="warp"), 32
        ).numpy()
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
