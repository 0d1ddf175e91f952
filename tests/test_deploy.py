"""The examples in deploy/, by the checkers of what they are for, and by running what of them can run here."""

import json
import os
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from alexnet_tf.distribution import workers

DEPLOY = pathlib.Path(__file__).parent.parent / "deploy"
PROGRAMS = pathlib.Path(sys.executable).parent


def documents(name="kubernetes.yaml"):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


class TestKubernetes:
    @pytest.mark.parametrize("document", [*documents(), *documents("serving/kubernetes.yaml")])
    def test_manifest_has_the_schema_of_kubernetes(self, document):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)

    @pytest.mark.parametrize("index", [0, 3])
    def test_each_pod_tells_its_workers_addresses_to_tensorflow(self, index, tmp_path, monkeypatch):
        service, job = documents()
        (container,) = job["spec"]["template"]["spec"]["containers"]
        program = tmp_path / "alexnet-train"
        program.write_text('#!/bin/sh\nprintf %s "$TF_CONFIG"\n')
        program.chmod(0o755)
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        environment |= {"JOB_COMPLETION_INDEX": str(index), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = [*container["command"], *container["args"]]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        monkeypatch.setenv("TF_CONFIG", result.stdout)
        worker = workers.this_worker()
        assert worker.number == index
        assert len(worker.addresses) == job["spec"]["completions"] == job["spec"]["parallelism"] == 4
        name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
        port = service["spec"]["ports"][0]["port"]
        assert worker.addresses[2] == f"{name}-2.{subdomain}:{port}"
        assert subdomain == service["metadata"]["name"]


class TestSlurm:
    def test_script_passes_shellcheck(self):
        command = [PROGRAMS / "shellcheck", DEPLOY / "slurm.sbatch"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout

    @pytest.mark.parametrize(
        "status, restarts, requeued",
        [(75, 0, True), (69, 9, True), (137, 3, True), (143, 0, True), (69, 10, False), (1, 0, False), (0, 0, False)],
    )
    def test_script_asks_to_be_started_again_where_that_helps(self, status, restarts, requeued, tmp_path):
        for name, text in (("srun", f"exit {status}"), ("scontrol", f'echo "$@" > {tmp_path / "asked"}')):
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        environment |= {"HOME": str(tmp_path)}  # a Bazel sandbox has none
        environment |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        result = subprocess.run(["bash", DEPLOY / "slurm.sbatch"], env=environment, check=False)
        assert result.returncode == status
        assert (tmp_path / "asked").exists() == requeued
        if requeued:
            assert (tmp_path / "asked").read_text() == "requeue 7\n"


SERVING = DEPLOY / "serving"


class TestServing:
    def test_models_config_is_of_the_servers_own_proto(self):
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse((SERVING / "models.config").read_text(), config)
        (model,) = config.model_config_list.config
        # The names that alexnet-client asks for and that the README exports to.
        assert (model.name, model.base_path, model.model_platform) == ("alexnet", "/models/alexnet", "tensorflow")
        assert model.model_version_policy.latest.num_versions == 2

    def test_batching_and_monitoring_configs_have_the_servers_fields(self):
        # Their protos, BatchingParameters and MonitoringConfig, are in no Python package.
        batching = (SERVING / "batching.config").read_text()
        values = dict(re.findall(r"^(\w+) \{ value: (\d+) \}$", batching, re.MULTILINE))
        assert [*values] == ["max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"]
        (sizes,) = re.findall(r"^allowed_batch_sizes: (\[.*\])$", batching, re.MULTILINE)
        sizes = json.loads(sizes)  # the server wants them ascending, and the last the largest batch
        assert sizes == sorted(sizes) and sizes[-1] == int(values["max_batch_size"]) == 32
        lines = [line for line in batching.splitlines() if not line.startswith("#")]
        assert len(lines) == len(values) + 1
        monitoring = (SERVING / "monitoring.config").read_text().split("\n", 1)[1]
        assert monitoring == 'prometheus_config {\n  enable: true\n  path: "/monitoring/prometheus/metrics"\n}\n'

    def test_manifest_and_compose_file_start_the_same_server(self):
        service, deployment = documents("serving/kubernetes.yaml")
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        (compose,) = yaml.safe_load((SERVING / "docker-compose.yml").read_text())["services"].values()
        assert container["args"] == compose["command"]
        assert compose["image"] == "${TENSORFLOW_SERVING_IMAGE:-" + container["image"] + "}"
        configs = {argument.split("=/config/")[1] for argument in compose["command"] if "=/config/" in argument}
        assert configs == {path.name for path in SERVING.glob("*.config")}
        mounted = dict(volume.removesuffix(":ro").rsplit(":", 1)[::-1] for volume in compose["volumes"])
        assert mounted.pop("/models") == "${SERVED:-../../served}"
        assert mounted == {f"/config/{name}": f"./{name}" for name in configs}
        assert all(volume.endswith(":ro") for volume in compose["volumes"])
        assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/models", "/config"}
        assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
        ports = [port["port"] for port in service["spec"]["ports"]]
        assert ports == [port["containerPort"] for port in container["ports"]] == [8500, 8501]
        assert compose["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
