"""The services that a workload calls, read from the addresses in its environment."""

from __future__ import annotations

import pytest

from app.agent.ids import Json, JsonObject, ServiceKey
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.routes.calls import services_called
from tests.unit.k8s_samples import config_map, container, deployment, template

SERVICES = ServiceMap(environment_namespaces={"prod": "payments", "stock": "warehouse"}, service_workloads={})


def called(*containers: JsonObject, config: JsonObject | None = None, **spec: Json) -> list[str]:
    workload = deployment(spec={"template": template(*containers, **spec)})
    found = services_called(workload, () if config is None else (config,), SERVICES)
    return [str(key) for key in found]


def variable(name: str, value: str) -> JsonObject:
    return container(env=[{"name": name, "value": value}])


@pytest.mark.parametrize(
    ("name", "value", "names"),
    [
        ("LEDGER", "http://ledger/", ["ledger in prod"]),
        ("LEDGER", "http://ledger.payments.svc.cluster.local:8080/v1", ["ledger in prod"]),
        ("X", "http://lager.warehouse.svc", ["lager in stock"]),
        ("JDBC_URL", "jdbc:postgresql://konto-db:5432/konto?user=a", ["konto-db in prod"]),
        ("QUEUE", "amqp://worker:s3cret@queue:5672/%2f", ["queue in prod"]),
        ("BROKERS", "kafka-0:9092,kafka-1:9092", ["kafka-0 in prod", "kafka-1 in prod"]),
        ("LAGER_HOST", "lager.warehouse", ["lager in stock"]),
        ("CATALOG_ADDR", "catalog:7000", ["catalog in prod"]),
        ("PAYMENT_API", "https://api.psp.example.com/v2", []),
        ("PAYMENT_API", "https://api.psp/v2", []),
        ("FRONTEND_URL", "http://ledger", []),
        ("CORS_ALLOWED_ORIGINS", "http://ledger", []),
        ("PAYMENT_CALLBACK_URL", "http://ledger/done", []),
        ("GREETING", "hello", []),
        ("RATIO", "1:2", []),
        ("ADDRESS_BOOK", "lager", []),
        ("DB_HOST", "10.0.0.7", []),
        ("DB_URL", "http://10.0.0.7:80/", []),
        ("LONG_URL", "http://ledger/" + "x" * 5000, []),
    ],
)
def test_an_address_in_the_environment_names_a_service(name: str, value: str, names: list[str]) -> None:
    """Of another namespace only where it is watched; no name on the internet is one of ours."""
    assert called(variable(name, value)) == names


def test_config_maps_and_init_containers_are_read_too() -> None:
    kept = config_map(data={"LEDGER_URL": "http://ledger:80", "host": "lager"})
    taken = container(envFrom=[{"configMapRef": {"name": "shop-config"}}])
    assert called(taken, config=kept) == ["ledger in prod", "lager in prod"]
    one: dict[str, Json] = {"name": "shop-config", "key": "LEDGER_URL"}
    reference: JsonObject = {"name": "A", "valueFrom": {"configMapKeyRef": one}}
    single = container(env=[reference])
    assert called(single, config=kept) == ["ledger in prod"]
    assert called(single) == []
    wait: JsonObject = {"name": "wait", "env": [{"name": "DB_HOST", "value": "konto-db"}]}
    assert called(initContainers=[wait]) == ["konto-db in prod"]


def test_the_number_of_services_is_bounded_and_no_secret_is_kept() -> None:
    many = ",".join(f"broker-{number}:9092" for number in range(50))
    workload = deployment(spec={"template": template(variable("BROKERS", many))})
    found = services_called(workload, (), SERVICES)
    assert len(found) == 20
    assert found[0] == ServiceKey(environment="prod", service="broker-0")
    secret = deployment(spec={"template": template(variable("Q", "amqp://u:hunter2@queue/"))})
    assert "hunter2" not in str(services_called(secret, (), SERVICES))
