"""The collector: ingest, store, rules, scores, evidence and the faces that show them."""
