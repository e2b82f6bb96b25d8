"""Grafana's dashboards, alert rules and provisioning files as code: `python -m dashboards` writes deploy/grafana.

Developers only; neither agent nor collector needs it. grafana-foundation-sdk, whose release fixes Grafana's, is imported in this
folder alone.
"""
