"""`import alexnet_tf`: it is light, it registers the project's classes with Keras, and its names have types."""

import ast
import os
import pathlib
import subprocess
import sys

import keras
import pytest

import alexnet_tf
from alexnet_tf import registration
from alexnet_tf.model import build_alexnet
from alexnet_tf.training.optimizers import PaperMomentum

PACKAGE = pathlib.Path(alexnet_tf.__file__).parent


def run_python(script, *arguments, **variables):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light_and_keeps_the_finders_in_order():
    script = (
        "import importlib.util, sys; others = list(sys.meta_path); import alexnet_tf;"
        "assert not {'keras', 'tensorflow', 'numpy', 'absl'} & set(sys.modules), sorted(sys.modules);"
        "assert sys.meta_path[2:] == others;"  # one finder waits for Keras, one for TensorFlow
        "assert importlib.util.find_spec('keras').name == 'keras' and 'keras' not in sys.modules;"
        "assert importlib.util.find_spec('keras_that_is_not_there') is None;"
        "assert sys.meta_path[2:] == others;"
        "assert alexnet_tf.VARIANTS['paper'] and 'tensorflow' not in sys.modules"
    )
    run_python(script)


def registered_in(path):
    """The names of the classes in a file that are decorated with `register_keras_serializable`."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any("register_keras_serializable" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def test_all_modules_with_registered_classes_are_in_the_list():
    paths = [path for pattern in ("*.py", "*/*.py") for path in PACKAGE.glob(pattern)]
    decorated = {path.relative_to(PACKAGE).as_posix(): names for path in paths if (names := registered_in(path))}
    listed = {name.removeprefix("alexnet_tf.").replace(".", "/") for name in registration._MODULES}
    assert {name.removesuffix(".py") for name in decorated if not name.startswith("layers/")} == listed - {"layers"}
    for name in set().union(*decorated.values()):
        assert keras.saving.get_registered_object(f"alexnet_tf>{name}") is not None, name


def test_modules_in_the_list_need_no_names_from_each_other():
    modules = {name: PACKAGE.parent / f"{name.replace('.', '/')}.py" for name in registration._MODULES[1:]}
    for name, path in modules.items():
        imported = {node.module for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)}
        assert not imported & modules.keys(), name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network, as a file."""
    build_alexnet("testing", 10).save(path := tmp_path_factory.mktemp("saved") / "model.keras")
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A compiled model of the paper's optimizer, as a file."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(PaperMomentum(0.125), "mse")
    model.save(path := tmp_path_factory.mktemp("compiled") / "model.keras")
    return path


# TensorFlow imports Keras itself, and each module that registers classes may be the first that imports Keras.
SLOW_FIRST_IMPORTS = [
    "alexnet_tf, tensorflow, keras",
    "tensorflow, alexnet_tf, keras",
    "alexnet_tf.layers.device_placement",
    *registration._MODULES,
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "alexnet_tf, keras",
        pytest.param("keras, alexnet_tf", marks=pytest.mark.slow),
        *(pytest.param(first, marks=[pytest.mark.slow, pytest.mark.long]) for first in SLOW_FIRST_IMPORTS),
    ],
)
def test_saved_models_open_after_importing_the_package_alone(first, saved, compiled):
    script = (
        f"import {first}; import keras, sys; model, compiled = map(keras.models.load_model, sys.argv[1:]);"
        "print(model.count_params(), type(compiled.optimizer).__name__, float(compiled.optimizer.learning_rate));"
        "assert keras.saving.get_registered_object('alexnet_tf>WarmUp').__module__ == 'alexnet_tf.training.schedules'"
    )
    parameters, optimizer, rate = run_python(script, saved, compiled).split()
    assert int(parameters) == keras.models.load_model(saved).count_params()
    assert (optimizer, float(rate)) == ("PaperMomentum", 0.125)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["alexnet_tf, keras", pytest.param("keras, alexnet_tf", marks=pytest.mark.long)])
def test_saved_model_opens_on_jax_where_tensorflow_is_missing(first, saved):
    script = (
        f"import sys; sys.modules['tensorflow'] = None; import {first};"
        "model = keras.models.load_model(sys.argv[1]); print(keras.backend.backend(), len(model.layers))"
    )
    assert run_python(script, saved, KERAS_BACKEND="jax").split()[0] == "jax"


def test_type_checkers_see_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    modules = {alias.asname: node.module.removeprefix("alexnet_tf.") for node in block.body for alias in node.names}
    assert modules == alexnet_tf._MODULES
