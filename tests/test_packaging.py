"""The wheel, as a user installs it."""

import os
import pathlib
import subprocess
import sys
import sysconfig

import pytest

pytestmark = pytest.mark.slow  # a wheel is built and installed

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="a Bazel sandbox holds no setup.py to build from")
def test_wheel_runs_beside_a_layers_module_of_the_users_own(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet"]
    # From a copy: setuptools builds in the folder of the sources.
    sources = ("alexnet_tf", "layers", "tfrecords", "setup.py", "pyproject.toml", "README.md")
    subprocess.run(["cp", "-r", *(ROOT / path for path in sources), tmp_path], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "wheel", tmp_path], check=True)
    (wheel,) = (tmp_path / "wheel").iterdir()

    # An environment with this one's packages, but not with its editable installation of this project.
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([*pip, "--python", environment / "bin" / "python", "install", "--no-deps", wheel], check=True)

    folder = tmp_path / "users"
    folder.mkdir()
    for name in ("layers.py", "tfrecords.py"):
        (folder / name).write_text("raise ImportError('the user own module')")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for name in ("tfrecords", "train", "describe", "convert", "evaluate", "export", "predict", "client"):
        command = [environment / "bin" / f"alexnet-{name}", "--help"]
        result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert "USAGE" in result.stdout, result.stderr
    script = (
        "import alexnet_tf.layers, pathlib; from alexnet_tf.tfrecords import sources;"
        "print(alexnet_tf.layers.__file__, sources.open_source('fashion_mnist').count('train'));"
        "assert (pathlib.Path(alexnet_tf.__file__).parent / 'recipes' / 'paper.flags').exists()"
    )
    command = [environment / "bin" / "python", "-c", script]
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True)
    file, count = result.stdout.split()
    assert file.startswith(str(environment))
    assert count == "3000"
