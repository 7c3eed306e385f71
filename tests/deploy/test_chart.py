"""The Helm chart, rendered by Helm's SDK and checked against the schemas of Kubernetes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import yaml

from gateway.config.loader import parse
from tests.deploy.reading import CHART, rules

helm = pytest.importorskip("helm_python", reason="Helm's SDK is not installed: pip install helm-python-sdk")

EVERYTHING = {
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "secrets": {"env": [{"variable": "VLLM_KEY", "name": "vllm", "key": "api-key"}]},
    "env": [{"name": "TZ", "value": "UTC"}],
    "podAnnotations": {"example": "yes"},
    "podLabels": {"team": "ml"},
    "tolerations": [{"key": "cpu", "operator": "Exists"}],
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": [{"name": "registry"}]},
    "priorityClassName": "high",
    "nodeSelector": {"kubernetes.io/arch": "arm64"},
    "service": {"annotations": {"example": "yes"}},
    "serviceAccount": {"annotations": {"example": "yes"}},
}
BY_CPU = {"autoscaling": {"enabled": True, "metric": "cpu"}, "podDisruptionBudget": {"enabled": False}}
PLAIN: dict[str, Any] = {}


def render(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rendered objects by kind."""
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="demo", namespace="prod")
    documents = [
        d for name, text in files.items() if name.endswith(".yaml") for d in yaml.safe_load_all(text) if d
    ]
    kinds = [document["kind"] for document in documents]
    assert len(set(kinds)) == len(kinds)
    return dict(zip(kinds, documents, strict=True))


def test_helm_finds_nothing_wrong() -> None:
    """Helm's lint reports no error and no warning."""
    found = helm.lint(CHART, EVERYTHING)
    assert not found["errors"]
    assert [m for m in found["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.35"])
@pytest.mark.parametrize("values", [PLAIN, EVERYTHING, BY_CPU], ids=["plain", "everything", "by-cpu"])
def test_objects_fit_kubernetes_schemas(values: dict[str, Any], version: str) -> None:
    """Every object of Kubernetes is strictly valid, from the oldest version that the chart supports."""
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    logging.getLogger("kubernetes_validate").setLevel(logging.ERROR)
    for kind, document in render(values).items():
        if kind not in {"ServiceMonitor", "PrometheusRule"}:  # there are no schemas of these here
            validate.validate(document, version, strict=True)


def test_pod_outlives_its_requests() -> None:
    """The grace period is longer than everything that the gateway does after SIGTERM."""
    objects = render({"drain": {"preStop": 7, "delay": 11, "timeout": 900}})
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    settings = parse(objects["ConfigMap"]["data"]["gateway.yaml"], {"REDIS_URL": "redis://redis"})
    (container,) = pod["containers"]

    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "7"]
    assert (settings.server.drain_delay, settings.server.drain_timeout) == (11, 900)
    assert pod["terminationGracePeriodSeconds"] > 7 + 11 + 900
    rolling = objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


def test_change_that_needs_a_restart_rolls_the_pods() -> None:
    """Settings that a gateway reads only at its start roll the pods; running pods reload the others."""

    def template(**config: Any) -> Any:
        return render({"config": config})["Deployment"]["spec"]["template"]

    assert template(price=0.1) == template(price=0.2)
    assert template(redis={"timeout": 1}) != template(redis={"timeout": 2})
    assert template(server={"keep_alive": 1}) != template(server={"keep_alive": 2})
    assert template() != template(evidence={"url": "${EVIDENCE_URL}"})
    assert template(limits={"body_bytes": 1}) != template(limits={"body_bytes": 2})
    assert template(reservations={"lease": 10}) != template(reservations={"lease": 20})
    assert template() != template(reservations={"lease": 20})


def test_other_settings_of_reservations_roll_no_pods() -> None:
    """Of `reservations`, a gateway reads only the lease at its start; it reloads the rest."""

    def template(**reservations: Any) -> Any:
        return render({"config": {"reservations": reservations}})["Deployment"]["spec"]["template"]

    assert template() == template(shortest_answer=16) == template(shortest_answer=32)
    assert template(lease=10) == template(lease=10, shortest_answer=16)


def test_pod_is_confined() -> None:
    """The pod is not root and has a read-only file system, no capabilities and no service-account token."""
    pod = render(PLAIN)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_secrets_are_references() -> None:
    """The address of Redis and the API keys come from a Secret, which the chart does not create."""
    objects = render(EVERYTHING)
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    referred = {entry["name"] for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})}

    assert referred == {"REDIS_URL", "THINKMETER_API_KEYS", "VLLM_KEY"}
    assert "Secret" not in objects


def test_selectors_meet() -> None:
    """Service, disruption budget, network policy and monitor select the pods of the deployment."""
    objects = render(EVERYTHING)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitored = objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= objects["Service"]["metadata"]["labels"].items()


def test_rules_are_the_same() -> None:
    """The PrometheusRule has exactly the rules of deploy/prometheus."""
    groups = render(EVERYTHING)["PrometheusRule"]["spec"]["groups"]
    held = [rule for group in groups for rule in group["rules"]]
    assert {named(rule): rule for rule in held} == {named(rule): rule for rule in rules()}
    assert len(held) == len(rules())


def named(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"models": None}},
        {"drain": {"timeout": "soon"}},
        {"autoscaling": {"metric": "gpu"}},
        {"secrets": {"redisUrl": {"name": "", "key": "url"}}},
        {"replica": 3},
    ],
)
def test_mistakes_are_refused(values: dict[str, Any]) -> None:
    """A wrong or unknown value is an error before anything is installed."""
    with pytest.raises(helm.HelmError), helm.Chart.load(CHART) as chart:
        chart.render(values)
