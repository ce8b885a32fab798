"""Finds the cluster that the settings name: a kubeconfig's context, or the pod's own service account.

Called by `k8s.connect`. Errors name the setting to fix and quote nothing of
the file, which holds credentials.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from app.config import Settings
from app.errors import ConfigurationError
from app.redaction import remember

# All that reading an arbitrary file as a kubeconfig was seen to raise.
_MALFORMED = (
    OSError,
    yaml.YAMLError,
    msgspec.ValidationError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)


def load_config(settings: Settings) -> SingleConfig | None:
    """The cluster that the settings name; None when they name none."""
    if settings.kube_in_cluster:
        source, loaded = "KUBE_IN_CLUSTER", _in_cluster()
    elif settings.kubeconfig is not None:
        source, loaded = f"KUBECONFIG {settings.kubeconfig}", _from_file(settings.kubeconfig)
    else:
        return None
    try:
        config = loaded.get(settings.kube_context)
    except (ConfigError, KeyError) as error:
        raise ConfigurationError(
            f"{source}: context {settings.kube_context or 'current-context'!r} is missing or incomplete;"
            " set KUBE_CONTEXT to a context of the file"
        ) from error
    if config is None or config.user is None:
        raise ConfigurationError(f"{source}: the context names no user; add one to it")
    remember(secret for secret in (config.user.token, config.user.password) if secret)
    return config


def _in_cluster() -> KubeConfig:
    try:
        return KubeConfig.from_service_account()
    except (ConfigError, KeyError, OSError) as error:
        raise ConfigurationError(
            "KUBE_IN_CLUSTER is set, but no service account is mounted: unset it or run as a pod"
        ) from error


def _from_file(path: Path) -> KubeConfig:
    try:
        return KubeConfig.from_file(path)
    except ConfigError as error:
        raise ConfigurationError(f"KUBECONFIG {path} does not exist") from error
    except _MALFORMED as error:
        # The parser's message could quote credentials.
        raise ConfigurationError(
            f"KUBECONFIG {path} is not a valid kubeconfig: {type(error).__name__}"
        ) from error
