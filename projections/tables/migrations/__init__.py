"""Forward-only migrations, one SQL file a step."""
