"""The server's own jobs: services, policies, seals, webhooks, and their schedule."""
