"""The configuration that comes with the core; each option is one YAML file."""
