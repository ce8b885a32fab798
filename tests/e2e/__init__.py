"""Stories on the real test bed: a control plane, Prometheus, Alertmanager and sample services."""
