"""A real browser, a server of static files whose requests a test can look at, and what the exported page shows."""

import contextlib
import functools
import http.server
import os
import shutil
import time

import numpy as np
import pytest
from programs import in_background
from selenium import webdriver
from selenium.webdriver.common.by import By

# The answer of the image and, with several columns, of each of them is shown.
SETTLED = "!!(alexnet.result && (alexnet.halves || alexnet.gates.length === 1))"


@contextlib.contextmanager
def open_chromium(profile, *arguments):
    """Starts Chromium, with a new profile in a folder; skips the test where there is none, but not in CI."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver) and "CI" not in os.environ:
        pytest.skip("Chromium and its driver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        *arguments,
    ):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


@contextlib.contextmanager
def serve(folder, to_all_origins=False):
    """Serves a folder as `python -m http.server` does, or to pages of all origins as a CDN does.

    Yields: its address and a list of requests, (method, path).
    """
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code="-", size="-"):
            requests.append((self.command, self.path))

        def end_headers(self):
            if to_all_origins:
                self.send_header("Access-Control-Allow-Origin", "*")
            super().end_headers()

    handler = functools.partial(Handler, directory=folder)
    with in_background(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/", requests


def wait_for(browser, condition, seconds=30):
    """Waits until an expression in the page is true; returns its value."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {condition}")):
        assert time.monotonic() < end, f"{condition} did not become true. {browser.get_log('browser')}"
        time.sleep(0.02)
    return value


def open_page(browser, address):
    """Opens an exported page, and waits until its first example is classified."""
    browser.get(address)
    wait_for(browser, f"globalThis.alexnet && {SETTLED}")
    return browser


def pixels_of(page):
    return np.uint8(page.execute_script("return [...alexnet.pixels]"))


def output(page, name):
    return np.float32(page.execute_script("return [...alexnet.result[arguments[0]]]", name))


def canvas_pixels(page, name):
    script = "const c = document.getElementById(arguments[0]); return [c.height, c.width, ...c.getContext('2d')" \
        ".getImageData(0, 0, c.width, c.height).data]"  # fmt: skip
    rows, columns, *values = page.execute_script(script, name)
    return np.uint8(values).reshape(rows, columns, 4)


def text(page, name):
    return page.find_element(By.ID, name).text


def choose(page, path):
    """Chooses a file, and waits until its answer or an error is shown."""
    problem = "document.getElementById('problem').textContent"
    page.execute_script(f"window.before = [alexnet.pixels, {problem}]")
    page.find_element(By.ID, "file").send_keys(str(path))
    wait_for(page, f"(alexnet.pixels !== before[0] && {SETTLED}) || ({problem} && {problem} !== before[1])")


def choose_unit(page, layer, map, row, column):
    """Clicks a map of a layer and points at one of its units; returns the steps that explain it."""
    script = (
        "const layer = alexnet.page.layers.find(({ name }) => name === arguments[0]), map = arguments[1];"
        "alexnet.held = false;"
        "const point = (id, row, column, rows, columns, kinds) => {"
        "  const canvas = document.getElementById(id), { left, top, width, height } = canvas.getBoundingClientRect();"
        "  const clientX = left + ((column + 0.5) * width) / columns, clientY = top + ((row + 0.5) * height) / rows;"
        "  for (const kind of kinds) canvas.dispatchEvent(new PointerEvent(kind, { clientX, clientY })); };"
        "const box = Math.floor(map / layer.perBox), inBox = map % layer.perBox, perRow = layer.columns;"
        "point(`${layer.name}-${box + 1}`, Math.floor(inBox / perRow), inBox % perRow, layer.rows, perRow,"
        "  ['pointermove', 'click']);"
        "point('map', arguments[2], arguments[3], layer.side, layer.side, ['pointermove']);"
        "return JSON.parse(JSON.stringify(alexnet.steps, (_, value) =>"
        "  (ArrayBuffer.isView(value) ? [...value] : value)));"
    )
    return page.execute_script(script, layer, map, row, column)


def shown_number(value):
    return "0" if value == 0 else f"{value:#.3g}".rstrip(".").replace("-", "\u2212")
