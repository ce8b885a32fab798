"""Traces over OTLP, with the OpenTelemetry SDK; loaded only where a collector is configured."""
