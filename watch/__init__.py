"""Watch deployments on this machine: a Prometheus that scrapes twins and stacks, with the rules of ops/."""
