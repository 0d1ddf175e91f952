"""What the page of `alexnet-export --format=web` shows of a network: colors, lines, fields and strongest images."""

import json

import numpy as np
import pytest
from browser import canvas_pixels, choose_unit, pixels_of, wait_for
from PIL import Image


@pytest.mark.slow
class TestViews:
    def test_strongest_images_are_those_of_the_layers_map(self, page, page_dir):
        described = json.loads((page_dir / "page.json").read_text())
        tables, captions = np.frombuffer((page_dir / "strongest.bin").read_bytes(), "<u2"), {}
        for index in (0, 2):
            layer = described["layers"][index]
            choose_unit(page, layer["name"], 7, 3, 3)
            table = tables[layer["strongest"]["offset"] :][2 * 7 * 5 : 2 * 8 * 5].reshape(5, 2)
            with Image.open(page_dir / layer["strongest"]["url"]) as image:
                sprite = np.asarray(image.convert("RGB")).astype(int)
            px = layer["strongest"]["cell_px"]
            captions[index] = [described["classes"][label] for label in table[:, 1]]
            shown = "[...document.querySelectorAll('#strongest figcaption')].map(each => each.textContent)"
            wait_for(
                page, f"JSON.stringify({shown}) === {json.dumps(json.dumps(captions[index], separators=(',', ':')))}"
            )
            for number, (cell, _) in enumerate(table.tolist()):
                script = "document.querySelectorAll('#strongest canvas')[arguments[0]].id = arguments[1]"
                page.execute_script(script, number, f"s{number}")
                top, left = px * (cell // 40), px * (cell % 40)
                shown = canvas_pixels(page, f"s{number}")[..., :3]
                assert np.abs(shown - sprite[top : top + px, left : left + px]).mean() < 3
        assert captions[0] != captions[2]

    def test_field_of_the_unit_is_outlined_on_the_copy(self, page):
        choose_unit(page, "conv1", 5, 3, 9)
        shown = canvas_pixels(page, "where")[..., :3].astype(int)
        red = (np.abs(shown - [255, 45, 45]).sum(axis=-1) < 12).nonzero()
        edges = [int(each) for axis in red for each in (axis.min(), axis.max() + 1)]
        assert edges == [5, 14, 17, 26]  # 7 pixels from (6, 18), and half of the line's 2 pixels on each side

    def test_lines_connect_the_columns_as_figure_2(self, page):
        script = "return [...document.querySelectorAll('#network svg .across')].map(each => each.getAttribute('d'))"
        straight, crossed = "M0 25L100 25M0 75L100 75", {"M0 25L100 25", "M0 75L100 75", "M0 25L100 75", "M0 75L100 25"}
        lines = page.execute_script(script)
        assert lines[0] == "M0 50L100 25M0 50L100 75" and lines[1] == lines[3] == lines[4] == straight
        for across in (lines[2], *lines[5:7]):
            assert {f"M{each}" for each in across.split("M")[1:]} == crossed
        assert lines[7] == "M0 25L100 50M0 75L100 50"

    def test_columns_have_colors_of_their_own(self, page):
        hues = []
        for name in ("conv3-1", "conv3-2"):
            colors = canvas_pixels(page, name)[..., :3].reshape(-1, 3).astype(int)
            red, _, blue = colors[np.ptp(colors, axis=1).argmax()]
            hues.append(red > blue)
        assert hues[0] != hues[1]

    def test_mark_is_on_the_selected_map(self, page):
        for map_number in (7, 17):  # of 12 in each column
            choose_unit(page, "conv3", map_number, 3, 3)
            script = "const s = document.querySelector('.mark').style; return [s.top, s.left, s.height, s.width]"
            rows, columns = page.execute_script("const l = alexnet.page.layers[2]; return [l.rows, l.columns]")
            row, column = divmod(map_number % 12, columns)
            expected = [100 * row / rows, 100 * column / columns, 100 / rows, 100 / columns]
            assert [float(each.rstrip("%")) for each in page.execute_script(script)] == pytest.approx(
                expected, abs=0.01
            )
            assert rows != columns

    def test_colors_of_a_layer_end_at_its_strongest_map(self, page, network):
        values = network(pixels_of(page))["relu3"][0]
        box, map_in_box, row, column = np.unravel_index(values.argmax(), (2, 12, *values.shape[1:]))
        levels = np.round(255 * np.sqrt(values / values.max()))
        colors = canvas_pixels(page, f"conv3-{box + 1}").view("uint32")[..., 0]
        pitch, per_row = page.execute_script("const l = alexnet.page.layers[2]; return [l.pitch, l.columns]")
        strongest = colors[map_in_box // per_row * pitch + row, map_in_box % per_row * pitch + column]
        assert (colors == strongest).sum() == (np.split(levels, 2)[box] == 255).sum()
        script = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
        color = page.execute_script(script, f"--top-{box + 1}")  # the legend's
        assert bytes.fromhex(color[1:]) == int(strongest).to_bytes(4, "little")[:3]

    def test_pointer_at_the_edges_is_in_the_last_unit(self, page):
        choose_unit(page, "conv1", 5, 26.5, 26.5)  # where the map of 27 x 27 units ends
        assert page.execute_script("return alexnet.steps[0].position") == {"row": 26, "column": 26}
