"""The package: as a checkout, installed from a wheel, and installed for editing."""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

import alexnet_tf

ROOT = pathlib.Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--quiet"]

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="a Bazel sandbox holds no setup.py")

# Imports every module, each file once, and prints where the package is from.
IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
import alexnet_tf
for module in pkgutil.walk_packages(alexnet_tf.__path__, "alexnet_tf."):
    importlib.import_module(module.name)
assert not {"layers", "tfrecords"} & set(sys.modules)
files = [pathlib.Path(m.__file__).resolve() for n, m in sys.modules.items() if n.partition(".")[0] == "alexnet_tf"]
assert len(files) == len(set(files)) > 50, sorted(files)
print(alexnet_tf.__file__)
"""


def copy_sources(folder):
    """A copy of the checkout, links too: setuptools builds in the folder of the sources."""
    names = ("alexnet_tf", "layers", "tfrecords", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
    folder.mkdir()
    subprocess.run(["cp", "-r", *(ROOT / name for name in names), folder], check=True)
    return folder


def make_environment(folder):
    """An environment with this one's packages, but without its editable installation of this project."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def install(environment, *arguments):
    command = [*PIP, "--python", environment / "bin" / "python", "install", "--no-deps", *arguments]
    subprocess.run(command, check=True)


def users_folder(folder):
    """A folder with modules whose names are those of the links."""
    folder.mkdir()
    for name in ("layers.py", "tfrecords.py"):
        (folder / name).write_text("raise ImportError('the user own module')")
    return folder


def run_in(folder, *command, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""} | variables
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_version_is_the_same_everywhere():
    module = (ROOT / "MODULE.bazel").read_text()
    assert re.search(r'module\(.*version = "(.+?)"', module)[1] == alexnet_tf.__version__
    assert f"\nversion: {alexnet_tf.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{alexnet_tf.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_layers_and_tfrecords_are_links():
    for name in ("layers", "tfrecords"):
        link = ROOT / "alexnet_tf" / name
        assert link.is_symlink() and link.samefile(ROOT / name), f"{link} is no link: see CONTRIBUTING.md"


@pytest.mark.slow
def test_wheel_runs_beside_a_layers_module_of_the_users_own(tmp_path):
    sources = copy_sources(tmp_path / "sources")
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", tmp_path / "wheel", sources], check=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    environment = make_environment(tmp_path / "environment")
    install(environment, wheel)

    folder = users_folder(tmp_path / "users")
    for name in ("tfrecords", "train", "describe", "convert", "evaluate", "export", "predict", "client"):
        command = [environment / "bin" / f"alexnet-{name}", "--help"]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert "--[no]debug" in result.stdout, result.stderr
    script = (
        "import alexnet_tf.layers, pathlib; from alexnet_tf.tfrecords import sources;"
        "print(alexnet_tf.layers.__file__, sources.open_source('fashion_mnist').count('train'));"
        "assert (pathlib.Path(alexnet_tf.__file__).parent / 'recipes' / 'paper.flags').exists();"
        "assert (pathlib.Path(alexnet_tf.__file__).parent / 'py.typed').exists()"
    )
    file, count = run_in(folder, environment / "bin" / "python", "-c", script).split()
    assert file.startswith(str(environment))
    assert count == "3000"


@pytest.mark.slow
@pytest.mark.long
def test_sdist_builds_the_wheel_of_the_checkout(tmp_path):
    sources = copy_sources(tmp_path / "sources")
    tools = tmp_path / "tools"
    requirement = re.search(r'requires = \["(setuptools.+?)"\]', (ROOT / "pyproject.toml").read_text())[1]
    subprocess.run([*PIP, "install", "--target", tools, requirement], check=True)
    script = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path / 'sdist')!r})"
    run_in(sources, sys.executable, "-c", script, PYTHONPATH=str(tools))
    (sdist,) = (tmp_path / "sdist").iterdir()
    with tarfile.open(sdist) as archive:
        assert not [member.name for member in archive if member.issym()]

    packed = []
    for source in (sources, sdist):
        folder = tmp_path / f"wheel-{len(packed)}"
        subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
        with zipfile.ZipFile(next(folder.iterdir())) as archive:
            packed.append({name for name in archive.namelist() if ".dist-info/" not in name})
            metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    expected = {
        (pathlib.Path(folder) / name).relative_to(ROOT).as_posix()
        for folder, _, names in os.walk(ROOT / "alexnet_tf", followlinks=True)
        for name in names
        if pathlib.Path(name).suffix != ".pyc"
    }
    assert packed[0] == packed[1] == expected
    assert f"Version: {alexnet_tf.__version__}\n" in metadata
    assert "Description-Content-Type: text/markdown" in metadata and "# AlexNet" in metadata


@pytest.mark.slow
def test_editable_installation_imports_each_module_once_and_pyright_finds_it(tmp_path):
    sources = copy_sources(tmp_path / "sources")
    environment = make_environment(tmp_path / "environment")
    install(environment, "--editable", sources)
    python = environment / "bin" / "python"
    file = run_in(users_folder(tmp_path / "users"), python, "-c", IMPORT_ALL)
    assert file.startswith(str(sources))
    script = tmp_path / "users" / "script.py"
    script.write_text("import alexnet_tf\nreveal_type(alexnet_tf.build_alexnet)\n")
    command = [sys.executable, "-m", "pyright", "--pythonpath", python, script]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert 'Type of "alexnet_tf.build_alexnet" is "(variant: str' in printed, printed


@pytest.mark.slow
@pytest.mark.long
def test_checkout_imports_each_module_once_without_installation(tmp_path):
    sources = copy_sources(tmp_path / "sources")
    python = make_environment(tmp_path / "environment") / "bin" / "python"
    assert run_in(sources, python, "-c", IMPORT_ALL).startswith(str(sources))
