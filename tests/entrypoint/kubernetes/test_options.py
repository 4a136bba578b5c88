"""From a command line to an overlay: what it says, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.cli.main import main
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.kubernetes.overlay import documents
from dsv4_serve.entrypoint.kubernetes.write import SHIPPED
from tests.support.each import each

DIGEST = f"sha256:{'a' * 64}"
ON_GPUS = [name for name in Catalog([]).names("hardware") if name != "cpu"]


def pod(overlay):
    """The pod of an overlay's patch, and its only container."""
    spec = documents(overlay)["replica.yaml"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def env(container):
    return {one["name"]: one["value"] for one in container["env"]}


@pytest.mark.parametrize("hardware", ON_GPUS)
@each("profile", [name for name in Catalog([]).names("profile") if not name.startswith("demo")])
def test_what_explain_refuses_is_refused_with_the_same_message(profile, hardware, capsys, tmp_path):
    argv = ["--profile", profile, "--hardware", hardware]
    explained = main(["explain", *argv]), capsys.readouterr().err
    written = (
        main(["manifests", *argv, "--replicas", "2", "--out", str(tmp_path / profile)]),
        capsys.readouterr().err,
    )
    assert written[0] == explained[0]
    assert (tmp_path / profile).exists() == (explained[0] == 0)
    if explained[0]:
        assert written == explained


@pytest.mark.parametrize(
    ("shipped", "argv"),
    [
        ("h200", ("--profile", "524k", "--hardware", "h200")),
        ("b300", ("--profile", "524k", "--hardware", "b300")),
        ("rtx-pro-6000-tp2", ("--profile", "524k", "--hardware", "rtx-pro-6000")),
        ("rtx-pro-6000-tp4", ("--profile", "throughput", "--hardware", "rtx-pro-6000", "--tp", "4")),
    ],
)
def test_it_says_the_same_as_the_overlay_that_is_shipped_for_a_hardware_which_serves_its_default(
    overlay_for, shipped, argv
):
    text = (SHIPPED / "overlays" / shipped / "replica.yaml").read_text()
    theirs = yaml.safe_load(text)["spec"]["template"]["spec"]
    spec, ours = pod(overlay_for(*argv))
    assert env(ours) == env(theirs["containers"][0])
    assert ours["resources"] == theirs["containers"][0]["resources"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (label,) = terms[0]["matchExpressions"]
    assert theirs["nodeSelector"][label["key"]] in label["values"]


def test_every_name_that_nvml_has_for_the_gpu_is_a_label_that_is_taken(overlay_for):
    assert overlay_for("--profile", "524k", "--hardware", "b300").products == ("NVIDIA-B300-SXM6-AC", "NVIDIA-B300")
    assert overlay_for("--profile", "524k", "--hardware", "rtx-pro-6000-max-q").products == (
        "NVIDIA-RTX-PRO-6000-Blackwell-Max-Q-Workstation-Edition",
    )


def test_the_time_to_stop_is_that_of_the_base_where_the_profile_says_nothing_else(overlay_for):
    base = yaml.safe_load((SHIPPED / "base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    spec, _ = pod(overlay_for("--profile", "524k", "--hardware", "h200"))
    assert spec["terminationGracePeriodSeconds"] == base["terminationGracePeriodSeconds"]


def test_the_model_lies_in_a_folder_of_its_name_unless_one_is_named(overlay_for):
    argv = ("--profile", "524k", "--hardware", "h200")
    assert overlay_for(*argv).env["MODEL"] == "w4a16=/models/w4a16"
    assert overlay_for(*argv, "--model", "acti").env["MODEL"] == "acti=/models/acti"
    assert overlay_for(*argv, "--model", "acti=/models/a/b").env["MODEL"] == "acti=/models/a/b"


def test_what_is_fetched_lies_where_the_replica_looks_for_it(overlay_for):
    argv = ("--profile", "524k", "--hardware", "h200", "--weights", "fetch")
    named = overlay_for(*argv)
    assert (named.fetched, named.env["MODEL"]) == ("w4a16", "w4a16=/models/w4a16")
    other = overlay_for(*argv, "--model", "flash=someone/Flash-copy")
    assert (other.fetched, other.env["MODEL"]) == ("someone/Flash-copy", "flash=/models/someone/Flash-copy")


def test_a_folder_of_this_host_is_refused_because_a_pod_has_none(overlay_for):
    with pytest.raises(ConfigError, match="'/data/acti' does not exist in a pod; give a model, or NAME=/models/FOLDER"):
        overlay_for("--profile", "524k", "--hardware", "h200", "--model", "acti=/data/acti")
    with pytest.raises(ConfigError, match="give a model or a repository"):
        overlay_for("--profile", "524k", "--hardware", "h200", "--weights", "fetch", "--model", "acti=/models/acti")


def test_what_is_skipped_here_is_skipped_in_the_pod(overlay_for):
    argv = ("--profile", "1m", "--hardware", "rtx-pro-6000", "--model", "nvfp4", "--tp", "2", "--nccl", "p2p-on")
    with pytest.raises(ConfigError, match="use --skip kv-cache"):
        overlay_for(*argv)
    assert overlay_for(*argv, "--skip", "kv-cache").env["DSV4_SKIP"] == "kv-cache"
    assert overlay_for(*argv, "--skip", "kv-cache").env["DSV4_NCCL"] == "p2p-on"


def test_variables_that_the_manifest_does_not_hold_do_not_count(overlay_for, monkeypatch):
    monkeypatch.setenv("MAX_MODEL_LEN", "1024")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("TP", "4")
    made = overlay_for("--profile", "524k", "--hardware", "h200")
    assert (made.env["TP"], made.gpus) == ("4", 4)
    assert set(made.env) == {"PROFILE", "MODEL", "TP"}
    with pytest.raises(ConfigError, match="use --skip kv-cache"):  # with 1,024 tokens it would fit
        overlay_for("--profile", "1m", "--hardware", "rtx-pro-6000", "--model", "nvfp4", "--tp", "2")


def test_auto_becomes_the_profile_that_fits(overlay_for):
    assert overlay_for("--profile", "auto", "--hardware", "h200").env["PROFILE"] == "640k"


def test_the_gpus_have_to_be_named_because_those_of_this_host_are_others(overlay_for):
    with pytest.raises(ConfigError, match=r"--hardware \(HARDWARE\), one of b200, b300, "):
        overlay_for("--profile", "524k")


@pytest.mark.parametrize("model", [(), ("--model", "demo=/models/demo")])
def test_a_cpu_has_an_overlay_already(overlay_for, model):
    with pytest.raises(ConfigError, match="overlays/demo"):
        overlay_for("--profile", "demo", "--hardware", "cpu", *model)


@pytest.mark.parametrize("image", ["dsv4-serve", "registry.example.com/dsv4-serve:1.0", f"dsv4@{DIGEST[:-1]}", "dsv4@"])
def test_an_image_without_a_digest_is_refused_with_the_reason(overlay_for, image):
    with pytest.raises(ConfigError, match="A tag can move"):
        overlay_for("--profile", "524k", "--hardware", "h200", "--image", image)
    with pytest.raises(ConfigError, match="A tag can move"):
        overlay_for("--profile", "524k", "--hardware", "h200", "--weights", f"image:{image}")


@pytest.mark.parametrize(
    "weights",
    [
        "",
        "pvc",
        "pvc:",
        "pvc:Upper",
        "pvc:a}, b: {",
        "hostpath:models",
        "hostpath:/",
        "hostpath:/a/../b",
        "hostpath:/a b",
        "s3:x",
    ],
)
def test_weights_that_are_nowhere_are_refused(overlay_for, weights):
    with pytest.raises(ConfigError, match="--weights"):
        overlay_for("--profile", "524k", "--hardware", "h200", "--weights", weights)


@pytest.mark.parametrize("namespace", ["", "Upper", "a b", "a-", "a" * 64, "a\nb"])
def test_a_namespace_that_kubernetes_would_refuse_is_refused(overlay_for, namespace):
    with pytest.raises(ConfigError, match="--namespace"):
        overlay_for("--profile", "524k", "--hardware", "h200", "--namespace", namespace)


@pytest.mark.parametrize("replicas", ["0", "-1", "two", "1.5"])
def test_fewer_replicas_than_one_are_a_usage_error(replicas, capsys):
    assert main(["manifests", "--profile", "524k", "--hardware", "h200", "--replicas", replicas]) == 64
    assert "not a whole number of at least 1" in capsys.readouterr().err


def test_a_flag_of_vllm_is_refused_because_a_profile_says_those(capsys):
    argv = ["manifests", "--profile", "524k", "--hardware", "h200", "--replicas", "2", "--max-model-len", "1024"]
    assert main(argv) == 64
    assert "does not take '--max-model-len'" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "more"), [("", 0), ("40.5", 41)])
def test_copies_of_kv_caches_get_memory_of_their_own(overlay_for, monkeypatch, tmp_path, size, more):
    flags = f"kv-offloading-size = {size}\n" if size else ""
    (tmp_path / "keeps.toml").write_text(f'about = "keeps caches"\nextends = "524k"\n[flags]\n{flags}')
    monkeypatch.setenv("DSV4_PROFILES", str(tmp_path))
    spec, container = pod(overlay_for("--profile", "keeps", "--hardware", "h200"))
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    shared = {"medium": "Memory", "sizeLimit": f"{16 + more}Gi"} if more else None
    assert volumes.get("shm", {}).get("emptyDir") == shared
    assert container["resources"]["limits"]["memory"] == f"{96 + more}Gi"
    assert container["resources"]["requests"]["memory"] == f"{96 + more}Gi"
