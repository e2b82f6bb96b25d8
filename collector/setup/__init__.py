"""A site from one folder: its authority, identities, secrets and the configuration of all its programs, made by one command."""
