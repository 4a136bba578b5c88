"""The folder that is written, and what Kustomize makes of it."""

from __future__ import annotations

import shutil

import pytest
import yaml

from dsv4_serve.entrypoint.cli.main import main
from dsv4_serve.entrypoint.errors import ConfigError, HostError, NotFound
from dsv4_serve.entrypoint.kubernetes import write
from dsv4_serve.entrypoint.kubernetes.overlay import documents

DIGEST = f"sha256:{'a' * 64}"
H200 = ("--profile", "524k", "--hardware", "h200")


def replica(objects):
    spec = objects["Deployment/dsv4"]["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def models(spec):
    return next({k: v for k, v in one.items() if k != "name"} for one in spec["volumes"] if one["name"] == "models")


@pytest.fixture
def made(overlay_for, rendered, tmp_path):
    """The objects of an overlay, as they are applied."""

    def make(*argv):
        write.folder(overlay_for(*H200, *argv), tmp_path / "out")
        return rendered(tmp_path / "out")

    return make


def test_the_folder_stands_alone(overlay_for, rendered, tmp_path):
    write.folder(overlay_for(*H200), tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert len(rendered(tmp_path / "elsewhere")) > 4
    assert {one.name for one in (tmp_path / "elsewhere").iterdir()} == {"base", "kustomization.yaml", "replica.yaml"}


def test_every_object_goes_into_the_namespace_and_has_as_many_replicas_as_requested(made):
    objects = made("--replicas", "7", "--namespace", "llm")
    assert {one["metadata"]["namespace"] for one in objects.values()} == {"llm"}
    assert objects["Deployment/dsv4"]["spec"]["replicas"] == 7


def test_every_container_is_of_the_image_by_its_digest(made):
    image = f"registry.example.com:5000/team/dsv4@{DIGEST}"
    spec, _ = replica(made("--weights", "fetch", "--image", image))
    containers = [*spec["containers"], *spec["initContainers"]]
    assert {one["image"] for one in containers} == {image}
    assert len(containers) == 3


def test_a_tag_next_to_the_digest_stays(made):
    _, container = replica(made("--image", f"dsv4:1.0@{DIGEST}"))
    assert container["image"] == f"dsv4:1.0@{DIGEST}"


def test_names_that_yaml_reads_as_numbers_stay_names(made):
    spec, _ = replica(objects := made("--weights", "pvc:123", "--namespace", "456"))
    assert models(spec)["persistentVolumeClaim"]["claimName"] == "123"
    assert objects["Deployment/dsv4"]["metadata"]["namespace"] == "456"


def test_what_the_base_says_of_a_replica_stays(made, rendered):
    base, base_container = replica(rendered(write.SHIPPED / "base"))
    spec, container = replica(made("--tp", "4", "--weights", "hostpath:/srv/models"))
    assert {name: one for name, one in spec.items() if name not in ("affinity", "containers", "volumes")} == {
        name: one for name, one in base.items() if name not in ("containers", "volumes")
    }
    changed = ("env", "resources")
    assert {k: v for k, v in container.items() if k not in changed} == {
        k: v for k, v in base_container.items() if k not in changed
    }
    env = {one["name"]: one["value"] for one in container["env"]}
    assert env == {one["name"]: one["value"] for one in base_container["env"]} | {
        "PROFILE": "524k",
        "MODEL": "w4a16=/models/w4a16",
        "TP": "4",
    }
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4


@pytest.mark.parametrize(
    ("weights", "volume"),
    [
        ("pvc:nvme-models", {"persistentVolumeClaim": {"claimName": "nvme-models", "readOnly": True}}),
        ("hostpath:/srv/models", {"hostPath": {"path": "/srv/models", "type": "Directory"}}),
        (f"image:r:5000/m@{DIGEST}", {"image": {"reference": f"r:5000/m@{DIGEST}", "pullPolicy": "IfNotPresent"}}),
        ("fetch", {"persistentVolumeClaim": {"claimName": "dsv4-models", "readOnly": False}}),
    ],
)
def test_the_weights_come_from_where_they_are_and_from_nowhere_else(made, weights, volume):
    spec, _ = replica(made("--weights", weights))
    assert models(spec) == volume


def test_fetching_fetches_and_verifies_the_model_that_is_served(made):
    spec, container = replica(made("--weights", "fetch", "--model", "acti"))
    assert [one["name"] for one in spec["initContainers"]] == ["fetch", "verify"]
    for one in spec["initContainers"]:
        assert next(v["value"] for v in one["env"] if v["name"] == "WEIGHTS") == "acti"
        assert one["args"][-2:] == ["--to", "/models/$(WEIGHTS)"]
    assert {"name": "MODEL", "value": "acti=/models/acti"} in container["env"]


@pytest.mark.parametrize("weights", ["pvc:123", "pvc:true", "hostpath:/srv/models", f"image:m@{DIGEST}", "fetch"])
@pytest.mark.parametrize("namespace", ["456", "null", "llm"])
def test_the_text_holds_the_document_and_every_value_keeps_its_type(overlay_for, weights, namespace):
    overlay = overlay_for(*H200, "--weights", weights, "--namespace", namespace, "--image", f"dsv4@{DIGEST}")
    read = {name: yaml.safe_load(text) for name, text in write.files(overlay).items()}
    assert read == documents(overlay)
    assert read["kustomization.yaml"]["namespace"] == namespace


def test_what_has_to_be_there_stands_above_as_comments(overlay_for):
    text = write.files(overlay_for(*H200))["kustomization.yaml"]
    above = [line for line in text.splitlines() if line.startswith("#")]
    assert text.startswith("# dsv4 manifests --profile 524k")
    assert "# Before it is applied: claim dsv4-models must hold the weights." in above


def test_a_line_break_in_an_option_stays_in_the_comment(overlay_for):
    overlay = overlay_for(*H200, "--model", "acti=/models/a\nkeys: more")
    assert yaml.safe_load(write.files(overlay)["kustomization.yaml"]) == documents(overlay)["kustomization.yaml"]


def test_a_folder_that_holds_something_is_left_alone(overlay_for, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write.folder(overlay_for(*H200), tmp_path / "out")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write.folder(overlay_for(*H200), tmp_path / "out/mine")
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(overlay_for, tmp_path):
    (tmp_path / "out").mkdir()
    write.folder(overlay_for(*H200), tmp_path / "out")
    assert (tmp_path / "out/kustomization.yaml").is_file()


def test_a_folder_that_cannot_be_made_is_reported(overlay_for, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot write"):
        write.folder(overlay_for(*H200), tmp_path / "file/out")


def test_without_a_folder_the_rendered_stream_goes_to_stdout_and_notes_to_stderr(rendered, capsys):
    del rendered  # it skips without kubectl
    assert main(["manifests", *H200, "--replicas", "3"]) == 0
    printed = capsys.readouterr()
    kinds = [one["kind"] for one in yaml.safe_load_all(printed.out)]
    assert "Deployment" in kinds
    assert "the image has no digest yet" in printed.err
    assert "create secret generic dsv4-api-key" in printed.err


def test_without_kubectl_the_way_out_is_named(overlay_for, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="--out DIR"):
        write.stream(overlay_for(*H200))


def test_the_command_that_made_it_makes_it_again(overlay_for, tmp_path):
    argv = (*H200, "--replicas", "3", "--weights", "hostpath:/srv/m", "--image", f"dsv4@{DIGEST}", "--skip", "weights")
    write.folder(overlay_for(*argv), tmp_path / "one")
    command = (tmp_path / "one/kustomization.yaml").read_text().splitlines()[0].removeprefix("# dsv4 manifests ")
    write.folder(overlay_for(*command.split()), tmp_path / "two")
    for name in ("kustomization.yaml", "replica.yaml"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
