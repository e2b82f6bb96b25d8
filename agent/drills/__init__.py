"""Drills: a switch that people or a hook make, timed by tokens; the product observes, writes down, and can be checked again."""
