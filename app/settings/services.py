"""`SERVICES_FILE`: what is set for single services, read again when the file changes.

A file that is not valid at the start stops the start. One that becomes invalid later
changes nothing: the last valid content stays in force, and the problem is reported.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from app.agent.evidence.format import milliseconds, rate, share
from app.agent.ids import ServiceKey
from app.agent.models import Objectives
from app.agent.runbooks import Document
from app.agent.services.burn_rates import MOST_BURN_RATES, BurnRate, ErrorBudget
from app.agent.services.terms import Autonomy, ServiceTerms
from app.durations import span
from app.settings.watched_file import LOOK_EVERY_SECONDS, WatchedFile
from app.wire.fields import LABEL, MAX_LABEL_CHARS
from app.wire.misfits import misfit

log = logging.getLogger(__name__)

_KIND = "services file"
_MAX_BYTES = 4 * 1024 * 1024
"""About 25,000 services."""

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

Callee = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^({LABEL}/)?{LABEL}$",
        description="environment/service, or a service of the same environment.",
    ),
]


class HasServicesFile(Protocol):
    """The settings, as far as they matter here."""

    @property
    def services_file(self) -> Path | None: ...


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file; unknown fields are errors."""


Window = Annotated[
    str,
    msgspec.Meta(pattern=r"^[0-9]{1,5}(m|h|d)$", description="Minutes, hours or days: 5m, 1h, 3d."),
]


class BurnRateEntry(_Strict, frozen=True, kw_only=True):
    """A burn rate that opens an incident when both windows are above its factor."""

    long: Window
    short: Window
    factor: Annotated[
        float, msgspec.Meta(gt=0, description="1 uses up the budget of errors (1 - availability) exactly.")
    ]


class ObjectivesEntry(_Strict, frozen=True, kw_only=True):
    """When the service is unhealthy."""

    max_error_rate: (
        Annotated[float, msgspec.Meta(gt=0, le=1, description="Instead of SLO_MAX_ERROR_RATE.")] | None
    ) = None
    max_p95_latency_ms: (
        Annotated[float, msgspec.Meta(gt=0, description="Instead of SLO_MAX_P95_LATENCY_MS.")] | None
    ) = None
    min_request_rate: (
        Annotated[float, msgspec.Meta(ge=0, description="Instead of SLO_MIN_REQUEST_RATE.")] | None
    ) = None
    availability: (
        Annotated[float, msgspec.Meta(gt=0, lt=1, description="The share of requests that must succeed.")]
        | None
    ) = None
    burn_rates: Annotated[
        tuple[BurnRateEntry, ...],
        msgspec.Meta(
            max_length=MOST_BURN_RATES,
            description="They need `availability`, and apply beside the thresholds.",
        ),
    ] = ()
    baseline: Annotated[
        bool, msgspec.Meta(description="A level clearly above what is usual opens an incident too.")
    ] = False


class ServiceEntry(_Strict, frozen=True, kw_only=True):
    """What is set for one service; what is left out is as the settings say."""

    owner: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=200, description="The team it belongs to.")]
        | None
    ) = None
    objectives: ObjectivesEntry = ObjectivesEntry()
    dependencies: (
        Annotated[
            tuple[Callee, ...],
            msgspec.Meta(description="The services it calls, instead of SERVICE_DEPENDENCIES."),
        ]
        | None
    ) = None
    autonomy: Annotated[
        Literal["observe", "ask", "act"],
        msgspec.Meta(
            description="observe: actions are only proposed; ask: every action needs an approval; "
            "act: as the settings say. It never allows more than the settings."
        ),
    ] = "act"


class ServicesFile(_Strict, frozen=True, kw_only=True):
    """The whole file."""

    schema: Literal[1]
    services: Annotated[
        dict[Annotated[str, msgspec.Meta(pattern=rf"^{LABEL}/{LABEL}$")], ServiceEntry],
        msgspec.Meta(description="By environment/service."),
    ]


def schema_text() -> str:
    """The JSON Schema of the file, as it ships in `services.schema.json`."""
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of single services",
        **msgspec.json.schema(ServicesFile),
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def read_services(file: Path) -> Mapping[ServiceKey, ServiceTerms]:
    """The terms in a file; raises `ConfigurationError` with file and line for the first mistake."""
    document = Document(file, _KIND, max_bytes=_MAX_BYTES)
    content = document.content
    if not isinstance(content, dict):
        raise document.error((), "the file is a mapping of fields")
    entries = content.get("services", {})
    found = {}
    if isinstance(entries, dict):
        # One by one: the place of a mistake is known only outside of mappings.
        for name, entry in entries.items():
            try:
                key = _key(name)
                found[key] = _terms(key, msgspec.convert(entry, ServiceEntry))
            except msgspec.ValidationError as error:
                raise misfit(document, error, ("services", name)) from error
            except ValueError as error:
                raise document.error(("services", name), str(error), at_key=True) from error
    # The entries are read: only what is around them is left.
    around = {**content, "services": {}} if isinstance(entries, dict) and "services" in content else content
    try:
        msgspec.convert(around, ServicesFile)
    except msgspec.ValidationError as error:
        raise misfit(document, error) from error
    return found


def _key(name: str) -> ServiceKey:
    environment, _, service = name.partition("/")
    if not all(re.fullmatch(LABEL, part) and len(part) <= MAX_LABEL_CHARS for part in (environment, service)):
        raise ValueError(
            f"{name!r} is not a service; write environment/service, each of lower-case letters, "
            "digits and '-'"
        )
    return ServiceKey(environment=environment, service=service)


def _terms(key: ServiceKey, entry: ServiceEntry) -> ServiceTerms:
    callees = entry.dependencies
    return ServiceTerms(
        key=key,
        max_error_rate=entry.objectives.max_error_rate,
        max_p95_latency_ms=entry.objectives.max_p95_latency_ms,
        min_request_rate=entry.objectives.min_request_rate,
        budget=_budget(entry.objectives),
        on_baseline=entry.objectives.baseline,
        owner=entry.owner,
        dependencies=None if callees is None else tuple(_callee(key, callee) for callee in callees),
        autonomy=Autonomy(entry.autonomy),
    )


def _budget(entry: ObjectivesEntry) -> ErrorBudget | None:
    """Raises `ValueError` for burn rates that can never, or hardly, be reached."""
    if not entry.burn_rates:
        return None
    if entry.availability is None:
        raise ValueError("burn_rates need an availability")
    rates = tuple(
        BurnRate(long=_window(one.long), short=_window(one.short), factor=one.factor)
        for one in entry.burn_rates
    )
    for number, one in enumerate(rates):
        flaw = one.flaw(entry.availability)
        if flaw is not None:
            raise ValueError(f"objectives.burn_rates[{number}]: {flaw}")
    return ErrorBudget(availability=entry.availability, burn_rates=rates)


def _window(text: str) -> timedelta:
    return int(text[:-1]) * _UNITS[text[-1]]


def _callee(caller: ServiceKey, name: str) -> ServiceKey:
    environment, separator, service = name.rpartition("/")
    return ServiceKey(environment=environment if separator else caller.environment, service=service)


class WatchedServices:
    """The terms of a file, as of its last valid content."""

    usual: Objectives | None = None
    """As the settings say."""

    def __init__(self, file: Path) -> None:
        """Raises `ConfigurationError` for a file that is not valid now."""
        self._watched = WatchedFile(file, _KIND, read_services)
        self._look_at = 0.0

    @property
    def file(self) -> Path:
        return self._watched.file

    @property
    def problem(self) -> str | None:
        """Why the newest content is not in force; None: it is."""
        return self._watched.problem

    def of(self, key: ServiceKey) -> ServiceTerms | None:
        """The terms of a service, if it has some."""
        return self.all().get(key)

    def all(self) -> Mapping[ServiceKey, ServiceTerms]:
        """The terms in force; a changed file is read at most every two seconds."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_SECONDS
            self.reload()
        return self._watched.content

    def reload(self) -> None:
        """Read the file where it changed since; an invalid one leaves the terms as they are."""
        if self._watched.reload():
            log.info("services reloaded from %s", self.file)


def watched_services(settings: HasServicesFile) -> WatchedServices | None:
    """The terms of `SERVICES_FILE`; None where it is not set. Raises `ConfigurationError`."""
    return None if settings.services_file is None else WatchedServices(settings.services_file)


def _named(terms: ServiceTerms, callee: ServiceKey) -> str:
    """A dependency as people write it: with its environment where that is another one."""
    same = callee.environment == terms.key.environment
    return callee.service if same else f"{callee.environment}/{callee.service}"


def _budget_in_words(budget: ErrorBudget) -> str:
    rates = ", ".join(
        f"{one.factor:g} over {span(one.long)} and {span(one.short)}" for one in budget.burn_rates
    )
    return f"availability {budget.availability:.3%}, burn rate below {rates}"


def terms_in_words(terms: ServiceTerms) -> str:
    """What is set, for a line of text."""
    parts = [
        f"error rate up to {share(terms.max_error_rate)}" if terms.max_error_rate is not None else "",
        f"p95 up to {milliseconds(terms.max_p95_latency_ms)}" if terms.max_p95_latency_ms is not None else "",
        f"from {rate(terms.min_request_rate)} on" if terms.min_request_rate is not None else "",
        _budget_in_words(terms.budget) if terms.budget is not None else "",
        "baseline opens incidents" if terms.on_baseline else "",
        f"owner {terms.owner}" if terms.owner is not None else "",
        f"calls {', '.join(_named(terms, one) for one in terms.dependencies)}" if terms.dependencies else "",
        f"autonomy {terms.autonomy}",
    ]
    return "; ".join(part for part in parts if part)
