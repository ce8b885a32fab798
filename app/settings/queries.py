"""The default queries of the metric sources, and the default labels of logs."""

from __future__ import annotations

_TAGS = "{env:{{environment}},service:{{service}}}"
_SERVICE = '{namespace="{{namespace}}",service="{{service}}"'

# A service without failures has no 5xx series, and an empty vector divided by a number is empty.
PROMETHEUS_ERROR_RATE = (
    "(sum(rate(http_requests_total" + _SERVICE + ',code=~"5.."}[{{window}}]))'
    " or 0 * sum(rate(http_requests_total" + _SERVICE + "}[{{window}}])))"
    " / sum(rate(http_requests_total" + _SERVICE + "}[{{window}}]))"
)
PROMETHEUS_P95 = (
    "1000 * histogram_quantile(0.95, sum by (le) "
    "(rate(http_request_duration_seconds_bucket" + _SERVICE + "}[{{window}}])))"
)
PROMETHEUS_REQUEST_RATE = "sum(rate(http_requests_total" + _SERVICE + "}[{{window}}]))"

DATADOG_REQUESTS = "sum:trace.http.request.hits" + _TAGS + ".as_count()"
DATADOG_ERRORS = "sum:trace.http.request.errors" + _TAGS + ".as_count()"
DATADOG_P95 = "1000 * p95:trace.http.request" + _TAGS

LOKI_LABELS = {"namespace": "{{namespace}}", "pod": "{{pod}}", "container": "{{container}}"}
