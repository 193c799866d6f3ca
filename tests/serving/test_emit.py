"""Files for clusters: Serve's own schema takes the one, what a RayService may hold bounds the other. None is here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from playbill.cli import compose, main
from playbill.errors import ConfigError
from playbill.serving import emit
from playbill.serving.settings import ServeSettings

ROOT = Path(__file__).parents[2]
STATE = "state='redis://store:6379/0?prefix=shop'"
# a layout, and what its file must hold: cores and GPUs of the pods in all, at least and at most
LAYOUTS = {
    "as it is": ([], (2, 2), 0),
    "grows": (["replicas=3", "autoscale.most_replicas=20"], (3, 20), 0),
    "rankers on CPUs": (["layout=composed", "ranker.replicas=6"], (8, 8), 0),
    "rankers on GPUs": (["layout=composed", "ranker.gpus=1", "ranker.replicas=2", "ranker.most_replicas=5"], (4, 7), 5),
    "shares of GPUs": (["layout=composed", "ranker.gpus=0.25", "ranker.replicas=6"], (8, 8), 2),
    "an index in parts": (["shards=16", "replicas=4", "ingress=python"], (20, 20), 0),
}


def settings(*given: str) -> ServeSettings:
    made = compose("serve", ["emit=kuberay", "to=x.yaml", STATE, *given])
    assert isinstance(made, ServeSettings)
    return made


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "rayservice.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_serve_file_is_what_serve_takes_and_what_our_builder_takes(name: str, tmp_path: Path) -> None:
    given, _, _ = LAYOUTS[name]
    path = tmp_path / "serve.yaml"
    assert main(["serve", "emit=serve_config", f"to={path}", STATE, *given]) == 0
    # in a process of its own: Ray must not be imported where tests set its environment later
    program = """
import sys, yaml
from ray.serve.schema import ServeDeploySchema
from playbill.serving.app import build
raw = yaml.safe_load(open(sys.argv[1]))
config = ServeDeploySchema.model_validate(raw)
scales = {d["name"]: d.get("autoscaling_config") for d in raw["applications"][0]["deployments"]}
[application] = config.applications
assert application.import_path == "playbill.serving.app:build", application.import_path
bound = build(application.args)
found = {}
def walk(node):
    found[node._bound_deployment.name] = node._bound_deployment
    for other in (*node._bound_deployment.init_args, *node._bound_deployment.init_kwargs.values()):
        if hasattr(other, "_bound_deployment"):
            walk(other)
walk(bound)
assert sorted(found) == sorted(d.name for d in application.deployments), found
for written in application.deployments:
    in_code = found[written.name]._deployment_config
    assert in_code.max_ongoing_requests == written.max_ongoing_requests
    assert in_code.user_config == written.user_config
    scaled = scales[written.name]
    assert (in_code.autoscaling_config is None) == (not scaled)
    if scaled:
        assert in_code.autoscaling_config.max_replicas == scaled["max_replicas"]
print("fits")
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().endswith("fits"), done.stderr[-2000:]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_manifest_is_a_rayservice_with_room_for_every_process(name: str) -> None:
    given, (least, most), gpus = LAYOUTS[name]
    made = emit.ray_service(settings(*given))
    jsonschema.validate(made, schema())
    inner = yaml.safe_load(made["spec"]["serveConfigV2"])
    assert inner == emit.serve_config(settings(*given))
    groups = made["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cores = [int(g["rayStartParams"]["num-cpus"]) for g in groups]
    assert sum(c * g["minReplicas"] for c, g in zip(cores, groups, strict=True)) >= least
    assert sum(c * g["maxReplicas"] for c, g in zip(cores, groups, strict=True)) >= most
    of = [g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in groups]
    assert sum(int(o.get("nvidia.com/gpu", 0)) * g["maxReplicas"] for o, g in zip(of, groups, strict=True)) == gpus
    assert all(int(o["cpu"]) == c + 1 for o, c in zip(of, cores, strict=True))
    grows = any(g["maxReplicas"] > g["minReplicas"] for g in groups)
    assert made["spec"]["rayClusterConfig"].get("enableInTreeAutoscaling", False) == grows
    assert groups[0]["minReplicas"] >= 2  # one pod may end


def test_the_schema_refuses_what_a_rayservice_does_not_have() -> None:
    made = emit.ray_service(settings())
    made["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'minReplica' was unexpected"):
        jsonschema.validate(made, schema())
    made = emit.ray_service(settings())
    made["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError, match="0 is not of type 'string'"):
        jsonschema.validate(made, schema())


def test_the_file_holds_what_was_asked_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "playbill.yaml"
    assert (
        main(["serve", "emit=kuberay", f"to={path}", STATE, "shards=4", "deadline_ms=60", "cluster.image=shop/serve:3"])
        == 0
    )
    told = " ".join(capsys.readouterr().err.split())
    assert str(path) in told.replace(" ", "") or "playbill.yaml" in told
    made = yaml.safe_load(path.read_text())
    jsonschema.validate(made, schema())
    [application] = yaml.safe_load(made["spec"]["serveConfigV2"])["applications"]
    state = "redis://store:6379/0?prefix=shop"
    assert application["args"] == {"home": "/var/lib/playbill", "state": state, "shards": 4, "deadline_ms": 60.0}
    images = {
        g["template"]["spec"]["containers"][0]["image"] for g in made["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    }
    assert images == {"shop/serve:3"} and "never run on a cluster" in path.read_text().splitlines()[0]
    assert "&id" not in path.read_text()


def test_the_usual_images_are_those_of_docker() -> None:
    cluster = ServeSettings().cluster
    for image in (cluster.image, cluster.gpu_image):
        file = ROOT / "docker" / f"{image.partition(':')[0].removeprefix('playbill-')}.Dockerfile"
        assert f"-t {image.partition(':')[0]} ." in file.read_text()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["emit=kuberay", "to=x.yaml"], "share their state over Redis"),
        (["emit=serve_config", "to=x.yaml", "state=/var/state"], "share their state over Redis"),
        (["emit=kuberay", "to=x.yaml", "state='redis://:secret@store:6379/0'"], "would hold the password"),
    ],
)
def test_what_cannot_hold_on_a_cluster(given: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        emit.check(compose("serve", given))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["emit=kuberay"], "expected both, as in emit=kuberay to=playbill.yaml"),
        (["to=x.yaml"], "expected both"),
        (["emit=nomad", "to=x"], "emit"),
        (["ranker.gpus=1.5"], "a share of one GPU or a whole number"),
        (["autoscale.ongoing=0"], "above 0"),
        (["cluster.home=var"], "an absolute path"),
        (["layout=spread"], "layout"),
    ],
)
def test_settings_that_cannot_be(given: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        compose("serve", given)
