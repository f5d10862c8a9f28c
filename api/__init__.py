"""What people and programs talk to: the HTTP API and its Python client."""
