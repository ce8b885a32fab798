"""Services, Ingresses and NetworkPolicies: which pods they concern, and what a change can do. Pure."""
