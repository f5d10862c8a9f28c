"""SQL files of the projections, by name."""
