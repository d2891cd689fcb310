"""How long frames take: stages, warm-up, and statistics that hold for times that depend on one another."""
