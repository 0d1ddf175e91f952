"""Input, errors and looks of the page of `alexnet-export --format=web`, in Chromium."""

import json
import shutil

import numpy as np
import pytest
from browser import (
    SETTLED,
    canvas_pixels,
    choose,
    choose_unit,
    open_chromium,
    open_page,
    output,
    pixels_of,
    serve,
    text,
    wait_for,
)
from made_photos import noisy_photo
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from alexnet_tf.serving import browser_runtime

SIDE = 56


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

    def test_drawing_is_classified_after_each_stroke(self, page, network):
        page.find_element(By.ID, "draw").click()
        wait_for(page, "alexnet.pixels.every(value => value === 255)")
        image = page.find_element(By.ID, "image")
        ActionChains(page).move_to_element_with_offset(image, -60, -60).click_and_hold().move_by_offset(
            120, 120
        ).release().perform()
        wait_for(page, f"alexnet.pixels[0] === 255 && alexnet.pixels.some(value => value === 0) && {SETTLED}")
        drawn = pixels_of(page)
        assert 0.02 < (drawn < 128).mean() < 0.3
        expected = network(drawn)["probabilities"][0]
        np.testing.assert_allclose(output(page, "probabilities"), expected, atol=1e-3)

    def test_fill_has_the_pens_color(self, page):
        page.find_element(By.ID, "draw").click()
        page.execute_script("document.getElementById('pen').value = '#c81e3c'")
        page.find_element(By.ID, "fill").click()
        wait_for(page, f"alexnet.pixels[0] === 200 && {SETTLED}")
        np.testing.assert_array_equal(pixels_of(page), np.tile((200, 30, 60), SIDE**2))

    def test_switch_turns_off_a_column(self, page, network):
        before = output(page, "probabilities")
        page.find_element(By.ID, "column-2").click()
        wait_for(page, "document.getElementById('status').textContent.startsWith('Column 1 alone')")
        expected = network(pixels_of(page), (1, 0))
        np.testing.assert_allclose(output(page, "probabilities"), expected["probabilities"][0], atol=1e-3)
        assert np.abs(before - expected["probabilities"][0]).max() > 0.01
        colors = "const c = document.getElementById(arguments[0]); const { data } = c.getContext('2d')" \
            ".getImageData(0, 0, c.width, c.height); return new Set(new Uint32Array(data.buffer)).size"  # fmt: skip
        assert page.execute_script(colors, "conv3-1") > 10
        assert page.execute_script(colors, "conv3-2") <= 2  # the plate and the gaps

    def test_map_under_the_pointer_is_shown_and_a_click_holds_it(self, page, network):
        assert text(page, "map-caption").startswith("conv5, feature map ")  # the strongest of the last maps
        canvas = page.find_element(By.ID, "conv1-2")  # 4 maps, 2 x 2
        width, height = canvas.size["width"], canvas.size["height"]
        ActionChains(page).move_to_element_with_offset(canvas, width // 4, -height // 4).perform()
        values = network(pixels_of(page))["relu1"][0, 5]
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

    def test_pointer_covers_the_spot_below_it(self, page, network):
        page.execute_script(
            "const image = document.getElementById('image');"
            "const { left, top, width, height } = image.getBoundingClientRect();"
            "const clientX = left + (40 * width) / 56, clientY = top + (10 * height) / 56;"
            "image.dispatchEvent(new PointerEvent('pointermove', { clientX, clientY }))"
        )
        covered = pixels_of(page).reshape(SIDE, SIDE, 3).copy()
        covered[6:14, 36:44] = 128
        wait_for(page, "alexnet.covered && document.getElementById('status').textContent === 'A spot is covered.'")
        np.testing.assert_array_equal(canvas_pixels(page, "image")[..., :3], covered)

    def test_an_example_is_opened_by_its_picture(self, page, page_dir):
        described = json.loads((page_dir / "page.json").read_text())
        example = described["examples"][3]
        page.find_elements(By.CSS_SELECTOR, "#examples button")[3].click()
        with Image.open(page_dir / example["url"]) as image:
            expected = np.asarray(image.convert("RGB"))[4:60, 4:60]
        wait_for(page, f"alexnet.pixels[{3 * 1600}] === {expected.reshape(-1, 3)[1600, 0]} && {SETTLED}")
        np.testing.assert_allclose(pixels_of(page).reshape(SIDE, SIDE, 3).astype(int), expected, atol=1)
        shown = [each.get_attribute("alt") for each in page.find_elements(By.CSS_SELECTOR, "#examples img")]
        assert shown == [each["title"] for each in described["examples"]]

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
        for number, edge in enumerate([np.s_[4], np.s_[59], np.s_[:, 4], np.s_[:, 59]]):  # of the crop
            pixels = np.full((64, 64, 3), page.execute_script("return alexnet.page.typical.border[1]"), "uint8")
            pixels[edge] = 255  # with an edge in white, the others are no longer typical
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
            choose(page, tmp_path / f"{number}.png")
            assert "its edges are brighter" in text(page, "unusual")

    def test_keyboard_selects_maps_and_moves_the_square(self, page, network):
        page.find_element(By.ID, "conv3-1").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
        columns = page.execute_script("return alexnet.selected.layer.columns")
        assert f"conv3, feature map {columns + 1} in column 1" in text(page, "map-caption") == text(page, "status")
        choose_unit(page, "conv3", 11, 3, 3)  # the last of column 1
        page.find_element(By.ID, "conv3-1").send_keys(Keys.ARROW_RIGHT)
        assert page.execute_script("return alexnet.selected.map") == 11
        before = pixels_of(page)
        page.find_element(By.ID, "image").send_keys(Keys.ARROW_LEFT)
        wait_for(page, "alexnet.covered && document.getElementById('status').textContent === 'A spot is covered.'")
        script = "return [...document.getElementById('image').getContext('2d').getImageData(24, 28, 1, 1).data]"
        assert page.execute_script(script) == [128, 128, 128, 255]
        covered, image = before.reshape(SIDE, SIDE, 3).copy(), canvas_pixels(page, "image")
        covered[24:32, 20:28] = 128  # 8 pixels around (28, 24), a step of 4 to the left of the middle
        np.testing.assert_array_equal(image[..., :3], covered)
        np.testing.assert_allclose(output(page, "probabilities"), network(covered)["probabilities"][0], atol=1e-3)
        page.find_element(By.ID, "image").send_keys(Keys.ARROW_UP)
        assert page.execute_script("return alexnet.covered") == {"row": 24, "column": 24}
        page.find_element(By.ID, "image").send_keys(Keys.ESCAPE)
        wait_for(page, "!alexnet.covered && document.getElementById('status').textContent !== 'A spot is covered.'")
        np.testing.assert_array_equal(pixels_of(page), before)

    def test_occlusion_map_equals_the_models_probabilities(self, page, network):
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
            expected = network(covered)["probabilities"][0, best]
            assert found[row, column] == pytest.approx(expected, abs=1e-3)
        assert page.find_element(By.ID, "heat").is_displayed()
        opacity = canvas_pixels(page, "heat")[2::4, 2::4, 3]  # in the middle of each position
        assert opacity.ravel()[found.argmin()] > 150 > 50 > opacity.ravel()[found.argmax()]
        assert "Red marks where covering costs most" in text(page, "status")

    def test_occlusion_map_can_be_stopped(self, page):
        page.find_element(By.ID, "occlusion").click()
        page.find_element(By.ID, "occlusion").click()
        assert text(page, "occlusion") == "Occlusion map"
        page.execute_async_script("setTimeout(arguments[0], 500)")
        assert not page.execute_script("return alexnet.occlusion")


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

    def test_runtime_may_be_on_another_host(self, browser, page_dir, tmp_path):
        folder = shutil.copytree(page_dir, tmp_path / "page")
        (folder / "runtime").rename(tmp_path / "dist")
        described = json.loads((folder / "page.json").read_text())
        with serve(folder) as (address, _), serve(tmp_path, to_all_origins=True) as (cdn, requests):
            described["runtime"] = [
                {"url": f"{cdn}dist/{name}", "integrity": integrity}
                for name, integrity in browser_runtime.FILES.items()
            ]
            (folder / "page.json").write_text(json.dumps(described))
            open_page(browser, address)
            asked_for = sorted(path for _, path in requests)  # the page asks for all of them at once
            assert asked_for == sorted(f"/dist/{name}" for name in browser_runtime.FILES)
            assert "is loaded from 127.0.0.1" in text(browser, "offline")

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
            for width, height in ((360, 800), (683, 384), (800, 800), (1366, 768)):  # the second as at a zoom of 200 %
                metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
                page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                answer = page.find_element(By.CSS_SELECTOR, "#top li").rect
                assert answer["y"] + answer["height"] <= height  # seen without scrolling
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
