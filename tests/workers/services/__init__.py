"""The services that come along, run in memory by a driver that plays the service runner."""
