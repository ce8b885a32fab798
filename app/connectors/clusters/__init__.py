"""Several clusters behind the ports of one: `routes` picks the cluster, `ports` and `watch` ask it."""
