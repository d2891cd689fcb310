"""What was measured, told: tables for a terminal, one HTML file, a comparison with an earlier report."""
