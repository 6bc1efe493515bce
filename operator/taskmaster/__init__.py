"""Taskmaster: a task scheduler for Kubernetes that runs Task objects on warm worker pods."""

__version__ = "0.1.0"
