"""The Keras layers that AlexNet needs and Keras does not have."""

from alexnet_tf.layers.column_dense import ColumnDense
from alexnet_tf.layers.column_layer import ColumnLayer
from alexnet_tf.layers.column_wise import ColumnWise
from alexnet_tf.layers.grouped_conv2d import GroupedConv2D
from alexnet_tf.layers.local_response_normalization import LocalResponseNormalization
from alexnet_tf.layers.locally_connected_2d import LocallyConnected2D
from alexnet_tf.layers.mean_image import MeanImage
from alexnet_tf.layers.paper_dropout import PaperDropout, ReplicaDropout
from alexnet_tf.layers.preprocess import Preprocess
from alexnet_tf.layers.within_map_normalization import WithinMapNormalization

__all__ = [
    "ColumnDense",
    "ColumnLayer",
    "ColumnWise",
    "GroupedConv2D",
    "LocalResponseNormalization",
    "LocallyConnected2D",
    "MeanImage",
    "PaperDropout",
    "Preprocess",
    "ReplicaDropout",
    "WithinMapNormalization",
]
