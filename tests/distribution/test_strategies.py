"""The workers in the environment, the strategies, and what each worker evaluates."""

import json

import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.distribution import strategies, workers
from alexnet_tf.tfrecords import reader, schema


def tf_config(cluster, task_type, index):
    return json.dumps({"cluster": cluster, "task": {"type": task_type, "index": index}, "environment": "cloud"})


class TestThisWorker:
    def test_without_a_cluster_there_is_one_worker(self):
        assert workers.this_worker() == workers.Worker(0, ("localhost",))
        assert workers.this_worker().is_chief

    def test_chief_and_workers_of_tf_config_are_numbered_from_the_chief(self, monkeypatch):
        cluster = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
        for number, (kind, index) in enumerate([("chief", 0), ("worker", 0), ("worker", 1)]):
            monkeypatch.setenv("TF_CONFIG", tf_config(cluster, kind, index))
            assert workers.this_worker() == workers.Worker(number, ("a:1", "b:1", "c:1"))

    def test_index_may_be_text_as_in_kubernetes(self, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", tf_config({"worker": ["a:1", "b:1"]}, "worker", "1"))
        assert workers.this_worker().number == 1

    @pytest.mark.parametrize(
        "text, message",
        [
            ("{", "TF_CONFIG must be JSON of the form"),
            *((text, "TF_CONFIG must be JSON of the form") for text in ("", "[]", "null", "1", '{"cluster": []}')),
            ("[" * 100_000, "TF_CONFIG must be JSON of the form"),
            ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": null}}', "TF_CONFIG must be JSON"),
            ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG must be JSON of the form"),
            (tf_config({"worker": ["a:1"], "ps": ["b:1"]}, "worker", 0), "parameter servers. Received: ps"),
            (tf_config({"worker": "a:1"}, "worker", 0), "TF_CONFIG must be JSON of the form"),
            (tf_config({"worker": ["a:1", "a:1"]}, "worker", 0), "its own host:port. Received: a:1"),
            *(
                (tf_config({"worker": ["a:1", wrong]}, "worker", 0), f"its own host:port. Received: {wrong}")
                for wrong in ("b", "b:0", "b:99999", "b c:1", 7)
            ),
            (tf_config({"chief": ["a:1", "b:1"]}, "chief", 0), "only one chief. Received: a:1, b:1"),
            (tf_config({"worker": []}, "worker", 0), "in its cluster. Received: worker 0"),
            (tf_config({"worker": ["a:1"]}, "worker", -1), "in its cluster. Received: worker -1"),
            (tf_config({"worker": ["a:1"]}, "worker", 1), "in its cluster. Received: worker 1"),
            (tf_config({"worker": ["a:1"]}, "evaluator", 0), "in its cluster. Received: evaluator 0"),
        ],
    )
    def test_invalid_tf_config_is_refused(self, text, message, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(ValueError, match=message):
            workers.this_worker()

    def test_slurm_tasks_are_workers(self, monkeypatch):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
        monkeypatch.setenv("SLURM_STEP_NODELIST", "node[9-10]")  # as text, node10 would come first
        monkeypatch.setenv("SLURM_JOB_ID", "430007")
        monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "2(x2)")
        monkeypatch.setenv("SLURM_PROCID", "2")
        monkeypatch.setenv("TF_CONFIG", "")  # so that what this_worker sets is undone after the test
        monkeypatch.delenv("TF_CONFIG")
        worker = workers.this_worker()
        assert worker == workers.Worker(2, ("node9:20007", "node9:20008", "node10:20007", "node10:20008"))


class TestLostWorkers:
    @pytest.mark.parametrize(
        "cluster, own, error, lost",
        [
            ({"worker": ["a:1", "b:1", "c:1"]}, 0, "/job:worker/replica:0/task:2 is gone", ["worker 2 (c:1)"]),
            ({"worker": ["a:1", "b:1"]}, 1, "no name", ["worker 0 (a:1)"]),
            ({"worker": ["a:1", "b:1"]}, 0, "no name", []),
            ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, 0, "/job:worker/task:0", ["worker 1 (b:1)"]),
            ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, 2, "/job:chief/replica:0/task:0", ["worker 0 (a:1)"]),
        ],
    )
    def test_lost_workers_are_named_with_their_addresses(self, cluster, own, error, lost, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", tf_config(cluster, "worker", 0))
        addresses = (*cluster.get("chief", ()), *cluster["worker"])
        assert workers.lost_workers(Exception(error), workers.Worker(own, addresses)) == lost


class TestMakeStrategy:
    def test_auto_is_one_device_without_gpus_or_workers(self):
        assert strategies.make_strategy("auto") is tf.distribute.get_strategy()

    @pytest.mark.parametrize(
        "name, message",
        [
            ("several", "`strategy` must be one of auto, one, mirrored, multi_worker, tpu:NAME"),
            ("tpu:", "`strategy` must be one of"),
            ("multi_worker", "needs several workers"),
        ],
    )
    def test_invalid_strategy_is_refused(self, name, message):
        with pytest.raises(ValueError, match=message):
            strategies.make_strategy(name)

    @pytest.mark.parametrize("name", ["auto", "multi_worker"])
    def test_several_workers_train_together(self, name, monkeypatch):
        made = object()
        monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: made)
        assert strategies.make_strategy(name, workers.Worker(1, ("a:1", "b:1"))) is made

    def test_workers_that_would_train_on_their_own_are_refused(self):
        with pytest.raises(ValueError, match="each of the 2 workers would train on its own"):
            strategies.make_strategy("mirrored", workers.Worker(1, ("a:1", "b:1")))


class TestCheckWorkersAgree:
    def test_worker_that_differs_from_the_chief_is_named(self, monkeypatch):
        rows, worker = [], workers.Worker(1, ("a:1", "b:1", "c:1"))

        def gather_rows(strategy, worker, row):
            rows.extend(row)
            return np.array([rows[0], *row, rows[0]])  # workers 0 and 2 have what the first call had

        monkeypatch.setattr(strategies, "gather_rows", gather_rows)
        for _ in range(2):
            strategies.check_workers_agree(None, worker, {"seed": 1, "jit": "auto"})
        strategies.check_workers_agree(None, worker, {"jit": "auto", "seed": 1})
        with pytest.raises(ValueError, match=r"Worker 1 \(b:1\) differs from worker 0\. Worker 1 has {'seed': 2, "):
            strategies.check_workers_agree(None, worker, {"seed": 2, "jit": "auto"})


class TestShares:
    def test_batch_that_replicas_can_not_share_is_refused(self, tiny_data_dir):
        with pytest.raises(ValueError, match="`batch_size` must be a multiple of the number of replicas, 6"):
            reader.make_training_dataset(tiny_data_dir, 10, 40, share=reader.Share(0, 3, 2))

    @pytest.mark.parametrize(
        "num_workers, replicas, batch_size", [(1, 1, 4), (2, 1, 4), (3, 1, 4), (2, 2, 8), (1, 3, 3)]
    )
    def test_evaluation_reads_each_image_once_in_equally_many_batches(
        self, tiny_data_dir, num_workers, replicas, batch_size
    ):
        description = schema.load_description(tiny_data_dir)
        steps = reader.evaluation_steps(description, batch_size, all_replicas=num_workers * replicas)
        numbers = []
        for worker in range(num_workers):
            share = reader.Share(worker, num_workers, replicas)
            batches = list(reader.make_evaluation_dataset(tiny_data_dir, batch_size, 40, share=share))
            assert len(batches) == steps * replicas
            assert all(len(labels) for _, labels in batches)
            numbers += [number for images, _ in batches for number in images[:, 0, 0, 2].numpy()]
        assert sorted(numbers) == list(range(100, 110))

    def test_more_replicas_than_images_are_refused(self, tiny_data_dir):
        with pytest.raises(ValueError, match="'validation' must have an image for each of 11 replicas"):
            reader.make_evaluation_dataset(tiny_data_dir, 4, 40, share=reader.Share(0, 11))


@pytest.mark.parametrize("requests, stops", [([0.0, 0.0, 0.0], False), ([0.0, 1.0, 0.0], True), ([1.0] * 3, True)])
def test_all_workers_stop_at_the_request_of_one(requests, stops):
    model, inputs = strategies.DistributedModel(), iter([])
    logs = {"loss": tf.constant([0.5]), "stop_requested": tf.constant([np.mean(requests)])}  # Keras averages
    assert model._reading_stop_requests(lambda _: dict(logs))(inputs) == {"loss": 0.5}
    assert model.stop_agreed == stops
