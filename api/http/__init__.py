"""What every route uses: requests, authentication, the wire, errors, cursors, settings."""
