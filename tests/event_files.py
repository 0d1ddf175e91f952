"""What a run logged, read back from TensorBoard's files."""

import collections

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2


def entries(folder):
    """The content of a folder's event files: {tag: {step: value}}, and the graph's nodes under "graph"."""
    found = collections.defaultdict(dict)
    for file in sorted(folder.glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            if event.graph_def:
                found["graph"] = tf.compat.v1.GraphDef.FromString(event.graph_def).node
            for value in event.summary.value:
                content = tf.make_ndarray(value.tensor)
                found[value.tag][event.step] = content if content.ndim else content.item()
    return found


def profiled_steps(folder):
    """The training steps in the profile below a run's folder."""
    (file,) = folder.rglob("*.xplane.pb")
    return [
        stat.int64_value
        for plane in xplane_pb2.XSpace.FromString(file.read_bytes()).planes
        for line in plane.lines
        for event in line.events
        for stat in event.stats
        if plane.event_metadata[event.metadata_id].name == "train"
        and plane.stat_metadata[stat.metadata_id].name == "step_num"
    ]
