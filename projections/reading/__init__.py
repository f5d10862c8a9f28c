"""Questions to the tables: pages, histories, earlier moments, differences."""
