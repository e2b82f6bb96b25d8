"""The agent: sources make points, the spool keeps them, the link carries them."""
