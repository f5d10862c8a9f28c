"""The server's own jobs: services, policies, seals, webhooks, and their schedule.

They use the database, as `recordledger.projections` does: whatever reaches it raises
`StoreUnavailable` when it does not answer.
"""
