"""What the client's calls return: typed values that show themselves well, a module a noun."""
