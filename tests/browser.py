"""A real browser, and a server of static files whose requests a test can look at."""

import contextlib
import functools
import http.server
import os
import shutil
import time

import pytest
from programs import in_background
from selenium import webdriver


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
