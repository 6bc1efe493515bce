"""Pydantic models of the kinds, the single source of the schemas in `crds/`."""
