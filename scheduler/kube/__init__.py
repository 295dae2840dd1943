"""Speaks to the Kubernetes API server: lists, watches, writes."""
