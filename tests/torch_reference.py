"""AlexNet and its variants in PyTorch, written from the published facts alone, as a second opinion.

`build(name, num_classes)` gives a module that takes float images (batch, 3, side, side), RGB, centered and
scaled, and returns logits. It works in float64 after `.double()`. Weights are PyTorch's defaults: whoever
compares copies their own in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

# Every network is a walk along one list of layer names; a variant changes the list, the sizes, or both.
ORDER = (
    "pad1 conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 "
    "flatten fc6 relu6 drop6 fc7 relu7 drop7 fc8"
)


class AcrossMaps(nn.Module):
    """Local response normalization: a / (k + alpha * sum of a^2 over n neighboring maps)^beta.

    `alpha` multiplies the sum itself, not the mean. With `columns` = 2 each half of the maps is normalized
    by itself: a map near the border between the halves sees fewer neighbors.
    """

    def __init__(self, k: float, alpha: float, columns: int, n: int = 5, beta: float = 0.75) -> None:
        super().__init__()
        self.k, self.alpha, self.columns, self.n, self.beta = k, alpha, columns, n, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = []
        for own in x.chunk(self.columns, dim=1):
            maps, reach = own.shape[1], self.n // 2
            squares = functional.pad(own * own, (0, 0, 0, 0, reach, reach))
            total = sum(squares[:, shift : shift + maps] for shift in range(self.n))
            outputs.append(own / (self.k + self.alpha * total) ** self.beta)
        return torch.cat(outputs, dim=1)


class WithinMap(nn.Module):
    """Normalization inside one map: a / (1 + (scale / size^2) * sum of a^2 over size x size)^beta; zeros outside."""

    def __init__(self, scale: float = 1e-3, size: int = 5, beta: float = 0.75) -> None:
        super().__init__()
        self.scale, self.size, self.beta = scale, size, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (rows, columns), reach = x.shape[2:], self.size // 2
        squares = functional.pad(x * x, (reach, reach, reach, reach))
        # A square neighborhood is a sum over rows of sums over columns, which saves most of the additions.
        bands = sum(squares[:, :, shift : shift + rows] for shift in range(self.size))
        total = sum(bands[:, :, :, shift : shift + columns] for shift in range(self.size))
        return x / (1 + self.scale / self.size**2 * total) ** self.beta


class Local(nn.Module):
    """A 3 x 3 convolution with padding 1 whose kernels and biases differ from position to position."""

    def __init__(self, maps: int, filters: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.empty(9 * maps, filters, side * side)
        )  # (inputs map by map, filters, positions)
        self.bias = nn.Parameter(torch.empty(filters, side * side))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(x, 3, padding=1)
        sums = torch.einsum("bip,ifp->bfp", patches, self.weight) + self.bias
        return sums.unflatten(2, x.shape[2:])


class PaperDropout(nn.Module):
    """The 2012 dropout: in training a unit is kept as it is or zeroed; at test every output is halved."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return x * torch.empty_like(x).bernoulli_(1 - self.p)
        return x * (1 - self.p)


@dataclass(frozen=True)
class Variant:
    """What sets one network apart; the defaults are the paper's two columns."""

    order: str = ORDER
    side: int = 224
    # Kernels, groups and padding of conv1, conv2, ...; groups = 2 where a layer sees only its own column.
    kernels: tuple[int, ...] = (96, 256, 384, 384, 256, 256)
    sizes: tuple[int, ...] = (11, 5, 3, 3, 3, 3)
    strides: tuple[int, ...] = (4, 1, 1, 1, 1, 1)
    groups: tuple[int, ...] = (1, 2, 1, 2, 2, 1)
    padding: tuple[int, ...] = (0, 2, 1, 1, 1, 1)
    no_bias: tuple[str, ...] = ()
    lrn_k: float = 2.0
    lrn_alpha: float = 1e-4
    lrn_columns: int = 2
    lrn_n: int = 5
    pool_size: int = 3
    # Size and stride of pool1, if not as those of the others.
    first_pool: tuple[int, int] | None = None
    pool_ceil: tuple[str, ...] = ()
    units: tuple[int, int] = (4096, 4096)
    # Whether fc6 and fc7 are split in two, each half seeing its own column only.
    split_fc: bool = False
    rescaled_dropout: bool = False
    # Kernels of the locally-connected layers local3, local4.
    local: tuple[int, ...] = ()
    bn_affine: bool = True


def _without(*names: str, order: str = ORDER) -> str:
    """Return the order with the named layers left out."""
    return " ".join(layer for layer in order.split() if layer not in names)


# 227 pixels need no padding; the maps of both columns lie in one blob, and the normalization sees them all.
_CAFFE = Variant(order=_without("pad1"), side=227, lrn_k=1.0, lrn_alpha=1e-4 / 5, lrn_columns=1, rescaled_dropout=True)

_ALL_POOLS = ("pool1", "pool2", "pool3", "pool5")
_SMALL = {"sizes": (5, 5, 5), "strides": (1, 1, 1), "groups": (1, 1, 1), "padding": (2, 2, 2), "pool_ceil": _ALL_POOLS}
# The maps' sides are 32, 16, 8 and 4: each pooling takes partial windows at the bottom and right too.
_FOUR_LAYER = Variant(
    order="conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 pool3 flatten fc4",
    side=32,
    kernels=(32, 32, 64),
    **_SMALL,
)

# conv1 has no neuron, pool1 has; a second normalization within each map; LRN's alpha is divided by n.
_ORIGINAL = Variant(
    order=ORDER.replace("relu1 norm1 pool1", "norm1 pool1 relu1")
    .replace("relu2 norm2 pool2", "relu2 norm2 within2 pool2")
    .replace("relu5 pool5", "pool5 relu5"),
    lrn_alpha=1e-4 / 5,
)
_ORIGINAL_SIX = replace(_ORIGINAL, order=_ORIGINAL.order.replace("relu5 ", "relu5 conv6 relu_conv6 "))
_CUDA_CONVNET2 = replace(
    _ORIGINAL,
    order=_without("within2", order=_ORIGINAL.order),
    kernels=(64, 192, 384, 256, 256),
    groups=(1, 1, 1, 1, 1),
    lrn_columns=1,
)
_NO_OVERLAP = {"padding": (0, 1, 1, 1, 0), "pool_size": 2, "pool_ceil": _ALL_POOLS}
_ONE_COLUMN = {"kernels": (48, 128, 192, 192, 256), "groups": (1, 1, 1, 1, 1), "lrn_columns": 1}
_INDEPENDENT = {"kernels": (96, 320, 384, 384, 256), "groups": (1, 2, 2, 2, 2), "units": (8192, 4096), "split_fc": True}
# Crops of 24 pixels: sides 24, 12, 6.
_CIFAR = Variant(
    order="conv1 relu1 pool1 conv2 relu2 pool2 local3 relu3 local4 relu4 flatten fc10",
    side=24,
    kernels=(64, 64),
    local=(32, 32),
    **_SMALL,
)

_VARIANTS = {
    "paper": Variant(),
    "original": _ORIGINAL,
    "original_no_lrn": replace(_ORIGINAL, order=_without("norm1", "norm2", "within2", order=_ORIGINAL.order)),
    "original_no_overlap": replace(_ORIGINAL, **_NO_OVERLAP),
    "original_one_column": replace(_ORIGINAL, **_ONE_COLUMN),
    "original_independent_columns": replace(_ORIGINAL, **_INDEPENDENT),
    "original_six_conv": _ORIGINAL_SIX,
    "original_six_conv_2011": replace(_ORIGINAL_SIX, order=_ORIGINAL_SIX.order.replace("fc8", "fc_linear fc8")),
    "cuda_convnet2": _CUDA_CONVNET2,
    "krizhevsky_2014": replace(_CUDA_CONVNET2, kernels=(64, 192, 384, 384, 256)),
    "cifar_13pct": _CIFAR,
    "cifar_11pct": replace(
        _CIFAR,
        order=_CIFAR.order.replace("pool1", "pool1 norm1").replace("relu2", "relu2 norm2"),
        lrn_k=1.0,
        lrn_n=9,
        lrn_alpha=1e-3 / 9,
        lrn_columns=1,
        local=(64, 32),
    ),
    "caffe": _CAFFE,
    "caffe_224": replace(_CAFFE, side=224, pool_ceil=("pool5",)),
    "caffenet": replace(
        _CAFFE, order=_CAFFE.order.replace("norm1 pool1", "pool1 norm1").replace("norm2 pool2", "pool2 norm2")
    ),
    "one_weird_trick": Variant(
        order="conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 drop5 "
        "flatten fc6 relu6 drop6 fc7 relu7 fc8",
        kernels=(64, 192, 384, 256, 256),
        groups=(1, 1, 1, 1, 1),
        padding=(2, 2, 1, 1, 1),
        rescaled_dropout=True,
    ),
    "batch_norm": replace(
        _CAFFE,
        order="conv1 bn1 relu1 pool1 conv2 bn2 relu2 pool2 conv3 bn3 relu3 conv4 bn4 relu4 conv5 bn5 relu5 pool5 "
        "flatten fc6 relu6 drop6 fc7 relu7 drop7 fc8",
        # The shift of the batch normalization makes these biases idle; conv5 nevertheless keeps its own.
        no_bias=("conv1", "conv2", "conv3", "conv4"),
    ),
    "batch_norm_32k": replace(
        _CAFFE,
        order="conv1 relu1 pool1 bn2 conv2 relu2 pool2 bn3 conv3 relu3 bn4 conv4 relu4 bn5 conv5 relu5 pool5 "
        "flatten fc6 relu6 drop6 fc7 relu7 drop7 fc8",
        bn_affine=False,
    ),
    "no_lrn": Variant(order=_without("norm1", "norm2")),
    # Partial windows at the bottom and right, and less padding: 55, 28, 26, 13, 13, 13, 11, 6.
    "no_overlap": Variant(**_NO_OVERLAP),
    "one_column": Variant(**_ONE_COLUMN),
    "independent_columns": Variant(**_INDEPENDENT),
    "tanh": Variant(order=ORDER.replace("relu", "tanh")),
    "no_dropout": Variant(order=_without("drop6", "drop7")),
    "six_conv": Variant(order=ORDER.replace("pool5", "pool5 conv6 relu_conv6")),
    # The pool after a missing convolution stays, so the map sizes stay.
    # The first pooling takes over the stride of conv1, and conv2 sees the three colors.
    "no_conv1": Variant(
        order=_without("pad1", "conv1", "relu1", "norm1"), first_pool=(16, 8), groups=(1, 1, 1, 2, 2, 1)
    ),
    "no_conv2": Variant(order=_without("conv2", "relu2", "norm2")),
    "no_conv3": Variant(order=_without("conv3", "relu3")),
    "no_conv4": Variant(order=_without("conv4", "relu4")),
    "no_conv5": Variant(order=_without("conv5", "relu5")),
    "no_fc6": Variant(order=_without("fc6", "relu6", "drop6")),
    "no_fc7": Variant(order=_without("fc7", "relu7", "drop7")),
    "four_layer": _FOUR_LAYER,
    "four_layer_tanh": replace(_FOUR_LAYER, order=_FOUR_LAYER.order.replace("relu", "tanh")),
}

NAMES = tuple(_VARIANTS)


class AlexNet(nn.Module):
    """One variant: its layers as named submodules, run in the order they were added."""

    def __init__(self, variant: Variant, num_classes: int) -> None:
        """Walk along the variant's order, keeping count of the maps and their side to size each layer."""
        super().__init__()
        self.variant = variant
        self.side = variant.side
        maps, side = 3, variant.side
        for name in variant.order.split():
            if name.startswith("conv"):
                index = int(name[4:]) - 1
                size, stride, padding = variant.sizes[index], variant.strides[index], variant.padding[index]
                layer = nn.Conv2d(
                    maps,
                    variant.kernels[index],
                    size,
                    stride,
                    padding,
                    groups=variant.groups[index],
                    bias=name not in variant.no_bias,
                )
                maps, side = variant.kernels[index], (side + 2 * padding - size) // stride + 1
            elif name.startswith("pool"):
                ceil = name in variant.pool_ceil
                size, stride = variant.first_pool if variant.first_pool and name == "pool1" else (variant.pool_size, 2)
                layer = nn.MaxPool2d(size, stride, ceil_mode=ceil)
                side = (side - size + ceil) // stride + 1
            elif name == "pad1":
                # 224 gives 54.25 steps; the original program rounds up and reads zeros past bottom and right.
                layer = nn.ZeroPad2d((0, 3, 0, 3))
                side += 3
            elif name == "flatten":
                layer = nn.Flatten()
                maps, side = maps * side * side, 1
            elif name.startswith("fc"):
                is_last = name == variant.order.split()[-1]
                units = num_classes if is_last else {"fc_linear": 2048}.get(name) or variant.units[int(name[2:]) - 6]
                if variant.split_fc and not is_last:
                    layer = nn.ModuleList(nn.Linear(maps // 2, units // 2) for _ in range(2))
                else:
                    layer = nn.Linear(maps, units)
                maps = units
            elif name.startswith("bn"):
                layer = nn.BatchNorm2d(maps, eps=1e-4, affine=variant.bn_affine)
            elif name.startswith("local"):
                filters = variant.local[int(name[5:]) - 3]
                layer = Local(maps, filters, side)
                maps = filters
            elif name.startswith("norm"):
                layer = AcrossMaps(variant.lrn_k, variant.lrn_alpha, variant.lrn_columns, variant.lrn_n)
            elif name.startswith("within"):
                layer = WithinMap()
            elif name.startswith("drop"):
                layer = nn.Dropout(0.5) if variant.rescaled_dropout else PaperDropout()
            else:
                layer = nn.Tanh() if name.startswith("tanh") else nn.ReLU()
            self.add_module(name, layer)

    def outputs(self, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the name and the output of each layer for images (batch, 3, side, side)."""
        for name, layer in self.named_children():
            if isinstance(layer, nn.ModuleList):
                # Flattening goes channel by channel, so the first half of the vector is the first column.
                halves = zip(layer, x.chunk(2, dim=1), strict=True)
                x = torch.cat([linear(half) for linear, half in halves], dim=1)
            else:
                x = layer(x)
            yield name, x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, classes) of images (batch, 3, side, side)."""
        *_, (_, logits) = self.outputs(x)
        return logits


def build(name: str, num_classes: int) -> AlexNet:
    """Build the variant of that name (one of `NAMES`) for that many classes."""
    return AlexNet(_VARIANTS[name], num_classes)
