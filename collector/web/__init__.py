"""The page: shows the latest snapshot, in both languages, without a network."""
