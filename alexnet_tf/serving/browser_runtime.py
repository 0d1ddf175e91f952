"""onnxruntime-web, with which a page computes: files of the npm package, or their addresses and checksums."""

import base64
import hashlib
import pathlib
import tarfile

VERSION = "1.30.0"
# The module and the WebAssembly that it starts, with the checksums that a browser compares.
FILES = {
    "ort.wasm.bundle.min.mjs": "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}
_CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"


def read_package(path: str | pathlib.Path) -> dict[str, bytes]:
    """Reads the npm package onnxruntime-web.

    Args:
        path: its folder, such as node_modules/onnxruntime-web, or the file that `npm pack onnxruntime-web` writes.

    Returns: the contents of `FILES` by name.

    Raises:
        ValueError: if it does not hold these files.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            return {name: (path / "dist" / name).read_bytes() for name in FILES}
        with tarfile.open(path) as archive:
            files = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
            return {name: file.read() for name, file in files.items() if file}
    except (OSError, KeyError, tarfile.TarError) as error:
        raise ValueError(
            f"`runtime` must be the npm package onnxruntime-web {VERSION}, its folder or the .tgz of `npm pack`, with "
            f"{' and '.join(FILES)} in its dist. Received: {path} ({error})"
        ) from error


def write(folder: pathlib.Path, runtime: str | pathlib.Path | None) -> list[dict]:
    """Writes the files of a package into a page's folder `runtime`, or nothing if the page is to load them itself.

    Returns: for each of `FILES`, its "url" and "integrity", for the page.
    """
    if runtime is None:
        return [{"url": _CDN + name, "integrity": integrity} for name, integrity in FILES.items()]
    described = []
    (folder / "runtime").mkdir()
    for name, content in read_package(runtime).items():
        (folder / "runtime" / name).write_bytes(content)
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        described.append({"url": f"runtime/{name}", "integrity": f"sha384-{digest}"})
    return described
