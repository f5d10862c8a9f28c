"""The rules, tested without a database: the specification in sentences."""
