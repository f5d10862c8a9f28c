"""The shapes of requests and answers: what the server checks and what the client sends.

A module a noun, so that a command builds the models that it needs and no others: import from the
noun's module. Both sides import these modules, so they import neither. In msgpack, bytes and
timestamps travel as such; in JSON, payloads travel as the JSON values that they are, and timestamps
in ISO 8601.
"""
