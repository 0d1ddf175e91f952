"""The examples in deploy/, by the checkers of what they are for, and by running what of them can run here."""

import os
import pathlib
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from alexnet_tf import distribution

DEPLOY = pathlib.Path(__file__).parent.parent / "deploy"
PROGRAMS = pathlib.Path(sys.executable).parent


def documents():
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


class TestKubernetes:
    @pytest.mark.parametrize("document", documents(), ids=lambda document: document["kind"])
    def test_manifest_is_of_kubernetes_own_schema(self, document):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)

    def test_manifest_with_a_wrong_field_would_be_refused(self):
        _, job = documents()
        job["spec"]["completionMod"] = "Indexed"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)

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
        worker = distribution.this_worker()
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
        environment |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        result = subprocess.run(["bash", DEPLOY / "slurm.sbatch"], env=environment, check=False)
        assert result.returncode == status
        assert (tmp_path / "asked").exists() == requeued
        if requeued:
            assert (tmp_path / "asked").read_text() == "requeue 7\n"
