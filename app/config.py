"""Settings: the only reader of the environment.

`.env.example` documents every setting; a test compares the two. An invalid value
stops the start with a message that names the setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.guardrails.drift import DriftRule
from app.agent.identity.people import Scope
from app.agent.models import ActionName, Risk, Trigger
from app.errors import ConfigurationError
from app.redaction import remember
from app.settings.addresses import secrets_in
from app.settings.config_file import ConfigFile
from app.settings.entries import (
    ClusterSetting,
    EscalationSetting,
    FreezeSetting,
    PageWhen,
    RevertWay,
    Role,
    RoleName,
    SlackUser,
)
from app.settings.queries import (
    DATADOG_ERRORS,
    DATADOG_P95,
    DATADOG_REQUESTS,
    LOKI_LABELS,
    PROMETHEUS_ERROR_RATE,
    PROMETHEUS_P95,
    PROMETHEUS_REQUEST_RATE,
)
from app.settings.secret_files import SecretFiles
from app.settings.shipped import shipped
from app.settings.sources import (
    NoMistypedNames,
    StrictEnvFile,
    StrictEnvironment,
    WrongName,
    env_file_values,
    unknown_names,
)
from app.settings.together import check_together
from app.settings.values import (
    ApplicationName,
    Callee,
    ClusterName,
    CommaSeparated,
    Listed,
    LogLabels,
    Named,
    Namespace,
    RepositoryPrefix,
    ServiceName,
    SpaceSeparated,
    Tenant,
    WorkloadName,
)
from app.settings.wrong import explained, undecodable
from app.wire.loopback import is_loopback

ENV_FILE = Path(".env")
"""In the working directory."""
ROLE_SETTINGS = ("OIDC_ISSUER", "SLACK_USERS")
"""The settings that give roles to people."""


class Settings(BaseSettings):
    """Read once at start from the environment, `.env` and CONFIG_FILE; the first of them wins."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", frozen=True, env_ignore_empty=True
    )

    config_file: Path | None = None

    # What the agent may do
    dry_run: bool = True
    allow_high_risk_actions: bool = False
    max_actions_per_incident: Annotated[int, Field(ge=0, le=20)] = 2
    max_actions_per_service: Annotated[int, Field(ge=0, le=1000)] = 10
    max_actions_per_namespace: Annotated[int, Field(ge=0, le=1000)] = 30
    max_actions_per_cluster: Annotated[int, Field(ge=0, le=1000)] = 100
    budget_window_seconds: Annotated[float, Field(gt=0, le=604_800)] = 3600.0
    max_fleet_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_replica_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_cordoned_nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    max_cordoned_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    cooldown_seconds: Annotated[float, Field(ge=0, le=604_800)] = 0.0
    backoff_base_seconds: Annotated[float, Field(ge=0, le=604_800)] = 0.0
    backoff_max_seconds: Annotated[float, Field(ge=0, le=2_592_000)] = 86_400.0
    circuit_failures_per_service: Annotated[int, Field(ge=0, le=100)] = 3
    circuit_failures_per_cluster: Annotated[int, Field(ge=0, le=1000)] = 10
    circuit_open_seconds: Annotated[float, Field(gt=0, le=604_800)] = 3600.0
    freeze_windows: tuple[FreezeSetting, ...] = ()
    action_memory_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = 604_800.0
    require_opt_in: bool = False
    enabled_actions: Annotated[frozenset[ActionName], NoDecode, CommaSeparated] = ENABLED_BY_DEFAULT
    helm_drift: DriftRule = DriftRule.ASK
    approval_for_risks: Annotated[frozenset[Risk], NoDecode, CommaSeparated] = frozenset()
    approval_timeout_seconds: Annotated[float, Field(gt=0)] = 14_400.0
    approval_roles: Annotated[frozenset[RoleName], NoDecode, CommaSeparated] = frozenset()
    approval_people: Annotated[int, Field(ge=1, le=10)] = 1
    approval_escalation: tuple[EscalationSetting, ...] = ()
    scale_min_replicas: Annotated[int, Field(ge=1)] = 1
    scale_max_replicas: Annotated[int, Field(ge=1)] = 20
    memory_limit_max_mib: Annotated[int, Field(ge=1)] = 4096
    runbooks_dir: Path | None = None

    # When a service is unhealthy
    slo_max_error_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    slo_max_p95_latency_ms: Annotated[float, Field(gt=0)] = 1000.0
    slo_min_request_rate: Annotated[float, Field(ge=0)] = 0.2
    services_file: Path | None = None
    slo_clear_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    breach_for_seconds: Annotated[float, Field(ge=0)] = 60.0
    signal_stale_after_seconds: Annotated[float, Field(gt=0)] = 900.0
    evidence_max_age_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    signal_retention_days: Annotated[float, Field(gt=0)] = 7.0
    signal_max_future_seconds: Annotated[float, Field(ge=0)] = 300.0
    reopen_after_seconds: Annotated[float, Field(ge=0)] = 3600.0
    incident_settle_seconds: Annotated[float, Field(ge=0)] = 20.0
    change_lookback_seconds: Annotated[float, Field(gt=0)] = 3600.0

    # Recovery
    verify_soak_seconds: Annotated[float, Field(ge=0)] = 60.0
    verify_timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    verify_interval_seconds: Annotated[float, Field(gt=0)] = 5.0
    verify_max_sample_age_seconds: Annotated[float, Field(gt=0)] = 60.0

    trust_revision_after_seconds: Annotated[float, Field(ge=0)] = 300.0
    trust_min_requests: Annotated[int, Field(ge=0)] = 100

    # Store and engine
    database_url: SecretStr = SecretStr("sqlite:///heal.db")
    role: Role = Role.ALL
    claim_lease_seconds: Annotated[float, Field(gt=0)] = 30.0
    worker_concurrency: Annotated[int, Field(ge=1, le=200)] = 16
    max_open_incidents_per_sender: Annotated[int, Field(ge=0, le=100_000)] = 500
    max_services: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000

    # Streams
    intake_from: Annotated[tuple[SecretStr, ...], NoDecode, SpaceSeparated] = ()
    kafka_properties: dict[str, SecretStr] = {}
    schema_registry_url: str | None = None
    schema_registry_token: SecretStr | None = None
    schema_registry_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0

    # Kubernetes
    kubeconfig: Path | None = None
    kube_context: str | None = None
    log_evidence: bool = False
    loki_url: str | None = None
    loki_token: SecretStr | None = None
    loki_tenant: Tenant | None = None
    loki_labels: LogLabels = LOKI_LABELS
    helm_releases: bool = False
    watch_jobs: bool = False
    job_timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0
    kube_in_cluster: bool = False
    kube_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    watch_concurrency: Annotated[int, Field(ge=1, le=200)] = 8
    environment_namespaces: dict[Named, Namespace] = {}
    service_workloads: dict[ServiceName, WorkloadName] = {}
    clusters: dict[ClusterName, ClusterSetting] = {}
    service_dependencies: dict[ServiceName, list[Callee]] = {}

    # Argo CD, Flux and Git
    argocd_url: str | None = None
    argocd_token: SecretStr | None = None
    argocd_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    argocd_applications: dict[WorkloadName, ApplicationName] = {}
    flux_enabled: bool = False
    git_revert: RevertWay | None = None
    git_repositories: tuple[RepositoryPrefix, ...] = ()
    git_username: str = "git"
    git_token: SecretStr | None = None
    git_api_url: str | None = None
    git_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    git_merge_timeout_seconds: Annotated[float, Field(gt=0)] = 86_400.0

    # Prometheus and Alertmanager
    metrics_source: str | None = None
    prometheus_url: str | None = None
    prometheus_bearer_token: SecretStr | None = None
    prometheus_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    prometheus_poll_seconds: Annotated[float, Field(gt=0)] = 15.0
    prometheus_concurrency: Annotated[int, Field(ge=1, le=200)] = 8
    prometheus_error_rate_query: str = PROMETHEUS_ERROR_RATE
    prometheus_p95_query: str = PROMETHEUS_P95
    prometheus_request_rate_query: str = PROMETHEUS_REQUEST_RATE
    prometheus_window: str = "1m"
    datadog_api_key: SecretStr | None = None
    datadog_app_key: SecretStr | None = None
    datadog_site: str = "datadoghq.com"
    datadog_url: str | None = None
    datadog_query_api: Literal["v1", "v2"] = "v2"
    datadog_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    datadog_poll_seconds: Annotated[float, Field(gt=0)] = 30.0
    datadog_concurrency: Annotated[int, Field(ge=1, le=200)] = 50
    datadog_window_seconds: Annotated[float, Field(ge=20, le=3600)] = 120.0
    datadog_requests_query: str = DATADOG_REQUESTS
    datadog_errors_query: str = DATADOG_ERRORS
    datadog_p95_query: str = DATADOG_P95
    datadog_webhook_token: SecretStr | None = None
    alertmanager_token: SecretStr | None = None
    alertmanager_url: str | None = None
    alertmanager_api_token: SecretStr | None = None
    alertmanager_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    alertmanager_receiver: Annotated[str, Field(max_length=200)] = ""
    alertmanager_poll_seconds: Annotated[float, Field(ge=5, le=3600)] = 60.0
    watchdog_alert: Annotated[str, Field(max_length=200)] = "Watchdog"
    watchdog_expected: bool = False
    watchdog_silence_seconds: Annotated[float, Field(ge=0, le=604_800)] = 900.0
    heartbeat_url: SecretStr | None = None
    heartbeat_seconds: Annotated[float, Field(ge=5, le=3600)] = 60.0
    alert_home_labels: dict[Named, str] = {}
    alert_triggers: dict[Named, Trigger] = {
        "HighErrorRate": Trigger.HIGH_ERROR_RATE,
        "HighLatency": Trigger.HIGH_LATENCY,
        "KubePodCrashLooping": Trigger.CRASH_LOOP,
        "KubeDeploymentRolloutStuck": Trigger.DEPLOY_FAILED,
    }

    # People
    public_url: str | None = None
    notify_webhook_url: SecretStr | None = None
    notify_webhook_secret: SecretStr | None = None
    slack_bot_token: SecretStr | None = None
    slack_channel: str | None = None
    slack_signing_secret: SecretStr | None = None
    slack_app_token: SecretStr | None = None
    slack_users: dict[Named, SlackUser] = {}
    slack_api_url: str = "https://slack.com/api/"
    teams_webhook_url: SecretStr | None = None
    page_when: PageWhen = PageWhen.PERSON_NEEDED
    pagerduty_routing_key: SecretStr | None = None
    pagerduty_url: str = "https://events.pagerduty.com/v2/enqueue"
    opsgenie_api_key: SecretStr | None = None
    opsgenie_url: str = "https://api.opsgenie.com"

    # Identity
    require_identity: bool = False
    initial_admin_token: SecretStr | None = None
    role_scopes: dict[RoleName, tuple[Scope, ...]] = {
        "*": (Scope.READ,),
        "responder": (Scope.APPROVE, Scope.OPERATE),
        "admin": (Scope.ADMIN,),
    }
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_scopes: str = "openid profile email"
    oidc_name_claim: str = "email"
    oidc_roles_claim: str = "groups"
    session_secret: SecretStr | None = None
    session_hours: Annotated[float, Field(gt=0, le=720)] = 12.0
    lockout_attempts: Annotated[int, Field(ge=1, le=1000)] = 10
    lockout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    heal_token: SecretStr | None = None

    # Policy
    policy_dir: Path | None = None
    policy_timeout_seconds: Annotated[float, Field(gt=0)] = 5.0
    opa_url: str | None = None
    opa_token: SecretStr | None = None
    opa_timeout_seconds: Annotated[float, Field(gt=0)] = 5.0

    # Audit
    audit_anchor_dir: Path | None = None
    audit_anchor_key: SecretStr | None = None
    audit_anchor_hours: Annotated[float, Field(gt=0, le=744)] = 24.0
    export_signing_key_file: Path | None = None

    # HTTP
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    max_connections: Annotated[int, Field(ge=32, le=65_536)] = 768
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    otel_exporter_otlp_endpoint: str | None = None
    otel_exporter_otlp_headers: SecretStr | None = None

    # Sandbox
    sandbox: bool = False
    sandbox_speed: Annotated[float, Field(ge=1, le=100)] = 10.0
    sandbox_folder: Path | None = None
    sandbox_scenarios: Path | None = None
    sandbox_environment: Namespace = "sandbox"

    # Names that are not the agent's
    unrelated_names: Annotated[frozenset[str], NoDecode, Listed] = frozenset()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - a stricter one reads the environment
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, `.env`, files of secrets, CONFIG_FILE, all read strictly; no mistyped name."""
        environment = StrictEnvironment(settings_cls)
        given = getattr(dotenv_settings, "env_file", None)
        file = StrictEnvFile(settings_cls, env_file=given)
        return (
            NoMistypedNames(settings_cls, environment, file),
            init_settings,
            environment,
            file,
            SecretFiles(settings_cls, environment.env_vars, file.env_vars),
            ConfigFile(settings_cls, environment.env_vars, file.env_vars),
            file_secret_settings,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        """Reject values that contradict each other."""
        check_together(dict(self), embedded=self.embedded)
        return self

    def secret_values(self) -> frozenset[str]:
        """All values to redact: secrets, and passwords within addresses."""
        return frozenset(secrets_in(getattr(self, name) for name in type(self).model_fields))

    @property
    def identity_required(self) -> bool:
        """Every request requires a token or a sign-in."""
        return self.require_identity or self.oidc_issuer is not None

    @property
    def reached_by_https(self) -> bool:
        """PUBLIC_URL is https, so that cookies are sent over TLS only."""
        return self.public_url is not None and self.public_url.lower().startswith("https:")

    @property
    def listens_on(self) -> str:
        """The effective listen address: loopback while authentication is disabled."""
        return self.host if self.identity_required or is_loopback(self.host) else "127.0.0.1"

    @property
    def runbooks_folder(self) -> Path:
        """RUNBOOKS_DIR, else `runbooks` in the working directory, else the catalogue of the agent."""
        here = Path("runbooks")
        return self.runbooks_dir or (here if here.is_dir() else shipped("runbooks"))

    @property
    def policy_server(self) -> str | None:
        """The address of the external policy engine; None: the embedded one decides."""
        return self.opa_url

    @property
    def people_have_roles(self) -> bool:
        """A person can have a role: by a sign-in, by a token, or as a mapped user of a chat."""
        return self.identity_required or self.chat_users

    @property
    def chat_users(self) -> bool:
        """A chat maps its users to people with roles."""
        return bool(self.slack_users)

    @property
    def serves_people(self) -> bool:
        """This process has the API, the pages and what chats call."""
        return self.role in (Role.ALL, Role.API)

    @property
    def embedded(self) -> bool:
        """The store is SQLite: one process has all roles."""
        return self.database_url.get_secret_value().startswith("sqlite")


def load_settings() -> Settings:
    """The settings of this process; raises `ConfigurationError` with a line for each wrong one."""
    try:
        env_file_values(ENV_FILE)  # the library reads it without a bound, and waits for a pipe
        settings = Settings()
    except ValidationError as error:
        wrong = [explained(item, Settings.model_fields) for item in error.errors(include_url=False)]
    except WrongName as error:
        wrong = str(error).splitlines()
    except SettingsError as error:
        wrong = [undecodable(error)]
    except UnicodeDecodeError as error:
        wrong = [f".env is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"]
    else:
        remember(settings.secret_values())
        return settings
    raise ConfigurationError("the configuration is not valid:\n  " + "\n  ".join(wrong))


def unknown_in_env_file() -> tuple[str, ...]:
    """Names in `.env` that are no settings and not similar to one: they have no effect."""
    return unknown_names(Settings)
