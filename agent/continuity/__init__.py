"""Continuity: numbered, timed tokens through the path that clinicians use, and what they prove about outages and lost data."""
