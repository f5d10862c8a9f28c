"""What administrators see to: tokens, jobs, webhooks, and divergences of the tables."""
