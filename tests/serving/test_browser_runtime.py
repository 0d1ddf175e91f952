"""The files of the page that need no browser: its sources, and onnxruntime-web."""

import pytest

from alexnet_tf.serving import browser_runtime, exporter


def test_page_is_small_and_needs_no_other_host():
    folder = exporter.web_page._SOURCES
    lines = sum(len(path.read_text().splitlines()) for path in folder.iterdir())
    assert {path.suffix for path in folder.iterdir()} == {".css", ".html", ".js"}
    assert lines < 1300
    assert "://" not in (folder / "index.html").read_text() + (folder / "style.css").read_text()


def test_invalid_runtime_is_refused(tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"no archive")
    for path in (tmp_path, tmp_path / "other.tgz", tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"`runtime` must be the npm package onnxruntime-web .* Received: "):
            browser_runtime.open_package(path)


def test_cdn_addresses_have_the_version_and_checksums(tmp_path):
    described = browser_runtime.write(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    for each in described:
        assert f"onnxruntime-web@{browser_runtime.VERSION}/dist/" in each["url"]
        assert each["integrity"].startswith("sha384-")
