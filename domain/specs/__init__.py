"""What is to be computed: specifications, their fingerprints, references, and services."""
