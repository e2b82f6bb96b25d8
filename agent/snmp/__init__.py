"""SNMP as a manager: sessions, values, profiles, devices, recorded walks, notifications. Only `client` and `engine` know a library."""
