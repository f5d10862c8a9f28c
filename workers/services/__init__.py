"""The services that come with the ledger: a scan, an optimization, a band, a graph of tasks."""
