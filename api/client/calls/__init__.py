"""The operations of both clients, without input or output, by noun."""
